"""Scores with their uncertainty."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

RESAMPLES = 2000
CONFIDENCE = 0.95


def interval(points: Sequence[float]) -> tuple[float, float]:
    """Return the 95 % percentile bootstrap interval of the mean of `points` (Efron and Tibshirani 1993, section 13.3).

    Rows are drawn with replacement, so the interval tells what other test rows of the same kind would have shown;
    other seeds and other training rows are not in it.
    """
    values = np.asarray(points, dtype=float)
    random = np.random.default_rng(0)
    means = [values[random.integers(len(values), size=len(values))].mean() for _ in range(RESAMPLES)]
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(means, [tail, 100 - tail])
    return float(low), float(high)


def difference(points: Sequence[float], baseline: Sequence[float]) -> tuple[float, float, float]:
    """Return the mean difference of two models on the same rows, and its paired bootstrap interval.

    Raises:
        ValueError: if the two have not the same number of rows.
    """
    pairs = [ours - theirs for ours, theirs in zip(points, baseline, strict=True)]
    return float(np.mean(pairs)), *interval(pairs)
