"""The scores of numbers."""

from __future__ import annotations

import abc
import warnings
from collections.abc import Sequence
from typing import Any, final

import evaluate
import numpy as np
from datasets import Features, Value
from scipy import stats

from ulmfit_style.metrics import Interval, compute, draws, middle

Numbers = np.ndarray[Any, np.dtype[np.float64]]


class NumberMetric(evaluate.Metric, abc.ABC):
    """A metric of two rows of numbers."""

    def _info(self) -> evaluate.MetricInfo:
        number = Value("float64")
        return evaluate.MetricInfo(
            description=type(self).__doc__,
            citation="",
            features=Features({"predictions": number, "references": number}),
        )

    def _compute(self, *, predictions: Sequence[float], references: Sequence[float]) -> dict[str, float]:
        return {self.name: float(self.of(np.array(predictions[:]), np.array(references[:])))}

    @staticmethod
    @abc.abstractmethod
    def of(predictions: Numbers, references: Numbers) -> Numbers:
        """Return the value over the last axis: one number for (rows,), (resamples,) for (resamples, rows)."""


@final
class Pearson(NumberMetric):
    """The correlation of the numbers; 0 where one side is constant."""

    @staticmethod
    def of(predictions: Numbers, references: Numbers) -> Numbers:
        """Return the value over the last axis."""
        with warnings.catch_warnings():
            # Constant numbers have no correlation: scipy warns, and returns nan, which JSON has not.
            warnings.simplefilter("ignore", stats.ConstantInputWarning)
            warnings.simplefilter("ignore", stats.NearConstantInputWarning)
            found: Numbers = np.nan_to_num(stats.pearsonr(predictions, references, axis=-1).statistic)
        return found


@final
class Spearman(NumberMetric):
    """The correlation of the numbers' ranks, equal numbers sharing one; 0 where one side is constant."""

    @staticmethod
    def of(predictions: Numbers, references: Numbers) -> Numbers:
        """Return the value over the last axis."""
        return Pearson.of(stats.rankdata(predictions, axis=-1), stats.rankdata(references, axis=-1))


@final
class Mse(NumberMetric):
    """The mean squared error."""

    @staticmethod
    def of(predictions: Numbers, references: Numbers) -> Numbers:
        """Return the value over the last axis."""
        error: Numbers = np.mean((predictions - references) ** 2, axis=-1)
        return error


METRICS: tuple[type[NumberMetric], ...] = (Pearson, Spearman, Mse)


def scores(predictions: Sequence[float], references: Sequence[float]) -> dict[str, float]:
    """Return `pearson`, `spearman` and `mse`."""
    found: dict[str, float] = compute(METRICS, predictions, references)
    return found


def intervals(predictions: Sequence[float], references: Sequence[float]) -> dict[str, Interval]:
    """Return the 95 % bootstrap interval of each of the `scores`."""
    ours, right = np.array(predictions, dtype=float), np.array(references, dtype=float)
    drawn = [[metric.of(ours[rows], right[rows]) for metric in METRICS] for rows in draws(len(right))]
    values = np.concatenate(drawn, axis=1)
    return {metric.__name__.lower(): middle(resampled) for metric, resampled in zip(METRICS, values, strict=True)}
