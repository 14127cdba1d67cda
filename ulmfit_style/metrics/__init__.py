"""Scores with their uncertainty: the bootstrap here, the metrics in the modules beside, one for each kind of answer.

Those modules are imported late, for `evaluate` takes seconds to load.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
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


def interval(points: Sequence[float]) -> Interval:
    """Return the 95 % percentile bootstrap interval of the mean of `points` (Efron and Tibshirani 1993, section 13.3).

    Rows are drawn with replacement, so the interval tells what other test rows of the same kind would have shown;
    other seeds and other training rows are not in it.
    """
    values = np.asarray(points, dtype=float)
    return middle(np.concatenate([values[drawn].mean(axis=1) for drawn in draws(len(values))]))


def difference(points: Sequence[float], baseline: Sequence[float]) -> tuple[float, float, float]:
    """Return the mean difference of two models on the same rows, and its paired bootstrap interval.

    Raises:
        ValueError: if the two have not the same number of rows.
    """
    pairs = [ours - theirs for ours, theirs in zip(points, baseline, strict=True)]
    return float(np.mean(pairs)), *interval(pairs)


def over_seeds(pairs: Sequence[Sequence[float]]) -> Interval:
    """Return the 95 % percentile bootstrap interval of the mean difference of two models over seeds and test rows.

    Both are drawn with replacement: the rows, the same for all seeds, and then the seeds. The spread of a few seeds is
    smaller among draws from them than among seeds, by the square root of (seeds - 1) / seeds, and is widened by that;
    with fewer than five it still says too little.

    Args:
        pairs: For each seed, the differences on the test rows: (seeds, rows).
    """
    values = np.asarray(pairs, dtype=float)
    seeds, rows = values.shape
    widening = math.sqrt(seeds / (seeds - 1)) if seeds > 1 else 1.0
    random = np.random.default_rng(1)
    found = []
    for drawn in draws(rows):
        weights = np.stack([np.bincount(resample, minlength=rows) for resample in drawn]) / rows
        means = weights @ values.T  # (resamples, seeds)
        centre = means.mean(axis=1, keepdims=True)
        widened = centre + widening * (means - centre)
        chosen = random.integers(seeds, size=(len(drawn), seeds))
        found.append(np.take_along_axis(widened, chosen, axis=1).mean(axis=1))
    return middle(np.concatenate(found))


def draws(rows: int) -> Iterator[np.ndarray[Any, Any]]:
    """Yield the row numbers of all resamples, a slice at a time, (resamples, rows); always the same ones."""
    random = np.random.default_rng(0)
    for count in slices(rows):
        yield random.integers(rows, size=(count, rows))


def slices(width: int) -> Iterator[int]:
    """Yield how many resamples to work on at once, where each takes `width` numbers, until all are through."""
    size = max(1, IN_MEMORY // width)
    for start in range(0, RESAMPLES, size):
        yield min(size, RESAMPLES - start)


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
