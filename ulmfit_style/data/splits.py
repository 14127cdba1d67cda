"""Divides labelled rows into splits by hash, so that rows stay where they are when others come; and samples them.

A sample is the few training rows whose labels are used, those that `finetune.patience` watches, or those scored.
"""

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Any

import numpy as np

from ulmfit_style.console import say
from ulmfit_style.data.rows import Numbers, Rows, position
from ulmfit_style.errors import UserError
from ulmfit_style.tasks.base import Task

FOLDS = 5
"""Folds of few rows, where `task.folds` does not say."""

FEW = 300
"""Rows from which on some are split off for the test instead: of fewer, a fifth says next to nothing."""

WATCHED_RATIO = 0.2
"""Share of a sample of labelled rows that `finetune.patience` keeps from training, to choose by."""


def shuffled(task: Task, rows: Rows, seed: int) -> Rows:
    """Return rows in the random order of `seed`."""
    positions = (position(seed, "\0".join([str(row.number), *task.texts(row)])) for row in rows)
    return rows[np.argsort(np.fromiter(positions, np.uint64, len(rows)), kind="stable")]


def split(task: Task, files: Mapping[str, Rows]) -> tuple[Rows, Rows, Rows]:
    """Return training, validation and test rows; those without a file are split off the training rows."""
    ratios = [0.0 if "test" in files else task.test_ratio, 0.0 if "validation" in files else task.validation_ratio]
    test, validation, train = divide(files["train"], ratios, stratified=not task.group)
    return train, files.get("validation", validation), files.get("test", test)


def without(rows: Rows, others: Rows) -> Rows:
    """Return the rows that equal none of the others."""
    return rows[~np.isin(rows.column("key"), others.column("key"))]


def divide(rows: Rows, ratios: Sequence[float], *, stratified: bool) -> list[Rows]:
    """Return the share of the rows that each ratio asks for, and what is left.

    It goes by hash, and no group and no equal text is on two sides.

    Args:
        stratified: Whether each class is divided by itself, so that every side has its share of each; a group counts as
            of the class of its first row.
    """
    rows, units, strata = _units(rows, stratified)
    shares, only = [*ratios, 1 - sum(ratios)], dict[str, int]()
    for unit, labels in zip(units, rows.labels, strict=True):
        only |= {label: unit if only.get(label, unit) == unit else -1 for label in labels}
    alone = set(only.values())  # the units with a label that no other has
    # Rounding class by class can leave a side without its share; then each unit goes where most is owed.
    for is_rounded in (True, False):
        places, owed = list[int](), [0.0 for _ in shares]
        for sizes in strata:
            size, taken = sum(sizes), 0
            ends = list(accumulate(round(ratio * size) for ratio in ratios))
            owed = [rest + share * size for rest, share in zip(owed, shares, strict=True)]
            for count in sizes:
                is_only = len(places) in alone  # it has to be learnt from
                most_owed = owed.index(max(owed)) if taken and not is_rounded else -1
                place = -1 if is_only else bisect_right(ends, taken) if is_rounded else most_owed
                places.append(place % len(shares))
                taken += 0 if is_only else count
                owed[place] -= count
        sides = _sides(rows, units, places, len(shares))
        if all(2 * len(side) >= int(share * len(rows)) for side, share in zip(sides, shares, strict=True)):
            break
    return sides


def folds(task: Task, files: Mapping[str, Rows]) -> list[Rows]:
    """Return the rows in folds; none where they are to be split.

    Raises:
        UserError: if there are too few rows.
    """
    rows, count = files["train"], task.folds
    if count is None:
        count = FOLDS if len(files) == 1 and task.test_samples is None and len(rows) < FEW else 0
    dealt = deal(task, rows, count) if count else []
    if not all(dealt):
        raise UserError(f"task.path={task.path}: {too_few(rows)} for {count} folds (task.folds)")
    return dealt


def deal(task: Task, rows: Rows, count: int) -> list[Rows]:
    """Return the rows in so many parts of about the same size, each with its share of each class as in `divide`."""
    rows, units, strata = _units(rows, not task.group)
    totals, places = [0] * count, list[int]()
    for sizes in strata:
        taken = [0] * count
        for size in sizes:
            smallest = min(range(count), key=lambda number: (taken[number], totals[number]))
            places.append(smallest)
            totals[smallest] += size
            taken[smallest] += size
    return _sides(rows, units, places, count)


def _sides(rows: Rows, units: Numbers, places: Sequence[int], count: int) -> list[Rows]:
    side_of = np.array(places, int)[units]
    return [rows[side_of == side] for side in range(count)]


def too_few(rows: Rows) -> str:
    """Return that rows are too few, and what keeps them together."""
    count, kind = len(np.unique(rows.column("unit"))), "group" if "group" in rows[0].fields else "different text"
    together = f" of {count} {kind}{'s' * (count > 1)}, never divided," if count < len(rows) else ""
    return f"{len(rows)} rows{together} are too few"


def _units(rows: Rows, stratified: bool) -> tuple[Rows, Numbers, list[list[int]]]:
    """Bring together the rows that are never divided, because they are of one group or have equal texts: the units.

    Returns:
        The rows by classes, and those of a class in random order with those of a unit one after another; of each row
        the number of its unit; and how many rows each unit has, by classes.
    """
    _, first, unit_of, sizes = np.unique_all(rows.column("unit"))
    strata = _strata(rows[first]) if stratified else np.zeros(len(first), int)
    lowest = np.full(len(rows.kinds) + 1, len(rows))
    np.minimum.at(lowest, strata, first)
    ranks = lowest[strata]  # classes are in the order of their first rows
    order, by_rank = np.lexsort((unit_of, ranks[unit_of])), np.argsort(ranks, kind="stable")
    parts = np.split(sizes[by_rank], np.flatnonzero(np.diff(ranks[by_rank])) + 1)
    return rows[order], np.repeat(np.arange(len(first)), sizes[by_rank]), [part.tolist() for part in parts]


def _strata(rows: Rows) -> Any:
    """Return a number for each row: each side gets its share of the rows of each number.

    It stands for what the task says, or for the rarest label; the more frequent ones even out.
    """
    kinds, counts = rows.column("kind"), Counter[str]()
    for (labels, _), count in zip(rows.kinds, np.bincount(kinds, minlength=len(rows.kinds)).tolist(), strict=True):
        counts.update(dict.fromkeys(labels, count))
    names = [
        min(labels, key=lambda label: (counts[label], label), default="") if name is None else name
        for labels, name in rows.kinds
    ]
    return np.unique(names, return_inverse=True)[1][kinds]


def sample(task: Task, pool: Rows, classes: Sequence[str]) -> Rows:
    """Choose training rows: `task.shots` of each class; or `task.train_samples`, one of each class first.

    Raises:
        UserError: if there are too few rows, or no classes to take shots of.
    """
    if task.shots is None and task.train_samples is None:
        return pool
    drawn = shuffled(task, pool, task.sample_seed)
    if task.shots is not None:
        if not classes:
            raise UserError(f"task.shots={task.shots}: there are no classes here; use task.train_samples")
        chosen = drawn[list(_of_each_class(drawn, task.shots))]
        counts = Counter(label for labels in chosen.labels for label in labels)
        if fewer := [f"{label} ({counts[label]})" for label in classes if counts[label] < task.shots]:
            say(f"task: classes with fewer than {task.shots} training rows: {', '.join(fewer)}")
        return chosen
    count = task.train_samples or 0
    if count > len(pool):
        raise UserError(f"task.train_samples={count}: the training split has {len(pool):,} rows")
    firsts = list(_of_each_class(drawn, 1))
    if count < len(firsts):
        needed = f"there are {len(classes)} classes, and it takes {len(firsts)} rows for each to have one"
        raise UserError(f"task.train_samples={count}: {needed}")
    return drawn[np.concatenate([firsts, np.setdiff1d(np.arange(len(pool)), firsts)]).astype(int)[:count]]


def scored(task: Task, rows: Rows, split: str) -> Rows:
    """Choose the validation or test rows that are scored: all, or `task.test_samples` of them."""
    if task.test_samples is None or task.test_samples >= len(rows):
        return rows
    say(f"task: only {task.test_samples:,} {split} rows are scored (task.test_samples)")
    return shuffled(task, rows, task.split_seed)[: task.test_samples]


def watch(task: Task, sampled: Rows) -> tuple[Rows, Rows]:
    """Divide sampled rows into those to train on, and those by which `finetune.patience` chooses what is kept.

    Raises:
        UserError: if the sample is too small for both.
    """
    watched, trained = divide(sampled, [WATCHED_RATIO], stratified=True)
    held, learnt = ({label for labels in rows.labels for label in labels} for rows in (watched, trained))
    lost = sorted(held - learnt)
    if not watched or not trained or lost:
        lack = f"no row of '{lost[0]}' is left to train on" if lost else "these are too few to divide"
        problem = f"{WATCHED_RATIO:.0%} of the {len(sampled):,} labelled rows are watched, and {lack}"
        raise UserError(f"finetune.patience: {problem}; use more rows, or finetune.patience=null")
    return trained, watched


def held_out_in_turn(task: Task, rows: Rows, count: int) -> Iterator[tuple[Rows, Rows]]:
    """Yield so many times the rows to train on and those to be answered, each row once; equal texts stay together."""
    parts = deal(task, rows, count)
    for place, held in enumerate(parts):
        learnt = sum((part for other, part in enumerate(parts) if other != place), rows[:0])
        if learnt and held:
            yield learnt, held


def _of_each_class(shuffled: Rows, count: int) -> Iterator[int]:
    """Yield the numbers of rows until each class has `count` of them, or all that it has."""
    counts = Counter[str]()
    for number, labels in enumerate(shuffled.labels):
        if any(counts[label] < count for label in labels):
            yield number
            counts.update(labels)
