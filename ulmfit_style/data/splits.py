"""Divides labelled rows into splits by hash, so that rows stay where they are when others come."""

from __future__ import annotations

import hashlib
import unicodedata
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ulmfit_style.errors import UserError
from ulmfit_style.tasks.base import Row, Task

if TYPE_CHECKING:
    from ulmfit_style.data.rows import Rows

Numbers = np.ndarray[Any, np.dtype[Any]]

FOLDS = 5
"""Folds of few rows, where `task.folds` does not say."""

FEW = 300
"""Rows from which on some are split off for the test instead: of fewer, a fifth says next to nothing."""


def normalised(text: str) -> str:
    """Return the text by which two documents count as equal: NFKC, blanks collapsed."""
    return " ".join(unicodedata.normalize("NFKC", text).split())


def position(seed: int, text: str) -> int:
    """Return a text's place in the random order of `seed`: it depends on no other text."""
    return int.from_bytes(hashlib.blake2b(f"{seed}\0{text}".encode(), digest_size=8).digest(), "big")


def shuffled(task: Task, rows: Rows, seed: int) -> Rows:
    """Return rows in the random order of `seed`."""
    positions = (position(seed, "\0".join([str(row.number), *task.texts(row)])) for row in rows)
    return rows[np.argsort(np.fromiter(positions, np.uint64, len(rows)), kind="stable")]


def key(task: Task, row: Row) -> str:
    """Return what is the same for rows that count as equal."""
    return "\n".join(map(normalised, task.documents([row])))


def split(task: Task, files: Mapping[str, Rows]) -> tuple[Rows, Rows, Rows]:
    """Return training, validation and test rows; those without a file are split off the training rows."""
    ratios = [0.0 if "test" in files else task.test_ratio, 0.0 if "validation" in files else task.validation_ratio]
    test, validation, train = divide(task, files["train"], ratios, stratified=not task.group)
    return train, files.get("validation", validation), files.get("test", test)


def without(rows: Rows, others: Rows) -> Rows:
    """Return the rows that equal none of the others."""
    return rows[~np.isin(rows.column("key"), others.column("key"))]


def divide(task: Task, rows: Rows, ratios: Sequence[float], *, stratified: bool) -> list[Rows]:
    """Return the share of the rows that each ratio asks for, and what is left.

    It goes by hash, and no group and no equal text is on two sides.

    Args:
        stratified: Whether each class is divided by itself, so that every side has its share of each; a group counts as
            of the class of its first row.
    """
    units, shares = _units(task, rows, stratified), [*ratios, 1 - sum(ratios)]
    alone = units.alone(rows)
    for is_rounded in (True, False):
        # Rounding class by class can leave a side without its share; then each unit goes where most is owed.
        places, owed = list[int](), [0.0 for _ in shares]
        for sizes in units.strata:
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
        sides = units.dealt(rows, places, len(shares))
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
    units, totals, places = _units(task, rows, not task.group), [0] * count, list[int]()
    for sizes in units.strata:
        taken = [0] * count
        for size in sizes:
            smallest = min(range(count), key=lambda number: (taken[number], totals[number]))
            places.append(smallest)
            totals[smallest] += size
            taken[smallest] += size
    return units.dealt(rows, places, count)


def too_few(rows: Rows) -> str:
    """Return that rows are too few, and what keeps them together."""
    units = rows.column("unit")
    count, kind = len(np.unique(units)), "group" if "group" in rows[0].fields else "different text"
    together = f" of {count} {kind}{'s' * (count > 1)}, never divided," if count < len(rows) else ""
    return f"{len(rows)} rows{together} are too few"


class Units(NamedTuple):
    """Rows that stay together, because they are of one group or have equal texts, in a random order."""

    order: Numbers
    """The numbers of the rows: those of a class, and in it those of a unit, one after another."""
    unit_of: Numbers
    """The unit of each row in this order."""
    strata: list[list[int]]
    """How many rows each unit has, by classes."""

    def dealt(self, rows: Rows, places: Sequence[int], count: int) -> list[Rows]:
        """Return the rows in so many parts, by the part of each unit."""
        part_of = np.array(places, np.int16)[self.unit_of]
        return [rows[self.order[part_of == part]] for part in range(count)]

    def alone(self, rows: Rows) -> set[int]:
        """Return the units that have a label which no other unit has."""
        kinds, names = rows.column("labels")[self.order], rows.kinds
        lowest, highest = np.full(len(names), len(rows)), np.full(len(names), -1)
        np.minimum.at(lowest, kinds, self.unit_of)
        np.maximum.at(highest, kinds, self.unit_of)
        having: dict[str, set[int]] = defaultdict(set)
        for kind in np.flatnonzero(highest >= 0).tolist():
            for label in names[kind]:
                having[label] |= {int(lowest[kind]), int(highest[kind])}
        return {unit for units in having.values() if len(units) == 1 for unit in units}


def _units(task: Task, rows: Rows, stratified: bool) -> Units:
    hashes = rows.column("unit")
    by_hash = np.argsort(hashes, kind="stable")
    starts = np.flatnonzero(np.diff(hashes[by_hash], prepend=~hashes[by_hash[:1]]))
    first, sizes = by_hash[starts], np.diff(starts, append=len(rows))
    names = task.strata(rows[first]) if stratified else [""] * len(first)
    ranks: dict[str, int] = {}  # by their first rows
    for name, number in zip(names, first.tolist(), strict=True):
        ranks[name] = min(number, ranks.get(name, number))
    stratum = np.array([ranks[name] for name in names], int)
    by_class = np.argsort(stratum, kind="stable")
    ends = np.flatnonzero(np.diff(stratum[by_class])) + 1
    order = by_hash[np.argsort(np.repeat(stratum, sizes), kind="stable")]
    unit_of = np.repeat(np.arange(len(first), dtype=np.int32), sizes[by_class])
    return Units(order, unit_of, [part.tolist() for part in np.split(sizes[by_class], ends)])
