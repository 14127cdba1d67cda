"""The page on a finished run, looked at in a real browser."""

import csv
import json
import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from html import unescape
from pathlib import Path

import pytest
from samples import GOOD, conll, jsonl, questions, reviews, sentences, squad

from ulmfit_style.__main__ import main
from ulmfit_style.metrics import calibration
from ulmfit_style.run import METRICS, read_json

SCRIPT = "<script>document.title = 'run';</script>"
"""What a text may hold, and is never run."""

KINDS = {
    "text_classification": ["Confusion", "Expected calibration error", "Most confident errors"],
    "multi_label_classification": ["micro_f1 by right labels of a row", "Expected calibration error"],
    "text_regression": ["Answered beside right numbers", "Worst answers", "Best answers"],
    "token_classification": ["What became of the entities", "By length", "Expected calibration error"],
    "question_answering": ["Whether there is an answer", "f1 by words of the right answer"],
    "summarization": ["Words of what was written", "rougeL by words of the text", "Best answers"],
    "translation": ["Words of what was written", "chrf by words of the text"],
    "text_generation": ["token_accuracy by words of the right text"],
}
"""What the page of each kind of task has that not all have."""


def data(kind: str, folder: Path) -> list[str]:
    """Write the rows of a kind, and return the options that name them."""
    found, texts = reviews(60), [text for text, _, _ in reviews(60)]
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


def page(overrides: Sequence[str]) -> str:
    return (runs_of(overrides) / "default/report.html").read_text(encoding="utf-8")


def test_every_kind_of_task_has_its_page_and_figures(made: tuple[str, list[str]]):
    kind, overrides = made
    text = page(overrides)
    headings = re.findall(r"<h2>(.*)</h2>", text)
    assert headings[0] == "Scores"
    assert {"Training", "Data", "How it was made"} <= set(headings)
    assert "Language model" not in headings
    assert not [empty for empty in re.findall(r"</h2>\s*</section>", text)]
    for what in KINDS[kind]:
        assert what in text
    figures = {path.name for path in (runs_of(overrides) / "default/report").iterdir()}
    assert {"course-finetune.png", "course-finetune.svg"} <= figures
    assert text.count("<img") == len(figures) / 2
