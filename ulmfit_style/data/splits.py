"""Divides labelled rows into splits by hash, so that rows stay where they are when others come."""

import hashlib
import unicodedata
from bisect import bisect_right
from collections import Counter, defaultdict
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
    strata = list(_strata(task, rows, stratified))
    labels = [{label for row in unit for label in task.labels_of(row)} for units in strata for unit in units]
    having, shares = Counter(label for names in labels for label in names), [*ratios, 1 - sum(ratios)]
    for is_rounded in (True, False):
        # Rounding class by class can leave a side without its share; then each unit goes where most is owed.
        sides, owed, names = [list[Row]() for _ in shares], [0.0 for _ in shares], iter(labels)
        for units in strata:
            size, taken = sum(map(len, units)), 0
            ends = list(accumulate(round(ratio * size) for ratio in ratios))
            owed = [rest + share * size for rest, share in zip(owed, shares, strict=True)]
            for unit, held in zip(units, names, strict=False):
                is_only = any(having[label] == 1 for label in held)  # it has to be learnt from
                most_owed = owed.index(max(owed)) if taken else -1
                place = -1 if is_only else bisect_right(ends, taken) if is_rounded else most_owed
                sides[place] += unit
                taken += 0 if is_only else len(unit)
                owed[place] -= len(unit)
        if all(2 * len(side) >= int(share * len(rows)) for side, share in zip(sides, shares, strict=True)):
            break
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
        raise UserError(f"task.path={task.path}: {too_few(task, rows)} for {count} folds (task.folds)")
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


def too_few(task: Task, rows: Sequence[Row]) -> str:
    """Return that rows are too few, and what keeps them together."""
    count, kind = len(_units(task, rows)), "group" if "group" in rows[0].fields else "different text"
    together = f" of {count} {kind}{'s' * (count > 1)}, never divided," if count < len(rows) else ""
    return f"{len(rows)} rows{together} are too few"


def _strata(task: Task, rows: Sequence[Row], stratified: bool) -> Iterator[list[list[Row]]]:
    """Yield the rows of each class, or all where not `stratified`: in random order, those that stay together as one."""
    units = _units(task, rows)
    names = task.strata([members[0] for members in units.values()]) if stratified else [""] * len(units)
    strata: dict[str, list[str]] = defaultdict(list)
    for name, unit in zip(names, units, strict=True):
        strata[name].append(unit)
    for members in strata.values():
        yield [units[unit] for unit in sorted(members, key=lambda unit: position(task.split_seed, unit))]


def _units(task: Task, rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Return the rows that stay together: of one group, or with equal texts."""
    units: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        group = row.fields.get("group")
        units[key(task, row) if group in (None, "") else str(group)].append(row)
    return units
