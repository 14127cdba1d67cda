"""Chooses the few training rows whose labels are used, those that `finetune.patience` watches, and those scored."""

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

from ulmfit_style.console import say
from ulmfit_style.data import splits
from ulmfit_style.data.rows import Rows
from ulmfit_style.errors import UserError
from ulmfit_style.tasks.base import Task

WATCHED_RATIO = 0.2
"""Share of a sample of labelled rows that `finetune.patience` keeps from training, to choose by."""


def sample(task: Task, pool: Rows, classes: Sequence[str]) -> Rows:
    """Choose training rows: `task.shots` of each class; or `task.train_samples`, one of each class first.

    Raises:
        UserError: if there are too few rows, or no classes to take shots of.
    """
    if task.shots is None and task.train_samples is None:
        return pool
    shuffled = splits.shuffled(task, pool, task.sample_seed)
    if task.shots is not None:
        if not classes:
            raise UserError(f"task.shots={task.shots}: there are no classes here; use task.train_samples")
        chosen = shuffled[_of_each_class(shuffled, task.shots)]
        counts = Counter(label for labels in chosen.labels for label in labels)
        fewer = [f"{label} ({counts[label]})" for label in classes if counts[label] < task.shots]
        if fewer:
            say(f"task: classes with fewer than {task.shots} training rows: {', '.join(fewer)}")
        return chosen
    count = task.train_samples or 0
    if count > len(pool):
        raise UserError(f"task.train_samples={count}: the training split has {len(pool):,} rows")
    firsts = _of_each_class(shuffled, 1)
    if count < len(firsts):
        needed = f"there are {len(classes)} classes, and it takes {len(firsts)} rows for each to have one"
        raise UserError(f"task.train_samples={count}: {needed}")
    others = np.setdiff1d(np.arange(len(pool)), firsts)
    return shuffled[np.concatenate([firsts, others]).astype(int)[:count]]


def scored(task: Task, rows: Rows, split: str) -> Rows:
    """Choose the validation or test rows that are scored: all, or `task.test_samples` of them."""
    if task.test_samples is None or task.test_samples >= len(rows):
        return rows
    say(f"task: only {task.test_samples:,} {split} rows are scored (task.test_samples)")
    return splits.shuffled(task, rows, task.split_seed)[: task.test_samples]


def watch(task: Task, sampled: Rows) -> tuple[Rows, Rows]:
    """Divide sampled rows into those to train on, and those by which `finetune.patience` chooses what is kept.

    Raises:
        UserError: if the sample is too small for both.
    """
    watched, trained = splits.divide(sampled, [WATCHED_RATIO], stratified=True)
    held, learnt = ({label for labels in rows.labels for label in labels} for rows in (watched, trained))
    lost = sorted(held - learnt)
    if not watched or not trained or lost:
        lack = f"no row of '{lost[0]}' is left to train on" if lost else "these are too few to divide"
        problem = f"{WATCHED_RATIO:.0%} of the {len(sampled):,} labelled rows are watched, and {lack}"
        raise UserError(f"finetune.patience: {problem}; use more rows, or finetune.patience=null")
    return trained, watched


def folds(task: Task, rows: Rows, count: int) -> Iterator[tuple[Rows, Rows]]:
    """Yield so many times the rows to train on and those to be answered, each row once; equal texts stay together."""
    parts = splits.deal(task, rows, count)
    for place, held in enumerate(parts):
        learnt = sum((part for other, part in enumerate(parts) if other != place), rows[:0])
        if learnt and held:
            yield learnt, held


def _of_each_class(shuffled: Rows, count: int) -> list[int]:
    """Return the numbers of rows until each class has `count` of them, or all that it has."""
    chosen, counts = [], Counter[str]()
    for number, labels in enumerate(shuffled.labels):
        if any(counts[label] < count for label in labels):
            chosen.append(number)
            counts.update(labels)
    return chosen
