"""Scores by group, and the names probe."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from samples import reviews

from ulmfit_style.__main__ import main
from ulmfit_style.analysis import probe, slices
from ulmfit_style.analysis.probe import SWAPS, exchanged
from ulmfit_style.artefacts.directory import METRICS
from ulmfit_style.data import reading
from ulmfit_style.errors import UserError
from ulmfit_style.results import scores
from ulmfit_style.tasks.base import Row
from ulmfit_style.tasks.text_classification import TextClassification

GENDER, ORIGIN = SWAPS.values()
TASK = TextClassification(path="-")


@pytest.fixture
def by_country(write_csv) -> Path:
    """Reviews of two countries and a few of a third."""
    countries = ["Norway", "Peru"] * 80 + [""] * 10
    rows = [(text, label, countries[number], number) for number, (text, label, _) in enumerate(reviews(170, seed=3))]
    return write_csv(rows, ("review", "stars", "country", "id"))


def test_each_group_is_scored_as_if_it_were_alone_and_the_widest_gap_is_told(capsys: pytest.CaptureFixture[str]):
    countries = ["Norway", "Peru"] * 80 + ["(none)"] * 10
    targets = ["good", "good", "bad", "bad"] * 42 + ["good"] * 2
    answers = [{"label": "good" if place % 8 == 2 else target} for place, target in enumerate(targets)]
    found = slices.measure(TASK, answers, targets, countries)
    assert {name: group["rows"] for name, group in found["groups"].items()} == {"(none)": 10, "Norway": 80, "Peru": 80}
    alone = [[side[place] for place in range(170) if countries[place] == "Norway"] for side in (answers, targets)]
    assert found["groups"]["Norway"] == TASK.measure(*alone)
    assert (found["gap"]["highest"], found["gap"]["lowest"]) == ("Peru", "Norway")
    assert found["gap"]["value"] == pytest.approx(0.25)

    table, small, gap = scores.slices("accuracy", {"country": found})
    assert [row[:3] for row in table.rows] == [("Norway", 80, 0.75), ("Peru", 80, 1.0)]
    assert small.text == "country: too few rows to judge, under 30: (none) (10)"
    assert gap.text == "country: the widest gap of 2 groups is 0.250 accuracy, from Norway to Peru"


def test_another_grouping_of_the_same_rows_is_scored_anew_and_the_model_is_probed(trained, by_country: Path, capsys):
    run = trained("text classification")
    command = ["evaluate", *run.overrides, f"evaluate.path={by_country}", "evaluate.slices=[country]"]
    assert main(command) == main(command) == 0
    assert "up to date" in capsys.readouterr().out
    by_country.write_text(by_country.read_text().replace("Peru", "Chile"))
    slices._read.cache_clear()  # a command reads a file once
    assert main([*command, "evaluate.probe=names"]) == 0
    metrics = json.loads((run.runs / "default/evaluate" / METRICS).read_text())
    assert {"(none)", "Chile"} < metrics["slices"]["country"]["groups"].keys()
    assert metrics["probe"].keys() == {"this one"}
    assert "the widest gap of 2 groups" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ("contry", "contry"),
        ("id", "the column 'id' has 170 values in 170 rows; the most is 100. Name a column of groups"),
    ],
)
def test_a_column_of_no_groups_is_refused(compose_tiny, by_country: Path, column: str, message: str):
    config = compose_tiny(f"evaluate.path={by_country}", f"evaluate.slices=[{column}]")
    with pytest.raises(UserError, match=message):
        slices.groups(config, list(reading.rows("evaluate.path", str(by_country), ["review"])))


@pytest.mark.parametrize(
    ("text", "words", "other"),
    [
        (
            "He said his film; I like her film. HER!",
            GENDER,
            "She said her film; I like his film. HIM!",
        ),
        ("Emily saw Brad and brad", GENDER, "Greg saw Allison and brad"),
        ("the women, the actor's boys", GENDER, "the men, the actress's girls"),
        ("hers is a heroine's theme", GENDER, "his is a heroine's theme"),
        ("Emily, Greg and Jamal in Kenya", ORIGIN, "Kenya, Jermaine and Geoffrey in Emily"),
    ],
)
def test_words_are_exchanged_whole_and_written_as_they_stood(text: str, words, other: str):
    assert exchanged(text, words) == other


def test_a_model_that_goes_by_the_sex_is_found_out():
    def ask(rows: Sequence[Row]) -> Iterator[dict]:
        """Call a film good when a woman made it."""
        return ({"label": "good" if "woman" in row.fields["text"] else "bad"} for row in rows)

    rows = [Row("a.csv", place, {"text": f"film {place} of a {'wo' * (place % 2)}man"}) for place in range(39)]
    rows.append(Row("a.csv", 39, {"text": "of nobody"}))
    measured = probe.measure(TASK, ask, rows)
    gender, origin = measured.values()
    assert (gender["rows"], gender["share"], len(gender["flipped"])) == (39, 1.0, 39)
    assert gender["interval"] == [pytest.approx(0.91, abs=0.01), 1.0]
    assert gender["flipped"][1] == {"row": "a.csv:1", "texts": ["film 1 of a man"], "before": "good", "after": "bad"}
    assert origin == {"rows": 0, "share": None, "interval": None, "flipped": []}
    (table,) = scores.probed({"this one": measured})
    assert [row[1:4] for row in table.rows] == [("this one", 39, 1.0), ("this one", 0, None)]
