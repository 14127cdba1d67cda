"""Runs that were stopped go on as if they had not been: between saves, during a save, between phases, by signals."""

import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from samples import Killed, tiny_sizes
from tiny_run import TinyRun
from transformers import BertConfig, BertForMaskedLM, PreTrainedTokenizerFast

from ulmfit_style.__main__ import main
from ulmfit_style.artefacts.directory import METRICS, read_json
from ulmfit_style.errors import Interrupted, UserError
from ulmfit_style.training.monitoring import CURVE
from ulmfit_style.training.resume import SEAL, damage, newest_whole, require_same_weights
from ulmfit_style.training.scoring import Scorer

OPTIONS = {"patience": 2, "epochs": 3, "schedule": "slanted", "layer_decay": 2}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("resume")


@pytest.fixture(scope="module")
def whole(tokenizer: PreTrainedTokenizerFast, folder: Path) -> TinyRun:
    """A run that was not stopped."""
    run = TinyRun(tokenizer, folder / "whole")
    run.results = run.run(**OPTIONS)
    return run


@pytest.fixture
def run(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> TinyRun:
    return TinyRun(tokenizer, tmp_path / "killed")


def assert_equal_ends(run: TinyRun, other: TinyRun) -> None:
    assert run.best.curve == other.best.curve
    assert torch.equal(run.weights(), other.weights())


# The first phase, its epoch's end (5), its last step (14), the phases' border (15), the second phase.
@pytest.mark.parametrize("killed_at", [3, 5, 14, 15, 17])
def test_a_killed_run_ends_in_the_same_way(run: TinyRun, whole: TinyRun, killed_at: int):
    with pytest.raises(Killed):
        run.run(killed_at=killed_at, **OPTIONS)
    results = run.run(**OPTIONS)
    assert_equal_ends(run, whole)
    assert [result.log for result in results] == [result.log for result in whole.results]
    assert run.model.config.to_dict() == whole.model.config.to_dict()


def test_a_run_that_is_killed_again_and_again_ends_in_the_same_way(run: TinyRun, whole: TinyRun):
    for _ in range(4):
        with pytest.raises(Killed):
            run.run(killed_at=4, **OPTIONS)
    with pytest.raises(Killed):
        run.run(killed_after=0, **OPTIONS)
    with pytest.raises(Killed):
        run.run(killed_after=1, **OPTIONS)
    for _ in ("goes on", "finds all of it done"):
        run.run(**OPTIONS)
        assert_equal_ends(run, whole)


@pytest.fixture(scope="module")
def killed(tokenizer: PreTrainedTokenizerFast, folder: Path) -> TinyRun:
    """A run that was killed after step 6."""
    run = TinyRun(tokenizer, folder / "killed")
    with pytest.raises(Killed):
        run.run(killed_at=7, **OPTIONS)
    return run


def zero_the_end(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-64] + bytes(64))


HARMS: dict[str, Callable[[Path], object]] = {
    "no seal": lambda folder: (folder / SEAL).unlink(),
    "half a seal": lambda folder: (folder / SEAL).write_text('{"files": '),
    "an empty seal": lambda folder: (folder / SEAL).write_text("{}"),
    "a seal of null": lambda folder: (folder / SEAL).write_text("null"),
    "other scores": lambda folder: (folder / CURVE).write_text("[]"),
    "zeroed weights": lambda folder: zero_the_end(folder / "model.safetensors"),
}


@pytest.mark.parametrize("harm", HARMS.values(), ids=HARMS)
def test_a_checkpoint_that_is_not_whole_is_left_aside(killed: TinyRun, tmp_path: Path, harm: Callable[[Path], object]):
    copy = tmp_path / "phase-0"
    shutil.copytree(killed.folder / "phase-0", copy)
    assert len(list(copy.glob("checkpoint-*"))) == 2  # and both are whole
    newest, older = newest_whole(copy), copy / "checkpoint-5"
    assert newest == copy / "checkpoint-6"
    harm(newest)
    assert damage(newest)
    assert newest_whole(copy) == older


def test_training_goes_on_from_the_older_checkpoint(
    killed: TinyRun, run: TinyRun, whole: TinyRun, capsys: pytest.CaptureFixture[str]
):
    shutil.copytree(killed.folder, run.folder)
    (run.folder / "phase-0/checkpoint-6/optimizer.pt").unlink()
    run.run(**OPTIONS)
    passed_over, goes_on = capsys.readouterr().out.splitlines()[:2]
    assert passed_over == f"  {run.folder}/phase-0/checkpoint-6 is passed over: optimizer.pt is missing"
    assert goes_on == f"  head: goes on from {run.folder}/phase-0/checkpoint-5"
    assert_equal_ends(run, whole)


def test_a_checkpoint_of_another_number_of_processes_is_refused(killed: TinyRun, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match=r"was saved by 1 processes, and these are 2; go on with processes=1"):
        newest_whole(killed.folder / "phase-0")


def test_a_checkpoint_with_other_names_than_the_model_is_refused(tokenizer: PreTrainedTokenizerFast, tmp_path: Path):
    model = BertForMaskedLM(BertConfig(**tiny_sizes(tokenizer)))  # its output is tied to its embeddings
    checkpoint = tmp_path / "checkpoints/phase-0/checkpoint-1"
    model.save_pretrained(checkpoint)
    require_same_weights(checkpoint, model)
    weights = load_file(checkpoint / "model.safetensors")
    weights["renamed"] = weights.pop("cls.predictions.transform.dense.bias")
    save_file(weights, checkpoint / "model.safetensors")
    with pytest.raises(
        UserError, match=r"checkpoint-1: cannot be resumed, .*\(cls\.predictions\.transform\.dense\.bias"
    ):
        require_same_weights(checkpoint, model)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "Ctrl-C"])
def test_a_signal_saves_and_stops(run: TinyRun, whole: TinyRun, number: signal.Signals):
    run.before_batch = lambda batch: signal.raise_signal(number) if batch == 5 else None
    with pytest.raises(Interrupted, match=r"^head: stopped and saved at step 3 of 15; the same") as stopped:
        run.run(**OPTIONS)
    assert stopped.value.signal == number
    run.before_batch = lambda batch: None
    run.run(**OPTIONS)
    assert_equal_ends(run, whole)


def test_a_command_that_was_stopped_ends_in_the_same_way(
    tiny_overrides: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """Gradual unfreezing, and the state that is best on watched rows is kept."""
    recipe = [override for override in tiny_overrides if not override.startswith(("adapt.", "finetune", "runs="))]
    recipe += ["adapt=none", "compare=false", "finetune=ulmfit", "finetune.learning_rate=1e-3"]
    command = ["finetune", *recipe, "finetune.epochs=10", "finetune.patience=10", "save_minutes=1e-9"]
    counted = iter(range(1000))

    def scored(*arguments: Any) -> float:
        if next(counted) == 5:  # in the last phase
            signal.raise_signal(signal.SIGTERM)
        return score(*arguments)

    score = Scorer.metric
    with monkeypatch.context() as patch:
        patch.setattr(Scorer, "metric", scored)
        assert main([*command, f"runs={tmp_path / 'stopped'}"]) == 128 + signal.SIGTERM
    assert "the same command goes on from there" in capsys.readouterr().err
    assert not list((tmp_path / "stopped").glob("finetune-*/manifest.json"))

    ends = []
    for name in ("stopped", "whole"):
        assert main([*command, f"runs={tmp_path / name}"]) == 0
        directory = tmp_path / name / "default/finetune"
        ends.append((read_json(directory / METRICS), load_file(directory / "model.safetensors")))
    (resumed, weights), (whole, expected) = ends
    curves = [[entry for entry in metrics["log"] if "loss" not in entry] for metrics in (resumed, whole)]
    assert curves[0] == curves[1]
    assert all(resumed[key] == whole[key] for key in ("kept", "test"))
    assert all(torch.equal(weights[name], expected[name]) for name in expected)
