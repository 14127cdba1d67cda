import csv
import math
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import trial_stub

from ulmfit_style.__main__ import main
from ulmfit_style.artefacts.directory import read_json
from ulmfit_style.cli.compose import compose
from ulmfit_style.config.section import Section
from ulmfit_style.errors import UserError
from ulmfit_style.experiments import trials
from ulmfit_style.experiments.study import Result, Run, best_of_search, planned
from ulmfit_style.metrics.intervals import combined, difference, interval
from ulmfit_style.stages.table import resolve

STUDY = """
name: tiny
arms:
  fine-tuned: [adapt=none]
  adapted: []
  from scratch: [model.init=scratch, pretrain=none, adapt=none]
baseline: fine-tuned
seeds: [0, 1]
labels: [2, 20, 5000]
per_class: false
search: {}
search_seeds: []
references: []
keep_weights: best
"""
SAMPLE = ["finetune.seed=1", "task.sample_seed=1"]
"""The seed 1 of a study."""


@pytest.fixture
def with_study(tiny_overrides: list[str], tmp_path: Path) -> Callable[..., list[str]]:
    """Return the tiny recipe with a study of the test's own."""

    def choose(text: str, *overrides: str) -> list[str]:
        folder = tmp_path / "my_conf" / "study"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "mine.yaml").write_text(text)
        return [f"hydra.searchpath=['{folder.parent}']", *tiny_overrides, "study=mine", *overrides]

    return choose


@pytest.fixture
def rows(tmp_path: Path) -> Callable[[], list[dict[str, str]]]:
    """Read results.csv."""

    def read() -> list[dict[str, str]]:
        with (tmp_path / "runs" / "default-tiny" / "results.csv").open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))

    return read


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """The folder of artefacts."""
    return tmp_path / "runs"


@pytest.fixture
def stubbed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make trials in no time."""
    monkeypatch.setattr(trials, "train", trial_stub.train)


def test_a_study_trains_arms_on_the_same_rows_beside_the_references(
    with_study: Callable, rows: Callable, not_adapted: list[str], runs: Path, capsys: pytest.CaptureFixture
):
    text = STUDY.replace("from scratch: [model.init=scratch, pretrain=none, ", "too far: [finetune.weight_decay=1e30, ")
    small = ["study.labels=null", "study.references=[linear]", "study.keep_weights=none"]
    assert main(["study", *with_study(text, *small)]) == 2
    ended = capsys.readouterr()
    assert ended.out.count("] adapt: ") == 1  # all seeds share it
    scored, failed = ([row for row in rows() if bool(row["error"]) == has_failed] for has_failed in (False, True))
    arms = ["TF-IDF + logistic regression", "frozen features + logistic regression", "fine-tuned", "adapted"]
    arms += ["largest class", "class names alone"]
    assert {row["arm"] for row in scored} == {*arms}
    assert all(0 <= float(row["accuracy"]) <= 1 for row in scored)
    assert len(list(runs.glob("references-*"))) == 2
    assert len(list(runs.glob("features-*"))) == 1  # all samples of labels share the rows that are scored
    assert len(list(runs.glob("finetune-*/predictions.parquet"))) == 4
    assert len(list(runs.glob("adapt-*"))) == 1

    # An arm that failed has no average.
    assert "2 of 6 runs failed; the same command tries them again" in ended.err
    assert "Failed: too far, seed 1: every weight: the loss is nan at step" in ended.out
    table = next(line for line in ended.out.splitlines() if "│ too far" in line)
    assert re.split(r"[│\s]+", table.strip("│ ")) == ["too", "far", "failed", "failed", "failed"]
    assert "'too far'" not in ended.out
    assert {row["arm"] for row in failed} == {"too far"}

    # The weights were not kept; who wants them has the model made again, and it is the same.
    alone = [*not_adapted, *SAMPLE]
    directory = resolve(compose(alone)).artefact("finetune").directory
    before = read_json(directory / "metrics.json")["test"]
    assert main(["finetune", *alone]) == 0
    assert read_json(directory / "metrics.json")["test"] == before


@pytest.mark.usefixtures("stubbed")
def test_the_second_call_makes_nothing_and_says_the_same(
    with_study: Callable, rows: Callable, runs: Path, capsys: pytest.CaptureFixture
):
    assert main(["study", *with_study(STUDY)]) == 0
    first = " ".join(capsys.readouterr().out.split())
    assert "study: 5000 labels are left out; there are 2 classes and 84 training rows" in first
    assert "study: 12 runs: 3 arms x 2 numbers of labels x 2 seeds" in first
    assert "[12/12] from scratch, 20 labels, seed 1" in first
    assert "over 2 seeds and the test rows" in first
    scored = rows()
    assert len(scored) == 3 * 2 * 2
    assert len(list((runs / "default-tiny").glob("figure.*"))) == 2
    links = {path.name for path in (runs / "default-tiny").iterdir() if path.is_symlink()}
    assert links >= {"fine-tuned-2-seed-0", "from-scratch-20-seed-1"}
    (kept,) = (path.parent.name for path in runs.glob("finetune-*/model.safetensors"))
    validation = {row["artefact"]: float(row["validation accuracy"]) for row in scored}
    assert validation[kept] == max(validation.values())

    shutil.rmtree(runs / scored[0]["artefact"])  # as if it had been stopped there
    made = {path: path.stat().st_mtime_ns for path in runs.rglob("finetune-*/metrics.json")}
    assert main(["study", *with_study(STUDY)]) == 0
    again = " ".join(capsys.readouterr().out.split())
    assert re.findall(r"\[\d+/12\]", again) == ["[1/12]"]
    table = "2 labels: accuracy on the test rows"
    assert again.partition(table)[2] == first.partition(table)[2] != ""
    assert {path: path.stat().st_mtime_ns for path in made} == made
    assert rows() == scored


@pytest.mark.usefixtures("stubbed")
def test_weights_that_were_not_kept_are_missed_by_name_and_a_link_from_elsewhere_keeps_them(
    with_study: Callable, not_adapted: list[str], runs: Path, capsys: pytest.CaptureFixture
):
    overrides = with_study(STUDY, "study.labels=null", "study.keep_weights=none")
    alone = [*not_adapted, *SAMPLE]
    model = resolve(compose(alone)).artefact("finetune")
    trial_stub.train(resolve(compose(alone)), None)
    model.link("mine", "finetune")
    assert main(["study", *overrides]) == 0
    assert [path.parent for path in runs.glob("finetune-*/model.safetensors")] == [model.directory]
    assert main(["runs", f"runs={runs}"]) == 0
    assert "(scores)" in capsys.readouterr().out
    assert main(["clean-runs", *overrides]) == 0
    assert "finetune" not in capsys.readouterr().out
    assert main(["evaluate", *alone, "finetune.seed=0", "task.sample_seed=0"]) == 2
    assert "a study did not keep its weights" in capsys.readouterr().err


@pytest.mark.usefixtures("stubbed")
def test_each_arm_is_searched_alike_and_takes_what_it_finds(
    with_study: Callable, rows: Callable, capsys: pytest.CaptureFixture
):
    search = ["study.search={finetune.learning_rate: [1e-5, 1e-2], adapt.epochs: [1]}", "study.search_seeds=[7, 8]"]
    assert main(["study", *with_study(STUDY, *search, "study.labels=[20]")]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "study: 18 runs: 3 arms x 1 numbers of labels x 2 seeds, and 12 to search" in said
    for arm in ("fine-tuned", "adapted", "from scratch"):
        (searched,) = {row["searched"] for row in rows() if row["arm"] == arm}
        assert "adapt.epochs" in searched
        assert f"searched: {arm}: {searched}" in said


def test_the_search_takes_the_best_mean_on_the_validation_rows_and_ends_where_a_trial_failed(tmp_path: Path):
    def result(rate: str, seed: int, validation: float, error: str = "") -> Result:
        return Result(Run("adapted", 20, seed, (rate,)), 20, tmp_path, 0.9 - validation, validation, error)

    results = [result("low", 7, 0.6), result("low", 8, 0.6), result("high", 7, 0.8), result("high", 8, 0.5)]
    assert best_of_search(results) == {("adapted", 20): ("high",)}
    with pytest.raises(UserError, match=r"study.search: adapted, low, 20 labels, seed 9 failed: the loss is nan"):
        best_of_search([*results, result("low", 9, math.nan, "the loss is nan")])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("adapted: []", "adapted: [adapt=none]"), "'adapted' and 'fine-tuned' are the same recipe"),
        (("adapted: []", "adapted: [adpat=none]"), "(?s)study.arms: adapted: .*adpat"),
        (("adapted: []", "adapted: [task.test_ratio=0.3]"), "are not scored on the same test rows"),
        (("search: {}", "search: {finetune.epochs: [1, 2]}"), "a search needs search_seeds"),
        (
            ("labels: [2, 20, 5000]", "labels: [1]"),
            "none of these numbers is possible; there are 2 classes and 84 training rows",
        ),
    ],
)
def test_a_wrong_study_is_answered_before_anything_is_trained(
    with_study: Callable, change: tuple[str, str], message: str
):
    with pytest.raises(UserError, match=message):
        planned(with_study(STUDY.replace(*change)))


def test_a_plan_warns_of_one_seed_and_leaves_out_the_search_of_a_yaml(
    with_study: Callable, capsys: pytest.CaptureFixture
):
    text = STUDY.replace("search: {}", "search: {adapt.epochs: [1, 2]}").replace("_seeds: []", "_seeds: [9]")
    assert not planned(with_study(text, "study.search=null", "study.seeds=[3]")).search()
    assert "one seed does not show how much seeds differ" in capsys.readouterr().out


def test_what_all_arms_have_in_common_comes_after_what_was_typed_and_before_their_own_options(with_study: Callable):
    text = STUDY.replace("adapted: []", "adapted: [adapt.seed=3]") + "common: [adapt.epochs=3, adapt.seed=2]"
    made = planned(with_study(text, "adapt.epochs=4", "adapt.batch_size=5"))
    adapted, plain = made.arms["adapted", ()].adapt, made.arms["fine-tuned", ()].adapt
    assert (adapted.epochs, adapted.seed, adapted.batch_size) == (3, 3, 5)
    assert plain is None  # options of a stage that an arm switches off do not concern it
    assert (made.base.adapt.epochs, made.base.adapt.seed) == (3, 2)  # which the reference models are fitted with


def test_the_rungs_of_the_ladders_differ_in_what_they_are_called_for_alone(tiny_overrides: list[str]):
    rungs = {"unfreeze", "layer_decay", "schedule"}
    made = planned([*tiny_overrides, "study=ulmfit_ablation", "finetune=auto", "study.labels=null"])
    recipes = {run: resolve(made.at(config, None, 0)).config for run, config in made.arms.items()}
    for (arm, searched), recipe in recipes.items():
        full = recipes["full", searched]
        assert differing(recipe.finetune, full.finetune) <= rungs, arm
        assert recipe.adapt is None or differing(recipe.adapt, full.adapt) <= rungs, arm
        assert (recipe.adapt == full.adapt) == (not arm.startswith("adapt") and arm != "from scratch")


def differing(one: Section, other: Section) -> set[str]:
    """Return the names of the options in which two sections differ."""
    return {name for name, value in one if value != getattr(other, name)}


def test_the_interval_over_seeds_holds_the_spread_of_seeds_and_of_rows():
    random = np.random.default_rng(0)
    rows = random.normal(0.1, 1, size=400)
    alike = np.tile(rows, (5, 1))
    _, low, high = difference(alike, np.zeros_like(alike), combined)
    assert (low, high) == pytest.approx(interval(rows), abs=0.01)  # seeds that do not differ add nothing
    shifts = np.array([-0.4, -0.2, 0.0, 0.2, 0.4])
    _, *wide = difference(alike + shifts[:, None], np.zeros_like(alike), combined)
    expected = math.hypot((high - low) / 3.92, shifts.std(ddof=1) / math.sqrt(5)) * 3.92
    assert wide[1] - wide[0] == pytest.approx(expected, rel=0.1)
