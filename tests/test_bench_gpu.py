"""The bench of GPUs, tried on a processor with tiny models."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ARMS = [
    *(("adapt", arm) for arm in ("padded", "unpadded", "Trainer")),
    *(("finetune", arm) for arm in ("unpadded", "Trainer")),
    *((stage, "compiled") for stage in ("adapt", "finetune")),
]


@pytest.mark.slow
def test_the_bench_does_all_its_parts_and_writes_a_table_and_figures(tmp_path: Path):
    command = [sys.executable, "bench/gpu.py", "--device", "cpu", "--tiny", "--out", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    found, table = json.loads((tmp_path / "gpu.json").read_text()), (tmp_path / "gpu.md").read_text()

    assert found["tests"]["code"] == 0
    assert found["resume"]["killed in"] == ["adapt", "finetune"]
    assert found["resume"]["killed: goes on"] == 1
    assert found["resume"]["killed and whole"] == 0
    assert 0 < found["chain"]["scores"]["accuracy, adapted + fine-tuned"] <= 1
    assert not [row for row in found["speed"] if "missing" in row]
    for model in ("encoder, 6 x 384", "encoder, 12 x 768", "decoder, 30 x 576"):
        rows = [row for row in found["speed"] if row["model"] == model]
        assert [(row["stage"], row["arm"]) for row in rows] == ARMS
        assert all(row["tokens_per_second"] > 0 and row["peak_mb"] > 100 for row in rows)
        assert all(0 < row["flops"] < found["device"]["peak"] for row in rows)
        for row in rows:
            assert f"| {model} | {row['stage']} | {row['arm']} | {row['tokens_per_second']:,.0f} |" in table
    assert "measured, for no data sheet of it is known here" in table


def test_the_bench_wants_a_gpu_or_to_be_tiny(tmp_path: Path):
    command = [sys.executable, "bench/gpu.py", "--device", "cpu", "--out", str(tmp_path)]
    ended = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    assert ended.returncode == 2
    assert "on a CPU it would take hours; give --tiny too" in ended.stderr
