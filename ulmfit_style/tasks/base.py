"""What every task is: where its labelled rows are, and how a model learns, answers and is scored on them.

No torch and no transformers at import, so that a task is checked before they are loaded.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from ulmfit_style.schema import Count, Section, Unhashed

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Feature = dict[str, Any]
"""What a model reads: one encoded text or window. `row` says which row it comes from."""

Answer = dict[str, Any]
"""What is told to the user about one row, as JSON values."""


@dataclass(frozen=True)
class Row:
    """One labelled row as it stands in its file."""

    file: str
    number: int
    """The line (csv, jsonl, txt) or row (parquet) in the file, from 1: what an error message names."""
    fields: Mapping[str, Any]

    @property
    def place(self) -> str:
        """Where the row stands, for error messages."""
        return f"{self.file}:{self.number}"


class Task(Section, abc.ABC):
    """A kind of labelled data. The fields say where the rows are; a subclass adds what its kind needs."""

    auto_class: ClassVar[str]
    """The transformers auto class that loads this task's model."""
    metric: ClassVar[str]
    """The score that ranks models."""

    # The data enter a fingerprint by the content of the rows that these options choose, not by the options.
    path: Annotated[str, Unhashed]
    """The file of labelled rows (csv, jsonl or parquet; also .gz, .bz2, .xz), or `package:<file>` of an installed
    Python package. It is split into train, validation and test."""
    group: Annotated[str | None, Unhashed] = None
    """A column whose equal values stay in one split (a film, a customer); null: only equal texts stay together."""
    test_ratio: Annotated[float, Field(gt=0, lt=1), Unhashed] = 0.2
    """Share of the rows that is only scored."""
    validation_ratio: Annotated[float, Field(gt=0, lt=1), Unhashed] = 0.1
    """Share of the rows that sweeps choose by."""
    split_seed: Annotated[int, Unhashed] = 0
    """Seed of the splits. Leave it: then the test rows never move."""
    train_samples: Annotated[Count | None, Unhashed] = None
    """Labelled training rows to use, every class first; null for all. The rest stays unlabelled text for `adapt`."""
    sample_seed: Annotated[int, Unhashed] = 0
    """Seed of which training rows those are. A larger sample holds the smaller ones of the same seed."""
    test_samples: Annotated[Count | None, Unhashed] = None
    """At most this many rows of validation and of test are scored; null for all."""

    @abc.abstractmethod
    def columns(self) -> list[str]:
        """Return the columns that a row must have."""

    def wanted(self, row: Row) -> bool:
        """Return whether a row of the file belongs to the task."""
        return True

    @abc.abstractmethod
    def check(self, rows: Sequence[Row]) -> list[str]:
        """Return what is wrong with the rows: one problem a line, each with its place."""

    @abc.abstractmethod
    def document(self, row: Row) -> str:
        """Return the text of a row, as `adapt` reads it."""

    @abc.abstractmethod
    def target(self, row: Row) -> str:
        """Return the right answer of a row."""

    @abc.abstractmethod
    def row(self, text: str) -> Row:
        """Make an unlabelled row of a text, to be answered."""

    @abc.abstractmethod
    def classes(self, rows: Sequence[Row]) -> list[str]:
        """Return the labels that the model chooses from; empty for a task without classes."""

    @abc.abstractmethod
    def encode(
        self, row: Row, tokenizer: PreTrainedTokenizerBase, max_length: int, label2id: Mapping[str, int] | None
    ) -> list[Feature]:
        """Turn a row into what the model reads; with `label2id`, each feature carries its `labels` too."""

    @abc.abstractmethod
    def loss(self, model: nn.Module, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Return the loss summed over the batch's rows, a scalar."""

    @abc.abstractmethod
    def count(self, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Return what the summed loss is divided by, over all batches of an optimizer step: a scalar."""

    @abc.abstractmethod
    def answer(self, model: PreTrainedModel, batch: Mapping[str, torch.Tensor]) -> list[Answer]:
        """Return one answer per feature of the batch."""

    @abc.abstractmethod
    def merge(self, answers: Sequence[Answer]) -> Answer:
        """Return the answer of a row from those of its features."""

    @abc.abstractmethod
    def points(self, answers: Sequence[Answer], targets: Sequence[str]) -> list[float]:
        """Return each row's part of `metric`, whose mean over the rows is the score."""

    @abc.abstractmethod
    def score(self, answers: Sequence[Answer], targets: Sequence[str]) -> dict[str, float]:
        """Return all scores of the answers, `metric` among them."""
