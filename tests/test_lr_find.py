"""The learning-rate range test: what it tries, what it tells, and that it leaves everything as it was."""

import csv
import io
import math
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from samples import reviews
from transformers import AutoModel, AutoTokenizer, TrainerControl, TrainerState, TrainingArguments

from ulmfit_style.__main__ import main
from ulmfit_style.artefacts.directory import METRICS, read_json
from ulmfit_style.cli.compose import compose
from ulmfit_style.errors import ConfigError
from ulmfit_style.training.rate_range import SMOOTHING, LossCurve, Point, suggest

Find = Callable[..., int]
Curve = list[dict[str, float]]


@dataclass(frozen=True)
class RangeTest:
    """A range test with the default options, of a recipe whose 20 rows are two batches."""

    overrides: list[str]
    runs: Path
    curve: Curve
    out: str


def read(path: Path) -> Curve:
    with path.open(encoding="utf-8", newline="") as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


@pytest.fixture(scope="module")
def tested(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path) -> RangeTest:
    """Run `lr_find` once."""
    folder = tmp_path_factory.mktemp("tested")
    with (folder / "reviews.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("review", "stars", "film"), *reviews(120)])
    task = ["task=text_classification", f"task.path={folder / 'reviews.csv'}", "task.text=review", "task.label=stars"]
    model = [f"model.checkpoint={checkpoint}", "adapt=none", "compare=false"]
    schedule = ["finetune.trainer.logging_steps=5", "finetune.schedule=constant", "finetune.warmup_ratio=0"]
    overrides = [*task, "task.train_samples=20", *model, "finetune=plain", "finetune.epochs=2", *schedule]
    with redirect_stdout(io.StringIO()) as out:
        assert main(["lr_find", *overrides, f"runs={folder / 'runs'}"]) == 0
    curve = read(folder / "runs/default/lr_find.csv")
    return RangeTest(overrides, folder / "runs", curve, " ".join(out.getvalue().split()))


@pytest.fixture
def find(tested: RangeTest, tmp_path: Path) -> Find:
    """Run `lr_find` with other options, in a folder of the test's own."""
    return lambda *options: main(["lr_find", *tested.overrides, f"runs={tmp_path / 'runs'}", *options])


def points(losses: list[float], scatter: float = 0) -> list[Point]:
    """Return the points of a test of 100 steps at rates from 1e-7 to 0.1, whose smoothed losses are given."""
    return [
        Point(step, 1e-7 * 10 ** (6 * (step - 1) / 99), loss + scatter * (-1) ** step, loss)
        for step, loss in enumerate(losses, start=1)
    ]


def test_the_rate_rises_by_one_factor_and_the_losses_are_smoothed_with_their_bias_corrected(tested: RangeTest):
    assert [row["step"] for row in tested.curve] == list(range(1, len(tested.curve) + 1))
    rates = np.array([row["rate"] for row in tested.curve])
    assert rates[0] == pytest.approx(1e-7)
    assert rates[1:] / rates[:-1] == pytest.approx(np.full(len(rates) - 1, 1e6 ** (1 / 99)))
    losses = [row["loss"] for row in tested.curve]
    weights = [SMOOTHING**age for age in range(len(losses))]
    for place, row in enumerate(tested.curve):
        assert row["smoothed loss"] == pytest.approx(np.average(losses[place::-1], weights=weights[: place + 1]))


def test_a_band_is_told_with_how_it_was_found_and_drawn(tested: RangeTest):
    assert "lr_find: finetune.learning_rate rises from 1e-07 to 0.1" in tested.out
    assert "100 steps of 16 rows are 50.0 epochs of the 20 rows" in tested.out
    assert "(where the smoothed loss falls most steeply)" in tested.out
    lowest = min(tested.curve[9:], key=lambda row: row["smoothed loss"])
    assert f"{lowest['rate'] / 10:.1e} (a tenth of the rate at which it is lowest, {lowest['rate']:.1e})" in tested.out
    assert "; here it is 5e-05. " in tested.out
    assert "To try the rates, with the same options: make sweep finetune.learning_rate=" in tested.out


def test_finetune_begins_as_the_test_did(tested: RangeTest):
    assert main(["finetune", *tested.overrides, f"runs={tested.runs}"]) == 0
    first, *_ = read_json(tested.runs / "default/finetune" / METRICS)["log"]
    assert first["step"] == 1
    assert first["loss"] == pytest.approx(tested.curve[0]["loss"], abs=1e-6)


def test_a_curve_without_an_answer_is_drawn_and_nothing_else_is_kept(
    find: Find, tmp_path: Path, capsys: pytest.CaptureFixture
):
    groups = ["finetune.layer_decay=2", "finetune.unfreeze=[1,all]", "save_minutes=0.00001"]
    assert find(*groups, "lr_find.lowest=1e-9", "lr_find.highest=1e-8", "lr_find.steps=50") == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "lr_find: no clear answer: the smoothed loss " in out
    assert "make sweep" not in out
    assert read(tmp_path / "runs/default/lr_find.csv")[0]["rate"] == pytest.approx(1e-9)  # that of the head
    left = {path.relative_to(tmp_path / "runs").as_posix() for path in (tmp_path / "runs").rglob("*")}
    assert left == {"default", *(f"default/lr_find.{ending}" for ending in ("csv", "log", "png", "svg"))}


def test_it_stops_when_the_smoothed_loss_is_far_above_its_lowest():
    curve, control = LossCurve(), TrainerControl()
    for step, loss in enumerate([1.0, 1.0, 1.0, 100.0], start=1):
        assert not control.should_training_stop
        entry = {"step": step, "learning_rate": 1e-3, "loss": loss}
        curve.on_log(TrainingArguments("unused"), TrainerState(log_history=[entry]), control)
    assert control.should_training_stop


def test_a_loss_that_is_no_number_from_the_start_is_an_error(
    find: Find, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture
):
    model = AutoModel.from_pretrained(checkpoint)
    with torch.no_grad():
        model.embeddings.word_embeddings.weight.fill_(math.nan)
    model.save_pretrained(tmp_path / "broken")
    AutoTokenizer.from_pretrained(checkpoint).save_pretrained(tmp_path / "broken")
    assert find(f"model.checkpoint={tmp_path / 'broken'}") == 2
    assert "lr_find: the loss is not a number at step 1, at a rate of 1e-07" in capsys.readouterr().err


def test_the_rate_of_adapt_is_tested_after_its_new_head_was_trained(
    tiny_overrides: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
):
    assert main(["lr_find", *tiny_overrides, "lr_find.stage=adapt"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    said = [out.index(line) for line in ("adapt.learning_rate rises", "new head: done", "lr_find: adapt.learning_rate")]
    assert said[0] < said[1]
    assert 0 < read(tmp_path / "runs/default/lr_find.csv")[0]["loss"] < 20
    assert not list((tmp_path / "runs").glob("adapt-*"))


def test_what_a_stage_lacks_is_told(find: Find, capsys: pytest.CaptureFixture):
    assert find("lr_find.stage=adapt") == 2
    assert "adapt=none: nothing is adapted; choose how with adapt=plain" in capsys.readouterr().err


def test_a_lowest_rate_that_is_not_below_the_highest_is_refused():
    with pytest.raises(ConfigError, match=r"lr_find.highest=0.001: should be greater than lr_find.lowest=0.001"):
        compose(["lr_find.lowest=0.001", "lr_find.highest=0.001"])


def test_the_band_lies_between_the_steepest_fall_and_a_tenth_of_the_rate_at_the_lowest():
    # Flat to step 40, steepest around step 50, lowest at step 80.
    losses = [3.0] * 40 + [3 - 0.15 * n for n in range(20)] + [0.1 - 0.001 * n for n in range(21)] + [1.0] * 19
    found = suggest(points(losses), 100)
    assert found.band is not None
    low, high = found.band
    assert points(losses)[39].rate <= low <= points(losses)[59].rate
    assert high == pytest.approx(points(losses)[80].rate / 10)
    assert found.reason.startswith(f"from {low:.1e} (where the smoothed loss falls most steeply) to {high:.1e} (a tent")


def test_a_fall_shortly_before_the_lowest_turns_the_band_round():
    losses = [3.0] * 70 + [3 - 0.2 * n for n in range(1, 11)] + [1.5] * 20
    found = suggest(points(losses), 100)
    assert found.band == (pytest.approx(points(losses)[79].rate / 10), pytest.approx(points(losses)[74].rate))
    assert "(a tenth of the rate at which it is lowest" in found.reason.partition(" to ")[0]


@pytest.mark.parametrize(
    ("losses", "scatter", "reason"),
    [
        ([3.0] * 50 + [2.9] * 10 + [4.0] * 40, 0.1, "never falls by more than the single losses scatter"),
        ([1.0, 2.0, 9.0], 0, "never falls by more than the single losses scatter"),
        ([3 - 0.01 * n for n in range(100)], 0, "still falls at the highest rate; raise lr_find.highest"),
        ([3.0] * 10 + [1.0] * 90, 0, "is lowest near the start already; lower lr_find.lowest"),
    ],
)
def test_without_a_clear_answer_no_band_is_suggested(losses: list[float], scatter: float, reason: str):
    found = suggest(points(losses, scatter), 100)
    assert found.band is None
    assert reason in found.reason
