"""Every prediction with its row, as parquet: what a score was computed from, and can be computed from again."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ulmfit_style.metrics.intervals import Points
from ulmfit_style.tasks.base import Answer, Row, Task

FILE = "predictions.parquet"

Prediction = dict[str, Any]
"""`split`, `file` and `row` say which row was answered, `target` what is right; beside them are the answer's fields."""


def of(split: str, task: Task, rows: Sequence[Row], answers: Sequence[Answer]) -> list[Prediction]:
    """Put answers beside their rows."""
    return [
        {"split": split, "file": row.file, "row": row.number, "target": task.target(row), **answer}
        for row, answer in zip(rows, answers, strict=True)
    ]


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

    table = pyarrow.parquet.read_table(directory / FILE, filters=[("split", "=", split)])
    predictions: list[Prediction] = table.to_pylist()
    return predictions


def row_scores(task: Task, directory: Path, split: str) -> Points:
    """Return each row's part of the score of a split."""
    predictions = read(directory, split)
    return task.row_scores(predictions, [prediction["target"] for prediction in predictions])


def difference(task: Task, ours: Path, theirs: Path) -> tuple[float, float, float] | None:
    """Return what the test scores of two directories' models differ by, and its paired bootstrap interval.

    None where the predictions of one are gone, or the rows are not the same.
    """
    from ulmfit_style.metrics import intervals

    are_there = all((directory / FILE).exists() for directory in (ours, theirs))
    if not are_there or _rows(ours) != _rows(theirs):
        return None
    return intervals.difference(row_scores(task, ours, "test"), row_scores(task, theirs, "test"), task.of_means)


def _rows(directory: Path) -> list[tuple[Any, ...]]:
    """Return where the test rows stand, and what is right of each."""
    return [(answer["file"], answer["row"], answer["target"]) for answer in read(directory, "test")]
