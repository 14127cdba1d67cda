"""Runs that were stopped go on as if they had not been: between saves, during a save, between phases, by signals."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from samples import Killed, good_or_bad
from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast, set_seed

from ulmfit_style.__main__ import main
from ulmfit_style.errors import UserError
from ulmfit_style.models.layers import layer_groups
from ulmfit_style.tasks.text_classification import TextClassification
from ulmfit_style.training.batching import collate
from ulmfit_style.training.phases import Phase, PhaseSettings, TrainingData, TrainingPlan, train
from ulmfit_style.training.resume import SEAL, is_whole, newest_whole

TASK = TextClassification(path="-", text="review", label="stars")
STEPS = 10
"""Optimizer steps of a phase: 40 rows, 8 a step, twice."""


class Stage:
    """Two phases of a tiny classifier with dropout, which save at every step and can be killed before any of them."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, tiny: dict, folder: Path) -> None:
        self.tokenizer, self.folder = tokenizer, folder
        self.sizes = {**tiny, "hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1}
        self.rows = good_or_bad(tokenizer, TASK)

    def run(self, *, killed_at: int | None = None, micro: int = 4, layerwise: bool = False) -> torch.Tensor:
        """Train from the start or from what is there, and return the final weights."""
        set_seed(0)
        model = BertForSequenceClassification(BertConfig(**self.sizes, num_labels=2))
        batches = 0

        def gather(rows: Any) -> Any:
            nonlocal batches
            batches += 1
            if killed_at is not None and batches > killed_at * (8 // micro):
                raise Killed
            return collate(rows, self.tokenizer)

        head = list(model.classifier.parameters())
        phases = [Phase("head", head, 2, 1e-2), Phase("all", list(model.parameters()), 2, 1e-3)]
        settings = PhaseSettings(8, 0.1, 0.01, 0, micro, 1, 1e-9, {})
        if layerwise:
            settings = replace(settings, schedule="slanted", layers=layer_groups(model, ()), layer_decay=2)
        train(TrainingPlan(model, phases, settings, TrainingData(TASK, self.rows, gather)), self.folder)
        return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


@pytest.fixture
def stage(tokenizer: PreTrainedTokenizerFast, tiny: dict, tmp_path: Path) -> Callable[[str], Stage]:
    return lambda name: Stage(tokenizer, tiny, tmp_path / name)


@pytest.fixture
def whole(stage: Callable[[str], Stage]) -> torch.Tensor:
    """The weights of a run that was not stopped."""
    return stage("whole").run()


# Steps of the first phase, its epoch's end (5), its last step, the phases' border (10), steps of the second phase.
@pytest.mark.parametrize("killed_at", [1, 4, 5, 7, 9, 10, 11, 15, 18])
def test_a_killed_run_ends_with_the_same_weights(stage: Callable[[str], Stage], whole: torch.Tensor, killed_at: int):
    run = stage("killed")
    with pytest.raises(Killed):
        run.run(killed_at=killed_at)
    assert torch.equal(run.run(), whole)


@pytest.mark.parametrize("killed_at", [4, 10, 15])
def test_layer_groups_go_on_at_their_own_rates(stage: Callable[[str], Stage], whole: torch.Tensor, killed_at: int):
    run, unbroken = stage("killed"), stage("layerwise").run(layerwise=True)
    with pytest.raises(Killed):
        run.run(killed_at=killed_at, layerwise=True)
    assert torch.equal(run.run(layerwise=True), unbroken)
    assert not torch.equal(unbroken, whole)


def test_a_run_that_is_killed_again_and_again_ends_with_the_same_weights(
    stage: Callable[[str], Stage], whole: torch.Tensor
):
    run = stage("killed")
    for _ in range(6):
        with pytest.raises(Killed):
            run.run(killed_at=3)
    assert torch.equal(run.run(), whole)


@pytest.mark.parametrize(
    "harm",
    [
        lambda folder: (folder / SEAL).unlink(),
        lambda folder: (folder / "optimizer.pt").unlink(),
        lambda folder: (folder / "rng_state.pth").unlink(),
        lambda folder: (folder / "scheduler.pt").unlink(),
        lambda folder: (folder / "trainer_state.json").write_text(""),
        lambda folder: (folder / SEAL).write_text('{"files": '),
        lambda folder: os.truncate(folder / "model.safetensors", 1000),
        lambda folder: (folder / "model.safetensors").write_bytes(
            (folder / "model.safetensors").read_bytes()[:-64] + bytes(64)
        ),
    ],
    ids=["no seal", "no optimizer", "no random state", "no scheduler", "empty state", "half a seal", "cut", "zeroed"],
)
def test_a_checkpoint_that_is_not_whole_is_left_aside(
    stage: Callable[[str], Stage], whole: torch.Tensor, harm: Callable[[Path], None]
):
    run = stage("killed")
    with pytest.raises(Killed):
        run.run(killed_at=6)
    newest = newest_whole(run.folder / "phase-0")
    assert newest is not None
    harm(newest)
    assert not is_whole(newest)
    assert newest_whole(run.folder / "phase-0") not in (None, newest)
    assert torch.equal(run.run(), whole)


def test_two_whole_checkpoints_are_kept(stage: Callable[[str], Stage]):
    run = stage("killed")
    with pytest.raises(Killed):
        run.run(killed_at=6)
    kept = list((run.folder / "phase-0").glob("checkpoint-*"))
    assert len(kept) == 2
    assert all(map(is_whole, kept))


def test_a_checkpoint_of_another_number_of_processes_is_refused(
    stage: Callable[[str], Stage], monkeypatch: pytest.MonkeyPatch
):
    run = stage("killed")
    with pytest.raises(Killed):
        run.run(killed_at=3)
    newest = newest_whole(run.folder / "phase-0")
    assert newest is not None
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match=r"was saved by 1 processes, and these are 2; go on with processes=1"):
        is_whole(newest)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "Ctrl-C"])
def test_a_signal_saves_and_says_how_to_go_on(tiny_overrides: list[str], tmp_path: Path, number: signal.Signals):
    options = ["adapt=none", "compare=false", "finetune.epochs=80", "finetune.learning_rate=1e-3"]
    recipe = [override for override in tiny_overrides if not override.startswith(("adapt.", "finetune.", "runs="))]
    command = [sys.executable, "-m", "ulmfit_style", "finetune", *recipe, *options]
    process = subprocess.Popen(
        [*command, f"runs={tmp_path / 'stopped'}"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    while not list(tmp_path.glob("stopped/finetune-*/checkpoints")) and process.poll() is None:
        time.sleep(0.05)
    time.sleep(0.5)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert re.search(r"stopped and saved at step \d+ of \d+; the same command goes on from there", errors), errors

    main([*command[3:], f"runs={tmp_path / 'stopped'}"])
    main([*command[3:], f"runs={tmp_path / 'whole'}"])
    ends = [load_file(tmp_path / runs / "default/finetune/model.safetensors") for runs in ("whole", "stopped")]
    assert ends[0].keys() == ends[1].keys()
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])
