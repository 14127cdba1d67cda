"""The scores of entities: one is right if its words and its type are.

Both sides are tags of words in IOB2, as seqeval takes them.
"""

from __future__ import annotations

import abc
from collections.abc import Iterator, Sequence
from typing import Any, final

import evaluate
import numpy as np
from datasets import Features, List, Value
from seqeval.metrics import f1_score, precision_score, recall_score
from seqeval.metrics.sequence_labeling import get_entities, precision_recall_fscore_support
from seqeval.scheme import IOB2, Tokens

from ulmfit_style.metrics import Array, Interval, compute, divided, middle, slices

Tags = Sequence[Sequence[str]]


class EntityMetric(evaluate.Metric, abc.ABC):
    """A metric of tags; 0 where there is nothing to divide by."""

    def _info(self) -> evaluate.MetricInfo:
        tags = List(Value("string"))
        return evaluate.MetricInfo(
            description=type(self).__doc__,
            citation="",
            features=Features({"predictions": tags, "references": tags}),
        )

    def _compute(self, *, predictions: Tags, references: Tags) -> dict[str, Any]:
        return self.of(list(predictions), list(references))

    @abc.abstractmethod
    def of(self, predictions: Tags, references: Tags) -> dict[str, Any]:
        """Return the metric's values under their names."""


@final
class Micro(EntityMetric):
    """The scores of all entities together, as conlleval has them: a tag that does not go on begins an entity."""

    def of(self, predictions: Tags, references: Tags) -> dict[str, Any]:
        """Return `micro_f1`, `precision` and `recall`."""
        metrics = {"micro_f1": f1_score, "precision": precision_score, "recall": recall_score}
        return {name: float(metric(references, predictions, zero_division=0)) for name, metric in metrics.items()}


@final
class PerType(EntityMetric):
    """Precision, recall and F1 of each type, and how many entities of it there are."""

    def of(self, predictions: Tags, references: Tags) -> dict[str, Any]:
        """Return `types`: a list of one dictionary per type; and `macro_f1`, the mean of their F1."""
        names = sorted({name for tags in (predictions, references) for name, _, _ in get_entities(tags)})
        found = precision_recall_fscore_support(references, predictions, zero_division=0)
        columns = zip(names, *(column.tolist() for column in found), strict=True)
        types = [dict(zip(("class", "precision", "recall", "f1", "entities"), row, strict=True)) for row in columns]
        return {"types": types, "macro_f1": float(np.mean([entry["f1"] for entry in types])) if types else 0.0}


@final
class Strict(EntityMetric):
    """The F1 of all entities together, of which none is counted that does not begin with B-."""

    def of(self, predictions: Tags, references: Tags) -> dict[str, Any]:
        """Return `strict_f1`."""
        return {"strict_f1": float(f1_score(references, predictions, mode="strict", scheme=IOB2, zero_division=0))}


def scores(predictions: Tags, references: Tags) -> dict[str, float]:
    """Return `micro_f1`, `precision`, `recall`, `macro_f1` and `strict_f1`."""
    found: dict[str, float] = compute([Micro, PerType, Strict], predictions, references)
    return {name: value for name, value in found.items() if name != "types"}


def report(predictions: Tags, references: Tags) -> list[dict[str, Any]]:
    """Return each type's `precision`, `recall` and `f1`, and how many `entities` of it there are."""
    types: list[dict[str, Any]] = compute([PerType], predictions, references)["types"]
    return types


def points(predictions: Tags, references: Tags) -> list[tuple[int, int]]:
    """Return of each row the two sums that the micro F1 is the ratio of."""
    found = []
    for sides in zip(predictions, references, strict=True):
        ours, right = (set(get_entities(list(side))) for side in sides)
        found.append((2 * len(ours & right), len(ours) + len(right)))
    return found


def intervals(predictions: Tags, references: Tags) -> dict[str, Interval]:
    """Return the 95 % bootstrap interval of each of the `scores`, which follow from sums over the rows."""
    counts = _counts(predictions, references)
    rows = len(counts)
    random = np.random.default_rng(0)
    drawn = (random.multinomial(rows, np.full(rows, 1 / rows), size=size) for size in slices(rows))
    values = from_sums(np.concatenate([np.tensordot(draw, counts, axes=1) for draw in drawn]))
    return {name: middle(resampled) for name, resampled in values.items()}


def from_sums(sums: Array) -> dict[str, Array]:
    """Return the values of the `scores`, each (resamples,).

    Args:
        sums: How many entities of each type are right, predicted and there, by conlleval's rule and strictly:
            (resamples, 2, 3, types).
    """
    right, predicted, there = np.moveaxis(sums, -2, 0)  # each (resamples, 2, types)
    seen = predicted + there
    micro = divided(2 * right.sum(axis=-1), seen.sum(axis=-1))
    types = divided(2 * right, seen)[:, 0].sum(axis=-1)
    return {
        "micro_f1": micro[:, 0],
        "precision": divided(right[:, 0].sum(axis=-1), predicted[:, 0].sum(axis=-1)),
        "recall": divided(right[:, 0].sum(axis=-1), there[:, 0].sum(axis=-1)),
        "macro_f1": divided(types, (seen[:, 0] > 0).sum(axis=-1).astype(float)),
        "strict_f1": micro[:, 1],
    }


def _counts(predictions: Tags, references: Tags) -> Array:
    """Return what `from_sums` sums, of each row: (rows, 2, 3, types)."""
    found = [[list(_both(list(side))) for side in sides] for sides in zip(predictions, references, strict=True)]
    names = sorted({name for sides in found for ways in sides for way in ways for name, _, _ in way})
    places = {name: place for place, name in enumerate(names)}
    counts = np.zeros((len(found), 2, 3, len(names)))
    for row, (ours, right) in enumerate(found):
        for strict in (0, 1):
            sets = (ours[strict] & right[strict], ours[strict], right[strict])
            for kind, entities in enumerate(sets):
                for name, _, _ in entities:
                    counts[row, strict, kind, places[name]] += 1
    return counts


def _both(tags: list[str]) -> Iterator[set[tuple[str, int, int]]]:
    """Return the entities of a row by conlleval's rule, and strictly: their types, first and last words."""
    yield set(get_entities(tags))
    yield {(entity.tag, entity.start, entity.end - 1) for entity in Tokens(tags, IOB2).entities}
