"""What TensorBoard, and whatever else `report_to` names, is told of the training."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from ulmfit_style.__main__ import main
from ulmfit_style.artefacts.directory import METRICS, read_json
from ulmfit_style.training.trainer import Reporting

PHASED = ["finetune.unfreeze=[1,2,all]", "finetune.epochs=3", "finetune.batch_size=5"]


@pytest.fixture
def tuned(not_adapted: list[str]) -> list[str]:
    return ["finetune", *not_adapted, *PHASED, "finetune.trainer.logging_steps=1"]


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


def test_a_run_is_called_as_its_artefact_unless_it_has_a_name():
    told: list[SimpleNamespace] = []
    reporting = Reporting("none", Path("runs/finetune-3f9a2d76"))
    reporting._callbacks = [SimpleNamespace(on_log=lambda args, *_, **__: told.append(args))]
    for name in (None, "mine"):
        args = SimpleNamespace(output_dir="", run_name=name)
        reporting.on_log(args, SimpleNamespace(global_step=1), None, logs={})  # type: ignore[arg-type]
        assert args.run_name == name  # that of the phase stays
    assert [args.run_name for args in told] == ["finetune-3f9a2d76", "mine"]
