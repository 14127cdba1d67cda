"""Every prediction with its row, as parquet: what a score was computed from, and can be computed from again."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from ulmfit_style.artefacts.directory import require_intact
from ulmfit_style.metrics import intervals
from ulmfit_style.tasks.base import Answer, Row, Task

FILE = "predictions.parquet"

AT_ONCE = 10_000
"""Predictions that are in memory at once while they are written."""

Prediction = dict[str, Any]
"""`split`, `file` and `row` say which row was answered, `target` what is right; beside them are the answer's fields."""


def of(split: str, task: Task, rows: Sequence[Row], answers: Sequence[Answer]) -> Iterator[Prediction]:
    """Put answers beside their rows."""
    return (
        {"split": split, "file": row.file, "row": row.number, "target": task.target(row), **answer}
        for row, answer in zip(rows, answers, strict=True)
    )


def write(directory: Path, predictions: Iterable[Prediction]) -> None:
    """Write the predictions of a directory."""
    import pyarrow
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


def difference(task: Task, models: Sequence[Path], baseline: Sequence[Path], split: str) -> tuple[float, float, float]:
    """Return by how much two mean scores over the same seeds differ, with its paired interval over seeds and rows.

    Args:
        models: The directory of the one model for each seed.
        baseline: Those of the other.
        split: The rows that are scored: validation or test.
    """
    ours, theirs = ([_row_scores(task, read(path, split)) for path in paths] for paths in (models, baseline))
    return intervals.difference(ours, theirs, task.of_means)


def _row_scores(task: Task, predictions: Sequence[Prediction]) -> intervals.Points:
    """Return each row's part of a score."""
    return task.row_scores(predictions, [prediction["target"] for prediction in predictions])


def rows(directory: Path) -> list[tuple[Any, ...]]:
    """Return where the test rows stand, and what is right of each."""
    return [(answer["file"], answer["row"], answer["target"]) for answer in read(directory, "test")]
