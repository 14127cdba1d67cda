"""Every prediction with its row, as parquet: what a score was computed from, and can be computed from again."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from ulmfit_style.artefacts.directory import require_intact
from ulmfit_style.artefacts.fingerprint import digest
from ulmfit_style.metrics import intervals
from ulmfit_style.tasks.base import Answer, Row, Task

FILE = "predictions.parquet"
LEARNT = "learnt.json"
"""Digests of the texts of the rows that a model was trained on."""

AT_ONCE = 10_000
"""Predictions that are in memory at once while they are written."""

Prediction = dict[str, Any]
"""`split`, `file` and `row` say which row was answered, `target` what is right; beside them are the answer's fields."""


def of(split: str, task: Task, rows: Sequence[Row], answers: Sequence[Answer]) -> Iterator[Prediction]:
    """Put answers beside their rows."""
    for row, answer in zip(rows, answers, strict=True):
        yield {"split": split, "file": row.file, "row": row.number, "target": task.target(row), **answer}


def text_digest(task: Task, row: Row) -> str:
    """Return what stands for the texts of a row in `LEARNT`."""
    return digest(task.texts(row))[:16]


def write(directory: Path, predictions: Iterable[Prediction]) -> None:
    """Write the predictions of a directory."""
    import pyarrow.parquet

    tables, remaining = [], iter(predictions)
    while rows := list(islice(remaining, AT_ONCE)):
        names = {name: None for row in rows for name in row}  # not every row may have all
        tables.append(pyarrow.Table.from_pylist([{**names, **row} for row in rows]))
    pyarrow.parquet.write_table(pyarrow.concat_tables(tables, promote_options="permissive"), directory / FILE)


def read(directory: Path, split: str) -> list[Prediction]:
    """Read what `write` wrote of one split."""
    import pyarrow.parquet

    require_intact(directory, FILE)
    return pyarrow.parquet.read_table(directory / FILE, filters=[("split", "=", split)]).to_pylist()


Answered = Sequence[Sequence[Prediction]]
"""The answers to the same rows, for each seed."""


def difference(task: Task, ours: Answered, theirs: Answered) -> tuple[float, float, float]:
    """Return by how much two mean scores over the same seeds differ, with its paired interval over seeds and rows."""

    def points(seeds: Answered) -> list[intervals.Points]:
        return [task.row_scores(answers, [answer["target"] for answer in answers]) for answers in seeds]

    return intervals.difference(points(ours), points(theirs), task.of_means)


def in_common(ours: Path, theirs: Path, split: str = "test") -> list[tuple[Prediction, Prediction]]:
    """Return the two answers to each test row that two models were given; none where a file has changed in between.

    Args:
        split: What the answers of the other are called.
    """
    found = {(answer["file"], answer["row"]): answer for answer in read(theirs, split)}
    answers = ((answer, found.get((answer["file"], answer["row"]))) for answer in read(ours, "test"))
    pairs = [(answer, other) for answer, other in answers if other is not None]
    return pairs if all(answer["target"] == other["target"] for answer, other in pairs) else []
