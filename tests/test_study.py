import csv
import math
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import trial_stub

from ulmfit_style import chain
from ulmfit_style.__main__ import main
from ulmfit_style.artefacts.directory import read_json
from ulmfit_style.cli.compose import compose
from ulmfit_style.errors import UserError
from ulmfit_style.experiments import estimate, study_plan, study_report
from ulmfit_style.experiments.study_report import labels_saved
from ulmfit_style.metrics.intervals import interval, over_seeds
from ulmfit_style.recipe import Config
from ulmfit_style.stages import resolve

STUDY = """
name: tiny
arms:
  fine-tuned: [adapt=none]
  adapted: []
  from scratch: [model.init=scratch, pretrain=none, adapt=none]
baseline: fine-tuned
seeds: [0, 1]
labels: [2, 10, 20, 5000]
per_class: false
search: {}
search_seeds: []
references: []
keep_weights: best
"""
SAMPLE = ["adapt=none", "compare=false", "finetune.seed=1", "task.sample_seed=1"]
"""The recipe of an arm, with the seed 1."""


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
    monkeypatch.setattr(chain, "attempt", trial_stub.attempt)


def test_a_study_trains_arms_on_the_same_rows_beside_the_references(
    with_study: Callable, rows: Callable, tiny_overrides: list[str], runs: Path, capsys: pytest.CaptureFixture
):
    small = ["study.labels=null", "study.references=[linear]", "study.keep_weights=none", "adapt.epochs=5"]
    assert main(["study", *with_study(STUDY, *small)]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert out.count("] adapt: ") == 1  # all seeds share it
    arms = ["TF-IDF + logistic regression", "frozen features + logistic regression", "fine-tuned", "adapted"]
    scored = rows()
    assert {row["arm"] for row in scored} == {*arms, "from scratch"}
    assert all(0 <= float(row["accuracy"]) <= 1 for row in scored)
    assert len(list(runs.glob("references-*"))) == 2
    assert len(list(runs.glob("features-*"))) == 1  # all samples of labels share the test rows
    assert len(list(runs.glob("finetune-*/predictions.parquet"))) == 6
    assert len(list(runs.glob("adapt-*"))) == 1

    # The weights were not kept; who wants them has the model made again, and it is the same.
    alone = [*(option for option in tiny_overrides if not option.startswith("adapt.")), *SAMPLE]
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
    assert "study: 5000 labels are left out: there are" in first
    assert "3 arms x 3 numbers of labels x 2 seeds: 18 runs; the rest takes about" in first
    assert "2 labels: accuracy" in first
    assert "over 2 seeds and the test rows" in first
    scored = rows()
    assert len(scored) == 3 * 3 * 2
    for ending, start in (("png", b"\x89PNG"), ("svg", b"<?xml")):
        assert (runs / "default-tiny" / f"figure.{ending}").read_bytes().startswith(start)
    links = {path.name for path in (runs / "default-tiny").iterdir() if path.is_symlink()}
    assert links >= {"fine-tuned-2-seed-0", "from-scratch-20-seed-1"}
    (kept,) = (path.parent.name for path in runs.glob("finetune-*/model.safetensors"))
    validation = {row["artefact"]: float(row["validation accuracy"]) for row in scored}
    assert validation[kept] == max(validation.values())

    made = {path: path.stat().st_mtime_ns for path in runs.rglob("metrics.json")}
    assert main(["study", *with_study(STUDY)]) == 0
    again = " ".join(capsys.readouterr().out.split())
    assert "all 18 runs are up to date" in again
    tables = "2 labels, 24 test rows"
    assert again.partition(tables)[2] == first.partition(tables)[2] != ""
    assert {path: path.stat().st_mtime_ns for path in runs.rglob("metrics.json")} == made

    shutil.rmtree(runs / scored[0]["artefact"])  # as if it had been stopped there
    assert main(["study", *with_study(STUDY)]) == 0
    assert "18 runs, 17 of them up to date" in " ".join(capsys.readouterr().out.split())
    assert [{**row, "seconds": ""} for row in rows()] == [{**row, "seconds": ""} for row in scored]


@pytest.mark.usefixtures("stubbed")
def test_weights_that_were_not_kept_are_missed_by_name_and_a_link_from_elsewhere_keeps_them(
    with_study: Callable, runs: Path, capsys: pytest.CaptureFixture
):
    overrides = with_study(STUDY, "study.labels=null", "study.keep_weights=none")
    assert main(["study", *overrides]) == 0
    assert not list(runs.glob("finetune-*/model.safetensors"))
    assert main(["runs", *overrides]) == 0
    assert "(scores)" in capsys.readouterr().out
    assert main(["clean-runs", *overrides]) == 0
    assert "finetune" not in capsys.readouterr().out
    alone = [*(option for option in overrides if not option.startswith("adapt.")), *SAMPLE]
    assert main(["evaluate", *alone]) == 2
    assert "a study did not keep its weights" in capsys.readouterr().err
    model = resolve(compose(alone)).artefact("finetune")
    shutil.rmtree(model.directory)
    assert trial_stub.attempt(compose(alone), "") is None
    model.link("mine", "finetune")
    assert main(["study", *overrides]) == 0
    assert (model.directory / "model.safetensors").exists()


@pytest.mark.usefixtures("stubbed")
def test_each_arm_takes_what_its_own_search_finds_best_on_the_validation_rows(
    with_study: Callable, rows: Callable, capsys: pytest.CaptureFixture
):
    search = "study.search={finetune.learning_rate: [1e-5, 1e-2], adapt.epochs: [1]}"
    overrides = with_study(STUDY, search, "study.search_seeds=[7, 8]", "study.labels=[20]")
    assert main(["study", *overrides]) == 0
    assert "3 arms x 2 seeds and a search: 18 runs" in " ".join(capsys.readouterr().out.split())
    tried = [study_report.read(trial) for trial in study_plan.plan(overrides).search()]
    for row in rows():
        scores: dict[str, list[float]] = {}
        for result in tried:
            if result.arm == row["arm"]:
                scores.setdefault(" ".join(result.searched), []).append(result.validation)
        assert np.mean(scores[row["searched"]]) == max(map(np.mean, scores.values()))
        assert "adapt.epochs" in row["searched"]
    assert main(["study", *overrides]) == 0
    assert "all 18 runs are up to date" in " ".join(capsys.readouterr().out.split())


@pytest.mark.usefixtures("stubbed")
def test_a_failed_trial_of_the_search_ends_the_study(with_study: Callable, capsys: pytest.CaptureFixture):
    search = ["study.search={finetune.weight_decay: [0, 0.07]}", "study.search_seeds=[7]", "study.labels=null"]
    assert main(["study", *with_study(STUDY, *search)]) == 2
    failed = "study.search: fine-tuned, finetune.weight_decay=0.07, seed 7 failed: the loss is nan"
    assert failed in capsys.readouterr().err


def test_a_study_that_failed_in_part_says_so_and_averages_nothing(
    with_study: Callable, rows: Callable, capsys: pytest.CaptureFixture
):
    adapted = "  adapted: []\n"
    scratch = "  from scratch: [model.init=scratch, pretrain=none, adapt=none]\n"
    text = STUDY.replace(adapted, "  too far: [adapt=none, finetune.weight_decay=1e30]\n").replace(scratch, "")
    assert main(["study", *with_study(text, "study.labels=null")]) == 2
    ended = capsys.readouterr()
    assert "2 of 4 runs failed; the same command tries them again" in ended.err
    assert "Failed: too far, seed 1: every weight: the loss is nan at step" in ended.out
    table = next(line for line in ended.out.splitlines() if "│ too far" in line)
    assert re.split(r"[│\s]+", table.strip("│ ")) == ["too", "far", "failed", "failed", "failed"]
    assert "'too far'" not in ended.out
    assert [row["error"] != "" for row in rows()] == [row["arm"] == "too far" for row in rows()]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("baseline: fine-tuned", "baseline: fine-tunde"), "the baseline 'fine-tunde' is no arm; did you mean"),
        (("adapted: []", "adapted: [adapt=none]"), "'adapted' and 'fine-tuned' are the same recipe"),
        (("adapted: []", "adapted: [adpat=none]"), "(?s)study.arms: adapted: .*adpat"),
        (("adapted: []", "adapted: [task.test_ratio=0.3]"), "are not scored on the same test rows"),
        (("seeds: [0, 1]", "seeds: [1, 1]"), "should be distinct"),
        (("search: {}", "search: {finetune.epochs: [1, 2]}"), "a search needs search_seeds"),
        (("labels: [2, 10, 20, 5000]", "labels: [1]"), "the task has rows for none of them"),
    ],
)
def test_a_wrong_study_is_answered_before_anything_is_trained(
    with_study: Callable, change: tuple[str, str], message: str, runs: Path
):
    with pytest.raises(UserError, match=message):
        study_plan.plan(with_study(STUDY.replace(*change)))
    assert not list(runs.glob("finetune-*"))


def test_the_estimate_counts_the_reference_models_that_are_missing(with_study: Callable):
    made = study_plan.plan(with_study(STUDY, "study.labels=[2]", "study.references=[linear]"))
    before = estimate.seconds(made, [], [])

    def fit(config: Config) -> None:
        resolved = resolve(config.model_copy(update={"compare": True, "adapt": None}))
        chain.make_here(resolved.stages["references"].steps(resolved, ["finetune"])[:1], "references")

    first, second = (made.at(made.base, sample) for sample in made.samples((0, 1)))
    fit(first)
    assert 0 < estimate.seconds(made, [], []) < before
    fit(second)
    assert estimate.seconds(made, [], []) == 0
    assert estimate.seconds(study_plan.plan(with_study(STUDY)), [], []) == 0


def test_a_plan_warns_of_one_seed_and_leaves_out_the_search_of_a_yaml(
    with_study: Callable, capsys: pytest.CaptureFixture
):
    text = STUDY.replace("search: {}", "search: {adapt.epochs: [1, 2]}").replace(
        "search_seeds: []", "search_seeds: [9]"
    )
    assert len(study_plan.plan(with_study(text)).combinations) == 2
    assert not study_plan.plan(with_study(text, "study.search=null", "study.seeds=[3]")).search()
    assert "one seed does not show how much seeds differ" in capsys.readouterr().out


def test_what_all_arms_have_in_common_comes_after_what_was_typed_and_before_their_own_options(with_study: Callable):
    text = STUDY.replace("adapted: []", "adapted: [adapt.seed=3]") + "common: [adapt.epochs=3, adapt.seed=2]"
    made = study_plan.plan(with_study(text, "adapt.epochs=4", "adapt.batch_size=5"))
    adapted, plain = made.arms["adapted", ()].adapt, made.arms["fine-tuned", ()].adapt
    assert (adapted.epochs, adapted.seed, adapted.batch_size) == (3, 3, 5)
    assert plain is None  # options of a stage that an arm switches off do not concern it
    assert (made.base.adapt.epochs, made.base.adapt.seed) == (3, 2)  # which the reference models are fitted with


def test_the_interval_over_seeds_holds_the_spread_of_seeds_and_of_rows():
    random = np.random.default_rng(0)
    rows = random.normal(0.1, 1, size=400)
    alike = np.tile(rows, (5, 1))
    low, high = over_seeds(alike, np.zeros_like(alike))
    assert (low, high) == pytest.approx(interval(rows), abs=0.01)  # seeds that do not differ add nothing
    shifts = np.array([-0.4, -0.2, 0.0, 0.2, 0.4])
    wide = over_seeds(alike + shifts[:, None], np.zeros_like(alike))
    expected = math.hypot((high - low) / 3.92, shifts.std(ddof=1) / math.sqrt(5)) * 3.92
    assert wide[1] - wide[0] == pytest.approx(expected, rel=0.1)


def test_labels_saved_are_read_off_the_baseline_curve():
    baseline = {10: 0.5, 100: 0.6, 1000: 0.8}
    found = {
        labels: (factor, bound) for labels, factor, bound in labels_saved({10: 0.6, 100: 0.7, 1000: 0.9}, baseline)
    }
    assert found[10] == (pytest.approx(10), "")
    assert found[100] == (pytest.approx(math.sqrt(10)), "")
    assert found[1000] == (1, "more than")
    assert list(labels_saved({100: 0.4}, baseline)) == [(100, 0.1, "less than")]
