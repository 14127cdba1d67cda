"""What `finetune=auto` chooses, and that a head which is solved is the regression that stands beside the models."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from recipes import compared

from ulmfit_style import auto, load
from ulmfit_style.__main__ import main
from ulmfit_style.artefacts import predictions
from ulmfit_style.artefacts.directory import METRICS, RECIPE, read_json
from ulmfit_style.auto import FEW, choose
from ulmfit_style.cli import CONF
from ulmfit_style.cli.compose import compose
from ulmfit_style.errors import UserError
from ulmfit_style.stages.table import resolve
from ulmfit_style.tasks.text_classification import TextClassification
from ulmfit_style.tasks.text_regression import TextRegression
from ulmfit_style.tasks.values import Architecture
from ulmfit_style.training import solving


@pytest.mark.parametrize("preset", ["few_labels", "frozen", "lp_ft", "plain"])
def test_a_preset_is_what_its_yaml_says(preset: str, tiny_overrides: list[str], monkeypatch: pytest.MonkeyPatch):
    options = compose([f"finetune={preset}"]).finetune
    monkeypatch.setattr(auto, "choose", lambda *_: (preset, "it is told to"))
    chosen = resolve(compose([option for option in tiny_overrides if not option.startswith("finetune")])).finetune
    left_open = list(yaml.safe_load((CONF / "finetune" / "auto.yaml").read_text()))[1:]
    assert compose([]).finetune.open == left_open
    assert [getattr(chosen, name) for name in left_open] == [getattr(options, name) for name in left_open]


@pytest.mark.parametrize(
    ("task", "kind", "rows", "preset"),
    [
        (TextClassification(path="-"), "encoder", 2 * FEW, "few_labels"),
        (TextClassification(path="-"), "decoder", 2 * FEW + 2, "lp_ft"),
        (TextClassification(path="-"), "encoder", 0, "frozen"),
        (TextClassification(path="-"), "encoder-decoder", 10, "plain"),
        (TextClassification(path="-", text_pair="b"), "encoder", 10, "plain"),
        (TextRegression(path="-"), "encoder", 10, "plain"),
    ],
)
def test_the_task_and_its_labels_decide(task: Any, kind: Any, rows: int, preset: str):
    assert choose(compose([]).finetune, task, Architecture("any", kind), rows, 2)[0] == preset


def test_what_is_typed_is_not_chosen(tiny_overrides: list[str], capsys: pytest.CaptureFixture[str]):
    options = [option for option in tiny_overrides if not option.startswith("finetune")]
    resolved = resolve(compose([*options, "finetune.epochs=3", "finetune.contrast_steps=7"]))
    assert (resolved.finetune.epochs, resolved.finetune.contrast_steps, resolved.finetune.head) == (3, 7, "solved")
    assert "finetune=auto takes few_labels: finetune.contrast_steps asks for it" in capsys.readouterr().out


@pytest.mark.parametrize("typed", ["finetune.pooling=default", "finetune.head=random"])
def test_what_is_typed_goes_with_what_is_chosen(tiny_overrides: list[str], typed: str):
    options = [option for option in tiny_overrides if not option.startswith("finetune")]
    settled = resolve(compose([*options, typed])).finetune
    assert (settled.pooling, settled.head, settled.contrast_steps, settled.epochs) == ("default", "random", 0, 20)
    with pytest.raises(UserError, match="epochs=0 leaves the head random"):
        _ = resolve(compose([*options, "finetune.pooling=default", "finetune.epochs=0"])).finetune


def test_few_labels_end_in_a_calibrated_head_that_is_kept_and_told(
    tmp_path: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str]
):
    recipe = [option for option in compared(tmp_path, checkpoint) if not option.startswith(("finetune", "adapt."))]
    recipe += ["adapt=none", "finetune.max_length=32"]
    few = [*recipe, "finetune.contrast_learning_rate=2e-3", "compare=false"]
    assert main(["finetune", *few]) == 0
    assert "finetune=auto takes few_labels: 30 labelled rows of 2 classes" in capsys.readouterr().out
    assert main(["finetune", *few, "finetune.calibration_folds=0", "name=uncalibrated"]) == 0
    calibrated, uncalibrated = ((tmp_path / "runs" / name / "finetune") for name in ("default", "uncalibrated"))
    assert yaml.safe_load((calibrated / RECIPE).read_text())["finetune"]["contrast_steps"] == 50
    scores = [read_json(directory / METRICS)["test"]["scores"] for directory in (calibrated, uncalibrated)]
    assert scores[0]["accuracy"] == scores[1]["accuracy"] > 0.7
    sure = [[row["score"] for row in predictions.read(path, "test")] for path in (calibrated, uncalibrated)]
    assert np.abs(np.subtract(*sure)).max() > 0.01
    assert load(str(calibrated))("a good film")["label"] in ("good", "bad")
    # The reference of the same name is the same regression, and is kept as a model.
    assert main(["finetune", *recipe, "finetune=frozen", "finetune.calibration_folds=0", "name=frozen"]) == 0
    frozen = read_json(tmp_path / "runs" / "frozen" / "finetune" / METRICS)["test"]["scores"]["accuracy"]
    references = read_json(tmp_path / "runs" / "frozen" / "references" / METRICS)["test"]
    assert references["frozen features + logistic regression"]["scores"]["accuracy"] == frozen


def test_a_solved_head_heeds_no_dimension_that_hardly_varies():
    random = np.random.default_rng(0)
    labels = np.arange(60) % 3
    live = random.normal(size=(60, 8)).astype(np.float32) + np.eye(3, 8, dtype=np.float32)[labels]
    dead = np.float32(1e-32) * random.normal(size=(60, 1)).astype(np.float32)
    weights, bias = solving.regression(solving.HeadInputs(np.hstack([live, dead]), labels, np.ones(60)), 3, None)
    without, same = solving.regression(solving.HeadInputs(live, labels, np.ones(60)), 3, None)
    assert np.abs(weights[:, -1]).max() < 1e-6 < np.abs(weights[:, :-1]).max()
    assert weights[:, :-1] == pytest.approx(without, abs=1e-4)
    assert bias == pytest.approx(same, abs=1e-4)


def test_a_temperature_makes_answers_as_sure_as_they_are_right():
    random = np.random.default_rng(0)
    logits = random.normal(size=(4000, 3))
    noise = random.gumbel(size=logits.shape)
    labels = (logits / 2 + noise).argmax(axis=1)
    assert solving.temperature(logits.astype(np.float32), labels) == pytest.approx(2, rel=0.1)
