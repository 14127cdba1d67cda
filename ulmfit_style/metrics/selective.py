"""What probabilities of answers are worth: whether they are calibrated, and what it brings to hold unsure ones back.

Answers are calibrated if those that are 80 % sure are right four times in five. Of what is held back, El-Yaniv and
Wiener 2010, section 2: coverage, and one minus the selective risk.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

BINS = 10
"""Equal parts of the probabilities from 0 to 1."""

FEWEST = 30
"""The fewest answers that a chosen cut may leave: the precision of fewer is luck."""

Claims = Sequence[tuple[float, bool]]
"""The probability of each answer, and whether it is right."""


class Bin(NamedTuple):
    """A part of the probabilities."""

    claims: int
    """How many have such a one."""
    confidence: float
    """The mean of their probabilities."""
    right: float
    """The share of them that is right."""


class Cut(NamedTuple):
    """The lowest probability that is answered, and what it leaves."""

    probability: float
    coverage: float
    """The share of the rows that is answered."""
    precision: float
    """The share of the answers that is right."""


def bins(claims: Claims) -> list[Bin]:
    """Return the parts that hold a claim, from the least sure up (Guo et al. 2017, section 2)."""
    confidence, right = np.array(claims, dtype=float).T
    numbers = np.minimum((confidence * BINS).astype(int), BINS - 1)
    members = [numbers == number for number in np.unique(numbers)]
    return [Bin(int(inside.sum()), float(confidence[inside].mean()), float(right[inside].mean())) for inside in members]


def expected_error(parts: Sequence[Bin]) -> float:
    """Return the expected calibration error: how far confidence and truth lie apart, averaged over the claims."""
    claims, confidence, right = np.array(parts).T
    return float(np.average(abs(right - confidence), weights=claims))


def cuts(claims: Claims) -> list[Cut]:
    """Return the cut at each probability that was given, the highest first."""
    confidence, right = np.array(sorted(claims, reverse=True), dtype=float).T
    counts, last = np.arange(1, len(claims) + 1), np.append(confidence[1:] != confidence[:-1], True)
    columns = confidence, counts / len(claims), right.cumsum() / counts
    return [Cut(*map(float, cut)) for cut in zip(*(column[last] for column in columns), strict=True)]


def for_precision(claims: Claims, precision: float) -> Cut | None:
    """Return the cut that answers most rows with such a precision; None where none does with `FEWEST` answers."""
    good = [cut for cut in cuts(claims) if cut.precision >= precision and cut.coverage * len(claims) >= FEWEST]
    return max(good, key=lambda cut: cut.coverage, default=None)
