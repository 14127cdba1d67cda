"""What every task is: where its labelled rows are, and how a model learns, answers and is scored on them.

No torch and no transformers at import, so that a task is checked before they are loaded.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, NamedTuple, Self

from pydantic import Field, ValidationError, ValidationInfo, field_validator, model_serializer, model_validator

from ulmfit_style.config.schema import Count, Section, Unhashed, spelled
from ulmfit_style.errors import UserError, nearest

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from ulmfit_style.metrics.intervals import Array, Points

Feature = dict[str, Any]
"""What a model reads: one encoded text, or one window of a longer one."""

Answer = dict[str, Any]
"""What is told to the user about one row, as JSON values."""


IGNORED = -100
"""The label of a token that is not learnt; torch's own."""


@dataclass(frozen=True)
class Row:
    """One labelled row as it stands in its file."""

    file: str
    number: int
    """The line (csv, jsonl, txt), row (parquet) or question (json) in the file, from 1: what an error message names."""
    fields: Mapping[str, Any]
    """What the row holds, by the names of `Task.columns`, whatever the columns are called in the file."""

    @property
    def place(self) -> str:
        """Where the row stands, for error messages."""
        return f"{self.file}:{self.number}"


@dataclass(frozen=True)
class Column:
    """Where a field of a task's rows is found in a file."""

    option: str
    """What the user sets to name the column, for messages: "task.text"."""
    name: str | None
    """The column's name; None to find it."""
    known: Sequence[str] = ()
    """The names that leave no doubt, in any case, where the user gives none."""
    hint: str = ""
    """What else may be wrong where none is found."""
    needed: bool = True
    """Whether rows without it are refused; else they lack the field."""


class Architecture(NamedTuple):
    """What a task has to know of a model's architecture."""

    model_type: str
    """What a checkpoint's config.json calls it, such as "bert"."""
    kind: Literal["encoder", "decoder", "encoder-decoder"]


@dataclass(frozen=True)
class Reference:
    """A linear model of a task, which results are held against."""

    name: str
    fit: Callable[[Any, Sequence[Any]], Callable[[Any], list[Answer]]]
    """From features (rows, width) and targets to what answers the features of other rows."""


@dataclass(frozen=True)
class ExplainedPart:
    """A part of an answer that can be explained."""

    name: str
    feature: int
    """The number of the feature that it was read from."""
    read: Callable[[torch.Tensor], torch.Tensor]
    """From the logits of that feature, (batch, ...), to the one number that stands for it, (batch,)."""


@dataclass(frozen=True)
class Matrix:
    """How often rows of one kind were answered as which, for a report."""

    title: str
    targets: Sequence[str]
    predictions: Sequence[str]
    counts: Sequence[Sequence[int]]
    """By `targets`, and in each by `predictions`."""


@dataclass(frozen=True)
class Scatter:
    """Numbers that are right and those that were answered, for a report."""

    title: str
    targets: Sequence[float]
    predictions: Sequence[float]


@dataclass(frozen=True)
class Listing:
    """A table, for a report."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[Any]]


ReportPart = Matrix | Scatter | Listing

Groupings = Mapping[str, Sequence[str] | Sequence[int]]
"""Of what kind each row is, by the name of a distinction; numbers are told in ranges."""


class Splits(Section):
    """The files of labelled rows."""

    train: str
    """The training rows; validation and test rows are made of them where they have no file of their own."""
    validation: str | None = None
    """The rows that sweeps choose by."""
    test: str | None = None
    """The rows that are only scored. They never move."""

    @model_validator(mode="before")
    @classmethod
    def _one_file(cls, value: Any) -> Any:
        if not isinstance(value, (str, dict, Splits)):
            raise ValueError("should be a file, or files by their splits: {train: a.csv, test: b.csv}")
        unknown = [name for name in value if name not in cls.model_fields] if isinstance(value, dict) else []
        if unknown:
            there = f"(there are: {', '.join(cls.model_fields)})"
            raise ValueError(f"there is no split '{unknown[0]}'{nearest(unknown[0], cls.model_fields)} {there}")
        return {"train": value} if isinstance(value, str) else value

    @model_serializer
    def _as_given(self) -> str | dict[str, str]:
        files = self.files()
        return self.train if len(files) == 1 else files

    def files(self) -> dict[str, str]:
        """Return the file of each split that has one."""
        return {split: path for split, path in self if path is not None}

    def option(self, split: str) -> str:
        """Return what the user sets to name the file of a split."""
        return "task.path" if list(self.files()) == ["train"] else f"task.path.{split}"

    def __str__(self) -> str:
        files = [f"{split}: {path}" for split, path in self.files().items()]
        return self.train if len(files) == 1 else f"{{{', '.join(files)}}}"


class Task(Section, abc.ABC):
    """A kind of labelled data. The fields say where the rows are; a subclass adds what its kind needs."""

    metric: ClassVar[str]
    """The score that ranks models."""
    rankings: ClassVar[Sequence[str]] = ()
    """The other scores that a sweep can rank models by: of all these a higher one is better."""
    label_field: ClassVar[str | None] = None
    """The field of an answer that holds its label, or its labels; None for a task that does not choose labels."""
    answer_options: ClassVar[Sequence[str]] = ()
    """The options that say how the model answers: they can be others when it has been trained."""

    # The data enter a fingerprint by the content of the rows that these options choose, not by the options.
    path: Annotated[Splits, Unhashed]
    """The file of labelled rows (csv, tsv, jsonl, parquet, conll, or json in the form of SQuAD; also .gz, .bz2, .xz,
    .zst), `package:<file>` of an installed Python package, or `hub:<data set>@<commit>/<file>` of the Hub (without a
    commit it is the newest when first used, and stands in `pins.json` of the folder `runs`); it is split into train,
    validation and test. Or the files of splits that there are: task.path={train: a.csv, test: b.csv}; what is missing
    is made from train."""
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
    shots: Annotated[Count | None, Unhashed] = None
    """Labelled training rows to use of each class; goes without `train_samples`."""
    sample_seed: Annotated[int, Unhashed] = 0
    """Seed of which training rows those are. A larger sample holds the smaller ones of the same seed."""
    test_samples: Annotated[Count | None, Unhashed] = None
    """At most this many rows of validation and of test are scored; null for all."""

    @field_validator("shots")
    @classmethod
    def _one_sample(cls, shots: int | None, info: ValidationInfo) -> int | None:
        total = info.data.get("train_samples")
        if shots is not None and total is not None:
            raise ValueError(f"goes without task.train_samples, which is {total} here; add task.train_samples=null")
        return shots

    @property
    def long_texts(self) -> str:
        """What becomes of texts longer than `finetune.max_length`, for messages."""
        return "cut"

    def unsampled(self) -> Self:
        """Return the task with all of its training rows: what a corpus depends on, whichever few labels are used."""
        return self.model_copy(update={"train_samples": None, "shots": None, "sample_seed": 0})

    def with_answer_options(self, options: Mapping[str, Any]) -> Self:
        """Return the task with other values for options that say how the model answers.

        Raises:
            UserError: if an option says something else, or its value is wrong.
        """
        for name in options:
            if name not in self.answer_options:
                there = f"(there are: {', '.join(self.answer_options)})" if self.answer_options else "(there are none)"
                problem = "is no option that says how the model answers"
                raise UserError(f"predict.task.{name}: {problem}{nearest(name, self.answer_options)} {there}")
        try:
            return type(self).model_validate({**self.model_dump(), **options})
        except ValidationError as error:
            found = error.errors()[0]
            problem = found["msg"].removeprefix("Input ")
            raise UserError(f"predict.task.{found['loc'][-1]}={found['input']}: {problem}") from error

    @abc.abstractmethod
    def auto_class(self, architecture: Architecture) -> str:
        """Return the transformers auto class that loads a model of an architecture for this task."""

    def for_architecture(self, architecture: Architecture) -> Self:
        """Return the task as a model of an architecture learns and answers it; most tasks are the same for all."""
        return self

    def scored_by(self) -> Sequence[Literal["answers", "likelihoods"]]:
        """Return what scoring needs: the model's answers, what it makes of the right ones (`likelihoods`), or both."""
        return ["answers"]

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
        """Return the options of this kind of task for a file, where the names of its columns tell that it is one.

        `new-task` asks all kinds. None, where the names alone do not tell.

        Args:
            columns: The names of the file's columns, by the same in lower case.
            row: The fields of its first row.
        """
        return None

    @classmethod
    def certainty(cls, texts: Sequence[Any], labels: Sequence[Any]) -> int:
        """Return how surely the values of the columns `text` and `label` are of this kind of task.

        `new-task` takes the surest kind: 0 is not at all, 1 is what anything may be, and 3 what nothing else can be.
        """
        return 0

    def wanted(self, row: Row) -> bool:
        """Return whether a row of the file belongs to the task."""
        return True

    @abc.abstractmethod
    def row_problem(self, row: Row) -> str | None:
        """Return what is wrong with a labelled row, without its place; None when it is right."""

    def dataset_problem(self, rows: Sequence[Row]) -> str | None:
        """Return why the rows of the training file, wanted or not, cannot be learnt from though each is right."""
        return None

    def remarks(self, rows: Sequence[Row]) -> list[str]:
        """Return what is to be told of rows that are not used as they stand in their file."""
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

    @abc.abstractmethod
    def row(self, *texts: str) -> Row:
        """Make an unlabelled row of the texts of one question.

        Raises:
            UserError: if their number is wrong.
        """

    def labels_of(self, row: Row) -> list[str]:
        """Return the classes that a row is an example of; empty for a task without classes."""
        return []

    def strata(self, rows: Sequence[Row]) -> list[str]:
        """Return a name for each row: each split gets its share of the rows of each name."""
        return [""] * len(rows)

    @abc.abstractmethod
    def classes(self, rows: Sequence[Row]) -> list[str]:
        """Return the labels that the model chooses from; empty for a task without classes."""

    @abc.abstractmethod
    def head(self, classes: Sequence[str]) -> dict[str, Any]:
        """Return what the model's config says of its head, such as `num_labels` and `problem_type`."""

    def prepare_model(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, rows: Sequence[Row]) -> None:
        """Prepare a model before it is trained, such as fit a fresh head to the training rows; most tasks do not."""

    def row_weights(self, rows: Sequence[Row]) -> list[float]:
        """Return the weight of each training row in the loss."""
        return [1.0] * len(rows)

    @abc.abstractmethod
    def encode(
        self, row: Row, tokenizer: PreTrainedTokenizerBase, max_length: int, label2id: Mapping[str, int] | None
    ) -> list[Feature]:
        """Turn a row into what the model reads; with `label2id`, each feature carries its `labels` too.

        `long` says of each feature whether its text is longer than `max_length`, and `long_target`, where the right
        answer is a text too, whether that is longer than there is room for; `weight`, where there is one, which share
        of the row it stands for in the loss. Without `label2id` a feature has what `explained_parts` needs of it too.

        Args:
            label2id: The number of each of the model's outputs, as `head` has it.
        """

    @abc.abstractmethod
    def loss(self, model: nn.Module, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Return the loss summed over the batch's rows, each times its `weight` where it has one: a scalar."""

    @abc.abstractmethod
    def count(self, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Return what the summed loss is divided by, over all batches of an optimizer step: a scalar."""

    @abc.abstractmethod
    def answer(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, batch: Mapping[str, torch.Tensor]
    ) -> list[Any]:
        """Return what the model says of each feature of the batch, for `merge`."""

    def likelihoods(self, model: PreTrainedModel, batch: Mapping[str, torch.Tensor]) -> list[dict[str, float]]:
        """Return what the model makes of the right answer of each feature, in numbers that add up over features.

        They are put beside the answer to be scored, where `scored_by` asks for them.
        """
        raise NotImplementedError

    @abc.abstractmethod
    def merge(self, row: Row, features: Sequence[Feature], said: Sequence[Any]) -> Answer:
        """Return the answer to a row, from its features in their order and what the model says of each."""

    def explained_parts(
        self, row: Row, features: Sequence[Feature], answer: Answer, names: Mapping[int, str]
    ) -> list[ExplainedPart]:
        """Return what of an answer can be explained; by default nothing.

        Args:
            features: Those of the row, each with the `offsets` of its tokens and the numbers of their `texts`.
            names: Those of the model's outputs.
        """
        return []

    def returned(self, answer: Answer) -> Any:
        """Return what `load(...)` returns of an answer; by default the whole."""
        return answer

    def baseline_answers(self, row: Row) -> dict[str, Answer]:
        """Return answers to a row that nothing was trained for, by their names: what results are held against too."""
        return {}

    def reference(self) -> Reference | None:
        """Return the linear model that results are held against; None where the task has none."""
        return None

    @abc.abstractmethod
    def points(self, answers: Sequence[Answer], targets: Sequence[Any]) -> Points:
        """Return each row's part of `metric`: a number, or several of whose means over the rows `of_means` makes it."""

    def of_means(self, means: Array) -> Array:
        """Return `metric` from the means of the points over rows, (..., numbers) to (...); by default the first."""
        from ulmfit_style.metrics.intervals import first

        return first(means)

    @abc.abstractmethod
    def score(self, answers: Sequence[Answer], targets: Sequence[Any]) -> dict[str, float]:
        """Return all scores of the answers, `metric` among them."""

    def intervals(self, answers: Sequence[Answer], targets: Sequence[Any]) -> dict[str, tuple[float, float]]:
        """Return the 95 % bootstrap interval of each score; by default of `metric` alone, by its points."""
        from ulmfit_style.metrics.intervals import interval

        return {self.metric: interval(self.points(answers, targets), self.of_means)}

    def class_report(self, answers: Sequence[Answer], targets: Sequence[Any]) -> list[dict[str, Any]]:
        """Return the scores of each `class`, `recall` among them, and in the last column how many examples it has.

        Empty for a task without classes.
        """
        return []

    def measure(self, answers: Sequence[Answer], targets: Sequence[Any]) -> dict[str, Any]:
        """Return what metrics.json tells of answers: rows, scores, and their intervals; `interval` is the metric's."""
        intervals = self.intervals(answers, targets)
        return {
            "rows": len(targets),
            "scores": self.score(answers, targets),
            "interval": intervals[self.metric],
            "intervals": intervals,
            "report": self.class_report(answers, targets),
        }

    def errors(self, answers: Sequence[Answer], targets: Sequence[Any]) -> Sequence[float]:
        """Return how wrong each answer is: 0 where it is right; by default 1 less the `metric` of the row alone."""
        import numpy as np

        points = np.asarray(self.points(answers, targets), dtype=float).reshape(len(targets), -1)
        wrong: list[float] = (1 - self.of_means(points)).tolist()
        return wrong

    def in_words(self, row: Row | None, answer: Answer, target: Any) -> tuple[str, str]:
        """Return what is right and what was answered as people read it; `row` is None where it is not known."""
        return spelled(target), spelled(self.returned(answer))

    def confidence(self, answer: Answer, target: Any) -> float | None:
        """Return the probability that the model gives its answer, or the surest wrong part of it; None if it has none.

        By default it is the `score` of the answer.
        """
        return answer.get("score")

    def calibration_pairs(self, answers: Sequence[Answer], targets: Sequence[Any]) -> list[tuple[float, bool]]:
        """Return each probability that the model told, and whether what it told was so; empty where it tells none.

        By default it is that of each whole answer.
        """
        told = zip(answers, targets, self.errors(answers, targets), strict=True)
        found = ((self.confidence(answer, target), error) for answer, target, error in told)
        return [(confidence, error <= 0) for confidence, error in found if confidence is not None]

    def groups(self, answers: Sequence[Answer], targets: Sequence[Any]) -> Groupings:
        """Return by what kinds of rows a report tells the metric; by default none."""
        return {}

    def report_parts(self, answers: Sequence[Answer], targets: Sequence[Any]) -> list[ReportPart]:
        """Return what a report shows of answers beside their scores; by default nothing."""
        return []
