"""Slices: how a model scores on the rows of each group, and how far the groups lie apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from ulmfit_style.data import reading
from ulmfit_style.errors import UserError
from ulmfit_style.recipe import Config
from ulmfit_style.results import scores
from ulmfit_style.results.model import Prose, Table
from ulmfit_style.tasks.base import Answer, Row, Task

MOST_GROUPS = 100
"""Values of a column that are groups; a column with more is a number or a name."""

MOST_CLASSES = 4
"""Classes that have a column of their own in the table."""

NO_GROUP = "(none)"
"""The group of the rows where a column is empty."""

Slices = Mapping[str, Sequence[str]]
"""The group of each row, by the column that holds it."""


def groups(config: Config, rows: Sequence[Row]) -> Slices:
    """Return the group of each row that is scored, by the columns of `evaluate.slices`.

    Raises:
        UserError: if a file has no such column, or it holds too many values for groups.
    """
    assert config.task is not None  # there are rows
    options, files = config.evaluate, config.task.path
    # The rows of a split that has no file of its own are some of the training file's.
    split = options.split if options.split in files.files() else "train"
    option, path = "evaluate.path", options.path
    if path is None:
        option, path = files.option(split), files.files()[split]
    fields = _read(option, path, options.slices)
    by_column = {column: [_name(fields[row.file, row.number][column]) for row in rows] for column in options.slices}
    for column, names in by_column.items():
        if (count := len(set(names))) > MOST_GROUPS:
            raise UserError(
                f"evaluate.slices: the column '{column}' has {count:,} values in {len(rows):,} rows; the most is "
                f"{MOST_GROUPS}. Name a column of groups, with numbers as ranges"
            )
    return by_column


@cache
def _read(option: str, path: str, columns: Sequence[str]) -> dict[tuple[str, int], Mapping[str, Any]]:
    """Return columns of a file, by the places of its rows."""
    return {(row.file, row.number): row.fields for row in reading.rows(option, path, columns)}


def _name(value: Any) -> str:
    return ("" if value is None else str(value).strip()) or NO_GROUP


def measure(task: Task, answers: Sequence[Answer], targets: Sequence[Any], slices: Slices) -> dict[str, Any]:
    """Return what metrics.json holds of slices: for each column its groups and the widest gap between two of them."""
    return {column: _column(task, answers, targets, names) for column, names in slices.items()}


def _column(task: Task, answers: Sequence[Answer], targets: Sequence[Any], names: Sequence[str]) -> dict[str, Any]:
    from ulmfit_style.metrics.intervals import by_chance, difference

    def among(places: Sequence[int]) -> tuple[list[Answer], list[Any]]:
        return [answers[place] for place in places], [targets[place] for place in places]

    members: dict[str, list[int]] = {name: [] for name in sorted(set(names))}
    for place, name in enumerate(names):
        members[name].append(place)
    measured = {name: task.measure(*among(places)) for name, places in members.items()}
    judged = [name for name, places in members.items() if len(places) >= scores.FEWEST]
    if len(judged) < 2:
        return {"groups": measured, "gap": None}
    lowest, *_, highest = sorted(judged, key=lambda name: measured[name]["scores"][task.metric])
    # Those of each group by itself: a task may standardise them over the rows.
    best, worst = (task.points(*among(members[name])) for name in (highest, lowest))
    width, low, high = difference(best, worst, task.of_means, is_paired=False)
    places = sorted(place for name in judged for place in members[name])
    chance = by_chance(task.points(*among(places)), [names[place] for place in places], width, task.of_means)
    widest = {"highest": highest, "lowest": lowest, "value": width, "interval": (low, high), "chance": chance}
    return {"groups": measured, "gap": widest}


def parts(metric: str, measured: Mapping[str, Any]) -> list[Prose | Table]:
    """Return the scores of each group, which groups are too small to judge, and the widest gap.

    Args:
        measured: What `measure` returned.
    """
    shown: list[Prose | Table] = []
    for column, entry in measured.items():
        judged = {name: group for name, group in entry["groups"].items() if group["rows"] >= scores.FEWEST}
        small = {name: group["rows"] for name, group in entry["groups"].items() if name not in judged}
        if judged:
            shown.append(_table(column, metric, judged))
        if small:
            shown.append(Prose(f"{column}: too few rows to judge, under {scores.FEWEST}: {scores.listed(small)}"))
        if entry["gap"] is not None:
            shown.append(Prose(scores.widest_gap(column, metric, entry["gap"], len(judged)), is_remark=True))
    return shown


def _table(column: str, metric: str, judged: Mapping[str, Any]) -> Table:
    """Return the table of groups; where there are few classes, with the share of each one's rows that is missed."""
    table = scores.by_name(metric, judged, of=column)
    classes = list(dict.fromkeys(entry["class"] for group in judged.values() for entry in group["report"]))
    if len(classes) > MOST_CLASSES:
        return table
    rows = []
    for row, group in zip(table.rows, judged.values(), strict=True):
        missed = {
            entry["class"]: f"{1 - entry['recall']:.3f} of {list(entry.values())[-1]}" for entry in group["report"]
        }
        rows.append([*row, *map(missed.get, classes)])
    return Table([*table.header, *(f"missed: {label}" for label in classes)], rows)
