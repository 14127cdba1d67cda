"""A tiny recipe of every kind of task, which `finetune` runs once in a session (the fixture `trained`)."""

import csv
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from samples import articles, conll, jsonl, questions, reviews, sentences, squad, tag

from ulmfit_style.artefacts.directory import METRICS
from ulmfit_style.cli.compose import compose
from ulmfit_style.tasks import entities
from ulmfit_style.tasks.base import Task

NOUNS = [noun for noun in ("film", "plot", "story", "actor") for _ in range(30)]


@dataclass(frozen=True)
class Trained:
    """A recipe of one kind of task that `finetune` has run. Nothing may be changed in its folders."""

    kind: str
    overrides: list[str]
    """What to type after a stage, to mean this recipe and its artefacts."""
    folder: Path
    """Holds the data and `runs`."""
    file: Path
    """Rows that can be answered, most of them those of training."""

    @property
    def runs(self) -> Path:
        """The folder of the artefacts."""
        return self.folder / "runs"

    @property
    def directory(self) -> Path:
        """The artefact of the fine-tuned model."""
        return (self.runs / "default" / "finetune").resolve()

    @property
    def metrics(self) -> dict[str, Any]:
        """What stands in the model's metrics.json."""
        return dict(json.loads((self.directory / METRICS).read_text()))

    @property
    def task(self) -> Task:
        """The task of the recipe."""
        return compose(self.overrides).require_task()


def _classification(folder: Path) -> list[str]:
    """One good review in five is called bad, so that no score is perfect."""
    rows = [
        (text, "bad" if number % 10 == 3 else label, film) for number, (text, label, film) in enumerate(reviews(120))
    ]
    with (folder / "rows.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("review", "stars", "film"), *rows])
    path = f"task.path={folder / 'rows.csv'}"
    return ["task=text_classification", path, "task.text=review", "task.label=stars", "compare=false"]


def _rows(task: str, rows: list[dict[str, Any]], *options: str) -> Callable[[Path], list[str]]:
    return lambda folder: [f"task={task}", f"task.path={jsonl(folder / 'rows.jsonl', rows)}", *options]


def _pairs(folder: Path) -> list[str]:
    rows = [{"a": text, "b": "the film", "label": label} for text, label, _ in reviews(120)]
    columns = ["task.text=a", "task.text_pair=b", "task.class_weights=balanced"]
    return _rows("text_classification", rows[:110] + rows[111::2], *columns)(folder)


def _entities(folder: Path) -> list[str]:
    """Training rows are words, test rows are texts."""
    texts = []
    for words in sentences(30, seed=1):
        places = [
            (start := len(" ".join([*words[:number], ""])), start + len(word)) for number, word in enumerate(words)
        ]
        spans = [[places[one.start][0], places[one.end - 1][1], one.type] for one in entities.of_tags(tag(words))]
        texts.append({"text": " ".join(words), "entities": spans})
    train, test = conll(folder / "rows.conll", sentences(120)), jsonl(folder / "test.jsonl", texts)
    return ["task=token_classification", f"task.path={{train: {train}, test: {test}}}"]


def _questions(folder: Path) -> list[str]:
    train, test = squad(folder / "rows.json", questions(150)), jsonl(folder / "test.jsonl", questions(40, seed=1))
    return ["task=question_answering", f"task.path={{train: {train}, test: {test}}}"]


def _summaries(folder: Path) -> list[str]:
    return ["task=summarization", f"task.path={articles(folder / 'rows.jsonl')}", "task.max_target_length=8"]


TAGGED = [{"text": text, "tags": [label, *["plot"] * ("plot" in text)]} for text, label, _ in reviews(160)]
SCORED = [{"text": text, "score": 70 + 20 * (label == "good")} for text, label, _ in reviews(160)]
TRANSLATED = [
    {"translation": {"en": f"the {noun} number {number}", "de": f"a {noun} is moving"}}
    for number, noun in enumerate(NOUNS)
]
COMPLETED = [
    {"prompt": f"the {noun} number {number} is", "completion": f"a {noun}"} for number, noun in enumerate(NOUNS)
]
LANGUAGES = ("task.source_language=en", "task.target_language=de")
SHORT = "task.max_target_length=8"

_translations = _rows("translation", TRANSLATED, *LANGUAGES, SHORT)
_tags = _rows("multi_label_classification", TAGGED)

RECIPES: dict[str, tuple[str, Callable[[Path], list[str]], list[str]]] = {
    "text classification": ("checkpoint", _classification, ["finetune.epochs=10"]),
    "pairs": ("checkpoint", _pairs, ["finetune.epochs=10"]),
    "several labels": ("checkpoint", _tags, ["finetune.epochs=40", "finetune.learning_rate=5e-3"]),
    "numbers": ("checkpoint", _rows("text_regression", SCORED), ["finetune.epochs=24"]),
    "entities": ("checkpoint", _entities, ["finetune.epochs=12", "finetune.max_length=20"]),
    "questions": ("checkpoint", _questions, ["finetune.epochs=24", "finetune.max_length=48"]),
    "summaries": ("seq2seq_checkpoint", _summaries, ["finetune.epochs=30"]),
    "translations": ("causal_checkpoint", _translations, ["finetune.epochs=25"]),
    "completions": ("causal_checkpoint", _rows("text_generation", COMPLETED, SHORT), ["finetune.epochs=20"]),
}
"""Of each kind the fixture of the checkpoint, what writes its data and names them, and how it is trained."""

KINDS = list(RECIPES)


def recipe(kind: str, folder: Path, checkpoint: Path) -> list[str]:
    """Write the data of a kind to a folder, and return the overrides of its recipe."""
    _, write, training = RECIPES[kind]
    model = [f"model.checkpoint={checkpoint}", f"runs={folder / 'runs'}", "adapt=none"]
    return [
        *write(folder),
        "task.folds=0",
        *model,
        "finetune=plain",
        "finetune.learning_rate=1e-2",
        "finetune.max_length=32",
        *training,
    ]


def compared(folder: Path, checkpoint: Path) -> list[str]:
    """Write labelled rows with countries, some of which contradict others, and return a recipe with all stages."""
    (folder / "mine").symlink_to(checkpoint)
    rows = [
        {"review": text, "stars": label, "country": "en" if number % 4 else "de"}
        for number, (text, label, _) in enumerate(reviews(400))
    ]
    rows += [{**rows[number], "stars": "good"} for number in range(0, 30, 2)]  # which were bad
    return [
        *("task=text_classification", f"task.path={jsonl(folder / 'reviews.jsonl', rows)}"),
        *("task.text=review", "task.label=stars", "task.train_samples=30", "task.license=cc0-1.0"),
        *(f"model.checkpoint={folder / 'mine'}", f"runs={folder / 'runs'}"),
        *("adapt.head_epochs=0", "adapt.batch_size=16"),
        *("finetune=ulmfit", "finetune.unfreeze=[1,all]", "finetune.epochs=2", "finetune.learning_rate=1e-2"),
        "finetune.max_length=32",
    ]
