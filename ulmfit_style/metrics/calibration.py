"""Calibration: whether answers that are 80 % sure are right four times in five."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

BINS = 10
"""Equal parts of the probabilities from 0 to 1."""


@dataclass(frozen=True)
class Bin:
    """The claims of a part of the probabilities."""

    count: int
    confidence: float
    """The mean of their probabilities."""
    right: float
    """The share of them that is right."""


def bins(claims: Sequence[tuple[float, bool]]) -> list[Bin]:
    """Return the parts that hold a claim, from the least sure up (Guo et al. 2017, section 2)."""
    confidence, right = np.array(claims, dtype=float).T
    numbers = np.minimum((confidence * BINS).astype(int), BINS - 1)
    members = [numbers == number for number in np.unique(numbers)]
    return [Bin(int(inside.sum()), float(confidence[inside].mean()), float(right[inside].mean())) for inside in members]


def expected_error(parts: Sequence[Bin]) -> float:
    """Return the expected calibration error: how far confidence and truth lie apart, averaged over the claims."""
    gaps = [abs(part.right - part.confidence) for part in parts]
    return float(np.average(gaps, weights=[part.count for part in parts]))
