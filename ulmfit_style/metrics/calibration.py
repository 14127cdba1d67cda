"""Calibration: whether answers that are 80 % sure are right four times in five."""

from __future__ import annotations

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
    """The share of them that was so."""


def bins(claims: Sequence[tuple[float, bool]]) -> list[Bin]:
    """Return the parts that hold a claim, from the least sure up (Guo et al. 2017, section 2)."""
    told, right = np.array(claims, dtype=float).T
    places = np.minimum((told * BINS).astype(int), BINS - 1)
    inside = [places == place for place in np.unique(places)]
    return [Bin(int(own.sum()), float(told[own].mean()), float(right[own].mean())) for own in inside]


def expected_error(found: Sequence[Bin]) -> float:
    """Return the expected calibration error: how far confidence and truth lie apart, over the claims."""
    total = sum(one.count for one in found)
    return sum(one.count * abs(one.right - one.confidence) for one in found) / total
