"""What TensorBoard, and whatever else `report_to` names, is told of the training."""

from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from transformers import TrainerCallback, TrainerState, TrainingArguments

from ulmfit_style.__main__ import main
from ulmfit_style.artefacts.directory import METRICS, read_json
from ulmfit_style.training import trainer

PHASED = ["finetune.unfreeze=[1,2,all]", "finetune.epochs=3", "finetune.batch_size=5"]


@pytest.fixture
def tuned(tiny_overrides: list[str]) -> list[str]:
    own = [override for override in tiny_overrides if not override.startswith("adapt.")]
    return ["finetune", *own, "adapt=none", "compare=false", *PHASED, "finetune.trainer.logging_steps=1"]


def test_the_event_files_hold_all_phases_one_after_another(tuned: list[str], tmp_path: Path):
    assert main([*tuned, "finetune.trainer.report_to=tensorboard"]) == 0
    directory = (tmp_path / "runs/default/finetune").resolve()
    (file,) = directory.glob("runs/*/events*")  # one for all phases, and it stays when the checkpoints go
    found = EventAccumulator(str(file))
    found.Reload()
    log = read_json(directory / METRICS)["log"]
    assert [(event.step, event.value) for event in found.Scalars("train/loss")] == [
        (number, pytest.approx(entry["loss"])) for number, entry in enumerate(log, start=1)
    ]
    assert [event.value for event in found.Scalars("train/phase") if event.step % 4 == 0] == [1, 1, 2, 2, 3, 3, 3, 3]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("wandb", "trainer.report_to=wandb: WandbCallback requires wandb to be installed. Run `pip install wandb`."),
        ("tensorbord", "report_to=tensorbord: tensorbord is not supported, only "),
    ],
)
def test_what_cannot_be_told_is_said_before_training(tuned: list[str], capsys, value: str, message: str):
    assert main([*tuned, f"finetune.trainer.report_to={value}"]) == 2
    assert message in capsys.readouterr().err


class Told(TrainerCallback):
    """Keeps what an integration is told: events, and the steps of what is logged."""

    events: list[str]

    def __init__(self) -> None:
        Told.events = []

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control, **kwargs) -> None:
        self.events.append(f"begin {args.output_dir}")

    def on_log(self, args: TrainingArguments, state: TrainerState, control, logs, **kwargs) -> None:
        self.events.append(f"{state.global_step}: phase {logs['phase']}")

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control, **kwargs) -> None:
        self.events.append("end")


def test_an_integration_ends_once(tuned: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(trainer, "get_reporting_integration_callbacks", lambda names: [Told])
    assert main([*tuned, "finetune.epochs=1"]) == 0
    directory = (tmp_path / "runs/default/finetune").resolve()
    begun = [event for event in Told.events if event.startswith("begin")]
    assert begun == [f"begin {directory}"] * 3  # of the phases: they go on with what was begun
    *logged, end = [event for event in Told.events if event not in begun]
    assert end == "end"
    # The Trainer sums up each phase at its end.
    assert list(dict.fromkeys(logged)) == [f"{step}: phase {(step - 1) // 4 + 1}" for step in range(1, 13)]
