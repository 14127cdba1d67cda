"""What a task adds to a report, in plain values; how it is drawn is for the report to say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Matrix:
    """How many rows of each target have which prediction."""

    title: str
    targets: Sequence[str]
    predictions: Sequence[str]
    counts: Sequence[Sequence[int]]
    """By `targets`, and in each by `predictions`."""


@dataclass(frozen=True)
class Scatter:
    """A predicted number beside the target of each row."""

    title: str
    targets: Sequence[float]
    predictions: Sequence[float]


@dataclass(frozen=True)
class Listing:
    """A table."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[Any]]


ReportPart = Matrix | Scatter | Listing
