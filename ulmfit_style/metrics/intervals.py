"""How sure a score is: bootstrap intervals of scores, and of what two models differ by."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

RESAMPLES = 2000
IN_MEMORY = 2**22
"""Numbers of a slice of the resamples."""

CONFIDENCE = 0.95
SIGNED = ("matthews",)
"""Scores that can lie below 0, so that 0 is no edge of them."""

WILSON = 1.959964**2
"""The square of the normal quantile of that."""

Interval = tuple[float, float]

Array = np.ndarray[Any, np.dtype[np.float64]]

Points = Sequence[float] | Sequence[Sequence[float]]
"""Each row's part of a score: one number, or several."""

Combine = Callable[[Array], Array]
"""Makes the score of the means of the points over rows: (..., numbers) to (...)."""


def combined(means: Array) -> Array:
    """Return the score of rows that have one number each, its mean, or two, the ratio of their sums."""
    return divided(means[..., 0], means[..., 1]) if means.shape[-1] == 2 else means[..., 0]


def divided(numerator: Array, denominator: Array) -> Array:
    """Divide, and return 0 where the denominator is 0, as scikit-learn does."""
    return np.divide(numerator, denominator, out=np.zeros(numerator.shape), where=denominator != 0)


def interval(points: Points, score: Combine = combined) -> Interval:
    """Return the 95 % percentile bootstrap interval of a score (Efron and Tibshirani 1993, section 13.3).

    Rows are drawn with replacement, so the interval covers what other test rows of the same kind would have shown, but
    not other seeds or other training rows.
    """
    values = _rows(points)
    rows = np.count_nonzero(values[:, 1]) if values.shape[1] == 2 else len(values)
    resampled = np.concatenate([score(values[drawn].mean(axis=1)) for drawn in draws(len(values))])
    return percentiles(resampled, int(rows))


def intervals_of_sums(scores: Callable[[Array], dict[str, Array]], sums: Any, counts: Array) -> dict[str, Interval]:
    """Return the 95 % bootstrap interval of each of several scores that follow from sums over rows.

    How often each kind of row is drawn has a multinomial distribution, so equal rows need not be told apart.

    Args:
        scores: Makes the scores, (resamples,) each, of sums over the rows of each resample, (resamples, ...).
        sums: What a row of each kind adds to the sums, (kinds, ...); it may be sparse.
        counts: How many rows there are of each kind, (kinds,).
    """
    rows, random = int(counts.sum()), np.random.default_rng(0)
    drawn = (random.multinomial(rows, counts / rows, size=size) for size in _slices(len(counts)))
    resampled = np.concatenate([frequencies @ sums.reshape(len(counts), -1) for frequencies in drawn])
    resampled = resampled.reshape(RESAMPLES, *sums.shape[1:])
    return {name: percentiles(each, rows, is_signed=name in SIGNED) for name, each in scores(resampled).items()}


def difference(points: Sequence[Points], baseline: Sequence[Points], score: Combine) -> tuple[float, float, float]:
    """Return by how much the mean scores of two models differ, and the 95 % percentile bootstrap interval of that.

    It is one over the test rows and the seeds. Both are drawn with replacement: the rows, the same for all seeds and
    for both models, and then the seeds. A few seeds spread less among
    draws from them than among seeds, by the square root of (seeds - 1) / seeds; the interval is widened by that. With
    fewer than five seeds it is still too narrow.

    Args:
        points: Those of the one model on the test rows, for each seed.
        baseline: Those of the other, for the same seeds.

    Raises:
        ValueError: if the two do not have the same seeds and rows.
    """
    pairs = [(_rows(ours), _rows(theirs)) for ours, theirs in zip(points, baseline, strict=True)]
    seeds, rows = len(pairs), len(pairs[0][0])
    widening = math.sqrt(seeds / (seeds - 1)) if seeds > 1 else 1.0
    random = np.random.default_rng(1)
    resampled = []
    for drawn in draws(rows):
        weights = np.stack([np.bincount(resample, minlength=rows) for resample in drawn]) / rows
        # A model's differences over the seeds: (resamples, seeds)
        means = np.stack([score(weights @ ours) - score(weights @ theirs) for ours, theirs in pairs], axis=1)
        centre = means.mean(axis=1, keepdims=True)
        widened = centre + widening * (means - centre)
        chosen = random.integers(seeds, size=(len(drawn), seeds))
        resampled.append(np.take_along_axis(widened, chosen, axis=1).mean(axis=1))
    value = np.mean([score(ours.mean(axis=0)) - score(theirs.mean(axis=0)) for ours, theirs in pairs])
    return float(value), *percentiles(np.concatenate(resampled))


def draws(rows: int) -> Iterator[np.ndarray[Any, Any]]:
    """Yield the row numbers of all resamples, a slice at a time, (resamples, rows); always the same ones."""
    random = np.random.default_rng(0)
    for count in _slices(rows):
        yield random.integers(rows, size=(count, rows))


def percentiles(values: np.ndarray[Any, Any], rows: int = 0, *, is_signed: bool = False) -> Interval:
    """Return the bounds of the middle 95 % of a score's values over the resamples; those without a value do not count.

    Where all rows are right, or all wrong, so is every resample, however few they are: there the bound is that of
    Wilson's interval of a share (Wilson 1927).

    Args:
        rows: How many rows a score of at most 1 is of; 0 for others.
        is_signed: Whether the score can lie below 0, so that 0 is not all wrong.
    """
    values = values[~np.isnan(values)]
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(values, [tail, 100 - tail]) if len(values) else (0.0, 0.0)
    if rows and low == high == 1:
        low = rows / (rows + WILSON)
    elif rows and low == high == 0 and not is_signed:
        high = WILSON / (rows + WILSON)
    return float(low), float(high)


def _rows(points: Points) -> Array:
    """Return points as (rows, numbers)."""
    return np.asarray(points, dtype=float).reshape(len(points), -1)


def _slices(width: int) -> Iterator[int]:
    """Yield how many resamples to work on at once, where each takes `width` numbers, until all are through."""
    size = max(1, IN_MEMORY // width)
    for start in range(0, RESAMPLES, size):
        yield min(size, RESAMPLES - start)
