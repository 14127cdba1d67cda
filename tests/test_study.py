import csv
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from samples import artefact

from ulmfit_style import chain, metrics
from ulmfit_style.__main__ import main
from ulmfit_style.artefacts.directory import read_json
from ulmfit_style.chain import FEWEST_POINTS
from ulmfit_style.cli.compose import compose
from ulmfit_style.errors import UserError
from ulmfit_style.experiments.study import results, trials
from ulmfit_style.experiments.study.estimate import Estimate
from ulmfit_style.experiments.study.results import labels_saved
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
references: [linear]
keep_weights: best
"""


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


def test_a_study_compares_arms_on_the_same_rows_and_its_second_call_only_tells(
    with_study: Callable, rows: Callable, tmp_path: Path, capsys: pytest.CaptureFixture
):
    overrides = with_study(STUDY, "adapt.epochs=5")
    assert main(["study", *overrides]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "study: 5000 labels are left out: there are" in told
    assert "3 arms x 3 numbers of labels x 2 seeds: 18 runs; the rest takes about" in told
    assert told.count("adapt: ") == 1  # all seeds and sizes share it
    assert "2 labels: accuracy" in told
    assert "over 2 seeds and the test rows" in told
    found = rows()
    arms = ["TF-IDF + logistic regression", "frozen features + logistic regression"]
    arms += ["fine-tuned", "adapted", "from scratch"]
    assert {row["arm"] for row in found} == set(arms)
    assert len(found) == 5 * 3 * 2
    assert all(0 <= float(row["accuracy"]) <= 1 for row in found)
    for ending, start in (("png", b"\x89PNG"), ("svg", b"<?xml")):
        assert (tmp_path / "runs" / "default-tiny" / f"figure.{ending}").read_bytes().startswith(start)
    runs = tmp_path / "runs"
    kept = [path.parent for path in runs.glob("finetune-*/model.safetensors")]
    assert len(kept) == 1
    validation = {row["artefact"]: float(row["validation accuracy"]) for row in found if row["artefact"]}
    assert validation[kept[0].name] == max(validation.values())
    assert len(list(runs.glob("finetune-*/predictions.parquet"))) == 18
    assert len(list(runs.glob("references-*"))) == 6
    assert len(list(runs.glob("features-*"))) == 1  # all samples of labels share the test rows

    (adapted,) = runs.glob("adapt-*")
    assert len(read_json(adapted / "metrics.json")["log"]) >= FEWEST_POINTS
    assert not list(runs.rglob("course.*"))

    made = {path: path.stat().st_mtime_ns for path in runs.rglob("metrics.json")}
    assert main(["study", *overrides]) == 0
    again = " ".join(capsys.readouterr().out.split())
    assert "all 18 runs are up to date" in again
    tables = "2 labels, 24 test rows"
    assert again.partition(tables)[2] == told.partition(tables)[2] != ""
    assert {path: path.stat().st_mtime_ns for path in runs.rglob("metrics.json")} == made


def test_a_stopped_study_makes_what_is_missing(with_study: Callable, rows: Callable, tmp_path: Path):
    overrides = with_study(STUDY, "study.labels=null", "study.references=[]")
    assert main(["study", *overrides]) == 0
    whole = rows()
    gone, *others = [row["artefact"] for row in whole]
    shutil.rmtree(tmp_path / "runs" / gone)
    made = [(tmp_path / "runs" / name / "metrics.json").stat().st_mtime_ns for name in others]
    assert main(["study", *overrides]) == 0
    assert [(tmp_path / "runs" / name / "metrics.json").stat().st_mtime_ns for name in others] == made
    assert [{**row, "seconds": ""} for row in rows()] == [{**row, "seconds": ""} for row in whole]


def test_weights_that_were_not_kept_are_made_again_for_who_wants_them(
    with_study: Callable, tmp_path: Path, capsys: pytest.CaptureFixture
):
    overrides = with_study(STUDY, "study.labels=null", "study.keep_weights=none", "study.references=[]")
    assert main(["study", *overrides]) == 0
    assert not list((tmp_path / "runs").glob("finetune-*/model.safetensors"))
    assert main(["runs", *overrides]) == 0
    assert "(scores)" in capsys.readouterr().out
    assert main(["clean-runs", *overrides]) == 0
    assert "finetune" not in capsys.readouterr().out
    mine = [text for text in overrides if not text.startswith("adapt.")]
    mine += ["adapt=none", "compare=false", "finetune.seed=1", "task.sample_seed=1"]
    assert main(["evaluate", *mine]) == 2
    assert "a study did not keep its weights" in capsys.readouterr().err
    directory = artefact("finetune", compose(mine)).directory
    before = read_json(directory / "metrics.json")["test"]
    assert main(["finetune", "evaluate", *mine]) == 0
    assert read_json(directory / "metrics.json")["test"] == before
    assert main(["study", *overrides]) == 0
    assert (directory / "model.safetensors").exists()  # another name than the study's links to it


def test_each_arm_takes_what_its_own_search_finds_best_on_the_validation_rows(
    with_study: Callable, rows: Callable, capsys: pytest.CaptureFixture
):
    search = "study.search={finetune.learning_rate: [1e-5, 1e-2], adapt.epochs: [1]}"
    small = [search, "study.search_seeds=[7, 8]", "study.labels=[20]", "study.references=[]"]
    assert main(["study", *with_study(STUDY, *small, "adapt.batch_size=8")]) == 0
    assert "3 arms x 2 seeds and a search: 18 runs" in " ".join(capsys.readouterr().out.split())
    made = trials.plan(with_study(STUDY, *small, "adapt.batch_size=8"))
    tried = [results.read(trial, None) for trial in made.searched()]
    for row in rows():
        scores: dict[str, list[float]] = {}
        for result in tried:
            if result.trial.arm == row["arm"]:
                scores.setdefault(" ".join(result.trial.point), []).append(result.validation)
        assert np.mean(scores[row["searched"]]) == max(map(np.mean, scores.values()))
        assert "adapt.epochs" in row["searched"]
    assert main(["study", *with_study(STUDY, *small, "adapt.batch_size=8")]) == 0
    assert "all 18 runs are up to date" in " ".join(capsys.readouterr().out.split())


def test_a_study_that_failed_in_part_says_so_and_averages_nothing(
    with_study: Callable, rows: Callable, capsys: pytest.CaptureFixture
):
    text = STUDY.replace("  adapted: []\n", "  too far: [adapt=none, finetune.weight_decay=1e30]\n")
    overrides = with_study(text, "study.labels=null", "study.references=[]")
    assert main(["study", *overrides]) == 2
    ended = capsys.readouterr()
    assert "2 of 6 runs failed; the same command tries them again" in ended.err
    assert "Failed: too far, seed 1: every weight: the loss is nan at step" in ended.out
    table = next(line for line in ended.out.splitlines() if "│ too far" in line)
    assert table.split() == ["│", "too", "far", "│", "failed", "│", "│", "failed", "failed", "│"]
    assert "'too far'" not in ended.out
    assert [row["error"] != "" for row in rows()] == [row["arm"] == "too far" for row in rows()]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("baseline: fine-tuned", "baseline: fine-tunde"), "the baseline 'fine-tunde' is no arm; did you mean"),
        (("adapted: []", "adapted: [adapt=none]"), "'adapted' and 'fine-tuned' are the same recipe"),
        (("adapted: []", "adapted: [adpat=none]"), "(?s)study.arms: adapted: .*adpat"),
        (("adapted: []", "adapted: [task.test_ratio=0.3]"), "are scored on other rows"),
        (("seeds: [0, 1]", "seeds: [1, 1]"), "should be distinct"),
        (("search: {}", "search: {finetune.epochs: [1, 2]}"), "a search needs search_seeds"),
        (("labels: [2, 10, 20, 5000]", "labels: [1]"), "the task has rows for none of them"),
    ],
)
def test_a_wrong_study_is_answered_before_anything_is_trained(
    with_study: Callable, change: tuple[str, str], message: str, tmp_path: Path
):
    with pytest.raises(UserError, match=message):
        trials.plan(with_study(STUDY.replace(*change)))
    assert not list((tmp_path / "runs").glob("finetune-*"))


def test_the_estimate_counts_the_reference_models_that_are_not_there(with_study: Callable):
    made = trials.plan(with_study(STUDY, "study.labels=[2, 10]"))
    samples = [made.at(made.base, labels, seed) for labels in (2, 10) for seed in (0, 1)]
    before = Estimate(made).seconds([])

    def fit(config: Config) -> None:
        resolved = resolve(config.model_copy(update={"compare": True, "adapt": None}))
        chain.make_here(resolved.stages["references"].steps(resolved, ["finetune"]), "references")

    for config in samples[:-1]:
        fit(config)
    assert 0 < Estimate(made).seconds([]) < before / 2
    fit(samples[-1])
    assert Estimate(made).seconds([]) == 0
    assert Estimate(trials.plan(with_study(STUDY, "study.references=[]"))).seconds([]) == 0


def test_one_seed_is_warned_of(with_study: Callable, capsys: pytest.CaptureFixture):
    trials.plan(with_study(STUDY, "study.seeds=[3]"))
    assert "one seed tells nothing of the spread" in capsys.readouterr().out


def test_the_search_of_a_yaml_can_be_left_out(with_study: Callable):
    searching = STUDY.replace("search: {}", "search: {adapt.epochs: [1, 2]}")
    text = searching.replace("search_seeds: []", "search_seeds: [9]")
    assert len(trials.plan(with_study(text)).points) == 2
    assert not trials.plan(with_study(text, "study.search=null")).searched()


def test_options_of_a_stage_that_an_arm_switches_off_do_not_concern_it(with_study: Callable):
    made = trials.plan(with_study(STUDY, "adapt.epochs=3"))
    assert made.variants["fine-tuned", ()].adapt is None
    assert made.variants["adapted", ()].adapt.epochs == 3


def test_what_all_arms_have_in_common_comes_after_what_was_typed_and_before_their_own_options(with_study: Callable):
    text = STUDY.replace("adapted: []", "adapted: [adapt.seed=3]") + "common: [adapt.epochs=3, adapt.seed=2]"
    made = trials.plan(with_study(text, "adapt.epochs=4", "adapt.batch_size=5"))
    adapted, plain = made.variants["adapted", ()].adapt, made.variants["fine-tuned", ()].adapt
    assert (adapted.epochs, adapted.seed, adapted.batch_size) == (3, 3, 5)
    assert plain is None
    assert (made.base.adapt.epochs, made.base.adapt.seed) == (3, 2)  # which the reference models are fitted with


def test_the_interval_over_seeds_holds_the_spread_of_seeds_and_of_rows():
    random = np.random.default_rng(0)
    rows = random.normal(0.1, 1, size=400)
    alike = np.tile(rows, (5, 1))
    low, high = metrics.over_seeds(alike, np.zeros_like(alike))
    assert (low, high) == pytest.approx(metrics.interval(rows), abs=0.01)  # seeds that do not differ add nothing
    shifts = np.array([-0.4, -0.2, 0.0, 0.2, 0.4])
    wide = metrics.over_seeds(alike + shifts[:, None], np.zeros_like(alike))
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
