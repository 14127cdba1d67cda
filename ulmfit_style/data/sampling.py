"""Chooses the few training rows whose labels are used, those that `finetune.patience` watches, and those scored."""

from collections import Counter
from collections.abc import Iterator, Sequence

from ulmfit_style.console import say
from ulmfit_style.data import splits
from ulmfit_style.errors import UserError
from ulmfit_style.tasks.base import Row, Task

WATCHED_RATIO = 0.2
"""Share of a sample of labelled rows that `finetune.patience` keeps from training, to choose by."""


def sample(task: Task, pool: Sequence[Row], classes: Sequence[str]) -> list[Row]:
    """Choose training rows: `task.shots` of each class; or `task.train_samples`, one of each class first.

    Raises:
        UserError: if there are too few rows, or no classes to take shots of.
    """
    if task.shots is None and task.train_samples is None:
        return list(pool)
    shuffled = sorted(pool, key=splits.random_order(task, task.sample_seed))
    if task.shots is not None:
        if not classes:
            raise UserError(f"task.shots={task.shots}: there are no classes here; use task.train_samples")
        chosen = _of_each_class(task, shuffled, task.shots)
        counts = Counter(label for row in chosen for label in task.labels_of(row))
        fewer = [f"{label} ({counts[label]})" for label in classes if counts[label] < task.shots]
        if fewer:
            say(f"task: classes with fewer than {task.shots} training rows: {', '.join(fewer)}")
        return chosen
    count = task.train_samples or 0
    if count > len(pool):
        raise UserError(f"task.train_samples={count}: the training split has {len(pool):,} rows")
    firsts = _of_each_class(task, shuffled, 1)
    if count < len(firsts):
        needed = f"there are {len(classes)} classes, and it takes {len(firsts)} rows for each to have one"
        raise UserError(f"task.train_samples={count}: {needed}")
    first = set(map(id, firsts))
    return sorted(shuffled, key=lambda row: id(row) not in first)[:count]


def scored(task: Task, rows: Sequence[Row], split: str) -> list[Row]:
    """Choose the validation or test rows that are scored: all, or `task.test_samples` of them."""
    if task.test_samples is None or task.test_samples >= len(rows):
        return list(rows)
    say(f"task: only {task.test_samples:,} {split} rows are scored (task.test_samples)")
    return sorted(rows, key=splits.random_order(task, task.split_seed))[: task.test_samples]


def watch(task: Task, sampled: Sequence[Row]) -> tuple[list[Row], list[Row]]:
    """Divide sampled rows into those to train on, and those by which `finetune.patience` chooses what is kept.

    Raises:
        UserError: if the sample is too small for both.
    """
    watched, trained = splits.divide(task, sampled, [WATCHED_RATIO], stratified=True)
    trained_labels = {label for row in trained for label in task.labels_of(row)}
    lost = sorted({label for row in watched for label in task.labels_of(row)} - trained_labels)
    if not watched or not trained or lost:
        lack = f"no row of '{lost[0]}' is left to train on" if lost else "these are too few to divide"
        problem = f"{WATCHED_RATIO:.0%} of the {len(sampled):,} labelled rows are watched, and {lack}"
        raise UserError(f"finetune.patience: {problem}; use more rows, or finetune.patience=null")
    return trained, watched


def folds(task: Task, rows: Sequence[Row], count: int) -> Iterator[tuple[list[Row], list[Row]]]:
    """Yield so many times the rows to train on and those to be answered, each row once; equal texts stay together."""
    parts = splits.deal(task, rows, count)
    for place, held in enumerate(parts):
        learnt = [row for other, part in enumerate(parts) if other != place for row in part]
        if learnt and held:
            yield learnt, held


def _of_each_class(task: Task, shuffled: Sequence[Row], count: int) -> list[Row]:
    """Return rows until each class has `count` of them, or all that it has."""
    chosen, counts = [], Counter[str]()
    for row in shuffled:
        labels = task.labels_of(row)
        if any(counts[label] < count for label in labels):
            chosen.append(row)
            counts.update(labels)
    return chosen
