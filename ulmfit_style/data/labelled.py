"""Labelled rows: split once and for all, checked, and sampled."""

from __future__ import annotations

import hashlib
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache

from ulmfit_style.console import say
from ulmfit_style.data.reading import read
from ulmfit_style.errors import UserError
from ulmfit_style.run import digest
from ulmfit_style.tasks.base import Row, Task

SHOWN_PROBLEMS = 10
"""How many problems of a file are listed before the rest is counted."""


@dataclass(frozen=True)
class Labelled:
    """The rows of a task."""

    pool: list[Row]
    """The whole training split: the unlabelled text of the task."""
    train: list[Row]
    """The rows whose labels are used: `task.train_samples` of the pool."""
    validation: list[Row]
    test: list[Row]
    held: frozenset[str]
    """The normalised texts of all validation and test rows, whether scored or not: no model may train on them."""
    classes: list[str]
    """The labels of the pool, in the order of the model's outputs."""

    def digest(self, task: Task) -> str:
        """Return the digest of all that training and scoring read."""
        splits = (self.train, self.validation, self.test)
        return digest([[[task.document(row), task.target(row)] for row in rows] for rows in splits] + [self.classes])


def normalised(text: str) -> str:
    """Return the text by which two documents count as equal: NFKC, blanks collapsed."""
    return " ".join(unicodedata.normalize("NFKC", text).split())


def position(seed: int, text: str) -> int:
    """Return a text's place in the random order of `seed`: it depends on no other text."""
    return int.from_bytes(hashlib.blake2b(f"{seed}\0{text}".encode(), digest_size=8).digest(), "big")


@cache
def load(task: Task) -> Labelled:
    """Read, check, split and sample a task's rows. They are read once a process.

    Raises:
        UserError: listing what is wrong with the rows, each with its place.
    """
    rows = read("task.path", task.path, task.columns())
    wanted = [row for row in rows if task.wanted(row)]
    problems = task.check(wanted)
    if problems:
        more = [f"... and {len(problems) - SHOWN_PROBLEMS} more"] if len(problems) > SHOWN_PROBLEMS else []
        raise UserError("\n  - ".join([f"task.path={task.path}:", *problems[:SHOWN_PROBLEMS], *more]))

    pool, validation, test = _split(task, wanted)
    held = {normalised(task.document(row)) for row in test}
    validation, leaked_validation = _without(task, validation, held)
    held |= {normalised(task.document(row)) for row in validation}
    pool, leaked_pool = _without(task, pool, held)
    for name, split in (("training", pool), ("validation", validation), ("test", test)):
        if not split:
            raise UserError(f"task.path={task.path}: {len(wanted)} rows are too few; none is left for {name}")
    classes = task.classes(pool)
    if classes:
        _known_labels(task, classes, validation, test)
    train = _sample(task, pool, len(classes))
    scored = {name: _first(task, split) for name, split in (("validation", validation), ("test", test))}

    by = f" by {task.group}" if task.group else ""
    say(
        f"task: {len(wanted):,} rows of {rows[0].file}, split{by} into {len(pool):,} training, "
        f"{len(validation):,} validation and {len(test):,} test rows"
    )
    if len(wanted) < len(rows):
        say(f"task: {len(rows) - len(wanted):,} rows of other classes than {', '.join(classes)} are left out")
    if leaked_validation + leaked_pool:
        say(f"task: {leaked_validation + leaked_pool} rows are left out whose text also stands in test or validation")
    for name, split in (("validation", validation), ("test", test)):
        if len(scored[name]) < len(split):
            say(f"task: only {len(scored[name]):,} {name} rows are scored (task.test_samples)")
    return Labelled(pool, train, scored["validation"], scored["test"], frozenset(held), classes)


def _split(task: Task, rows: Sequence[Row]) -> tuple[list[Row], list[Row], list[Row]]:
    """Split into training, validation and test rows, by hash: no group and no equal text is on two sides.

    Without a group column each class is split by itself, so that every split has its share of each.
    """
    units: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        units[str(row.fields[task.group]) if task.group else normalised(task.document(row))].append(row)
    strata: dict[str, list[str]] = defaultdict(list)
    for unit, members in units.items():
        strata["" if task.group else task.target(members[0])].append(unit)
    train: list[Row] = []
    validation: list[Row] = []
    test: list[Row] = []
    for names in strata.values():
        names.sort(key=lambda unit: position(task.split_seed, unit))
        size = sum(len(units[name]) for name in names)
        test_size, validation_size = round(task.test_ratio * size), round(task.validation_ratio * size)
        taken = 0
        for name in names:
            side = test if taken < test_size else validation if taken < test_size + validation_size else train
            side += units[name]
            taken += len(units[name])
    return train, validation, test


def _without(task: Task, rows: Iterable[Row], texts: set[str]) -> tuple[list[Row], int]:
    """Leave out the rows whose text is among `texts`; return the rest and how many were left out."""
    rows = list(rows)
    kept = [row for row in rows if normalised(task.document(row)) not in texts]
    return kept, len(rows) - len(kept)


def _known_labels(task: Task, classes: Sequence[str], *splits: Sequence[Row]) -> None:
    unknown = [row for split in splits for row in split if task.target(row) not in set(classes)]
    if unknown:
        row = unknown[0]
        raise UserError(
            f"{row.place}: the label '{task.target(row)}' is in no training row "
            f"({len(unknown)} such rows in validation and test); add rows of it, or leave it out by task.labels"
        )


def _sample(task: Task, pool: Sequence[Row], classes: int) -> list[Row]:
    """Choose `task.train_samples` rows: one of each class first, then in random order."""
    count = task.train_samples
    if count is None:
        return list(pool)
    if count > len(pool):
        raise UserError(f"task.train_samples={count}: the training split has {len(pool):,} rows")
    if count < classes:
        raise UserError(f"task.train_samples={count}: there are {classes} classes, and each needs a row")
    ordered = sorted(pool, key=_order(task, task.sample_seed))
    first_of_class: dict[str, Row] = {}
    if classes:
        for row in ordered:
            first_of_class.setdefault(task.target(row), row)
    firsts = list(first_of_class.values())
    chosen = {id(row) for row in firsts}
    return (firsts + [row for row in ordered if id(row) not in chosen])[:count]


def _first(task: Task, rows: Sequence[Row]) -> list[Row]:
    """Choose the rows that are scored."""
    if task.test_samples is None or task.test_samples >= len(rows):
        return list(rows)
    return sorted(rows, key=_order(task, task.split_seed))[: task.test_samples]


def _order(task: Task, seed: int) -> Callable[[Row], int]:
    return lambda row: position(seed, f"{row.number}\0{task.document(row)}")
