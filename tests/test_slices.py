"""Scores by group, and the names probe."""

import csv
import json
import random
from pathlib import Path

import numpy as np
import pytest
from samples import BAD, GOOD, reviews
from scipy.stats import permutation_test

from ulmfit_style import load
from ulmfit_style.__main__ import main
from ulmfit_style.analysis import slices
from ulmfit_style.analysis.probe import SWAPS, exchanged
from ulmfit_style.artefacts.directory import METRICS
from ulmfit_style.metrics import by_chance, gap

GENDER, ORIGIN = SWAPS.values()


def write(path: Path, header: tuple[str, ...], rows: list[tuple[object, ...]]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def metrics(overrides: list[str]) -> dict:
    runs = next(override for override in overrides if override.startswith("runs=")).partition("=")[2]
    return json.loads((Path(runs) / "default/evaluate" / METRICS).read_text())


@pytest.fixture
def by_country(tmp_path: Path) -> Path:
    """Reviews of two countries and a few of a third; those of Norway are labelled wrongly one time in two."""
    rows = []
    for number, (text, label, _) in enumerate(reviews(170, seed=3)):
        country = "" if number >= 160 else ("Norway", "Peru")[number % 4 // 2]
        wrong = country == "Norway" and number % 8 in (0, 1)
        rows.append((text, {"good": "bad", "bad": "good"}[label] if wrong else label, country, number))
    return write(tmp_path / "new.csv", ("review", "stars", "country", "id"), rows)


def test_each_group_is_scored_as_if_it_were_alone_and_the_widest_gap_is_told(
    finetuned: list[str], by_country: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert main(["evaluate", *finetuned, f"evaluate.path={by_country}", "evaluate.slices=[country]"]) == 0
    found = metrics(finetuned)["slices"]["country"]
    assert {name: one["rows"] for name, one in found["groups"].items()} == {"(none)": 10, "Norway": 80, "Peru": 80}
    printed = " ".join(capsys.readouterr().out.split())
    assert "country: too few rows to judge, under 30: (none) (10)" in printed
    high, low = (found["groups"][name]["scores"]["accuracy"] for name in ("Peru", "Norway"))
    assert high - low > 0.2
    assert (found["gap"]["highest"], found["gap"]["lowest"]) == ("Peru", "Norway")
    assert found["gap"]["value"] == pytest.approx(high - low)
    assert found["gap"]["chance"] < 0.01
    assert f"the widest gap of 2 groups is {high - low:.3f} accuracy" in printed
    assert "groups of these sizes lie so far apart in 0." in printed

    lines = list(csv.reader(by_country.read_text(encoding="utf-8").splitlines()))
    alone = write(tmp_path / "peru.csv", tuple(lines[0]), [tuple(line) for line in lines if line[2] == "Peru"])
    assert main(["evaluate", *finetuned, f"evaluate.path={alone}"]) == 0
    assert metrics(finetuned)["all"] == found["groups"]["Peru"]


def test_another_grouping_of_the_same_rows_is_scored_anew(finetuned: list[str], by_country: Path, capsys):
    command = ["evaluate", *finetuned, f"evaluate.path={by_country}", "evaluate.slices=[country]"]
    assert main(command) == main(command) == 0
    assert "up to date" in capsys.readouterr().out
    by_country.write_text(by_country.read_text().replace("Peru", "Chile"))
    slices._read.cache_clear()  # a command reads a file once
    assert main(command) == 0
    assert "Chile" in metrics(finetuned)["slices"]["country"]["groups"]


@pytest.mark.parametrize(
    ("column", "message"),
    [("contry", "contry"), ("id", "the column 'id' has 170 values in 170 rows, and 100 are the most; give one of")],
)
def test_a_column_of_no_groups_is_refused(finetuned: list[str], by_country: Path, column: str, message: str, capsys):
    assert main(["evaluate", *finetuned, f"evaluate.path={by_country}", f"evaluate.slices=[{column}]"]) == 2
    assert message in " ".join(capsys.readouterr().err.split())


def test_the_gap_has_the_interval_of_two_independent_means():
    random = np.random.default_rng(0)
    ours, theirs = random.normal(1, 1, 400).tolist(), random.normal(0, 1, 400).tolist()
    value, low, high = gap(ours, theirs)
    width = 1.96 * np.sqrt((np.var(ours) + np.var(theirs)) / 400)
    assert (value - low, high - value) == (pytest.approx(width, rel=0.1), pytest.approx(width, rel=0.1))


def test_chance_makes_a_gap_as_wide_as_a_permutation_test_says():
    random = np.random.default_rng(1)
    points = [*random.normal(0.4, 1, 60), *random.normal(0, 1, 40)]
    names = ["a"] * 60 + ["b"] * 40
    wide = float(np.mean(points[:60]) - np.mean(points[60:]))
    theirs = permutation_test(
        (points[:60], points[60:]), lambda a, b: abs(np.mean(a) - np.mean(b)), alternative="greater", rng=0
    )
    assert by_chance(points, names, abs(wide)) == pytest.approx(theirs.pvalue, abs=0.02)


@pytest.mark.parametrize(
    ("text", "other"),
    [
        ("He said his film; I like her, and her film. HER!", "She said her film; I like him, and his film. HIM!"),
        ("Emily saw Brad and brad", "Greg saw Allison and brad"),
        ("the women, the actor's boys", "the men, the actress's girls"),
        ("hers is a heroine's theme", "his is a heroine's theme"),
    ],
)
def test_words_are_exchanged_whole_and_written_as_they_stood(text: str, other: str):
    assert exchanged(text, GENDER) == other


def test_names_are_exchanged_for_names_of_the_same_sex():
    assert (
        exchanged("Emily, Greg, Jamal and Aisha in Kenya", ORIGIN) == "Kenya, Jermaine, Geoffrey and Allison in Emily"
    )
    assert exchanged(exchanged("Emily and Tyrone", ORIGIN), ORIGIN) == "Emily and Tyrone"


@pytest.fixture(scope="module")
def partial(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path) -> list[str]:
    """A recipe that has learnt to call a film good when a woman made it."""
    chance, folder = random.Random(0), tmp_path_factory.mktemp("partial")
    rows = [
        (f"the film number {number} of {('man', 'woman')[number % 2]} is {chance.choice(GOOD + BAD)}", number % 2)
        for number in range(200)
    ]
    write(folder / "rows.csv", ("review", "label"), rows)
    overrides = [
        *("task=text_classification", f"task.path={folder / 'rows.csv'}", f"model.checkpoint={checkpoint}"),
        *("model.sha256=null", f"runs={folder / 'runs'}", "adapt=none", "compare=false", "finetune.epochs=10"),
        *("finetune.learning_rate=1e-2", "finetune.max_length=32"),
    ]
    assert main(["finetune", *overrides]) == 0
    return overrides


def test_a_model_that_goes_by_the_sex_is_found_out(partial: list[str], capsys: pytest.CaptureFixture[str]):
    assert main(["evaluate", *partial, "evaluate.probe=names"]) == 0
    found = metrics(partial)["probe"]["this one"]
    gender, origin = found.values()
    assert gender["rows"] == metrics(partial)["test"]["rows"]
    assert gender["share"] > 0.9
    assert gender["share"] == len(gender["flipped"]) / gender["rows"]
    assert origin == {"rows": 0, "share": None, "interval": None, "flipped": []}
    printed = " ".join(capsys.readouterr().out.split())
    assert f"{gender['share']:.3f}" in printed
    assert "No row holds white and black Americans' names" in printed
    one = gender["flipped"][0]
    runs = next(override for override in partial if override.startswith("runs=")).partition("=")[2]
    assert load(f"{runs}/default/finetune")(one["texts"][0])["label"] == one["after"]


def test_the_model_that_was_not_adapted_is_probed_beside_the_other_or_is_asked_for(
    tiny_overrides: list[str], capsys: pytest.CaptureFixture[str]
):
    adapted = [*tiny_overrides, "adapt.general=null", "compare=true", "evaluate.probe=names"]
    assert main(["adapt", "finetune", *adapted, "compare=false"]) == 0
    assert main(["evaluate", *adapted]) == 2
    told = " ".join(capsys.readouterr().err.split())
    assert "evaluate.probe: there is no model without adaptation to be probed too" in told
    assert "run `finetune` with compare=true, or take compare=false" in told
    assert main(["finetune", "evaluate", *adapted]) == 0
    assert metrics(adapted)["probe"].keys() == {"this one", "not adapted"}


def test_a_model_that_answers_no_labels_is_not_probed(
    finetuned: list[str], by_country: Path, capsys: pytest.CaptureFixture[str]
):
    numbers = ["task=text_regression", f"task.path={by_country}", "task.label=id", "evaluate.probe=names"]
    assert main(["finetune", "evaluate", *finetuned, *numbers]) == 2
    assert "evaluate.probe=names: counts labels that change, and TextRegression answers none" in capsys.readouterr().err
