"""Labelled rows: split once and for all, checked, and sampled."""

from __future__ import annotations

import hashlib
import unicodedata
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import accumulate
from pathlib import PurePath

from ulmfit_style.artefacts.directory import digest
from ulmfit_style.config.schema import spelled
from ulmfit_style.console import say
from ulmfit_style.data import columns, reading
from ulmfit_style.errors import UserError, together
from ulmfit_style.tasks.base import Column, Row, Task

WATCHED_RATIO = 0.2
"""Share of a sample of labelled rows that `finetune.patience` keeps from training, to choose by."""


@dataclass(frozen=True)
class Labelled:
    """The rows of a task."""

    pool: list[Row]
    """The whole training split: the unlabelled text of the task."""
    train: list[Row]
    """The rows whose labels are used: `task.train_samples` or `task.shots` of the pool."""
    validation: list[Row]
    test: list[Row]
    held: frozenset[str]
    """The normalised texts of all validation and test rows, whether scored or not: no model may train on them."""
    classes: list[str]
    """The labels of the pool, in the order of the model's outputs."""
    left_out: Mapping[str, int]
    """How many rows of the files are not used, by the reason."""
    findings: tuple[str, ...]
    """What was said of rows that are left out, or not used as they stand in their file."""

    def split(self, name: str) -> list[Row]:
        """Return the rows of train (those whose labels are used), validation or test."""
        return {"train": self.train, "validation": self.validation, "test": self.test}[name]

    def digest(self, task: Task) -> str:
        """Return the digest of all that training and scoring read."""
        splits = (self.train, self.validation, self.test)
        return digest([[[*task.texts(row), task.target(row)] for row in rows] for rows in splits] + [self.classes])


def digest_of(task: Task, rows: Sequence[Row]) -> str:
    """Return the digest of what scoring reads of rows."""
    return digest([[*task.texts(row), task.target(row)] for row in rows])


def normalised(text: str) -> str:
    """Return the text by which two documents count as equal: NFKC, blanks collapsed."""
    return " ".join(unicodedata.normalize("NFKC", text).split())


def position(seed: int, text: str) -> int:
    """Return a text's place in the random order of `seed`: it depends on no other text."""
    return int.from_bytes(hashlib.blake2b(f"{seed}\0{text}".encode(), digest_size=8).digest(), "big")


@cache
def load(task: Task) -> Labelled:
    """Read, check, split and sample a task's rows. They are read once a process, whichever samples are drawn of them.

    Raises:
        UserError: listing what is wrong with the rows, each with its place.
    """
    whole = task.unsampled()
    if task == whole:
        return _read(task)
    rows = load(whole)
    return replace(rows, train=_sample(task, rows.pool, rows.classes))


def _read(task: Task) -> Labelled:
    """Read, check and split the rows of a task that takes them all."""
    read = {
        split: list(_rows(task.path.option(split), path, task.columns())) for split, path in task.path.files().items()
    }
    given = {split: [row for row in rows if task.wanted(row)] for split, rows in read.items()}
    _check(task, given)
    doubt = task.dataset_problem(read["train"])
    if doubt is not None:
        raise UserError(f"{task.path.option('train')}={task.path.train}: {doubt}")
    findings: list[str] = []

    def tell(line: str) -> None:
        say(line)
        findings.append(line)

    for name, path in task.path.files().items():
        for remark in task.remarks(given[name]):
            tell(f"{task.path.option(name)}={path}: {remark}")

    pool, validation, test = _split(task, given)
    held = {_key(task, row) for row in test}
    validation, leaked_validation = _without(task, validation, held)
    held |= {_key(task, row) for row in validation}
    pool, leaked_pool = _without(task, pool, held)
    for name, split in (("training", pool), ("validation", validation), ("test", test)):
        if not split:
            count = sum(map(len, given.values()))
            raise UserError(f"task.path={task.path}: {count} rows are too few; none is left for {name}")
    classes = task.classes(pool)
    if classes:
        _known_labels(task, classes, [*validation, *test])
    scored = {name: _first(task, split) for name, split in (("validation", validation), ("test", test))}

    say(f"task: {len(pool):,} training, {len(validation):,} validation and {len(test):,} test rows {_origin(task)}")
    left_out = sum(len(read[split]) - len(given[split]) for split in read)
    leaked = leaked_validation + leaked_pool
    if left_out:
        tell(f"task: {left_out:,} rows of other classes than {', '.join(classes)} are left out")
    if leaked:
        tell(f"task: {leaked} rows are left out whose text also stands in test or validation")
    for name, split in (("validation", validation), ("test", test)):
        if len(scored[name]) < len(split):
            tell(f"task: only {len(scored[name]):,} {name} rows are scored (task.test_samples)")
    texts = frozenset(normalised(text) for row in [*validation, *test] for text in task.texts(row))
    reasons = {"other_classes": left_out, "in_test_or_validation": leaked}
    return Labelled(pool, pool, scored["validation"], scored["test"], texts, classes, reasons, tuple(findings))


def watched(task: Task) -> tuple[list[Row], list[Row]]:
    """Return the rows to train on, and those by which `finetune.patience` chooses the state that is kept.

    Where `task.train_samples` or `task.shots` says how many labels there are, the watched rows are a share of them, so
    that they are all the labels that the model ever sees; else they are those of the validation split.

    Raises:
        UserError: if the sample is too small for both.
    """
    rows = load(task)
    if task.train_samples is None and task.shots is None:
        return rows.train, rows.validation
    chosen, rest = _divided(task, rows.train, [WATCHED_RATIO], stratified=True)
    left = {label for row in rest for label in task.labels_of(row)}
    lost = sorted({f" of '{label}'" for row in chosen for label in task.labels_of(row) if label not in left})
    if not chosen or not rest or lost:
        lack = f"no row{''.join(lost[:1])} is left to train on" if chosen else "that is none"
        raise UserError(
            f"finetune.patience: {WATCHED_RATIO:.0%} of the {len(rows.train):,} labelled rows are watched, and {lack}; "
            "use more rows, or finetune.patience=null"
        )
    return rest, chosen


@cache
def load_whole(task: Task, option: str, reference: str) -> list[Row]:
    """Read and check the labelled rows of another file than the task's, to be scored as they are, not split.

    Args:
        option: The config field that names the file, for error messages.

    Raises:
        UserError: listing what is wrong with the rows, each with its place.
    """
    rows = list(_rows(option, reference, {**task.inputs(), **task.targets()}))
    wanted = [row for row in rows if task.wanted(row)]
    problems = [f"{row.place}: {problem}" for row in wanted if (problem := task.row_problem(row)) is not None]
    if problems:
        raise together(f"{option}={reference}", problems)
    if not wanted:
        raise UserError(f"{option}={reference}: none of its {len(rows):,} rows is of the classes of task.labels")
    left_out = f"; {len(rows) - len(wanted):,} of other classes are left out" if len(wanted) < len(rows) else ""
    say(f"{option}={reference}: {len(wanted):,} rows{left_out}")
    for remark in task.remarks(wanted):
        say(f"{option}={reference}: {remark}")
    return wanted


def repeated(task: Task, rows: Sequence[Row]) -> tuple[int, list[list[Row]]]:
    """Return how many rows repeat the text of another, and the rows of each text that has several right answers."""
    same: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        same["\n".join(map(normalised, task.texts(row)))].append(row)
    several = [own for own in same.values() if len({spelled(task.target(row)) for row in own}) > 1]
    return len(rows) - len(same), several


def require_known(task: Task, classes: Sequence[str], rows: Sequence[Row]) -> None:
    """Check that a model has an output for each label of the rows that it is scored on.

    Args:
        classes: The names of the model's outputs.

    Raises:
        UserError: naming each other label, and a row that has it.
    """
    known, unknown = set(classes), dict[str, Row]()
    for row in rows:
        for label in task.labels_of(row):
            if label not in known:
                unknown.setdefault(label, row)
    if unknown:
        names = ", ".join([*classes[:10], *(["..."] if len(classes) > 10 else [])])
        hint = f"the model does not know (it knows: {names})"
        problems = [f"{row.place}: has the label '{label}', which {hint}" for label, row in unknown.items()]
        raise together(unknown[next(iter(unknown))].file, problems)


def _rows(option: str, path: str, wanted: Mapping[str, Column]) -> Iterator[Row]:
    """Read the rows of a file that an option names, with the fields named as the task names them."""
    names = columns.find(option, path, wanted)
    for row in reading.rows(option, path, list(names.values())):
        yield Row(row.file, row.number, {field: row.fields[name] for field, name in names.items()})


def _check(task: Task, given: Mapping[str, Sequence[Row]]) -> None:
    """Raise for the rows that are wrong one by one."""
    problems = []
    for row in (row for rows in given.values() for row in rows):
        problem = task.row_problem(row)
        if problem is None and task.group and row.fields["group"] in (None, ""):
            problem = f"'{task.group}' is empty, which task.group names"
        if problem is not None:
            problems.append(f"{row.place}: {problem}")
    if problems:
        raise together(f"task.path={task.path}", problems)


def _origin(task: Task) -> str:
    """Tell where the splits come from."""
    files = task.path.files()
    made = [split for split in ("validation", "test") if split not in files]
    by = f" by {task.group}" if task.group else ""
    names = ", ".join(PurePath(path).name for path in files.values())
    verb = "are" if len(made) == 2 else "is"
    return f"of {names}" + (f"; {' and '.join(made)} {verb} split off train{by}" if made else "")


def _split(task: Task, given: Mapping[str, Sequence[Row]]) -> tuple[list[Row], list[Row], list[Row]]:
    """Return training, validation and test rows; those that are not given are split off the training rows."""
    ratios = [0.0 if "test" in given else task.test_ratio, 0.0 if "validation" in given else task.validation_ratio]
    test, validation, train = _divided(task, given["train"], ratios, stratified=not task.group)
    return train, [*given.get("validation", ()), *validation], [*given.get("test", ()), *test]


def _divided(task: Task, rows: Sequence[Row], ratios: Sequence[float], *, stratified: bool) -> list[list[Row]]:
    """Return the share of the rows that each ratio asks for, and what is left.

    It goes by hash, and no group and no equal text is on two sides.

    Args:
        stratified: Whether each class is divided by itself, so that every side has its share of each; a group counts as
            of the class of its first row.
    """
    units: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        group = row.fields.get("group")
        units[_key(task, row) if group in (None, "") else str(group)].append(row)
    names = task.strata([members[0] for members in units.values()]) if stratified else [""] * len(units)
    strata: dict[str, list[str]] = defaultdict(list)
    for name, unit in zip(names, units, strict=True):
        strata[name].append(unit)
    sides: list[list[Row]] = [[] for _ in (*ratios, 1.0)]
    for members in strata.values():
        members.sort(key=lambda unit: position(task.split_seed, unit))
        size = sum(len(units[unit]) for unit in members)
        ends = list(accumulate(round(ratio * size) for ratio in ratios))
        taken = 0
        for unit in members:
            sides[bisect_right(ends, taken)] += units[unit]
            taken += len(units[unit])
    return sides


def _key(task: Task, row: Row) -> str:
    """Return that by which rows count as equal."""
    return "\n".join(map(normalised, task.documents([row])))


def _without(task: Task, rows: Sequence[Row], keys: set[str]) -> tuple[list[Row], int]:
    """Leave out the rows that equal one of `keys`; return the rest and how many were left out."""
    kept = [row for row in rows if _key(task, row) not in keys]
    return kept, len(rows) - len(kept)


def _known_labels(task: Task, classes: Sequence[str], rows: Sequence[Row]) -> None:
    known = set(classes)
    unknown: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        for label in task.labels_of(row):
            if label not in known:
                unknown[label].append(row)
    if unknown:
        problems = [
            f"{found[0].place}: the label '{label}' is in no training row (rows of it in validation and test: "
            f"{len(found):,}); add training rows of it, or take these out"
            for label, found in unknown.items()
        ]
        raise together(f"task.path={task.path}", problems)


def _sample(task: Task, pool: Sequence[Row], classes: Sequence[str]) -> list[Row]:
    """Choose the training rows: `task.shots` of each class; or `task.train_samples`, one of each class first."""
    if task.shots is None and task.train_samples is None:
        return list(pool)
    ordered = sorted(pool, key=_order(task, task.sample_seed))
    if task.shots is not None:
        return _shots(task, ordered, classes, task.shots)
    count = task.train_samples or 0
    if count > len(pool):
        raise UserError(f"task.train_samples={count}: the training split has {len(pool):,} rows")
    firsts = _of_each_class(task, ordered, 1)
    if count < len(firsts):
        raise UserError(
            f"task.train_samples={count}: there are {len(classes)} classes, and it takes {len(firsts)} rows for each "
            "to have one"
        )
    chosen = {id(row) for row in firsts}
    return (firsts + [row for row in ordered if id(row) not in chosen])[:count]


def _shots(task: Task, ordered: Sequence[Row], classes: Sequence[str], shots: int) -> list[Row]:
    if not classes:
        raise UserError(f"task.shots={shots}: there are no classes here; use task.train_samples")
    chosen = _of_each_class(task, ordered, shots)
    counts = Counter(label for row in chosen for label in task.labels_of(row))
    fewer = [f"{label} ({counts[label]})" for label in classes if counts[label] < shots]
    if fewer:
        say(f"task: classes with fewer than {shots} training rows: {', '.join(fewer)}")
    return chosen


def _of_each_class(task: Task, ordered: Sequence[Row], count: int) -> list[Row]:
    """Return rows until each class has `count` of them, or all that it has."""
    chosen, counts = [], Counter[str]()
    for row in ordered:
        labels = task.labels_of(row)
        if any(counts[label] < count for label in labels):
            chosen.append(row)
            counts.update(labels)
    return chosen


def _first(task: Task, rows: Sequence[Row]) -> list[Row]:
    """Choose the rows that are scored."""
    if task.test_samples is None or task.test_samples >= len(rows):
        return list(rows)
    return sorted(rows, key=_order(task, task.split_seed))[: task.test_samples]


def _order(task: Task, seed: int) -> Callable[[Row], int]:
    return lambda row: position(seed, "\0".join([str(row.number), *task.texts(row)]))
