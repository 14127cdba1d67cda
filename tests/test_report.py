"""The page on a finished run, and on several side by side."""

import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from recipes import Trained

from ulmfit_style.__main__ import main
from ulmfit_style.artefacts import predictions
from ulmfit_style.artefacts.directory import METRICS, RECIPE, read_json
from ulmfit_style.metrics import calibration, intervals

KINDS = {
    "text classification": ["Confusion", "Expected calibration error", "Most confident errors"],
    "several labels": ["Expected calibration error"],
    "numbers": ["Answered beside right numbers", "Worst answers"],
    "entities": ["Expected calibration error"],
    "questions": [],
    "summaries": [],
    "translations": [],
    "completions": [],
}
"""What the page of each kind of task has that not all have."""


def headings(page: str) -> list[str]:
    return re.findall("<h2>(.*)</h2>", page)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_task_has_its_page_and_figures(
    kind: str, trained: Callable[[str], Trained], tmp_path: Path, capsys: pytest.CaptureFixture
):
    output = tmp_path / "page.html"
    assert main(["report", *trained(kind).overrides, f"report.output={output}"]) == 0
    assert f"report: {output}" in capsys.readouterr().out
    page = output.read_text(encoding="utf-8")
    assert headings(page)[0] == "Scores"
    assert {"Training", "Data", "How it was made"} <= set(headings(page))
    assert "Language model" not in headings(page)
    assert not re.search(r"</h2>\s*</section>", page)
    for words in KINDS[kind]:
        assert words in page
    figures = {path.name for path in (tmp_path / "page").iterdir()}
    assert {"course-finetune.png", "course-finetune.svg"} <= figures
    assert page.count("<img") == len(figures) / 2


@pytest.mark.parametrize("kind", KINDS)
def test_every_score_that_a_sweep_can_rank_by_is_measured_with_an_interval(
    kind: str, trained: Callable[[str], Trained]
):
    task, validation = trained(kind).task, trained(kind).metrics["validation"]
    assert {task.metric, *task.rankings} <= set(validation["scores"]) & set(validation["intervals"])


# A whole chain, and several side by side


def test_the_page_of_a_chain_tells_its_lineage_and_what_adaptation_was_worth(chain: Trained):
    assert main(["report", *chain.overrides]) == 0
    page, runs = (chain.runs / "default/report.html").read_text(encoding="utf-8"), chain.runs
    assert headings(page) == [
        *("Scores", "Which answers are wrong", "Calibration", "Most confident errors", "Groups of rows"),
        *("Language model", "Training", "Data", "How it was made"),
    ]
    assert "difference made by adaptation" in page
    assert "Adaptation changed accuracy by" in page
    assert "TF-IDF + logistic regression" in (runs / "default/report/scores.svg").read_text()
    for stage in ("adapt", "finetune"):
        manifest = read_json(runs / "default" / stage / "manifest.json")
        assert f"<td>{manifest['fingerprint']}</td>" in page
    for entry in read_json(runs / "default/adapt" / METRICS)["heldout"]:
        assert f"{entry['general_loss']:,.3f}</td>" in page
    assert "Forgetting: the loss on general text changed by" in page
    assert "By country" in page
    assert "Training texts with several right answers (" in page
    assert "more training rows are not used" in page
    assert "<td>not adapted</td>" in page  # among the time spent
    course = (runs / "default/report/course-finetune.svg").read_text()
    for words in ("last 1 of 4 layer groups", "every weight", "layer 2", "embeddings"):
        assert f"<!-- {words} -->" in course


def test_without_a_task_the_page_is_about_the_language_model(chain: Trained, tmp_path: Path):
    adapted, output = (chain.runs / "default/adapt").resolve(), tmp_path / "page.html"
    assert main(["report", *chain.overrides, f"report.runs={adapted}", f"report.output={output}"]) == 0
    page = output.read_text(encoding="utf-8")
    assert headings(page) == ["Language model", "Training", "How it was made"]
    assert "nats per masked token on held-out text" in page


def test_two_runs_side_by_side_are_paired_on_the_same_rows(chain: Trained):
    assert main(["report", f"runs={chain.runs}", "report.runs=[default,second]"]) == 0
    page = (chain.runs / "default/side-by-side.html").read_text(encoding="utf-8")
    assert headings(page) == ["Runs", "Scores", "Differences", "What they differ in", "Training"]
    answers = [predictions.read(chain.runs / name / "finetune", "test") for name in ("second", "default")]
    points = [[float(row["label"] == row["target"]) for row in rows] for rows in answers]
    gain, low, high = (f"{100 * x:+.1f}" for x in intervals.difference(*points))
    cells = re.search(r"<td>second less default</td>\s*<td[^>]*>(.*?)</td>", page)
    assert cells is not None
    assert cells[1] == f"{gain} ({low} to {high})"
    options = re.findall(r"<td>([a-z_.]+)</td>\s*<td>(.*)</td>\s*<td>(.*)</td>\s*</tr>", page)
    assert {option for option, *_ in options} == {"compare", "finetune.seed"}
    # The adapted model is the same.
    figures = {path.name for path in (chain.runs / "default/side-by-side").glob("*.svg")}
    assert figures == {"scores.svg", "course-finetune.svg"}


def test_what_wrong_answers_rest_on_is_explained_when_asked_for(chain: Trained, tmp_path: Path):
    assert main(["report", *chain.overrides, "report.explain=2", f"report.output={tmp_path / 'explained.html'}"]) == 0
    page = (tmp_path / "explained.html").read_text(encoding="utf-8")
    assert "What the errors rest on" in headings(page)
    assert '<span style="background:rgba(' in page
    assert (tmp_path / "explained/scores.png").exists()


def test_a_report_needs_no_torch(chain: Trained, tmp_path: Path):
    code = "import sys; from ulmfit_style.__main__ import main; code = main(sys.argv[1:]); "
    code += "sys.exit(code or ('torch' in sys.modules) * 9)"
    options = ["report.runs=second", f"report.output={tmp_path / 'page.html'}"]
    command = [sys.executable, "-c", code, "report", *chain.overrides, *options]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr


# What is not there, and what is refused


def copied(overrides: Sequence[str], folder: Path) -> Path:
    runs = next(option.removeprefix("runs=") for option in overrides if option.startswith("runs="))
    shutil.copytree(runs, folder / "runs", symlinks=True)
    return folder / "runs"


def test_without_predictions_the_page_says_so_and_tells_the_rest(finetuned: list[str], tmp_path: Path):
    runs = copied(finetuned, tmp_path)
    (runs / "default/finetune" / predictions.FILE).unlink()
    assert main(["report", f"runs={runs}", "report.runs=default"]) == 0
    page = (runs / "default/report.html").read_text(encoding="utf-8")
    assert "The predictions are gone" in page
    assert headings(page) == ["Scores", "Training", "How it was made"]


@pytest.mark.parametrize(
    ("change", "words"), [("other", "have changed since this run"), ("none", "cannot be read any")]
)
def test_where_the_rows_have_changed_their_texts_are_not_shown(
    finetuned: list[str], tmp_path: Path, change: str, words: str
):
    runs = copied(finetuned, tmp_path)
    recipe, other = runs / "default/finetune" / RECIPE, tmp_path / "rows.csv"
    if change == "other":
        other.write_text("review,stars\n" + "".join(f"a film {n},{'good' if n % 2 else 'bad'}\n" for n in range(50)))
    path = re.search(r"path: (.*rows\.csv)", recipe.read_text())
    assert path is not None
    recipe.write_text(recipe.read_text().replace(path[1], str(other)))
    assert main(["report", f"runs={runs}", "report.runs=default"]) == 0
    page = (runs / "default/report.html").read_text(encoding="utf-8")
    assert f"The labelled rows {words}" in page
    assert "Most confident errors" in headings(page)
    assert "number 3" not in page


@pytest.fixture(scope="module")
def runs(finetuned: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Artefacts of which some are begun, empty or of another kind."""
    runs = copied(finetuned, tmp_path_factory.mktemp("copied"))
    (runs / "empty").mkdir()
    (runs / "begun/finetune").mkdir(parents=True)
    (runs / "begun/finetune" / RECIPE).touch()
    for name in ("asked", "second"):
        shutil.copytree(runs / "default/finetune", runs / name / "finetune")
    scores = runs / "asked/finetune" / METRICS
    scores.write_text(scores.read_text().replace("TextClassification", "QuestionAnswering"))
    return runs


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["report.runs=defalt"], "report.runs=defalt: there is no such run in .*; did you mean 'default'?.*make adapt"),
        (["report.runs=[default,default]"], "report.runs: names a run twice"),
        (["report.output=page.pdf"], "report.output=page.pdf: must end in .html"),
        (["report.output=nowhere/page.html"], "report.output=nowhere/page.html: there is no folder nowhere"),
        (
            ["finetune.epochs=7"],
            r"report: there is no finished model .*finetune.epochs=10 there, 7 here\).*report.runs=<",
        ),
        (["report.runs=[default,begun]"], "report.runs=begun: .*begun/finetune was begun, but not finished; run the c"),
        (
            ["report.runs=empty"],
            "report.runs=empty: .*empty holds no finished model; make it: make adapt finetune name",
        ),
        (["report.runs=[default,asked]"], "default is TextClassification, and asked QuestionAnswering: scores of two"),
        (["report.runs=[default,second]", "report.explain=1"], "report.explain: is for the page on one run"),
        (["task=none"], "task=none adapt=none: nothing is trained that could be reported on"),
    ],
)
def test_what_cannot_be_reported_on_is_said(
    finetuned: list[str], runs: Path, capsys: pytest.CaptureFixture, options: list[str], message: str
):
    overrides = ["adapt=none"] if "task=none" in options else finetuned
    assert main(["report", *overrides, f"runs={runs}", *options]) == 2
    assert re.search(message, capsys.readouterr().err)


def test_a_run_that_is_not_there_is_said_before_training(tiny_overrides: list[str], tmp_path: Path, capsys):
    assert main(["adapt", "finetune", "report", *tiny_overrides, "name=mine", "report.runs=[mine,other]"]) == 2
    assert "report.runs=other: there is no such run" in capsys.readouterr().err
    assert not list(tmp_path.glob("runs/adapt-*"))


def test_calibration_is_the_mean_gap_between_confidence_and_accuracy():
    claims = [(0.95, True), (0.91, True), (0.93, False), (1.0, True), (0.55, True), (0.55, False)]
    low, high = calibration.bins(claims)
    assert (low.count, low.confidence, low.right) == (2, pytest.approx(0.55), 0.5)
    assert (high.count, high.confidence, high.right) == (4, pytest.approx(0.9475), 0.75)
    assert calibration.expected_error([low, high]) == pytest.approx((2 * 0.05 + 4 * 0.1975) / 6)
