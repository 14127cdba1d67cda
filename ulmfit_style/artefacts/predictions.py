"""Every prediction with its row, as parquet: what a score was computed from, and can be computed from again."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any

from ulmfit_style.artefacts.directory import require_intact
from ulmfit_style.metrics import intervals
from ulmfit_style.tasks.base import Answer, Row, Task

FILE = "predictions.parquet"

AT_ONCE = 10_000
"""Predictions that are written at once."""

Prediction = dict[str, Any]
"""`split`, `file` and `row` say which row was answered, `target` what is right; beside them are the answer's fields."""


def of(split: str, task: Task, rows: Iterable[Row], answers: Iterable[Answer]) -> Iterator[Prediction]:
    """Put answers beside their rows."""
    for row, answer in zip(rows, answers, strict=True):
        yield {"split": split, "file": row.file, "row": row.number, "target": task.target(row), **answer}


def write(directory: Path, *several: Sequence[Prediction]) -> None:
    """Write the predictions of a directory, some at a time: they may lie on the disk."""
    import pyarrow
    import pyarrow.parquet

    def parts() -> Iterator[list[Prediction]]:
        predictions = chain.from_iterable(several)
        while part := list(islice(predictions, AT_ONCE)):
            names = {name: None for prediction in part for name in prediction}  # not every row may have all
            yield [{**names, **prediction} for prediction in part]

    schemas = (pyarrow.RecordBatch.from_pylist(part).schema for part in parts())
    schema = pyarrow.unify_schemas(schemas, promote_options="permissive")
    with pyarrow.parquet.ParquetWriter(directory / FILE, schema) as writer:
        for part in parts():
            writer.write_batch(pyarrow.RecordBatch.from_pylist(part, schema=schema))


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
