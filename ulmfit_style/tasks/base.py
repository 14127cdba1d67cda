"""What every task is: where its labelled rows are, and how a model learns, answers and is scored on them.

No torch and no transformers at import, so that a task is checked before they are loaded.
"""

import abc
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

import numpy as np
import yaml
from pydantic import Field, ValidationError, ValidationInfo, field_validator, model_validator

from ulmfit_style.config.section import AS_FOUND, Answering, Count, FileFormat, Section, Unhashed, spelled
from ulmfit_style.errors import UserError, nearest
from ulmfit_style.metrics.intervals import Array, Points, combined, interval
from ulmfit_style.tasks.files import Splits
from ulmfit_style.tasks.types import Batch, Label2id, Model, Module, Tensor, Tokenizer
from ulmfit_style.tasks.values import Architecture, ExplainedPart, Pipeline, Reference, Span

Feature = dict[str, Any]
"""What a model reads: one encoded text, or one window of a longer one."""

Answer = dict[str, Any]
"""The answer to one row, as JSON values."""

COLUMNS: Mapping[str, Any] = yaml.safe_load(Path(__file__).with_name("columns.yaml").read_text(encoding="utf-8"))
"""The names by which columns are found; a kind of task may have others."""

IGNORED = -100
"""The label of a token that is not learnt; torch's own."""


@dataclass(frozen=True)
class Row:
    """One labelled row as it stands in its file."""

    file: str
    number: int
    """The line (csv, jsonl, txt), row (parquet) or question (json) in the file, from 1: what an error message names."""
    fields: Mapping[str, Any]
    """The row's values, by the names of `Task.columns`, whatever the columns are called in the file."""

    @property
    def place(self) -> str:
        """Where the row stands, for error messages."""
        return f"{self.file}:{self.number}"


Name = str | tuple[str, ...]
"""The name of a column, or those of several that are one field."""


class Several(dict[str, Any]):
    """The values of several columns by their names; as a text, they have a line break between them."""

    def __str__(self) -> str:
        return "\n".join(str(value) for value in self.values() if value not in (None, ""))


@dataclass(frozen=True)
class Column:
    """Where a field of a task's rows is found in a file."""

    option: str
    """The option that names the column, for messages: "task.text"."""
    name: Name | None
    """The column's name, or those of several; None to find it."""
    known: Sequence[str] = ()
    """The names by which it is found, in upper or lower case, where the user gives none."""
    hint: str = ""
    """What else may be wrong where none is found."""
    needed: bool = True
    """Whether rows without it are refused; else they lack the field."""


class Task(Section, abc.ABC):
    """A kind of labelled data. The fields say where the rows are; a subclass adds what its kind needs."""

    answer_field: ClassVar[str]
    """The field of an answer that is held against the right one."""
    metric: ClassVar[str]
    """The score that ranks models."""
    metrics: ClassVar[str] = ""
    """The module of `ulmfit_style.metrics` that may have `points`, `of_means`, `scores`, `intervals` and `report`, of
    which the methods for them are made; empty for a task with its own."""
    rankings: ClassVar[Sequence[str]] = ()
    """The other scores that a sweep can rank models by: of all these a higher one is better."""
    is_single_label: ClassVar[bool] = False
    """Whether each row has one class, so that texts of a class can be compared."""
    writes: ClassVar[bool] = False
    """Whether an answer is a text that the model writes, token by token; then it is scored by `likelihoods` too."""
    scores_whole_texts: ClassVar[bool] = False
    """Whether the head reads one vector for a whole text, so that there are several ways to pool it."""
    reference: ClassVar[Reference | None] = None
    """The linear model that results are compared with."""
    pipeline: ClassVar[Pipeline | None] = None
    """How transformers runs the models, unless their architecture says more; None: the Hub has no word for them."""
    parts: ClassVar[tuple[type, ...]] = ()
    """What a list may hold that stands in the place of a text, such as words."""
    is_explained: ClassVar[bool] = False
    """Whether `explained_parts` returns parts of an answer."""
    long_texts: ClassVar[str] = "cut"
    """What becomes of texts longer than `finetune.max_length`, for messages."""
    reads_more: ClassVar[str] = "a higher finetune.max_length"
    """What reads more of texts that are cut, for messages."""
    pools_windows: ClassVar[bool] = False
    """Whether a pooled head puts the windows of a long text together, each of `finetune.max_length` tokens."""

    # The data enter a fingerprint by the content of the rows that these options choose, not by the options.
    path: Annotated[Splits, Unhashed]
    """The file of labelled rows (csv, tsv, json, jsonl, parquet, conll, xlsx, xls, ods; also .gz, .bz2, .xz, .zip),
    `package:<file>` of an installed Python package, `hub:<data set>@<commit>/<file>` of the Hub (without a commit it is
    the newest when first used, and stands in `pins.json` of the folder `runs`), or `sqlite:///<file>?<query>`; also a
    folder, a glob or a list of such files. It is split into train, validation and test. Or the files of splits that
    there are: task.path={train: a.csv, test: b.csv}; what is missing is made from train. null: there are none, and the
    names of the classes (`task.labels`) are learnt from alone."""
    format: Annotated[FileFormat, Unhashed] = AS_FOUND
    """How the files are read, where that is not found out of them: task.format=conll for files of any name, or some of
    task.format={kind: csv, encoding: cp1252, delimiter: ;, quotes: false, sheet: May, field: rows, query: reviews}."""
    license: Annotated[str | None, Unhashed] = None
    """The data's licence, for the model card: cc-by-4.0, or `cc-by-4.0 of <the start of task.path>`, which holds for
    those data alone. null: the card says that it is not known."""
    group: Annotated[str | None, Unhashed] = None
    """A column whose equal values stay in one split (a film, a customer); null: only equal texts stay together."""
    test_ratio: Annotated[float, Field(gt=0, lt=1), Unhashed] = 0.2
    """Share of the rows that is only scored; unused where the test rows have a file of their own."""
    validation_ratio: Annotated[float, Field(gt=0, lt=1), Unhashed] = 0.1
    """Share of the rows that sweeps choose by; unused where the validation rows have a file of their own."""
    split_seed: Annotated[int, Unhashed] = 0
    """Seed of the splits. Leave it: then the test rows never move."""
    train_samples: Annotated[Count | None, Unhashed] = None
    """Labelled training rows to use, every class first; null for all. The rest stays unlabelled text for `adapt`."""
    shots: Annotated[int | None, Field(ge=0), Unhashed] = None
    """Labelled training rows to use of each class; goes without `train_samples`. 0: the names of the classes alone."""
    sample_seed: Annotated[int, Unhashed] = 0
    """Seed of which training rows those are. A larger sample holds the smaller ones of the same seed."""
    test_samples: Annotated[Count | None, Unhashed] = None
    """At most this many rows of validation and of test are scored; null for all."""
    folds: Annotated[int | None, Field(ge=0), Unhashed] = None
    """Cross-validation in place of splits, for few labels: every row is scored, by a model that was trained on the
    other folds; the model that is left is trained on all rows. A number: so many folds. 0: none. null: 5 where there
    are fewer than 300 rows, no files of test or validation rows, and none of `train_samples`, `shots` and
    `test_samples`."""
    fold: Annotated[int | None, Field(ge=0), Unhashed] = None
    """One fold alone, from 0 on: its rows are the test, and all others are trained on. null: all folds in turn."""

    @field_validator("shots")
    @classmethod
    def _without_train_samples(cls, shots: int | None, info: ValidationInfo) -> int | None:
        if shots is not None and info.data.get("train_samples") is not None:
            raise ValueError("goes without task.train_samples; add task.train_samples=null")
        return shots

    @model_validator(mode="after")
    def _folds_take_all_rows(self) -> Self:
        others = (self.train_samples, self.shots, self.test_samples, self.path.validation, self.path.test)
        is_part = any(other is not None for other in others) or self.path.train is None
        if self.folds == 1 or ((self.folds or self.fold is not None) and is_part):
            without = "train_samples, shots, test_samples, and files of test or validation rows"
            raise ValueError(f"folds are 2 or more, or 0 for splits, and go without {without}")
        return self

    def unsampled(self) -> Self:
        """Return the task with all of its training rows: what a corpus depends on, whichever few labels are used."""
        is_sampled = self.train_samples is not None or self.shots is not None
        whole = {"train_samples": None, "shots": None, "sample_seed": 0, "fold": None}
        # A sample is scored on rows that are split off.
        return self.model_copy(update={**whole, "folds": 0 if is_sampled else self.folds})

    @classmethod
    def answer_options(cls) -> list[str]:
        """Return the options that say how the model answers: they can be changed when it has been trained."""
        return [name for name, field in cls.model_fields.items() if Answering in field.metadata]

    def with_answer_options(self, options: Mapping[str, Any]) -> Self:
        """Return the task with other values for options that say how the model answers.

        Raises:
            UserError: if there is no such option, or its value is wrong.
        """
        changeable = self.answer_options()
        if fixed := next((name for name in options if name not in changeable), None):
            known = f"{nearest(fixed, changeable)} (what can be: {', '.join(changeable)})"
            raise UserError(f"predict.task.{fixed}: cannot be changed after training{known}")
        try:
            return type(self).model_validate({**self.model_dump(), **options})
        except ValidationError as error:
            wrong = error.errors()[0]
            message = wrong["msg"].removeprefix("Value error, ").removeprefix("Input ")
            raise UserError(f"predict.task.{wrong['loc'][-1]}={wrong['input']}: {message}") from error

    @abc.abstractmethod
    def auto_class(self, architecture: Architecture) -> str:
        """Return the transformers auto class that loads a model of an architecture for this task."""

    def for_architecture(self, architecture: Architecture) -> Self:
        """Return the task as a model of an architecture learns and answers it; most tasks are the same for all."""
        return self

    def for_scoring(self) -> Self:
        """Return the task as it answers rows that are scored: with all that is kept beside the score of a row."""
        return self

    def positions_needed(self, max_length: int) -> int:
        """Return how many positions a model needs, where the texts that it reads have up to `max_length` tokens."""
        return max_length

    @abc.abstractmethod
    def inputs(self) -> dict[str, Column]:
        """Return the columns of what the model reads: those that a row must have to be answered."""

    @abc.abstractmethod
    def targets(self) -> dict[str, Column]:
        """Return the columns of the right answer."""

    def columns(self) -> dict[str, Column]:
        """Return all columns that a labelled row needs."""
        group = {"group": Column("task.group", self.group)} if self.group else {}
        return {**self.inputs(), **self.targets(), **group}

    @classmethod
    def recognised(cls, columns: Mapping[str, str], row: Mapping[str, Any]) -> dict[str, str] | None:
        """Return the options of this kind of task for a file whose columns have names of this kind; None for others.

        `new-task` asks all kinds.

        Args:
            columns: The names of the file's columns, by the same in lower case.
            row: The fields of its first row.
        """
        return None

    @classmethod
    def match_score(cls, texts: Sequence[Any], labels: Sequence[Any]) -> int:
        """Return how certain it is that the values of the columns `text` and `label` are of this kind of task.

        `new-task` takes the most certain kind: 0 is impossible, 1 is what any file may be, 3 is what no other kind is.
        """
        return 0

    @classmethod
    def settings_by(cls, labels: Sequence[Any]) -> dict[str, Any]:
        """Return further options that the values of the column `label` tell."""
        return {}

    def cleaned(self, row: Row) -> Row:
        """Return a labelled row as the task takes it."""
        return row

    def keeps(self, row: Row) -> bool:
        """Return whether a row of the file belongs to the task."""
        return True

    @abc.abstractmethod
    def row_problem(self, row: Row) -> str | None:
        """Return what is wrong with a labelled row, without its place; None when it is right."""

    def dataset_problem(self, rows: Sequence[Row]) -> str | None:
        """Return why the rows of the training file, wanted or not, cannot be learnt from though each is right."""
        return None

    def remarks(self, rows: Sequence[Row]) -> list[str]:
        """Return what the user should know of rows that are not used as they stand in their file."""
        return []

    @abc.abstractmethod
    def texts(self, row: Row) -> list[str]:
        """Return the texts of a row that the model reads."""

    def documents(self, rows: Sequence[Row]) -> list[str]:
        """Return the documents of rows for `adapt`; rows with equal ones count as equal, and stay in one split."""
        return [text for row in rows for text in self.texts(row)]

    @abc.abstractmethod
    def target(self, row: Row) -> Any:
        """Return the right answer of a row, as a JSON value."""

    def row(self, *texts: str) -> Row:
        """Make an unlabelled row of the texts of one question.

        Raises:
            UserError: if their number is wrong, or one cannot be answered.
        """
        names = list(self.inputs())
        if len(texts) != len(names):
            remedy = "predict.pair gives the second" if len(names) > 1 else "give one"
            raise UserError(f"this model reads a {' and a '.join(names)}, and was given {len(texts)} texts; {remedy}")
        return self.answerable(Row("text", 1, dict(zip(names, texts, strict=True))))

    def answerable(self, row: Row, where: str = "") -> Row:
        """Return a row that can be answered.

        Args:
            where: Stands before what is wrong with it.

        Raises:
            UserError: if it cannot.
        """
        if (problem := self.input_problem(row)) is not None:
            raise UserError(f"{where}{problem}")
        return row

    def input_problem(self, row: Row) -> str | None:
        """Return why a row cannot be answered, though its columns are there; None where it can."""
        for name in self.inputs():
            value = row.fields[name]
            if re.search("[\ud800-\udfff]", str(value)):
                return f"the {name} contains half a character, such as \\ud83d alone; it was cut within an emoji"
            is_list = isinstance(value, list) and bool(self.parts)
            for kind in map(type, value) if is_list else [type(value)]:
                if not issubclass(kind, self.parts) if is_list else kind in (list, dict, bytes):
                    what = {type(None): "nothing", int: "an int"}.get(kind, f"a {kind.__name__}")
                    return f"the {name} {'holds' if is_list else 'is'} {what}, where a text should be"
        return None

    def labels_of(self, row: Row) -> list[str]:
        """Return the classes that a row is an example of; empty for a task without classes."""
        return []

    def stratum(self, row: Row) -> str | None:
        """Return the name of rows of which each split gets its share; by default None, for a row's rarest label."""
        return None

    def classes(self, rows: Sequence[Row]) -> list[str]:
        """Return the labels that the model chooses from; empty for a task without classes."""
        return in_order({label for row in rows for label in self.labels_of(row)})

    def name_rows(self, classes: Sequence[str]) -> list[Row]:
        """Return the names of classes as labelled rows, one each; none where a name says nothing of a text."""
        return []

    @abc.abstractmethod
    def head(self, classes: Sequence[str]) -> dict[str, Any]:
        """Return what the model's config says of its head, such as `num_labels` and `problem_type`."""

    def prepare_model(self, model: Model, tokenizer: Tokenizer, rows: Sequence[Row]) -> None:
        """Prepare a model before it is trained, such as fit a fresh head to the training rows; most tasks do not."""

    def row_weights(self, rows: Sequence[Row]) -> list[float]:
        """Return the weight of each training row in the loss."""
        return [1.0] * len(rows)

    @abc.abstractmethod
    def encode(self, row: Row, tokenizer: Tokenizer, max_length: int, label2id: Label2id | None) -> list[Feature]:
        """Turn a row into what the model reads; with `label2id`, each feature carries its `labels` too.

        `long` says of each feature whether its text is longer than `max_length`, and `long_target`, where the right
        answer is a text too, whether that is longer than there is room for; `weight`, where there is one, which share
        of the row it stands for in the loss. Without `label2id` a feature has what `explained_parts` needs of it too.

        Args:
            label2id: The number of each of the model's outputs, as `head` has it.
        """

    @abc.abstractmethod
    def loss(self, model: Module, batch: Batch) -> Tensor:
        """Return the loss summed over the batch's rows, each times its `weight` where it has one: a scalar."""

    def count(self, batch: Batch) -> Tensor:
        """Return what the summed loss is divided by, over all batches of an optimizer step: a scalar.

        By default it is the number of rows.
        """
        import torch

        return batch.get("weight", torch.ones(len(batch["labels"]))).sum()

    @abc.abstractmethod
    def answer(self, model: Model, tokenizer: Tokenizer, batch: Batch) -> list[Any]:
        """Return the model's output for each feature of the batch, for `merge`."""

    def likelihoods(self, model: Model, batch: Batch) -> list[dict[str, float]]:
        """Return what the model makes of the right answer of each row, which is one feature.

        They are put beside the answer to be scored, of a task that `writes`.
        """
        raise NotImplementedError

    @abc.abstractmethod
    def merge(self, row: Row, features: Sequence[Feature], outputs: Sequence[Any]) -> Answer:
        """Return the answer to a row, from its features in their order and the model's output for each."""

    def mean(self, outputs: Sequence[Any]) -> Any:
        """Return the mean of outputs for the same text, for `merge`; only of a task with `scores_whole_texts`."""
        raise NotImplementedError

    def explained_parts(self, features: Sequence[Feature], answer: Answer, label2id: Label2id) -> list[ExplainedPart]:
        """Return the parts of an answer that can be explained; by default none.

        Args:
            features: Those of a row, each with the `offsets` of its tokens and the numbers of their `texts`.
            label2id: The number of each of the model's outputs.
        """
        return []

    def returned(self, answer: Answer) -> Any:
        """Return what `load(...)` returns of an answer; by default the whole."""
        return answer

    def baseline_answers(self, rows: Sequence[Row]) -> dict[str, list[Answer]]:
        """Return answers to labelled rows that nothing is trained for, by their names: what any result has to beat."""
        return {}

    def row_scores(self, answers: Sequence[Answer], targets: Sequence[Any]) -> Points:
        """Return each row's part of `metric`: a number, or several of whose means over the rows `of_means` makes it."""
        return self.scoring.points(*self.sides(answers, targets))

    def of_means(self, means: Array) -> Array:
        """Return `metric` from the means of the points over rows, (..., numbers) to (...).

        By default it is the mean of one number, or the ratio of the sums of two.
        """
        return getattr(self.scoring, "of_means", combined)(means)

    @property
    def scoring(self) -> Any:
        """The module that `metrics` names, imported when it is needed: its libraries are slow to import."""
        return import_module(f"ulmfit_style.metrics.{self.metrics}") if self.metrics else None

    def sides(self, answers: Sequence[Answer], targets: Sequence[Any]) -> tuple[Sequence[Any], Sequence[Any]]:
        """Return answers and targets as that module takes them."""
        return [answer[self.answer_field] for answer in answers], targets

    def score(self, answers: Sequence[Answer], targets: Sequence[Any]) -> dict[str, float]:
        """Return all scores of the answers, `metric` among them."""
        return self.scoring.scores(*self.sides(answers, targets))

    def intervals(self, answers: Sequence[Answer], targets: Sequence[Any]) -> dict[str, tuple[float, float]]:
        """Return the 95 % bootstrap interval of each score; without a module of `metric` alone, by its points."""
        if own := getattr(self.scoring, "intervals", None):
            return own(*self.sides(answers, targets))
        return {self.metric: interval(self.row_scores(answers, targets), self.of_means)}

    def class_report(self, answers: Sequence[Answer], targets: Sequence[Any]) -> list[dict[str, Any]]:
        """Return the scores of each `class`, `recall` among them, and in the last column how many examples it has.

        Empty for a task without classes.
        """
        report = getattr(self.scoring, "report", None)
        return report(*self.sides(answers, targets)) if report else []

    def measure(self, answers: Sequence[Answer], targets: Sequence[Any]) -> dict[str, Any]:
        """Return what metrics.json holds of answers: rows, scores, and their intervals; `interval` is the metric's."""
        scores, intervals = self.score(answers, targets), self.intervals(answers, targets)
        measured = {"rows": len(targets), "scores": scores, "interval": intervals[self.metric], "intervals": intervals}
        return {**measured, "report": self.class_report(answers, targets)}

    def errors(self, answers: Sequence[Answer], targets: Sequence[Any]) -> Sequence[float]:
        """Return how wrong each answer is: 0 where it is right; by default 1 less the `metric` of the row alone."""
        points = np.asarray(self.row_scores(answers, targets), dtype=float).reshape(len(targets), -1)
        return (1 - self.of_means(points)).tolist()

    def display(self, row: Row | None, answer: Answer, target: Any) -> tuple[str, str]:
        """Return the target and the answer as people read them; `row` is None where it is not known."""
        (ours,), (right,) = self.sides([answer], [target])
        return spelled(right), spelled(ours)

    def spans(self, row: Row, answer: Answer) -> tuple[Sequence[Span], Sequence[Span]] | None:
        """Return the right and the answered stretches of the text; None where answers are no stretches."""
        return None

    def calibration_pairs(self, answers: Sequence[Answer], targets: Sequence[Any]) -> list[tuple[float, bool]]:
        """Return each probability that the model gives, and whether it is of something right; by default the `score`.

        Empty for a task whose answers have no probabilities.
        """
        pairs = zip(answers, self.errors(answers, targets), strict=True)
        return [(answer["score"], error <= 0) for answer, error in pairs if "score" in answer]

    def confidence(self, answer: Answer, target: Any) -> float | None:
        """Return how far a probability of an answer is from the truth at most; None where it has no probability."""
        pairs = self.calibration_pairs([answer], [target])
        return max((abs(probability - is_right) for probability, is_right in pairs), default=None)


def named_outputs(names: Sequence[str]) -> dict[str, Any]:
    """Return what the config of a model says of outputs that have names."""
    numbers = {name: number for number, name in enumerate(names)}
    return {"num_labels": len(names), "id2label": dict(enumerate(names)), "label2id": numbers}


def inputs_of(batch: Batch) -> dict[str, Tensor]:
    """Return what the model reads of a batch that is learnt."""
    return {name: tensor for name, tensor in batch.items() if name not in ("labels", "weight")}


def in_order(labels: set[str]) -> list[str]:
    """Sort labels: numbers as numbers, so that 10 stars do not stand between 1 and 2."""
    return sorted(labels, key=int if all(map(str.isdecimal, labels)) else None)
