"""Slices: how a model scores on the rows of each group, and how far the groups lie apart."""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from ulmfit_style.config.section import FileFormat
from ulmfit_style.data import reading
from ulmfit_style.data.reading import References
from ulmfit_style.errors import UserError
from ulmfit_style.recipe import Config
from ulmfit_style.results.scores import FEWEST
from ulmfit_style.tasks.base import Answer, Row, Task

MOST_GROUPS = 100
"""Values of a column that are groups; a column with more is a number or a name."""

NO_GROUP = "(none)"
"""The group of the rows where a column is empty."""


def groups(config: Config, rows: Sequence[Row]) -> Mapping[str, Sequence[str]]:
    """Return the group of each row that is scored, by the columns of `evaluate.slices`.

    Raises:
        UserError: if a file has no such column, or it holds too many values for groups.
    """
    options, task = config.evaluate, config.require_task()
    path: References | None = options.path
    option, form = "evaluate.path", options.format
    # The rows of a split that has no file of its own are some of the training file's.
    if path is None:
        split = options.split if options.split in task.path.files() else "train"
        option, path, form = task.path.option(split), task.path.files()[split], task.format
    fields = _read(option, path, options.slices, form)
    by_column = {column: [_name(fields[row.file, row.number][column]) for row in rows] for column in options.slices}
    for column, names in by_column.items():
        if (count := len(set(names))) > MOST_GROUPS:
            problem = f"the column '{column}' has {count:,} values in {len(rows):,} rows; the most is {MOST_GROUPS}"
            raise UserError(f"evaluate.slices: {problem}. Name a column of groups, with numbers as ranges")
    return by_column


@cache
def _read(option: str, path: References, columns: Sequence[str], form: FileFormat) -> dict[tuple[str, int], Any]:
    """Return columns of a file, by the places of its rows."""
    return {(row.file, row.number): row.fields for row in reading.rows(option, path, columns, form)}


def _name(value: Any) -> str:
    return ("" if value is None else str(value).strip()) or NO_GROUP


def measure(task: Task, answers: Sequence[Answer], targets: Sequence[Any], groups: Sequence[str]) -> dict[str, Any]:
    """Return the scores of each group, and the widest gap between two of them.

    Args:
        groups: The group of each answer.
    """
    members = {name: [row for row, other in enumerate(groups) if other == name] for name in sorted(set(groups))}
    own = {name: ([answers[row] for row in rows], [targets[row] for row in rows]) for name, rows in members.items()}
    measured = {name: task.measure(*of_group) for name, of_group in own.items()}
    judged = [name for name, rows in members.items() if len(rows) >= FEWEST]
    if len(judged) < 2:
        return {"groups": measured, "gap": None}
    lowest, *_, highest = sorted(judged, key=lambda name: measured[name]["scores"][task.metric])
    width = measured[highest]["scores"][task.metric] - measured[lowest]["scores"][task.metric]
    return {"groups": measured, "gap": {"highest": highest, "lowest": lowest, "value": width}}
