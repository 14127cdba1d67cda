"""The page on a finished run, and on several side by side."""

import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from recipes import Trained
from samples import reseal

from ulmfit_style.__main__ import main
from ulmfit_style.artefacts import predictions
from ulmfit_style.artefacts.directory import METRICS, RECIPE, read_json
from ulmfit_style.errors import UserError
from ulmfit_style.metrics import intervals, selective
from ulmfit_style.publishing import html_report
from ulmfit_style.results import finished
from ulmfit_style.results.parts import Figure, Prose, Table

KINDS = {
    "text classification": ["Confusion", "Calibration"],
    "several labels": ["Calibration"],
    "numbers": [],
    "entities": ["Calibration"],
    "questions": ["Calibration"],
    "summaries": [],
    "translations": [],
    "completions": [],
}
"""Titles on the page of each kind of task that not all have."""


def headings(page: str) -> list[str]:
    return re.findall("<h2>(.*)</h2>", page)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_task_has_its_page(kind: str, trained: Callable[[str], Trained]):
    page = html_report.page(finished.read(trained(kind).directory, "default"))
    sections = {title for title, parts in page.sections.items() if parts}
    assert {"Scores", "Errors", "Training", "How it was made"} <= sections
    titles = {part.title for parts in page.sections.values() for part in parts if isinstance(part, Figure | Table)}
    assert set(KINDS[kind]) <= sections | titles


@pytest.mark.parametrize("kind", KINDS)
def test_every_score_that_a_sweep_can_rank_by_is_measured_with_an_interval(
    kind: str, trained: Callable[[str], Trained]
):
    task, validation = trained(kind).task, trained(kind).metrics["validation"]
    assert {task.metric, *task.rankings} <= set(validation["scores"]) & set(validation["intervals"])


# A whole chain, and several side by side


def test_the_page_of_a_chain_tells_its_lineage_and_what_adaptation_was_worth(
    chain: Trained, capsys: pytest.CaptureFixture[str]
):
    assert main(["report", *chain.overrides]) == 0
    output = chain.runs / "default/report.html"
    assert f"report: {output}" in capsys.readouterr().out
    page = output.read_text(encoding="utf-8")
    assert headings(page) == [
        *("Scores", "What to do next", "Which answers are wrong", "Calibration", "Errors", "Data", "Groups of rows"),
        *("Language model", "Training", "How it was made"),
    ]
    assert "Adaptation changed accuracy by" in page
    assert "texts with another label elsewhere: 1" in page
    assert re.search(r"TF-IDF \+ logistic regression</td>", page)
    for stage in ("adapt", "finetune"):
        manifest = read_json(chain.runs / "default" / stage / "manifest.json")
        assert re.search(rf"<td[^>]*>{manifest['fingerprint']}</td>", page)
    for entry in read_json(chain.runs / "default/adapt" / METRICS)["heldout"]:
        assert f"{entry['general_loss']:,.3f}</td>" in page
    assert "country: the widest gap" in page or "country: too few rows" in page
    figures = {path.stem for path in output.with_suffix("").iterdir()}
    curves = {f"{curve}-{stage}" for curve in ("loss", "learning_rate") for stage in ("adapt", "finetune")}
    assert figures == {"confusion", "coverage", *curves}
    assert page.count("<img") == len(figures)


def test_without_a_task_the_page_is_about_the_language_model(chain: Trained):
    page = html_report.page(finished.named(chain.runs, str(chain.runs / "default/adapt")))
    assert [title for title, parts in page.sections.items() if parts] == [
        *("Language model", "Training", "How it was made")
    ]
    assert page.lead.endswith("in nats per masked token on held-out text.")


def test_two_runs_side_by_side_are_paired_on_the_same_rows(chain: Trained):
    assert main(["report", f"runs={chain.runs}", "report.runs=[default,second]"]) == 0
    page = (chain.runs / "default/report-default-second.html").read_text(encoding="utf-8")
    assert headings(page) == ["Scores", "What they differ in"]
    answers = [predictions.read(chain.runs / name / "finetune", "test") for name in ("second", "default")]
    points = [[[float(row["label"] == row["target"]) for row in rows]] for rows in answers]
    gain, low, high = (f"{100 * x:+.1f}" for x in intervals.difference(*points, intervals.combined))
    cells = re.search(r"<td[^>]*>second less default</td>\s*<td[^>]*>(.*?)</td>", page)
    assert cells is not None
    assert cells[1] == f"{gain} ({low} to {high})"
    assert re.findall(r"<td[^>]*>second</td>\s*<td[^>]*>(.*)</td>", page) == ["finetune.seed=1 instead of 0"]


# What the page shows of texts, and advises


def test_confusions_have_an_example_and_entities_are_marked_in_the_text(trained: Callable[[str], Trained]):
    sections = html_report.page(finished.read(trained("text classification").directory, "default")).sections
    (table,) = (part for part in sections["Which answers are wrong"] if isinstance(part, Table))
    shown = {row[0]: tuple(row[1:3]) for part in sections["Errors"] if isinstance(part, Table) for row in part.rows}
    assert [(right, answered) == shown[text] for right, answered, _, text in table.rows] == [True] * len(table.rows)

    entities = trained("entities")
    run = finished.read(entities.directory, "default")
    answers = predictions.read(entities.directory, "test")
    rows = html_report.test_rows(run, entities.task)
    answered = [(answer, rows[answer["file"], answer["row"]]) for answer in answers]
    *_, table = html_report._errors(entities.task, answered, [1.0] * len(answers))
    assert isinstance(table, Table)
    assert list(table.header) == ["right", "answered", "confidence", "file", "row"]
    places = [(row[3], row[4]) for row in table.rows]
    answer, row = answered[[(answer["file"], answer["row"]) for answer in answers].index(places[0])]
    for cell, spans in zip(table.rows[0], entities.task.spans(row, answer), strict=False):
        marks = re.findall("<mark>(.*?) <small>(.*?)</small></mark>", cell)
        assert marks == [(entities.task.texts(row)[0][start:end], name) for start, end, name in sorted(spans)]
        assert re.sub(" <small>.*?</small>|<.*?>", "", cell) == entities.task.texts(row)[0]


def test_runs_of_several_numbers_of_labels_make_a_curve(trained: Callable[[str], Trained], tmp_path: Path):
    run = finished.read(trained("text classification").directory, "default")
    metrics = {**run.model.metrics, "train": {**run.model.metrics["train"], "rows": 10}}
    few = replace(run, name="few", model=replace(run.model, metrics=metrics))
    assert list(html_report._learning_curve("accuracy", [run, run])) == []
    (figure,) = html_report._learning_curve("accuracy", [few, run])
    assert isinstance(figure, Figure)
    assert figure.title.endswith("few, default")
    figure.draw(tmp_path / "labels")
    assert "labelled training rows" in (tmp_path / "labels.svg").read_text()


def test_what_to_do_next_follows_from_what_the_page_shows(chain: Trained):
    run = finished.read(chain.directory, "default")
    report = [{"class": name, "recall": recall, "rows": 40} for name, recall in (("rare", 0.2), ("a", 0.9), ("b", 0.9))]
    model = replace(run.model, metrics={**run.model.metrics, "test": {**run.model.metrics["test"], "report": report}})
    scores = [{"a": 0.95, "b": 0.05}, {"a": 0.9, "b": 0.1}, {"a": 0.1, "b": 0.9}, {"a": 0.95, "b": 0.05}]
    answers = [
        {"file": "rows.csv", "row": number, "target": target, "scores": of_row}
        for number, (target, of_row) in enumerate(zip("aabb", scores, strict=True))
    ]
    said = [part.text for part in html_report._next(replace(run, model=model), answers)]
    assert "their recall: rare (0.200)." in said[0]
    assert "the 1 rows whose labels look wrong to this model, listed under Data: rows.csv:3." in said[1]
    losses = [{"loss": loss} for loss in (4, 3, 2, 1)]
    adapted = replace(run.stage("adapt"), metrics={"log": losses})
    run.__dict__["chain"] = [adapted, run.model]
    *_, last = html_report._next(run, [])
    assert last.text == "Adapt longer (adapt.epochs): its loss fell from 2.000 to 1.000 in the last quarters."


# What is not there, and what is refused


@pytest.fixture
def copied(trained: Callable[[str], Trained], tmp_path: Path) -> Path:
    """A folder of artefacts that may be changed."""
    shutil.copytree(trained("text classification").runs, tmp_path / "runs", symlinks=True)
    return tmp_path / "runs"


def test_models_of_other_rows_are_not_compared(copied: Path):
    run = finished.named(copied, "default")
    other = replace(run.model, directory=shutil.copytree(run.model.directory, copied / "other"))
    assert run.difference(other) == (0, 0, 0)
    answers = predictions.read(other.directory, "test")
    for change, common in (({"row": 0}, len(answers) - 1), ({"target": "other"}, 0), ({"file": "other.csv"}, 0)):
        changed = answers[:1] if common else answers
        predictions.write(other.directory, [*({**answer, **change} for answer in changed), *answers[len(changed) :]])
        reseal(other.directory)
        assert len(predictions.in_common(run.model.directory, other.directory)) == common
        assert (run.difference(other) is None) is (common == 0)


@pytest.mark.parametrize("is_there", [True, False])
def test_where_the_rows_have_changed_their_texts_are_not_shown(copied: Path, tmp_path: Path, is_there: bool):
    recipe, other = copied / "default/finetune" / RECIPE, tmp_path / "rows.csv"
    if is_there:
        other.write_text("review,stars\n" + "".join(f"a film {n},{'good' if n % 2 else 'bad'}\n" for n in range(50)))
    recipe.write_text(re.sub(r"path: .*rows\.csv", f"path: {other}", recipe.read_text()))
    reseal(recipe.parent)
    remark, _, table = html_report.page(finished.named(copied, "default")).sections["Errors"]
    assert isinstance(remark, Prose)
    assert "The labelled rows are gone or have changed since this run" in remark.text
    assert isinstance(table, Table)
    assert list(table.header) == ["right", "answered", "confidence", "file", "row"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("defalt", "defalt: there is no finished run of that name .*; did you mean 'default'?.*make runs lists"),
        ("begun", "begun: there is no finished run"),
    ],
)
def test_a_run_that_is_not_there_is_named(copied: Path, name: str, message: str):
    (copied / "begun/finetune").mkdir(parents=True)
    (copied / "begun/finetune" / RECIPE).touch()
    with pytest.raises(UserError, match=message):
        finished.named(copied, name)


def test_a_run_of_another_version_beside_it_is_passed_over_and_told(copied: Path, capsys: pytest.CaptureFixture[str]):
    old = shutil.copytree((copied / "default/finetune").resolve(), copied / "finetune-01d")
    (old / RECIPE).write_text((old / RECIPE).read_text() + "gone: 1\n")
    reseal(old)
    (copied / "old").mkdir()
    (copied / "old/finetune").symlink_to("../finetune-01d")
    assert [run.name for run in finished.named(copied, "default").by_labels] == ["default"]
    assert f"{copied}/old/finetune is passed over: " in capsys.readouterr().out


def test_runs_of_different_kinds_are_not_compared(trained: Callable[[str], Trained]):
    runs = [finished.read(trained(kind).directory, kind) for kind in ("numbers", "text classification")]
    with pytest.raises(UserError, match="numbers is TextRegression, text classification is TextClassification: scores"):
        html_report.side_by_side(runs)


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (["report", "finetune.epochs=7"], r"report: there is no .*finetune.epochs=10 instead of 7\); run `finetune`"),
    ],
)
def test_what_cannot_be_reported_on_is_said_before_training(
    finetuned: list[str], capsys: pytest.CaptureFixture[str], typed: list[str], message: str
):
    stages = [word for word in typed if "=" not in word]
    assert main([*stages, *finetuned, *(word for word in typed if "=" in word)]) == 2
    assert re.search(message, capsys.readouterr().err)


def test_where_nothing_is_trained_there_is_nothing_to_report_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["report", "task=none", "adapt=none", f"runs={tmp_path}"]) == 2
    assert "task=none: there is nothing to fine-tune on; choose a task" in capsys.readouterr().err


def test_calibration_is_the_mean_gap_between_confidence_and_accuracy():
    pairs = [(0.95, True), (0.91, True), (0.93, False), (1.0, True), (0.55, True), (0.55, False)]
    low, high = selective.bins(pairs)
    assert (low.claims, low.confidence, low.right) == (2, pytest.approx(0.55), 0.5)
    assert (high.claims, high.confidence, high.right) == (4, pytest.approx(0.9475), 0.75)
    assert selective.expected_error([low, high]) == pytest.approx((2 * 0.05 + 4 * 0.1975) / 6)
