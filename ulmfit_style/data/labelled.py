"""Labelled rows: read, checked, split once and for all, and sampled."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property, partial
from pathlib import PurePath

import numpy as np

from ulmfit_style.artefacts import fingerprint, predictions
from ulmfit_style.config.section import AS_FOUND, FileFormat
from ulmfit_style.console import say
from ulmfit_style.data import columns, reading, splits
from ulmfit_style.data.rows import Rows, stored
from ulmfit_style.errors import UserError, together
from ulmfit_style.tasks.base import Row, Task
from ulmfit_style.tasks.files import named


@dataclass(frozen=True)
class Labelled:
    """The rows of a task: all that a command needs of its files."""

    task: Task
    pool: Rows
    """The whole training split: the unlabelled text of the task."""
    train: Rows
    """The rows whose labels are used: `task.train_samples` or `task.shots` of the pool."""
    validation: Rows
    test: Rows
    scored: Rows
    """All validation and test rows, whether scored or not: no model may train on their texts."""
    chosen: Rows
    """The rows of `task.path.chosen`: in `pool`, and in every `train`."""
    repeats: Rows
    """The rows that are left out because their text is in test or validation."""
    classes: list[str]
    """The labels of the pool, in the order of the model's outputs."""
    left_out: Mapping[str, int]
    """How many rows of the files are not used, by the reason."""
    folds: Sequence[Rows] = ()
    """The test rows in parts, each to be scored by a model that is trained on the others; none where rows are split."""

    @property
    def learnt(self) -> Sequence[Row]:
        """The rows to learn from: those of train, or where there are none the names of the classes."""
        return self.train or self.task.name_rows(self.classes)

    def split(self, name: str) -> Rows:
        """Return the rows of train (those whose labels are used), validation or test."""
        return {"train": self.train, "validation": self.validation, "test": self.test}[name]

    def unseen(self, seen: Collection[str]) -> "Labelled":
        """Return the rows without those of validation and test whose texts a model was trained on.

        Args:
            seen: The digests of these texts.
        """

        def left(rows: Rows) -> Rows:
            return rows[np.array([predictions.text_digest(self.task, row) not in seen for row in rows], bool)]

        return replace(self, validation=left(self.validation), test=left(self.test), folds=list(map(left, self.folds)))

    @cached_property
    def watched(self) -> tuple[Rows, Rows]:
        """The rows to train on, and those by which `finetune.patience` chooses the state that is kept.

        Where `task.train_samples` or `task.shots` says how many labels there are, the watched rows are a share of them,
        so that they are all the labels that the model ever sees; so it is with folds; else they are those of the
        validation split.

        Raises:
            UserError: if the sample is too small for both.
        """
        if self.validation and self.task.train_samples is None and self.task.shots is None:
            return self.train, self.validation
        return splits.watch(self.task, self.train)

    @cached_property
    def digest(self) -> str:
        """The digest of all that training and scoring read."""
        splits = (self.train, self.validation, *(self.folds or [self.test]))
        return fingerprint.digest([*(digest_of(self.task, rows) for rows in splits), self.classes])


def digest_of(task: Task, rows: Sequence[Row]) -> str:
    """Return the digest of what scoring reads of rows."""
    return fingerprint.digest_of_all([*task.texts(row), task.target(row)] for row in rows)


@cache
def load(task: Task) -> Labelled:
    """Read, check, split and sample a task's rows: each file once a process, whichever samples are drawn of it.

    Raises:
        UserError: listing what is wrong with the rows, each with its place.
    """
    if task != task.unsampled():
        return _sampled(task, load(task.unsampled()))
    files = task.path.files()
    if not files:
        classes = task.classes([])
        _require_names(task, "task.path=null", classes)
        none = stored(task, [])
        return Labelled(task, none, none, none, none, none, none, none, classes, left_out={})
    options = {split: (task.path.option(split), path) for split, path in files.items()}
    if "train" not in options:
        options["train"] = options.pop("chosen")
    every = stored(task, _checked(task, f"task.path={task.path}", options.values()))
    is_wanted, split_of = every.column("wanted"), every.column("split")
    wanted = {split: every[is_wanted & (split_of == number)] for number, split in enumerate(options)}
    learnt = [number for number, split in enumerate(options) if split in ("train", "chosen")]
    if (problem := task.dataset_problem(every[np.isin(split_of, learnt)])) is not None:
        raise UserError(f"{task.path.option('train')}={task.path.train}: {problem}")

    none = every[:0]
    chosen = wanted.pop("chosen", none)
    folds = splits.folds(task, wanted)
    train, validation, test = (wanted["train"], none, none) if folds else splits.split(task, wanted)
    before = validation + train + chosen
    validation = splits.without(validation, test)
    scored = validation + test
    pool = splits.without(train + chosen, scored)
    repeats = before[~np.isin(before.places, (validation + pool).places)]
    for name, members in (("training", pool), ("validation", validation), ("test", test)):
        if not members and not folds:
            problem = splits.too_few(sum(wanted.values(), none))
            raise UserError(f"task.path={task.path}: {problem}; none is left for {name} (task.validation_ratio)")
    classes = task.classes(pool.one_of_each)
    if classes:
        problem = "is in no training row; add training rows with it, or remove these"
        require_known(task, classes, scored.one_of_each, f"task.path={task.path}", problem)

    names = ", ".join(PurePath(path).name for path in task.path.all_files())
    if folds:
        how = f"in {len(folds)} folds, each scored by a model that is trained on the others (task.folds=0: splits)"
        say(f"task: {sum(map(len, folds)):,} rows of {names} {how}")
    else:
        made = " and ".join(split for split in ("validation", "test") if split not in files)
        origin = f"{names}; {made} split off train" if made else names
        say(f"task: {len(pool):,} training, {len(validation):,} validation and {len(test):,} test rows of {origin}")
    for split, path in files.items():
        for remark in task.remarks(wanted.get(split, chosen)):
            say(f"{task.path.option(split)}={path}: {remark}")
    if others := int((~is_wanted).sum()):
        which = f"of other classes than {', '.join(classes)}" if classes else "without a text"
        say(f"task: {others:,} rows {which} are left out")
    if repeats:
        say(f"task: {len(repeats):,} rows are left out because their text is also in test or validation")
    return Labelled(
        task=task,
        pool=pool,
        train=pool,
        validation=splits.scored(task, validation, "validation"),
        test=sum(folds, none) or splits.scored(task, test, "test"),
        scored=scored,
        chosen=splits.without(chosen, scored),
        repeats=repeats,
        classes=classes,
        left_out={"other_classes": others, "in_test_or_validation": len(repeats)},
        folds=folds,
    )


def _sampled(task: Task, whole: Labelled) -> Labelled:
    """Return all rows of a task, of which those are trained on that its sample chooses, or its fold leaves."""
    if task.fold is None:
        unpicked = whole.pool[: len(whole.pool) - len(whole.chosen)]  # which come last
        train = splits.sample(task, unpicked, task.classes(unpicked.one_of_each)) + whole.chosen
        if not train:
            _require_names(task, "task.shots=0", whole.classes)
        return replace(whole, task=task, train=train)
    if task.fold >= len(whole.folds):
        raise UserError(f"task.fold={task.fold}: there are {len(whole.folds)} folds, counted from 0 (task.folds)")
    test = whole.folds[task.fold]
    return replace(whole, task=task, train=splits.without(whole.train, test), test=test, folds=())


@cache
def load_whole(task: Task, option: str, reference: str, form: FileFormat = AS_FOUND) -> Rows:
    """Read and check the labelled rows of another file than the task's, to be scored as they are, not split.

    Args:
        option: The config field that names the file, for error messages.

    Raises:
        UserError: listing what is wrong with the rows, each with its place.
    """
    source = f"{option}={reference}"
    task = task.model_copy(update={"format": form})
    rows = stored(task, _checked(task, source, [(option, reference)], has_group=False))
    wanted = rows[rows.column("wanted")]
    if not wanted:
        raise UserError(f"{source}: none of its {len(rows):,} rows is of the classes of task.labels")
    left_out = f"; {len(rows) - len(wanted):,} of other classes are left out" if len(wanted) < len(rows) else ""
    for line in (f"{len(wanted):,} rows{left_out}", *task.remarks(wanted)):
        say(f"{source}: {line}")
    return wanted


def require_known(task: Task, classes: Sequence[str], rows: Sequence[Row], source: str, problem: str) -> None:
    """Check that each label of the rows is one of the classes.

    Args:
        source: What the rows are from, for error messages.
        problem: What is wrong with another label, and what to do.

    Raises:
        UserError: naming each other label, and the first row that has it.
    """
    known, unknown = set(classes), dict[str, Row]()
    for row in rows:
        for label in task.labels_of(row):
            if label not in known:
                unknown.setdefault(label, row)
    if unknown:
        raise together(source, [f"{row.place}: the label '{label}' {problem}" for label, row in unknown.items()])


def _require_names(task: Task, option: str, classes: Sequence[str]) -> None:
    """Check that the names of all classes can be learnt from in the place of labelled rows, and say so."""
    if len({label for row in task.name_rows(classes) for label in task.labels_of(row)}) < max(2, len(classes)):
        how = "without labelled rows the names of the classes are learnt from"
        needed = "task=text_classification, single texts, and names in words: task.labels=[billing, delivery]"
        raise UserError(f"{option}: {how}; that takes {needed}")
    say(f"task: the names of {len(classes)} classes are learnt from, and no labelled row ({option})")


def with_label(task: Task, rows: Iterable[Row]) -> list[Row]:
    """Return the rows that have something in the columns of the right answer."""
    return [row for row in rows if any(str(row.fields[name] or "").strip() for name in task.targets())]


def read(task: Task, option: str, path: reading.References, has_group: bool = False) -> Iterator[Row]:
    """Read the rows of a file that an option names, with the fields named as the task names them.

    Args:
        has_group: Whether they need the column of `task.group`, by which they are split.
    """
    name, wanted = named(path), task.columns() if has_group else {**task.inputs(), **task.targets()}
    row = None
    for row, _ in reading.read(option, path, partial(columns.find, option, name, wanted), form=task.format):
        yield task.cleaned(row)
    if row is None:
        raise UserError(f"{option}={name}: holds no rows")


def _checked(
    task: Task, source: str, files: Iterable[tuple[str, reading.References]], *, has_group: bool = True
) -> Iterator[tuple[Row, int, bool]]:
    """Yield the rows of files, each with the number of its file and whether the task keeps it, up to the first bad one.

    Args:
        source: What all files are, for error messages.
        files: Each with the option that names it.
    """
    problems: list[str] = []
    for number, (option, path) in enumerate(files):
        is_chosen = option == "task.path.chosen"
        rows: Iterable[Row] = read(task, option, path, has_group and not is_chosen)
        if is_chosen:
            every = list(rows)
            rows = filled = with_label(task, every)
            say(f"task: {len(filled):,} of the {len(every):,} rows of {named(path)} have a label")
        for row in rows:
            is_wanted = task.keeps(row)
            problem = task.row_problem(row) if is_wanted else None
            if problem is None and is_wanted and row.fields.get("group", "not asked for") in (None, ""):
                problem = f"'{task.group}' is empty, which task.group names"
            if problem is not None:
                problems.append(f"{row.place}: {problem}")
            elif not problems:
                yield row, number, is_wanted
    if problems:
        raise together(source, problems)
