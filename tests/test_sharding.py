"""Processes that share weights, gradients and moments out among themselves, against one process that has them all."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file
from samples import save_awd_lstm, save_bert
from test_processes import children

from ulmfit_style.__main__ import main
from ulmfit_style.artefacts.directory import MANIFEST, METRICS, read_json


@pytest.fixture
def overrides(tiny_overrides: list[str], tmp_path: Path) -> list[str]:
    """A recipe whose batches two and three processes can share; the head of a language model is trained first."""
    checkpoint = save_bert(tmp_path / "plain", num_hidden_layers=3)
    options = [f"model.checkpoint={checkpoint}", "adapt.batch_size=12", "finetune.batch_size=6", "compare=false"]
    return [*tiny_overrides, *options]


def start(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "ulmfit_style", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def run(*arguments: str) -> str:
    """Run a command to its end, and return what it said."""
    output, errors = (process := start(*arguments)).communicate(timeout=300)
    assert (process.returncode, errors) == (0, "")
    return output


def assert_equal_models(one: Path, other: Path) -> None:
    """Compare the weights of two finished directories to 1e-6, their configs, and the losses of their logs."""
    weights, others = (load_file(folder / "model.safetensors") for folder in (one, other))
    assert weights.keys() == others.keys()
    assert all((weights[name] - others[name]).abs().max() < 1e-6 for name in weights)
    assert (one / "config.json").read_text() == (other / "config.json").read_text()
    logs = [
        [entry["loss"] for entry in read_json(folder / METRICS)["log"] if "loss" in entry] for folder in (one, other)
    ]
    assert logs[0] == pytest.approx(logs[1], abs=1e-5)
    assert len(logs[0]) > 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("count", "options"),
    [
        (2, ["adapt.layer_decay=1.3", "finetune.unfreeze=[1, all]"]),
        (3, ["finetune.patience=1", "finetune.epochs=6", "micro_batch_size=1"]),
        (3, ["adapt.lora_rank=4", "finetune.lora_rank=4"]),
    ],
)
def test_processes_that_share_out_the_weights_make_the_models_of_one(
    overrides: list[str], tmp_path: Path, count: int, options: list[str]
):
    shared = run("adapt", "finetune", *overrides, *options, f"processes={count}", "shard=true")
    assert f"{count} processes train together" in shared
    run("adapt", "finetune", *overrides, *options, "processes=1", f"runs={tmp_path / 'alone'}")
    for stage in ("adapt", "finetune"):
        assert_equal_models(tmp_path / "runs/default" / stage, tmp_path / "alone/default" / stage)
    # Sharding is in no fingerprint.
    again = run("adapt", "finetune", *overrides, *options, "processes=1")
    assert again.count("up to date") == 2


@pytest.mark.slow
@pytest.mark.parametrize(("before", "after"), [(3, 2), (2, 3)])
def test_what_some_processes_saved_others_go_on_with(overrides: list[str], tmp_path: Path, before: int, after: int):
    options = [*overrides, "adapt.epochs=60", "adapt.head_epochs=0", "save_minutes=0.0001", "shard=true"]
    killed = start("adapt", *options, f"processes={before}")
    while not list(tmp_path.glob("runs/adapt-*/checkpoints/*/checkpoint-20/whole.json")):
        assert killed.poll() is None, killed.communicate()
        time.sleep(0.02)
    for process in [killed.pid, *children(killed.pid)]:
        os.kill(process, signal.SIGKILL)
    killed.communicate()

    said = run("adapt", *options, f"processes={after}")
    assert re.search(r"goes on from \S+/checkpoint-[2-5]0\n", said)
    assert json.loads((tmp_path / "runs/default/adapt" / MANIFEST).read_text())["processes"] == after
    alone = [f"runs={tmp_path / 'alone'}", "processes=1", "shard=false"]
    run("adapt", *options, *alone)
    assert_equal_models(tmp_path / "runs/default/adapt", tmp_path / "alone/default/adapt")


def test_what_cannot_be_shared_out_is_told_before_anything_is_made(
    overrides: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
):
    alone = "shard=true: one process has nothing to share out; take processes=2 or more, or shard=false"
    auto = "finds what fits without shard=true, which needs less; give a number"
    lstm = f"model.checkpoint={save_awd_lstm(tmp_path / 'lstm')}"
    for options, problem in (
        (["processes=1"], alone),
        (["processes=null"], alone),
        (["processes=2", "micro_batch_size=auto"], f"micro_batch_size=auto: {auto}"),
        (["processes=2", lstm], "shard: is for the layers of transformers, and this model has LSTMs; take shard=false"),
    ):
        assert main(["adapt", *overrides, "shard=true", *options]) == 2
        assert capsys.readouterr().err.endswith(f"ulmfit-style: {problem}\n")
    assert not (tmp_path / "runs").exists()
