"""Slices: how a model scores on the rows of each group, and how far the groups lie apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from rich.table import Table

from ulmfit_style.console import say, show
from ulmfit_style.data import reading
from ulmfit_style.errors import UserError
from ulmfit_style.recipe import Config
from ulmfit_style.tasks.base import Answer, Row, Task

FEWEST = 30
"""Rows from which on a group, or a class, is judged: at fewer the interval of a score spans a third of its range."""

MOST_GROUPS = 100
"""Values of a column that are groups; a column with more is a number or a name."""

MOST_CLASSES = 4
"""Classes that have a column of their own in the table."""

MOST_LISTED = 10
"""Names of small groups that are told."""

NOTHING = "(none)"
"""The group of the rows where a column is empty."""

Slices = Mapping[str, Sequence[str]]
"""The group of each row, by the column that tells it."""


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
    found = _read(option, path, options.slices)
    made = {column: [_name(found[row.file, row.number][column]) for row in rows] for column in options.slices}
    for column, names in made.items():
        if (count := len(set(names))) > MOST_GROUPS:
            raise UserError(
                f"evaluate.slices: the column '{column}' has {count:,} values in {len(rows):,} rows, and {MOST_GROUPS} "
                "are the most; give one of groups, and numbers as ranges"
            )
    return made


@cache
def _read(option: str, path: str, columns: Sequence[str]) -> dict[tuple[str, int], Mapping[str, Any]]:
    """Return columns of a file, by the places of its rows."""
    return {(row.file, row.number): row.fields for row in reading.rows(option, path, columns)}


def _name(value: Any) -> str:
    return NOTHING if value is None or not str(value).strip() else str(value).strip()


def measure(task: Task, answers: Sequence[Answer], targets: Sequence[Any], found: Slices) -> dict[str, Any]:
    """Return what metrics.json tells of slices: for each column its groups and the widest gap between two of them."""
    return {column: _column(task, answers, targets, names) for column, names in found.items()}


def _column(task: Task, answers: Sequence[Answer], targets: Sequence[Any], names: Sequence[str]) -> dict[str, Any]:
    from ulmfit_style.metrics import by_chance, gap

    places: dict[str, list[int]] = {name: [] for name in sorted(set(names))}
    for place, name in enumerate(names):
        places[name].append(place)
    measured = {
        name: task.measure([answers[place] for place in own], [targets[place] for place in own])
        for name, own in places.items()
    }
    column: dict[str, Any] = {"groups": measured, "gap": None}
    judged = [name for name, own in places.items() if len(own) >= FEWEST]
    if len(judged) > 1:
        ranked = sorted(judged, key=lambda name: measured[name]["scores"][task.metric])
        lowest, highest = ranked[0], ranked[-1]
        # Those of each group by itself: a task may standardise them over the rows.
        points = {
            name: task.points([answers[place] for place in places[name]], [targets[place] for place in places[name]])
            for name in (highest, lowest)
        }
        wide, low, high = gap(points[highest], points[lowest], task.of_means)
        kept = [place for place, name in enumerate(names) if name in judged]
        everything = task.points([answers[place] for place in kept], [targets[place] for place in kept])
        chance = by_chance(everything, [names[place] for place in kept], wide, task.of_means)
        column["gap"] = {"highest": highest, "lowest": lowest, "value": wide, "interval": (low, high), "chance": chance}
    return column


def tell(metric: str, measured: Mapping[str, Any]) -> None:
    """Print the scores of each group, those too small to judge, and the widest gap."""
    for name, column in measured.items():
        judged = {group: one for group, one in column["groups"].items() if one["rows"] >= FEWEST}
        small = {group: one["rows"] for group, one in column["groups"].items() if group not in judged}
        if judged:
            show(_table(name, metric, judged))
        if small:
            say(f"{name}: too few rows to judge, under {FEWEST}: {_listed(small)}")
        if column["gap"] is not None:
            say(gap_in_words(name, metric, column["gap"], len(judged)))


def gap_in_words(name: str, metric: str, found: Mapping[str, Any], groups: int) -> str:
    """Say how far the two groups lie apart that lie farthest, and how often chance alone makes such a gap."""
    low, high = found["interval"]
    return (
        f"{name}: the widest gap of {groups} groups is {found['value']:.3f} {metric} ({low:.3f} to {high:.3f}), from "
        f"{found['lowest']} to {found['highest']}; dealt at random, groups of these sizes lie so far apart in "
        f"{found['chance']:.1%} of the cases"
    )


def _table(name: str, metric: str, judged: Mapping[str, Any]) -> Table:
    """Return the table of groups; where there are few classes, with the share of each one's rows that is missed."""
    table = Table()
    table.add_column(name)
    for column in ("rows", metric, "95 % interval"):
        table.add_column(column, justify="right")
    classes = list(dict.fromkeys(entry["class"] for one in judged.values() for entry in one["report"]))
    classes = classes if len(classes) <= MOST_CLASSES else []
    for label in classes:
        table.add_column(f"missed: {label}", justify="right")
    for group, one in judged.items():
        low, high = one["interval"]
        missed = {entry["class"]: f"{1 - entry['recall']:.3f} of {_count(entry)}" for entry in one["report"]}
        score = f"{one['scores'][metric]:.3f}"
        table.add_row(
            group, f"{one['rows']:,}", score, f"{low:.3f} to {high:.3f}", *(missed.get(label, "") for label in classes)
        )
    return table


def small_classes(report: Sequence[Mapping[str, Any]]) -> str | None:
    """Tell which classes have too few examples to judge; None where all have enough."""
    small = {entry["class"]: count for entry in report if (count := _count(entry)) < FEWEST}
    return f"Too few to judge a class by itself, under {FEWEST}: {_listed(small)}" if small else None


def _count(entry: Mapping[str, Any]) -> int:
    """Return how many examples of a class there are: the last column of a report."""
    return int(list(entry.values())[-1])


def _listed(rows: Mapping[str, int]) -> str:
    """Return names with their numbers of rows, the largest first, and how many more there are."""
    ranked = sorted(rows, key=lambda name: -rows[name])
    more = f" and {len(ranked) - MOST_LISTED} others" if len(ranked) > MOST_LISTED else ""
    return ", ".join(f"{name} ({rows[name]})" for name in ranked[:MOST_LISTED]) + more
