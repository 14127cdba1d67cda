"""Abstaining: which share of the rows is still answered, and answered right, if unsure answers are held back.

El-Yaniv and Wiener 2010, section 2: coverage, and one minus the selective risk.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

FEWEST = 30
"""The fewest answers that a chosen cut may leave: the precision of fewer is luck."""

Claims = Sequence[tuple[float, bool]]
"""The probability of each answer, and whether it is right."""


class Cut(NamedTuple):
    """The lowest probability that is answered, and what it leaves."""

    probability: float
    coverage: float
    """The share of the rows that is answered."""
    precision: float
    """The share of the answers that is right."""


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
