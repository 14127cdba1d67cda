"""The scores of numbers."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from datasets import Value
from scipy import stats

from ulmfit_style.metrics.intervals import Array, Interval, divided, draws, percentiles
from ulmfit_style.metrics.metric import metric


def pearson(predictions: Array, references: Array) -> Array:
    """Return the correlation of the numbers; 0 where one side is constant."""
    # Constant numbers have no correlation: scipy warns, and returns nan, which JSON does not have.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)
        return np.nan_to_num(stats.pearsonr(predictions, references, axis=-1).statistic)


def spearman(predictions: Array, references: Array) -> Array:
    """Return the correlation of the numbers' ranks, equal numbers sharing one; 0 where one side is constant."""
    return pearson(stats.rankdata(predictions, axis=-1), stats.rankdata(references, axis=-1))


def mse(predictions: Array, references: Array) -> Array:
    """Return the mean squared error."""
    return np.mean((predictions - references) ** 2, axis=-1)


SCORES: Mapping[str, Callable[[Array, Array], Array]] = {"pearson": pearson, "spearman": spearman, "mse": mse}
"""Each a number over the last axis: (rows,) to a scalar, (resamples, rows) to (resamples,)."""


@metric((Value("float64"), Value("float64")))
def scores(predictions: Sequence[float], references: Sequence[float]) -> dict[str, Any]:
    """Return `pearson`, `spearman` and `mse`: the correlations, and the mean squared error."""
    return {name: score(np.array(predictions), np.array(references)) for name, score in SCORES.items()}


def points(predictions: Sequence[float], references: Sequence[float]) -> list[list[float]]:
    """Return the moments of both numbers, standardised: their products would drown in those of large numbers.

    Those that are constant are zeros.
    """
    both = np.array([predictions, references], dtype=float)
    centred = both - both.mean(axis=1, keepdims=True)
    ours, right = divided(centred, both.std(axis=1, keepdims=True))
    return np.stack([ours, right, ours * right, ours**2, right**2], axis=1).tolist()


def of_means(means: Array) -> Array:
    """Return the correlation from the means of the points over rows, (..., 5) to (...)."""
    ours, right, product, ours_squared, right_squared = np.moveaxis(means, -1, 0)
    variances = np.maximum(ours_squared - ours**2, 0) * np.maximum(right_squared - right**2, 0)
    return divided(product - ours * right, np.sqrt(variances))


def intervals(predictions: Sequence[float], references: Sequence[float]) -> dict[str, Interval]:
    """Return the 95 % bootstrap interval of each of the `scores`."""
    ours, right = np.array(predictions, dtype=float), np.array(references, dtype=float)
    resampled = [[score(ours[rows], right[rows]) for score in SCORES.values()] for rows in draws(len(right))]
    return dict(zip(SCORES, map(percentiles, np.concatenate(resampled, axis=1)), strict=True))
