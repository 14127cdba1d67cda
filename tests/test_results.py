"""How results are shown, and what is said of them, on every medium."""

import re
import shutil
import subprocess
from functools import partial
from pathlib import Path

import pytest
from markupsafe import Markup

from ulmfit_style.results import figures, html, markdown, scores, terminal
from ulmfit_style.results.html import Page
from ulmfit_style.results.parts import Alignment, Difference, Figure, Interval, Prose, Table

TABLE = Table(
    ("model", "rows", "accuracy", "95 % interval"),
    [("a|b [bold]", 2560, 0.69124, Interval(0.673, 0.7094)), ("plain", 40, None, None)],
    "A table",
)


def test_the_terminal_shows_a_table_with_its_title_and_no_text_of_it_is_markup(capsys: pytest.CaptureFixture):
    terminal.show(TABLE, Prose("A sentence."))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].strip() == "A table"
    assert any(re.search(r"a\|b \[bold\] +│ +2,560 │ +0\.691 │ 0\.673 to 0\.709", line) for line in lines)
    assert lines[-1] == "A sentence."


def test_markdown_aligns_numbers_and_no_bar_ends_a_cell():
    assert markdown.table(TABLE).splitlines() == [
        "| model | rows | accuracy | 95 % interval |",
        "| --- | ---: | ---: | ---: |",
        "| a\\|b \\[bold] | 2,560 | 0.691 | 0.673 to 0.709 |",
        "| plain | 40 |  |  |",
    ]


# Sentences


def measured(score: float, low: float, high: float) -> dict[str, object]:
    return {"rows": 40, "scores": {"f1": score}, "interval": (low, high), "intervals": {"f1": (low, high)}}


@pytest.mark.parametrize(
    ("difference", "seeds", "end"),
    [
        ((0.01, -0.01, 0.03), 1, "-1.0 to +3.0, over one seed and the test rows): it cannot be told from zero."),
        ((0.02, 0.01, 0.03), 1, "the interval excludes zero, but one seed cannot tell a difference from luck."),
        ((-0.02, -0.03, -0.01), 3, "over 3 seeds and the test rows): the interval excludes zero."),
    ],
)
def test_what_a_difference_is_worth_is_said_with_its_interval(difference: tuple, seeds: int, end: str):
    sentence = scores.worth("Adaptation changed f1 by", Difference(*difference), seeds)
    assert sentence.startswith(f"Adaptation changed f1 by {100 * difference[0]:+.1f} points (95 % interval ")
    assert sentence.endswith(end)


@pytest.mark.parametrize(
    ("second", "paired", "sentence"),
    [
        (measured(0.6, 0.5, 0.65), None, "Highest on these rows: best."),
        (measured(0.65, 0.55, 0.75), None, "None stands out on these rows: 'best' cannot be told from 'second'."),
        (measured(0.65, 0.55, 0.75), Difference(0.05, 0.01, 0.09), "Highest on these rows: best."),
        (measured(0.65, 0.55, 0.75), Difference(-0.05, -0.09, -0.01), "Highest on these rows: best."),
        (measured(0.6, 0.5, 0.65), Difference(0.1, -0.01, 0.2), "None stands out .*"),
        (measured(0.7, 0.66, 0.75), Difference(0, 0, 0), "None stands out .*"),
    ],
)
def test_a_tie_is_called_a_tie(second: dict, paired: Difference | None, sentence: str):
    models = {"worst": measured(0.1, 0, 0.2), "second": second, "best": measured(0.7, 0.66, 0.75)}
    pairs = {frozenset(("best", "second")): paired} if paired else {}
    assert re.fullmatch(sentence, scores.highest("f1", models, pairs))


def test_the_best_of_three_stands_out_only_where_it_can_be_told_from_both_others():
    models = {"best": measured(0.7, 0.6, 0.8), "second": measured(0.69, 0.6, 0.8), "third": measured(0.65, 0.5, 0.7)}
    pairs = {frozenset(("best", "second")): Difference(0.01, 0.005, 0.015)}
    assert scores.highest("f1", models, pairs) == "None stands out on these rows: 'best' cannot be told from 'third'."
    assert scores.highest("f1", models).endswith("from 'second', nor from 'third'.")


# The page


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "template.html"
    rows = [
        (f"<b>bold</b> the {number} <script>document.title = 'run'</script>", Markup("<i>word</i>"), number)
        for number in range(12)
    ]
    errors = Table(("text", "marked", "row"), [*rows, ("x" * 300, "", 99)], "Errors", is_searched=True)
    draw = partial(figures.matrix, classes=["a", "b"], counts=[[3, 1], [0, 4]])
    parts = [Prose("A remark.", is_remark=True), TABLE, errors, Figure("scores", "Scores", draw)]
    weights = [[number / 90] * 90 for number in range(90)]
    many = {"read": [f"read{number}" for number in range(90)], "written": ["w"] * 90, "weights": weights}
    sections = {"Scores": [*parts, Alignment("Aligned", many)], "Nothing": []}
    assert html.write(Page("default", "A lead.", sections), path) == path.with_suffix("")
    return path


def test_a_page_holds_its_figures_and_no_text_of_it_is_markup(page: Path):
    text = page.read_text(encoding="utf-8")
    assert re.findall("<h2>(.*)</h2>", text) == ["Scores"]
    assert text.count('<img src="data:image/svg+xml;base64,') == 1
    assert {path.name for path in page.with_suffix("").iterdir()} == {"scores.png", "scores.svg"}
    assert "<b>bold" not in text
    assert "&lt;script&gt;document.title" in text
    assert "<i>word</i>" in text
    assert '<td class="number">0.691</td>' in text
    assert '<td class="number">0.673 to 0.709</td>' in text
    assert "<summary>xxx" in text


def test_tokens_are_coloured_by_their_scores_and_the_text_is_escaped():
    tokens = [
        {"text": 0, "start": 0, "end": 3, "score": -0.5},
        {"text": 1, "start": 2, "end": 5, "score": 1.0},
    ]
    first, second = html.coloured(["<b> bad", "a good"], tokens)
    assert first == '<span style="background:rgba(200,40,40,0.40)" title="-0.500">&lt;b&gt;</span> bad'
    assert second == 'a <span style="background:rgba(0,128,96,0.80)" title="+1.000">goo</span>d'


LOOK = """
addEventListener("load", () => {
  const seen = document.body.dataset, images = [...document.images], whole = document.documentElement;
  const box = document.querySelector(".search"), table = box.closest("p").nextElementSibling;
  const shown = () => [...table.querySelectorAll("tbody tr")].filter(row => row.offsetHeight);
  seen.figures = images.filter(image => image.naturalWidth > 100).length;
  seen.loads = document.querySelectorAll("[src]:not([src^='data:']), link, [href]:not([href^='#'])").length;
  seen.wide = whole.scrollWidth - whole.clientWidth;
  box.value = "  THE 1 ";
  box.dispatchEvent(new Event("input"));
  seen.searched = shown().length;
  seen.counted = box.nextElementSibling.textContent;
  seen.bold = document.querySelectorAll("td b").length;
  seen.scripts = document.scripts.length;
});
"""


def test_a_browser_shows_the_figures_searches_and_fetches_nothing(page: Path, tmp_path: Path):
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("there is no chromium: no test looks at a page in a browser (apt-get install chromium)")
    copy = tmp_path / "template.html"
    copy.write_text(f"{page.read_text(encoding='utf-8')}<script>{LOOK}</script>", encoding="utf-8")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", f"--user-data-dir={tmp_path}"]
    command = [browser, *flags, "--virtual-time-budget=3000", "--dump-dom", copy.as_uri()]
    ended = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    assert "CONSOLE" not in ended.stderr
    (body,) = re.findall("<body(.*?)>", ended.stdout)
    seen = dict(re.findall('data-([a-z]+)="(.*?)"', body))
    assert (seen["figures"], seen["loads"], seen["wide"], seen["bold"]) == ("1", "0", "0", "0")
    assert (seen["searched"], seen["counted"]) == ("3", "3 of 13 rows")
    assert seen["scripts"] == "2"  # the page's own, and the one above
    assert "<title>default</title>" in ended.stdout
