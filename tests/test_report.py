"""The page on a finished run, looked at in a real browser."""

import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from samples import artefact, conll, jsonl, questions, reviews, sentences, squad

from ulmfit_style import lineage
from ulmfit_style.__main__ import main
from ulmfit_style.artefacts import predictions
from ulmfit_style.artefacts.directory import METRICS, RECIPE, read_json
from ulmfit_style.cli.compose import compose
from ulmfit_style.metrics import calibration, intervals

SCRIPT = "<script>document.title = 'run';</script>"
"""What a text may hold, and is never run."""

KINDS = {
    "text_classification": ["Confusion", "Expected calibration error", "Most confident errors"],
    "multi_label_classification": ["micro_f1 by right labels of a row", "Expected calibration error"],
    "text_regression": ["Answered beside right numbers", "Worst answers", "pearson by words of the text"],
    "token_classification": ["What became of the entities", "By length", "Expected calibration error"],
    "question_answering": ["Whether there is an answer", "f1 by words of the right answer (0: there is none)"],
    "summarization": ["Words of what was written", "rougeL by words of the text"],
    "translation": ["Words of what was written", "chrf by words of the text"],
    "text_generation": ["Words of what was written", "token_accuracy by words of the text"],
}
"""What the page of each kind of task has that not all have."""


def data(kind: str, folder: Path) -> list[str]:
    """Write the rows of a kind, and return the options that name them."""
    found = reviews(60)
    texts = [f"{text}{' and moving' * (number % 3)}" for number, (text, _, _) in enumerate(found)]
    if kind == "token_classification":
        return [f"task.path={conll(folder / 'rows.conll', sentences(60))}"]
    if kind == "question_answering":
        return [f"task.path={squad(folder / 'rows.json', questions(60))}"]
    rows: dict[str, Sequence[object]] = {
        "text_classification": [
            {"text": f"{text} {SCRIPT}", "label": ("<b>bad</b>", "good")[(label == "good") != (number % 5 == 0)]}
            for number, (text, label, _) in enumerate(found)
        ],
        "multi_label_classification": [
            {"text": text, "labels": [label] * (number % 3 > 0) + ["even"] * (number % 4 < 2)}
            for number, (text, label, _) in enumerate(found)
        ],
        "text_regression": [{"text": text, "score": number % 10 / 2} for number, text in enumerate(texts)],
        "summarization": [{"document": text, "summary": f"{text.split()[1]} is moving"} for text in texts],
        "translation": [{"en": text, "de": f"der {text.split()[1]} ist gut"} for text in texts],
        "text_generation": [{"prompt": text, "completion": text.split()[-1]} for text in texts],
    }
    languages = ["task.source_language=en", "task.target_language=de"] if kind == "translation" else []
    return [f"task.path={jsonl(folder / 'rows.jsonl', rows[kind])}", *languages]


def recipe(kind: str, folder: Path, checkpoint: Path) -> list[str]:
    longest = ["task.max_target_length=8"] if kind in ("summarization", "translation", "text_generation") else []
    return [
        f"task={kind}",
        *data(kind, folder),
        *longest,
        f"model.checkpoint={checkpoint}",
        "model.sha256=null",
        f"runs={folder / 'runs'}",
        "adapt=none",
        "compare=false",
        "finetune.epochs=2",
        "finetune.learning_rate=1e-2",
        "finetune.max_length=64",
    ]


@pytest.fixture(scope="module", params=KINDS)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, list[str]]:
    """A kind of task, and the recipe of a finished run of it, with its report."""
    kind: str = request.param
    written = kind in ("summarization", "translation", "text_generation")
    checkpoint = request.getfixturevalue("causal_checkpoint" if written else "checkpoint")
    overrides = recipe(kind, tmp_path_factory.mktemp(kind), checkpoint)
    assert main(["finetune", "report", *overrides]) == 0
    return kind, overrides


def runs_of(overrides: Sequence[str]) -> Path:
    return Path(next(option for option in overrides if option.startswith("runs=")).removeprefix("runs="))


def page_of(overrides: Sequence[str], name: str = "default/report.html") -> str:
    return (runs_of(overrides) / name).read_text(encoding="utf-8")


def headings(page: str) -> list[str]:
    return re.findall("<h2>(.*)</h2>", page)


def test_every_kind_of_task_has_its_page_and_figures(made: tuple[str, list[str]]):
    kind, overrides = made
    page = page_of(overrides)
    told = headings(page)
    assert told[0] == "Scores"
    assert {"Training", "Data", "How it was made"} <= set(told)
    assert "Language model" not in told
    assert not re.search(r"</h2>\s*</section>", page)
    for what in KINDS[kind]:
        assert what in page
    figures = {path.name for path in (runs_of(overrides) / "default/report").iterdir()}
    assert {"course-finetune.png", "course-finetune.svg"} <= figures
    assert page.count("<img") == len(figures) / 2


def test_every_score_that_a_sweep_can_rank_by_is_measured_with_an_interval(made: tuple[str, list[str]]):
    _, overrides = made
    found = read_json(artefact("finetune", compose(overrides)).directory / METRICS)["validation"]
    task = lineage.required_task(compose(overrides))
    assert {task.metric, *task.rankings} <= set(found["scores"]) & set(found["intervals"])


# In a browser


@pytest.fixture(scope="module")
def browse(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path, str], str]:
    """Open a page in a headless browser, run a script in it, and return the page as it is then."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("there is no chromium: nobody looks at the page of a report (apt-get install chromium)")
    folder = tmp_path_factory.mktemp("browser")

    def open_(page: Path, script: str) -> str:
        copy = folder / "page.html"
        copy.write_text(f"{page.read_text(encoding='utf-8')}<script>{script}</script>", encoding="utf-8")
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", f"--user-data-dir={folder}"]
        command = [browser, *flags, "--virtual-time-budget=3000", "--dump-dom", copy.as_uri()]
        ended = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
        assert "CONSOLE" not in ended.stderr
        return ended.stdout

    return open_


def dataset(dom: str) -> dict[str, str]:
    """Return what a script has written into the page's body."""
    (body,) = re.findall("<body(.*?)>", dom)
    return dict(re.findall('data-([a-z]+)="(.*?)"', body))


LOOK = """
addEventListener("load", () => {
  const found = document.body.dataset, images = [...document.images], whole = document.documentElement;
  found.figures = images.length;
  found.loaded = images.filter(image => image.naturalWidth > 100).length;
  found.loads = document.querySelectorAll("[src]:not([src^='data:']), link, [href]:not([href^='#'])").length;
  found.wide = whole.scrollWidth - whole.clientWidth;
});
"""


def test_a_browser_shows_every_page_with_its_figures_and_fetches_nothing(made: tuple[str, list[str]], browse):
    _, overrides = made
    found = dataset(browse(runs_of(overrides) / "default/report.html", LOOK))
    assert found["figures"] == found["loaded"] != "0"
    assert found["loads"] == found["wide"] == "0"


SEARCH = """
const found = document.body.dataset, box = document.querySelector(".search");
const table = box.closest("p").nextElementSibling, rows = [...table.querySelectorAll("tbody tr")];
const shown = () => [...table.querySelectorAll("tbody tr")].filter(row => row.offsetHeight);
found.all = shown().length;
box.value = "  THE ";
box.dispatchEvent(new Event("input"));
found.shown = shown().map(row => row.textContent.includes("the "));
found.told = box.nextElementSibling.textContent;
box.value = "";
box.dispatchEvent(new Event("input"));
const heading = [...table.querySelectorAll("th")].at(-1);
for (const way of ["up", "down"]) {
  heading.click();
  found[way] = shown().map(row => row.cells[row.cells.length - 1].textContent);
}
found.bold = document.querySelectorAll("td b").length;
found.scripts = document.scripts.length;
"""


def test_errors_are_searched_and_sorted_and_no_text_of_theirs_is_markup(
    tmp_path: Path, checkpoint: Path, browse, capsys: pytest.CaptureFixture
):
    overrides = recipe("text_classification", tmp_path, checkpoint)
    assert main(["finetune", "report", *overrides]) == 0
    page = tmp_path / "runs/default/report.html"
    assert f"report: {page}" in capsys.readouterr().out
    dom = browse(page, SEARCH)
    found = dataset(dom)
    wrong = [
        row for row in predictions.read(tmp_path / "runs/default/finetune", "test") if row["target"] != row["label"]
    ]
    assert int(found["all"]) == len(wrong) > 2
    assert set(found["shown"].split(",")) == {"true"}
    assert found["told"] == f"{len(found['shown'].split(','))} of {len(wrong)} rows"
    numbers = sorted(row["row"] for row in wrong)
    assert found["up"] == ",".join(map(str, numbers))
    assert found["down"] == ",".join(map(str, reversed(numbers)))
    assert "<title>default</title>" in dom
    assert found["bold"] == "0"
    assert found["scripts"] == "2"  # the page's own, and the one above
    assert "&lt;script&gt;document.title" in dom


# A whole chain, and several side by side


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path) -> list[str]:
    """A recipe that was adapted, fine-tuned, compared and evaluated, and `short`, another one of it."""
    folder = tmp_path_factory.mktemp("chain")
    rows = [{"text": text, "label": label, "film": film} for text, label, film in reviews(120)]
    rows += [{**rows[number], "label": "good"} for number in range(0, 30, 2)]  # which were bad
    overrides = [
        "task=text_classification",
        f"task.path={jsonl(folder / 'rows.jsonl', rows)}",
        "task.train_samples=30",
        f"model.checkpoint={checkpoint}",
        "model.sha256=null",
        f"runs={folder / 'runs'}",
        "adapt.epochs=1",
        "adapt.batch_size=4",
        "finetune.epochs=2",
        "finetune.learning_rate=1e-2",
        "finetune=ulmfit",
        "finetune.unfreeze=[1,all]",
    ]
    assert main(["adapt", "finetune", "evaluate", *overrides, "evaluate.probe=names"]) == 0
    assert main(["finetune", *overrides, "name=short", "finetune.epochs=1", "compare=false"]) == 0
    return overrides


def test_the_page_of_a_chain_tells_its_lineage_and_what_adaptation_was_worth(chain: list[str]):
    assert main(["report", *chain]) == 0
    page, runs = page_of(chain), runs_of(chain)
    assert headings(page) == [
        *("Scores", "Which answers are wrong", "Calibration", "Most confident errors"),
        *("Language model", "Training", "Data", "How it was made"),
    ]
    assert "is what adaptation was worth" in page
    assert "Adaptation changed accuracy by" in page
    assert "TF-IDF + logistic regression" in (runs / "default/report/scores.svg").read_text()
    for stage in ("adapt", "finetune"):
        manifest = read_json(runs / "default" / stage / "manifest.json")
        assert f"<td>{manifest['fingerprint']}</td>" in page
    adapted = read_json(runs / "default/adapt" / METRICS)
    for entry in adapted["heldout"]:
        assert f"{entry['general_loss']:,.3f}</td>" in page
    assert "Forgetting: the loss on general text changed by" in page
    assert "Training texts with several right answers (" in page
    assert "more training rows are not used" in page
    assert "<td>not adapted</td>" in page  # among the time spent
    course = (runs / "default/report/course-finetune.svg").read_text()
    for told in ("last 1 of 4 layer groups", "every weight", "layer 2", "embeddings"):
        assert f"<!-- {told} -->" in course


def test_without_a_task_the_page_is_about_the_language_model(chain: list[str]):
    runs = runs_of(chain)
    adapted = read_json(runs / "default/adapt/manifest.json")
    assert main(["report", *chain, f"report.runs={runs / 'adapt-'}{adapted['fingerprint']}", "name=adapted"]) == 0
    page = page_of(chain, "adapted/report.html")
    assert headings(page) == ["Language model", "Training", "How it was made"]
    assert "nats a masked token on held-out text" in page


def test_two_runs_side_by_side_are_paired_on_the_same_rows(chain: list[str]):
    assert main(["report", f"runs={runs_of(chain)}", "report.runs=[default,short]"]) == 0
    page, runs = page_of(chain, "default/side-by-side.html"), runs_of(chain)
    assert headings(page)[:5] == ["Runs", "Scores", "Differences", "What they differ in", "Training"]
    found = [predictions.read(runs / name / "finetune", "test") for name in ("short", "default")]
    points = [[float(row["label"] == row["target"]) for row in rows] for rows in found]
    gain, low, high = intervals.difference(*points)
    cells = re.search(
        r"<td>short less default</td>\s*<td[^>]*>(.*?)</td>\s*<td[^>]*>(.*?)</td>\s*<td[^>]*>(.*?)</td>", page
    )
    assert cells is not None
    assert cells.groups() == (f"{gain:,.3f}", f"{low:,.3f}", f"{high:,.3f}")
    options = re.findall(r"<td>([a-z_.]+)</td>\s*<td>(.*)</td>\s*<td>(.*)</td>\s*</tr>", page)
    assert [option for option in options if "." in option[0]] == [("finetune.epochs", "2", "1")]
    assert "compare" in [option for option, *_ in options]
    # The adapted model is the same.
    assert {path.name for path in (runs / "default/side-by-side").glob("*.svg")} == {
        "scores.svg",
        "course-finetune.svg",
    }


def test_what_wrong_answers_rest_on_is_told_where_it_is_asked_for(chain: list[str]):
    assert main(["report", *chain, "report.explain=2", f"report.output={runs_of(chain) / 'explained.html'}"]) == 0
    page = page_of(chain, "explained.html")
    assert "What the errors rest on" in headings(page)
    assert '<span style="background:rgba(' in page
    assert (runs_of(chain) / "explained/scores.png").exists()


def test_a_report_needs_no_torch(chain: list[str]):
    code = "import sys; from ulmfit_style.__main__ import main; code = main(sys.argv[1:]); "
    code += "sys.exit(code or ('torch' in sys.modules) * 9)"
    command = [sys.executable, "-c", code, "report", *chain, "report.runs=short"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert headings(page_of(chain, "short/report.html"))[0] == "Scores"


# What is not there, and what is refused


def copied(overrides: Sequence[str], folder: Path) -> Path:
    runs = folder / "runs"
    shutil.copytree(runs_of(overrides), runs, symlinks=True)
    return runs


def test_without_predictions_the_page_says_so_and_tells_the_rest(finetuned: list[str], tmp_path: Path):
    runs = copied(finetuned, tmp_path)
    (runs / "default/finetune" / predictions.FILE).unlink()
    assert main(["report", f"runs={runs}", "report.runs=default"]) == 0
    page = page_of([f"runs={runs}"])
    assert "The predictions are not there any more" in page
    assert headings(page) == ["Scores", "Training", "How it was made"]


@pytest.mark.parametrize("change", ["other", "none"])
def test_where_the_rows_are_others_now_their_texts_are_not_shown(finetuned: list[str], tmp_path: Path, change: str):
    runs = copied(finetuned, tmp_path)
    recipe = runs / "default/finetune" / RECIPE
    other = tmp_path / "rows.csv"
    if change == "other":
        other.write_text("review,stars\n" + "".join(f"a film {n},{'good' if n % 2 else 'bad'}\n" for n in range(50)))
    given = re.search(r"path: (.*reviews\.csv)", recipe.read_text())
    assert given is not None
    recipe.write_text(recipe.read_text().replace(given[1], str(other)))
    assert main(["report", f"runs={runs}", "report.runs=default"]) == 0
    page = page_of([f"runs={runs}"])
    told = "others now than those of this run" if change == "other" else "cannot be read any more"
    assert "The labelled rows" in page
    assert told in page
    assert "Most confident errors" in headings(page)
    assert "number 3" not in page


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["report.runs=defalt"],
            "report.runs=defalt: there is no such run in .*; did you mean 'default'?.*make adapt fin",
        ),
        (["report.runs=[default,default]"], "report.runs: names a run twice"),
        (["report.output=page.pdf"], "report.output=page.pdf: must end in .html"),
        (["report.output=nowhere/page.html"], "report.output=nowhere/page.html: there is no folder nowhere"),
        (
            ["finetune.epochs=7"],
            r"report: there is no finished model .*finetune.epochs=10 there, 7 here\).*report.runs=<n",
        ),
        (
            ["report.runs=[default,begun]"],
            "report.runs=begun: .*begun/finetune was begun, but not finished; the command",
        ),
        (
            ["report.runs=empty"],
            "report.runs=empty: .*empty holds no finished model; make it: make adapt finetune name",
        ),
        (["report.runs=[default,asked]"], "default is TextClassification, and asked QuestionAnswering: scores of two"),
        (["report.runs=[default,short]", "report.explain=1"], "report.explain: is for the page on one run"),
    ],
)
def test_what_cannot_be_reported_on_is_said(
    finetuned: list[str], tmp_path: Path, capsys, options: list[str], message: str
):
    runs = copied(finetuned, tmp_path)
    (runs / "empty").mkdir()
    (runs / "begun/finetune").mkdir(parents=True)
    (runs / "begun/finetune" / RECIPE).touch()
    for name in ("asked", "short"):
        shutil.copytree(runs / "default/finetune", runs / name / "finetune")
    scores = runs / "asked/finetune" / METRICS
    scores.write_text(scores.read_text().replace("TextClassification", "QuestionAnswering"))
    assert main(["report", *finetuned, f"runs={runs}", *options]) == 2
    assert re.search(message, capsys.readouterr().err)


def test_where_nothing_is_trained_there_is_no_report(tmp_path: Path, capsys: pytest.CaptureFixture):
    assert main(["report", "task=none", "adapt=none", f"runs={tmp_path}"]) == 2
    assert "task=none adapt=none: nothing is trained that could be reported on" in capsys.readouterr().err


def test_a_run_that_is_not_there_is_said_before_training(tiny_overrides: list[str], tmp_path: Path, capsys):
    assert main(["adapt", "finetune", "report", *tiny_overrides, "name=mine", "report.runs=[mine,other]"]) == 2
    assert "report.runs=other: there is no such run" in capsys.readouterr().err
    assert not list(tmp_path.glob("runs/adapt-*"))


def test_calibration_is_the_mean_gap_between_what_is_told_and_what_is_so():
    claims = [(0.95, True), (0.91, True), (0.93, False), (1.0, True), (0.55, True), (0.55, False)]
    low, high = calibration.bins(claims)
    assert (low.count, low.confidence, low.right) == (2, pytest.approx(0.55), 0.5)
    assert (high.count, high.confidence, high.right) == (4, pytest.approx(0.9475), 0.75)
    assert calibration.expected_error([low, high]) == pytest.approx((2 * 0.05 + 4 * 0.1975) / 6)
