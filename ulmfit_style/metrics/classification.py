"""The scores of labels: one a row, or several.

Labels are strings; of several, a row has a sequence of them, in any order.
"""

from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from datasets import List
from scipy.sparse import csr_array, hstack

from ulmfit_style.metrics.intervals import Array, Interval, Points, divided, intervals_of_sums
from ulmfit_style.metrics.metric import TEXT, metric

Labels = Sequence[str] | Sequence[Sequence[str]]


@metric((TEXT, TEXT), (List(TEXT), List(TEXT)))
def scores(predictions: Labels, references: Labels) -> dict[str, Any]:
    """Return `accuracy`, `macro_f1` and `micro_f1`; of one label a row `matthews`, the Matthews correlation, too.

    A row of several labels is accurate if they are all right, and none too many. With one label a row, micro F1 equals
    the accuracy. The macro F1 is the mean of the classes' F1; a class that neither side holds is not averaged over. The
    Matthews correlation is 1 for perfect answers, 0 for chance, or where either side holds one class alone.
    """
    sums, counts, _ = _kinds(predictions, references)
    scores = of_sums(counts @ sums, counts.sum(), single=isinstance(references[0], str))
    return {name: np.nan_to_num(score) for name, score in scores.items()}


def report(predictions: Labels, references: Labels) -> list[dict[str, Any]]:
    """Return each class's `precision`, `recall` and `f1`, and the `rows` that hold it."""
    sums, counts, classes = _kinds(predictions, references)
    return per_class(classes, np.split(counts @ sums[:, 1:], 3), "rows")


def points(predictions: Labels, references: Labels) -> Points:
    """Return of each row whether its only label is right; of several the two sums that the micro F1 is the ratio of."""
    if isinstance(references[0], str):
        return [float(ours == right) for ours, right in zip(predictions, references, strict=True)]
    pairs = [(set(ours), set(right)) for ours, right in zip(predictions, references, strict=True)]
    return [(2 * len(ours & right), len(ours) + len(right)) for ours, right in pairs]


def intervals(predictions: Labels, references: Labels) -> dict[str, Interval]:
    """Return the 95 % bootstrap interval of each of the `scores`."""
    sums, counts, _ = _kinds(predictions, references)
    scores = partial(of_sums, rows=counts.sum(), single=isinstance(references[0], str))
    return intervals_of_sums(scores, sums, counts)


def of_sums(sums: Array, rows: int, *, single: bool) -> dict[str, Array]:
    """Return the scores that follow from sums over rows, (...) each.

    scikit-learn takes a millisecond for one score of one resample; these are computed of all resamples at once.

    Args:
        sums: How many rows are wholly right; and of each class how many are rightly predicted to hold it, how many are
            predicted to, and how many do: (..., 1 + 3 x classes).
        single: Whether a row has one label.
    """
    exact = sums[..., 0]
    right, predicted, held = np.split(sums[..., 1:], 3, axis=-1)
    scores = {"accuracy": exact / rows, "macro_f1": macro_f1(right, predicted, held)}
    scores["micro_f1"] = divided(2 * right.sum(axis=-1), (predicted + held).sum(axis=-1))
    if single:  # Gorodkin 2004, equation 8
        covariance = exact * rows - (predicted * held).sum(axis=-1)
        ours, right_ones = (rows**2 - (side**2).sum(axis=-1) for side in (predicted, held))
        matthews = divided(covariance, np.sqrt(ours * right_ones))
        scores["matthews"] = np.where(right_ones == 0, np.nan, matthews)  # of one class there is no correlation
    return scores


def macro_f1(right: Array, predicted: Array, held: Array) -> Array:
    """Return the mean F1 of the classes that either side holds: (..., classes) to (...)."""
    either = predicted + held
    return divided(divided(2 * right, either).sum(axis=-1), (either > 0).sum(axis=-1))


def per_class(classes: Sequence[str], sums: Sequence[Array], examples: str) -> list[dict[str, Any]]:
    """Return each class's precision, recall and F1, and how many `examples` there are, which is the name of that.

    Args:
        sums: How many are right, predicted and held, (classes,) each.
    """
    right, predicted, held = sums
    columns = divided(right, predicted), divided(right, held), divided(2 * right, predicted + held), held.astype(int)
    rows = zip(classes, *(column.tolist() for column in columns), strict=True)
    return [dict(zip(("class", "precision", "recall", "f1", examples), row, strict=True)) for row in rows]


def _kinds(predictions: Labels, references: Labels) -> tuple[csr_array, Array, list[str]]:
    """Return the sums of each kind of row, as `of_sums` has them, how many rows there are of it, and the classes.

    The sums are sparse: of many rows and thousands of classes they would take gigabytes.
    """
    kinds = Counter(zip(map(_labels, predictions), map(_labels, references), strict=True))
    rows = [labels for side in zip(*kinds, strict=True) for labels in side]
    classes, numbers = np.unique([label for labels in rows for label in labels], return_inverse=True)
    ends = np.cumsum([0, *map(len, rows)])
    both = csr_array((np.ones(len(numbers)), numbers, ends), shape=(len(rows), len(classes)))
    predicted, held = both[: len(kinds)], both[len(kinds) :]
    is_exact = (predicted != held).sum(axis=1)[:, None] == 0
    sums = hstack([is_exact, predicted * held, predicted, held], format="csr")
    return sums, np.array(list(kinds.values())), classes.tolist()


def _labels(labels: str | Sequence[str]) -> tuple[str, ...]:
    return (labels,) if isinstance(labels, str) else tuple(sorted(set(labels)))
