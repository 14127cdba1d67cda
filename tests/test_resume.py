"""Runs that were stopped go on as if they had not been: between saves, during a save, between phases, by signals."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from samples import Killed
from tiny_run import TinyRun
from transformers import PreTrainedTokenizerFast

from ulmfit_style.__main__ import main
from ulmfit_style.artefacts.directory import METRICS
from ulmfit_style.errors import Interrupted, UserError
from ulmfit_style.training.monitoring import CURVE
from ulmfit_style.training.resume import SEAL, is_whole, newest_whole

KINDS = {
    "plain": {},
    "at rates of their own": {"schedule": "slanted", "layer_decay": 2},
    "watched": {"patience": 2, "epochs": 6},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("resume")


@pytest.fixture(scope="module")
def whole(tokenizer: PreTrainedTokenizerFast, folder: Path) -> dict[str, TinyRun]:
    """A run of each kind that was not stopped."""
    runs = {kind: TinyRun(tokenizer, folder / kind) for kind in KINDS}
    for kind, run in runs.items():
        run.run(**KINDS[kind])
    assert not torch.equal(runs["plain"].weights(), runs["at rates of their own"].weights())
    return runs


@pytest.fixture
def run(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> TinyRun:
    return TinyRun(tokenizer, tmp_path / "killed")


def assert_equal_ends(run: TinyRun, other: TinyRun) -> None:
    assert run.end()[0] == other.end()[0]
    assert torch.equal(run.weights(), other.weights())


# Without a best state: the first phase, its epoch's end (5), its last step, the phases' border (10), the second phase.
@pytest.mark.parametrize(
    ("kind", "killed_at"),
    [
        *(("plain", step) for step in (1, 5, 9, 10, 15)),
        ("at rates of their own", 4),
        ("at rates of their own", 15),
        *(("watched", step) for step in (3, 5, 12, 27)),
    ],
)
def test_a_killed_run_ends_in_the_same_way(run: TinyRun, whole: dict[str, TinyRun], kind: str, killed_at: int):
    with pytest.raises(Killed):
        run.run(killed_at=killed_at, **KINDS[kind])
    run.run(**KINDS[kind])
    assert_equal_ends(run, whole[kind])


def test_a_run_that_is_killed_again_and_again_ends_in_the_same_way(run: TinyRun, whole: dict[str, TinyRun]):
    for _ in range(5):
        with pytest.raises(Killed):
            run.run(killed_at=4, **KINDS["watched"])
    for _ in ("goes on", "finds all of it done"):
        run.run(**KINDS["watched"])
        assert_equal_ends(run, whole["watched"])


@pytest.mark.parametrize("phase", [0, 1])
def test_a_run_that_is_killed_when_a_phase_has_ended_trains_no_step_more(
    run: TinyRun, whole: dict[str, TinyRun], phase: int
):
    with pytest.raises(Killed):
        run.run(killed_after=phase, **KINDS["watched"])
    folder = run.folder / f"phase-{phase}"
    before = {path.name for path in folder.glob("checkpoint-*")}
    run.run(**KINDS["watched"])
    assert {path.name for path in folder.glob("checkpoint-*")} == before
    assert_equal_ends(run, whole["watched"])


@pytest.fixture(scope="module")
def killed(tokenizer: PreTrainedTokenizerFast, folder: Path) -> TinyRun:
    """A run that was killed after step 6."""
    run = TinyRun(tokenizer, folder / "killed")
    with pytest.raises(Killed):
        run.run(killed_at=7, **KINDS["watched"])
    return run


@pytest.mark.parametrize(
    "harm",
    [
        lambda folder: (folder / SEAL).unlink(),
        lambda folder: (folder / "optimizer.pt").unlink(),
        lambda folder: (folder / "rng_state.pth").unlink(),
        lambda folder: (folder / "scheduler.pt").unlink(),
        lambda folder: (folder / "trainer_state.json").write_text(""),
        lambda folder: (folder / SEAL).write_text('{"files": '),
        lambda folder: (folder / CURVE).write_text("[]"),
        lambda folder: os.truncate(folder / "model.safetensors", 1000),
        lambda folder: (folder / "model.safetensors").write_bytes(
            (folder / "model.safetensors").read_bytes()[:-64] + bytes(64)
        ),
    ],
    ids=[
        "no seal",
        "no optimizer",
        "no random state",
        "no scheduler",
        "empty state",
        "half a seal",
        "other scores",
        "cut",
        "zeroed",
    ],
)
def test_a_checkpoint_that_is_not_whole_is_left_aside(killed: TinyRun, tmp_path: Path, harm: Callable[[Path], object]):
    copy = tmp_path / "phase-0"
    shutil.copytree(killed.folder / "phase-0", copy)
    assert len(list(copy.glob("checkpoint-*"))) == 2  # and both are whole
    newest, older = newest_whole(copy), copy / "checkpoint-5"
    assert newest == copy / "checkpoint-6"
    harm(newest)
    assert not is_whole(newest)
    assert newest_whole(copy) == older


def test_training_goes_on_from_the_older_checkpoint(
    killed: TinyRun, run: TinyRun, whole: dict[str, TinyRun], capsys: pytest.CaptureFixture[str]
):
    shutil.copytree(killed.folder, run.folder)
    (run.folder / "phase-0/checkpoint-6/optimizer.pt").unlink()
    run.run(**KINDS["watched"])
    assert f"  head: goes on from {run.folder}/phase-0/checkpoint-5" in capsys.readouterr().out
    assert_equal_ends(run, whole["watched"])


def test_a_checkpoint_of_another_number_of_processes_is_refused(killed: TinyRun, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match=r"was saved by 1 processes, and these are 2; go on with processes=1"):
        is_whole(killed.folder / "phase-0/checkpoint-5")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "Ctrl-C"])
def test_a_signal_saves_and_stops(run: TinyRun, whole: dict[str, TinyRun], number: signal.Signals):
    run.before_batch = lambda batch: signal.raise_signal(number) if batch == 5 else None
    with pytest.raises(Interrupted, match=r"^head: stopped and saved at step 3 of 10; the same") as stopped:
        run.run()
    assert stopped.value.signal == number
    run.before_batch = lambda batch: None
    run.run()
    assert_equal_ends(run, whole["plain"])


def test_a_process_that_was_stopped_and_then_killed_ends_in_the_same_way(tiny_overrides: list[str], tmp_path: Path):
    """The whole command: gradual unfreezing, and the state that is best on watched rows is kept."""
    recipe = [override for override in tiny_overrides if not override.startswith(("adapt.", "finetune.", "runs="))]
    recipe += ["adapt=none", "compare=false", "finetune=ulmfit", "finetune.learning_rate=1e-3"]
    recipe += ["finetune.epochs=30", "finetune.patience=30", "save_minutes=0.002"]
    command = ["finetune", *recipe, f"runs={tmp_path / 'stopped'}"]
    checkpoints = "finetune-*/checkpoints/phase-2/checkpoint-*/whole.json"
    known: set[Path] = set()
    for number in (signal.SIGTERM, signal.SIGKILL):
        process = subprocess.Popen([sys.executable, "-m", "ulmfit_style", *command], stderr=subprocess.PIPE, text=True)
        while not set((tmp_path / "stopped").glob(checkpoints)) - known:
            assert process.poll() is None, process.communicate()
            time.sleep(0.01)
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
        known = set((tmp_path / "stopped").glob(checkpoints))
        if number == signal.SIGTERM:
            assert process.returncode == 128 + number
            assert re.search(r"stopped and saved at step \d+ of \d+; the same command goes on from there", errors)
    assert not list((tmp_path / "stopped").glob("finetune-*/manifest.json"))

    ends = []
    for name in ("stopped", "whole"):
        assert main([*command, f"runs={tmp_path / name}"]) == 0
        directory = tmp_path / name / "default/finetune"
        ends.append((json.loads((directory / METRICS).read_text()), load_file(directory / "model.safetensors")))
    (stopped, weights), (whole, expected) = ends
    curves = [[entry for entry in metrics["log"] if "loss" not in entry] for metrics in (stopped, whole)]
    assert curves[0] == curves[1]
    assert len(curves[0]) == 32
    assert all(stopped[key] == whole[key] for key in ("kept", "test"))
    assert all(torch.equal(weights[name], expected[name]) for name in expected)
