"""Every prediction with its row, as parquet: what a score was computed from, and can be computed from again."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ulmfit_style.artefacts.directory import read_json, require_intact
from ulmfit_style.artefacts.fingerprint import digest
from ulmfit_style.metrics import intervals
from ulmfit_style.tasks.base import Answer, Row, Task

FILE = "predictions.parquet"
ROWS = "rows.json"
"""Digests of the texts of the rows that a model was trained on, and was tested on: none of them can be read from it."""

Prediction = dict[str, Any]
"""`split`, `file` and `row` say which row was answered, `target` what is right; beside them are the answer's fields."""


def of(split: str, task: Task, rows: Sequence[Row], answers: Sequence[Answer]) -> list[Prediction]:
    """Put answers beside their rows."""
    return [
        {"split": split, "file": row.file, "row": row.number, "target": task.target(row), **answer}
        for row, answer in zip(rows, answers, strict=True)
    ]


def text_digest(task: Task, row: Row) -> str:
    """Return what stands for the texts of a row in `ROWS`."""
    return digest(task.texts(row))[:16]


def write(directory: Path, predictions: Sequence[Prediction]) -> None:
    """Write the predictions of a directory."""
    import pyarrow
    import pyarrow.parquet

    names = {name: None for prediction in predictions for name in prediction}  # not every row may have all
    rows = [{**names, **prediction} for prediction in predictions]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), directory / FILE)


def read(directory: Path, split: str) -> list[Prediction]:
    """Read what `write` wrote of one split."""
    import pyarrow.parquet

    require_intact(directory, FILE)
    return pyarrow.parquet.read_table(directory / FILE, filters=[("split", "=", split)]).to_pylist()


Answered = Sequence[Sequence[Prediction]]
"""The answers to the same rows, for each seed."""


def difference(task: Task, ours: Answered, theirs: Answered) -> tuple[float, float, float]:
    """Return by how much two mean scores over the same seeds differ, with its paired interval over seeds and rows."""
    our_points, their_points = ([_row_scores(task, answers) for answers in seeds] for seeds in (ours, theirs))
    return intervals.difference(our_points, their_points, task.of_means)


def _row_scores(task: Task, predictions: Sequence[Prediction]) -> intervals.Points:
    """Return each row's part of a score."""
    return task.row_scores(predictions, [prediction["target"] for prediction in predictions])


def in_common(ours: Path, theirs: Path) -> tuple[list[Prediction], list[Prediction]]:
    """Return the answers of two models to the test rows that both were given, in the same order."""
    (our_rows, our_answers), (their_rows, their_answers) = map(_test, (ours, theirs))
    if our_rows == their_rows:
        return our_answers, their_answers
    found = dict(zip(our_rows, our_answers, strict=True)), dict(zip(their_rows, their_answers, strict=True))
    both = [row for row in found[0] if row in found[1]]
    return [found[0][row] for row in both], [found[1][row] for row in both]


def _test(directory: Path) -> tuple[list[tuple[str, str]], list[Prediction]]:
    """Return what tells the test rows apart, their texts and what is right of them, and the answers to them."""
    answers = read(directory, "test")
    texts = read_json(directory / ROWS)["test"] if (directory / ROWS).exists() else [str(directory)] * len(answers)
    return [(text, str(answer["target"])) for text, answer in zip(texts, answers, strict=True)], answers
