"""Ray Data answers rows by a finished model, as the page on predicting has it."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas
import pytest
from recipes import Trained
from samples import reviews

from ulmfit_style.__main__ import main

ray = pytest.importorskip("ray", reason='Ray is not installed: pip install "ray[data]"')
pytestmark = pytest.mark.slow

PAGE = Path(__file__).parents[1] / "docs/how-to/predicting.md"
ALONE = """
import ray
ray.init(num_cpus=3, include_dashboard=False, _node_ip_address="127.0.0.1", object_store_memory=100_000_000)
"""
KILLED = """
import os, signal

class Killed(Answers):
    def __call__(self, rows):
        if 1500 in set(rows["id"]) and not os.path.exists(MARK):
            open(MARK, "w").close()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(rows).assign(process=os.getpid())
"""


@pytest.mark.parametrize("is_killed", [False, True], ids=["undisturbed", "one of them is killed"])
def test_two_processes_answer_as_predict_does(trained: Callable[[str], Trained], tmp_path: Path, is_killed: bool):
    model = trained("text classification")
    (tmp_path / "runs/default").mkdir(parents=True)
    (tmp_path / "runs/default/finetune").symlink_to(model.directory)
    rows = pandas.DataFrame({"review": [text for text, _, _ in reviews(3000, seed=7)]})
    rows.rename_axis("id").to_csv(tmp_path / "new.csv")
    (example,) = re.findall(r"^```python title=\"answers.py\"\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    if is_killed:
        killed = KILLED.replace("MARK", repr(str(tmp_path / "killed")))
        example = example.replace("\n\nray.data.", f"\n{killed}\n\nray.data.", 1).replace("    Answers,", "    Killed,")
        example = example.replace('read_csv("new.csv")', 'read_csv("new.csv", override_num_blocks=6)')
    (tmp_path / "answers.py").write_text(ALONE + example)
    environment = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0"}
    ended = subprocess.run(
        [sys.executable, "answers.py"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr[-3000:]

    given = ["predict.input=" + str(tmp_path / "new.csv"), "predict.output=" + str(tmp_path / "expected.jsonl")]
    assert main(["predict", f"predict.model={model.directory}", *given]) == 0
    expected = [json.loads(line) for line in (tmp_path / "expected.jsonl").read_text().splitlines()]
    answers = pandas.read_parquet(sorted((tmp_path / "answers").glob("*.parquet")))
    if is_killed:
        assert answers["process"].nunique() == 3
        answers = answers.sort_values("id")
    assert list(answers["id"]) == list(range(3000))
    assert list(answers["label"]) == [answer["label"] for answer in expected]
    assert list(answers["unlike"]) == [answer.get("unlike", False) for answer in expected]
    assert list(answers["score"]) == pytest.approx([answer["score"] for answer in expected], abs=2e-6)
