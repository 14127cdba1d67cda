"""Scores with their uncertainty: the bootstrap here, the metrics in the modules beside, one for each kind of answer.

Those modules are imported late, for `evaluate` takes seconds to load.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from statistics import stdev
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import evaluate

RESAMPLES = 2000
IN_MEMORY = 2**22
"""Numbers of a slice of the resamples."""

CONFIDENCE = 0.95

Interval = tuple[float, float]

Array = np.ndarray[Any, np.dtype[np.float64]]

Points = Sequence[float] | Sequence[Sequence[float]]
"""Each row's part of a score: one number, or several."""

Combine = Callable[[Array], Array]
"""Makes the score of the means of the points over rows: (..., numbers) to (...)."""


def first(means: Array) -> Array:
    """Return the score of rows that have one number each: its mean."""
    score: Array = means[..., 0]
    return score


def ratio(means: Array) -> Array:
    """Return the score of rows that have two numbers each: the ratio of their sums; 0 where the second sum is."""
    return divided(means[..., 0], means[..., 1])


def interval(points: Points, score: Combine = first) -> Interval:
    """Return the 95 % percentile bootstrap interval of a score (Efron and Tibshirani 1993, section 13.3).

    Rows are drawn with replacement, so the interval tells what other test rows of the same kind would have shown;
    other seeds and other training rows are not in it.

    Args:
        score: Makes the score of the means of the points.
    """
    rows = _rows(points)
    return middle(np.concatenate([score(rows[drawn].mean(axis=1)) for drawn in draws(len(rows))]))


def difference(points: Points, baseline: Points, score: Combine = first) -> tuple[float, float, float]:
    """Return what the scores of two models on the same rows differ by, and its paired bootstrap interval.

    Raises:
        ValueError: if the two have not the same number of rows.
    """
    ours, theirs = _rows(points), _rows(baseline)
    if len(ours) != len(theirs):
        raise ValueError(f"{len(ours)} and {len(theirs)} rows cannot be paired")
    gains = [score(ours[drawn].mean(axis=1)) - score(theirs[drawn].mean(axis=1)) for drawn in draws(len(ours))]
    return float(score(ours.mean(axis=0)) - score(theirs.mean(axis=0))), *middle(np.concatenate(gains))


def gap(points: Points, others: Points, score: Combine = first) -> tuple[float, float, float]:
    """Return what the scores of a model on two sets of rows differ by, and its bootstrap interval.

    Args:
        points: Those of the rows of the one set.
        others: Those of the other, which has other rows.
    """
    ours, theirs = _rows(points), _rows(others)
    found = [
        np.concatenate([score(rows[drawn].mean(axis=1)) for drawn in draws(len(rows), seed)])
        for seed, rows in enumerate((ours, theirs))
    ]
    return float(score(ours.mean(axis=0)) - score(theirs.mean(axis=0))), *middle(found[0] - found[1])


def by_chance(points: Points, groups: Sequence[str], widest: float, score: Combine = first) -> float:
    """Return how often the widest gap between groups is at least so wide when rows are dealt to them at random.

    A permutation test (Good 2005, section 3.1): of many groups some two lie far apart though none is another kind.

    Args:
        groups: The group of each row.
        widest: The gap that was found.
    """
    rows = _rows(points)
    names, numbers = np.unique(np.asarray(groups), return_inverse=True)
    sizes = np.bincount(numbers)
    random = np.random.default_rng(0)
    wide = 0
    for _ in range(RESAMPLES):
        dealt = random.permutation(numbers)
        sums = np.stack([np.bincount(dealt, weights=column, minlength=len(names)) for column in rows.T], axis=1)
        scores = score(sums / sizes[:, None])
        wide += bool(np.ptp(scores) >= widest - 1e-12)
    return (wide + 1) / (RESAMPLES + 1)


def over_seeds(points: Sequence[Points], baseline: Sequence[Points], score: Combine = first) -> Interval:
    """Return the 95 % percentile bootstrap interval of the mean difference of two models over seeds and test rows.

    Both are drawn with replacement: the rows, the same for all seeds, and then the seeds. The spread of a few seeds is
    smaller among draws from them than among seeds, by the square root of (seeds - 1) / seeds, and is widened by that;
    with fewer than five it still says too little.

    Args:
        points: Those of the one model on the test rows, for each seed.
        baseline: Those of the other, for the same seeds.

    Raises:
        ValueError: if the two have not the same seeds and rows.
    """
    pairs = [(_rows(ours), _rows(theirs)) for ours, theirs in zip(points, baseline, strict=True)]
    seeds, rows = len(pairs), len(pairs[0][0])
    widening = math.sqrt(seeds / (seeds - 1)) if seeds > 1 else 1.0
    random = np.random.default_rng(1)
    found = []
    for drawn in draws(rows):
        weights = np.stack([np.bincount(resample, minlength=rows) for resample in drawn]) / rows
        # A model's differences over the seeds: (resamples, seeds)
        means = np.stack([score(weights @ ours) - score(weights @ theirs) for ours, theirs in pairs], axis=1)
        centre = means.mean(axis=1, keepdims=True)
        widened = centre + widening * (means - centre)
        chosen = random.integers(seeds, size=(len(drawn), seeds))
        found.append(np.take_along_axis(widened, chosen, axis=1).mean(axis=1))
    return middle(np.concatenate(found))


def spread(scores: Sequence[float]) -> float:
    """Return the standard deviation over seeds; no number for one seed."""
    return stdev(scores) if len(scores) > 1 else math.nan


def verdict(low: float, high: float, seeds: int) -> str:
    """Say what the interval of a difference over so many seeds tells."""
    if low <= 0 <= high:
        return "it cannot be told from zero"
    if seeds == 1:
        return "the interval excludes zero, but one seed cannot tell a difference from luck"
    return "the interval excludes zero"


def draws(rows: int, seed: int = 0) -> Iterator[np.ndarray[Any, Any]]:
    """Yield the row numbers of all resamples, a slice at a time, (resamples, rows); always the same ones for a seed."""
    random = np.random.default_rng(seed)
    for count in slices(rows):
        yield random.integers(rows, size=(count, rows))


def slices(width: int) -> Iterator[int]:
    """Yield how many resamples to work on at once, where each takes `width` numbers, until all are through."""
    size = max(1, IN_MEMORY // width)
    for start in range(0, RESAMPLES, size):
        yield min(size, RESAMPLES - start)


def divided(numerator: Array, denominator: Array) -> Array:
    """Divide, and return 0 where there is nothing to divide by, as scikit-learn does."""
    found: Array = np.divide(numerator, denominator, out=np.zeros_like(numerator), where=denominator != 0)
    return found


def _rows(points: Points) -> Array:
    """Return points as (rows, numbers)."""
    return np.asarray(points, dtype=float).reshape(len(points), -1)


def middle(values: np.ndarray[Any, Any]) -> Interval:
    """Return the bounds of the middle 95 % of a score's values over the resamples."""
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(values, [tail, 100 - tail])
    return float(low), float(high)


def compute(metrics: Sequence[type[evaluate.Metric]], predictions: Sequence[Any], references: Sequence[Any]) -> Any:
    """Return what the metrics say, in one dictionary."""
    found: dict[str, Any] = {}
    # The library makes a folder per metric though nothing is written; it need not be in the user's home.
    with TemporaryDirectory() as folder:
        for metric in metrics:
            module = metric(keep_in_memory=True, cache_dir=folder)
            found |= module.compute(predictions=predictions, references=references)
    return found
