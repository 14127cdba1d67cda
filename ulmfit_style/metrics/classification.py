"""The scores of labels: one a row, or several.

Labels are strings; of several, a row has a sequence of them, in any order.
"""

from __future__ import annotations

import abc
from collections import Counter
from collections.abc import Sequence
from typing import Any, final

import evaluate
import numpy as np
from datasets import Features, List, Value
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef, precision_recall_fscore_support
from sklearn.preprocessing import MultiLabelBinarizer

from ulmfit_style.metrics import Interval, compute, divided, middle, slices

Labels = Sequence[str] | Sequence[Sequence[str]]


class LabelMetric(evaluate.Metric, abc.ABC):
    """A metric of labels; a class that neither side holds is not averaged over."""

    def _info(self) -> evaluate.MetricInfo:
        one, several = Value("string"), List(Value("string"))
        return evaluate.MetricInfo(
            description=type(self).__doc__,
            citation="",
            features=[Features({"predictions": kind, "references": kind}) for kind in (one, several)],
        )

    def _compute(self, *, predictions: Labels, references: Labels) -> dict[str, Any]:
        return self.of(list(predictions), list(references))

    @abc.abstractmethod
    def of(self, predictions: Labels, references: Labels) -> dict[str, Any]:
        """Return the metric's value under its name."""


@final
class Accuracy(LabelMetric):
    """The share of the rows whose labels are all right, and none too many."""

    def of(self, predictions: Labels, references: Labels) -> dict[str, Any]:
        """Return `accuracy`."""
        sides = _Sides(predictions, references)
        return {"accuracy": float(accuracy_score(sides.references, sides.predictions))}


@final
class MacroF1(LabelMetric):
    """The mean of the classes' F1."""

    def of(self, predictions: Labels, references: Labels) -> dict[str, Any]:
        """Return `macro_f1`."""
        return {"macro_f1": _f1(predictions, references, "macro")}


@final
class MicroF1(LabelMetric):
    """The F1 of all classes' labels together; with one label a row it equals the accuracy."""

    def of(self, predictions: Labels, references: Labels) -> dict[str, Any]:
        """Return `micro_f1`."""
        return {"micro_f1": _f1(predictions, references, "micro")}


@final
class Matthews(LabelMetric):
    """The Matthews correlation of one label a row: 1 is perfect, 0 is chance, or one class alone on either side."""

    def of(self, predictions: Labels, references: Labels) -> dict[str, Any]:
        """Return `matthews`."""
        return {"matthews": float(matthews_corrcoef(references, predictions))}


@final
class PerClass(LabelMetric):
    """Precision, recall and F1 of each class, and how many rows hold it."""

    def of(self, predictions: Labels, references: Labels) -> dict[str, Any]:
        """Return `classes`: a list of one dictionary per class."""
        sides = _Sides(predictions, references)
        columns = precision_recall_fscore_support(
            sides.references, sides.predictions, labels=sides.labels, zero_division=0
        )
        names = ("precision", "recall", "f1", "rows")
        values = zip(*(column.tolist() for column in columns), strict=True)
        return {
            "classes": [
                {"class": label, **dict(zip(names, row, strict=True))}
                for label, row in zip(sides.classes, values, strict=True)
            ]
        }


def scores(predictions: Labels, references: Labels) -> dict[str, float]:
    """Return `accuracy`, `macro_f1` and `micro_f1`, and `matthews` too where a row has one label."""
    metrics: list[type[LabelMetric]] = [Accuracy, MacroF1, MicroF1, *([Matthews] if _is_one(references) else [])]
    found: dict[str, float] = compute(metrics, predictions, references)
    return found


def report(predictions: Labels, references: Labels) -> list[dict[str, Any]]:
    """Return each class's `precision`, `recall` and `f1`, and the `rows` that hold it."""
    classes: list[dict[str, Any]] = compute([PerClass], predictions, references)["classes"]
    return classes


def intervals(predictions: Labels, references: Labels) -> dict[str, Interval]:
    """Return the 95 % bootstrap interval of each of the `scores`.

    scikit-learn takes a millisecond for one score of one resample. But a score follows from a few sums over the rows,
    and so it is computed here for many resamples at once. Nor need equal rows be told apart: how often each kind of
    row is drawn has a multinomial distribution.
    """
    kinds = Counter(zip(map(_labels, predictions), map(_labels, references), strict=True))
    places = {
        name: place for place, name in enumerate(sorted({name for kind in kinds for side in kind for name in side}))
    }
    predicted, there = np.zeros((2, len(kinds), len(places)))
    for number, (ours, right) in enumerate(kinds):
        predicted[number, [places[name] for name in ours]] = 1
        there[number, [places[name] for name in right]] = 1
    exact = np.all(predicted == there, axis=1, keepdims=True)
    sums = np.hstack([exact, predicted * there, predicted, there])

    counts = np.array(list(kinds.values()))
    random = np.random.default_rng(0)
    drawn = (random.multinomial(counts.sum(), counts / counts.sum(), size=size) for size in slices(len(kinds)))
    values = from_sums(np.concatenate([draw @ sums for draw in drawn]), counts.sum(), one=_is_one(references))
    return {name: middle(resampled) for name, resampled in values.items()}


def from_sums(sums: np.ndarray[Any, Any], rows: int, *, one: bool) -> dict[str, np.ndarray[Any, Any]]:
    """Return the values of the `scores`, each (resamples,).

    Args:
        sums: Over the rows of each resample, (resamples, 1 + 3 x classes): how many rows are wholly right; and of each
            class how many are rightly predicted to hold it, how many are predicted to, and how many do.
        one: Whether a row has one label.
    """
    exact, classes = sums[:, 0], sums[:, 1:]
    hits, predicted, there = np.split(classes, 3, axis=1)
    seen = predicted + there
    values = {
        "accuracy": exact / rows,
        "macro_f1": divided(divided(2 * hits, seen).sum(axis=1), (seen > 0).sum(axis=1)),
        "micro_f1": divided(2 * hits.sum(axis=1), seen.sum(axis=1)),
    }
    if one:
        # Gorodkin 2004, equation 8
        together = exact * rows - (predicted * there).sum(axis=1)
        apart = np.sqrt((rows**2 - (predicted**2).sum(axis=1)) * (rows**2 - (there**2).sum(axis=1)))
        values["matthews"] = divided(together, apart)
    return values


def _is_one(references: Labels) -> bool:
    return isinstance(references[0], str)


def _labels(labels: str | Sequence[str]) -> tuple[str, ...]:
    return (labels,) if isinstance(labels, str) else tuple(sorted(labels))


def _f1(predictions: Labels, references: Labels, average: str) -> float:
    sides = _Sides(predictions, references)
    return float(f1_score(sides.references, sides.predictions, labels=sides.labels, average=average, zero_division=0))


@final
class _Sides:
    """Both sides as scikit-learn takes them: one label a row as it is, several as columns of 0 and 1."""

    def __init__(self, predictions: Labels, references: Labels) -> None:
        self.classes = sorted({name for labels in (*predictions, *references) for name in _labels(labels)})
        self.labels: list[Any] = list(self.classes)
        self.predictions: Any = predictions
        self.references: Any = references
        if not _is_one(references):
            self.classes = self.classes or [""]  # where no row has any label
            self.labels = list(range(len(self.classes)))
            # One column alone would be taken for two classes, 0 and 1; nothing is in the second.
            binarizer = MultiLabelBinarizer(classes=[*self.classes, " "])
            self.predictions, self.references = map(binarizer.fit_transform, (predictions, references))
