"""Divides labelled rows into splits by hash, so that rows stay where they are when others come."""

import hashlib
import unicodedata
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from itertools import accumulate

from ulmfit_style.errors import UserError
from ulmfit_style.tasks.base import Row, Task

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


def random_order(task: Task, seed: int) -> Callable[[Row], int]:
    """Return the key that sorts rows into the random order of `seed`."""
    return lambda row: position(seed, "\0".join([str(row.number), *task.texts(row)]))


def key(task: Task, row: Row) -> str:
    """Return what is the same for rows that count as equal."""
    return "\n".join(map(normalised, task.documents([row])))


def split(task: Task, files: Mapping[str, Sequence[Row]]) -> tuple[list[Row], list[Row], list[Row]]:
    """Return training, validation and test rows; those without a file are split off the training rows."""
    ratios = [0.0 if "test" in files else task.test_ratio, 0.0 if "validation" in files else task.validation_ratio]
    test, validation, train = divide(task, files["train"], ratios, stratified=not task.group)
    return train, [*files.get("validation", ()), *validation], [*files.get("test", ()), *test]


def without(task: Task, rows: Sequence[Row], keys: Collection[str]) -> list[Row]:
    """Return the rows that equal none of those with these keys."""
    return [row for row in rows if key(task, row) not in keys]


def divide(task: Task, rows: Sequence[Row], ratios: Sequence[float], *, stratified: bool) -> list[list[Row]]:
    """Return the share of the rows that each ratio asks for, and what is left.

    It goes by hash, and no group and no equal text is on two sides.

    Args:
        stratified: Whether each class is divided by itself, so that every side has its share of each; a group counts as
            of the class of its first row.
    """
    sides: list[list[Row]] = [[] for _ in (*ratios, 1.0)]
    for units in _strata(task, rows, stratified):
        ends = list(accumulate(round(ratio * sum(map(len, units))) for ratio in ratios))
        taken = 0
        for unit in units:
            sides[bisect_right(ends, taken)] += unit
            taken += len(unit)
    return sides


def folds(task: Task, files: Mapping[str, Sequence[Row]]) -> list[list[Row]]:
    """Return the rows in folds; none where they are to be split.

    Raises:
        UserError: if there are too few rows.
    """
    rows, count = files["train"], task.folds
    if count is None:
        count = FOLDS if len(files) == 1 and task.test_samples is None and len(rows) < FEW else 0
    dealt = deal(task, rows, count) if count else []
    if not all(dealt):
        raise UserError(f"task.path={task.path}: {len(rows)} rows are too few for {count} folds (task.folds)")
    return dealt


def deal(task: Task, rows: Sequence[Row], count: int) -> list[list[Row]]:
    """Return the rows in so many parts of about the same size, each with its share of each class as in `divide`."""
    dealt: list[list[Row]] = [[] for _ in range(count)]
    for units in _strata(task, rows, not task.group):
        taken = [0] * count
        for unit in units:
            smallest = min(range(count), key=lambda number: (taken[number], len(dealt[number])))
            dealt[smallest] += unit
            taken[smallest] += len(unit)
    return dealt


def _strata(task: Task, rows: Sequence[Row], stratified: bool) -> Iterator[list[list[Row]]]:
    """Yield the rows of each class, or all where not `stratified`: in random order, those that stay together as one."""
    units: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        group = row.fields.get("group")
        units[key(task, row) if group in (None, "") else str(group)].append(row)
    names = task.strata([members[0] for members in units.values()]) if stratified else [""] * len(units)
    strata: dict[str, list[str]] = defaultdict(list)
    for name, unit in zip(names, units, strict=True):
        strata[name].append(unit)
    for members in strata.values():
        yield [units[unit] for unit in sorted(members, key=lambda unit: position(task.split_seed, unit))]
