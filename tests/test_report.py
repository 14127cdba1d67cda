"""The page on a finished run, looked at in a real browser."""

import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from samples import conll, jsonl, questions, reviews, sentences, squad

from ulmfit_style import metrics, predictions
from ulmfit_style.__main__ import main
from ulmfit_style.composing import compose
from ulmfit_style.metrics import calibration
from ulmfit_style.run import METRICS, RECIPE, read_json

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
