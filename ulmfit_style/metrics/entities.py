"""The scores of entities: one is right if its words and its type are.

Both sides are tags of words in IOB2, as seqeval takes them. An entity begins, as conlleval has it, also where a tag
does not go on with the one before; the strict score counts only those that begin with B-.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from datasets import List
from seqeval.metrics.sequence_labeling import get_entities
from seqeval.scheme import IOB2, Tokens

from ulmfit_style.metrics.classification import macro_f1, per_class
from ulmfit_style.metrics.intervals import Array, Interval, divided, intervals_of_sums
from ulmfit_style.metrics.metric import TEXT, metric

Tags = Sequence[Sequence[str]]


@metric((List(TEXT), List(TEXT)))
def scores(predictions: Tags, references: Tags) -> dict[str, Any]:
    """Return `micro_f1`, `precision`, `recall`, `macro_f1` and `strict_f1`.

    These are of all entities together; the macro F1 is the mean F1 of their types. 0 where there is nothing to divide
    by.
    """
    return of_sums(_counts(predictions, references)[0].sum(axis=0))


def report(predictions: Tags, references: Tags) -> list[dict[str, Any]]:
    """Return each type's `precision`, `recall` and `f1`, and how many `entities` of it there are."""
    counts, types = _counts(predictions, references)
    sums = counts[:, 0].sum(axis=0)
    # A type that strict entities alone have is no type by conlleval's rule.
    entries = zip(per_class(types, sums, "entities"), sums.sum(axis=0), strict=True)
    return [entry for entry, entities in entries if entities]


def points(predictions: Tags, references: Tags) -> list[list[float]]:
    """Return of each row the two sums that the micro F1 is the ratio of."""
    right, predicted, held = _counts(predictions, references)[0][:, 0].sum(axis=-1).T
    return np.stack([2 * right, predicted + held], axis=1).tolist()


def intervals(predictions: Tags, references: Tags) -> dict[str, Interval]:
    """Return the 95 % bootstrap interval of each of the `scores`."""
    counts = _counts(predictions, references)[0]
    return intervals_of_sums(of_sums, counts, np.ones(len(counts)))


def of_sums(sums: Array) -> dict[str, Array]:
    """Return the scores that follow from sums over rows, (...) each.

    Args:
        sums: How many entities of each type are right, predicted and held, by conlleval's rule and strictly:
            (..., 2, 3, types).
    """
    right, predicted, held = np.moveaxis(sums, -2, 0)  # each (..., 2, types)
    all_right, all_predicted, all_held = (side.sum(axis=-1) for side in (right, predicted, held))
    micro_f1 = divided(2 * all_right, all_predicted + all_held)
    return {
        "micro_f1": micro_f1[..., 0],
        "precision": divided(all_right[..., 0], all_predicted[..., 0]),
        "recall": divided(all_right[..., 0], all_held[..., 0]),
        "macro_f1": macro_f1(right[..., 0, :], predicted[..., 0, :], held[..., 0, :]),
        "strict_f1": micro_f1[..., 1],
    }


def _counts(predictions: Tags, references: Tags) -> tuple[Array, list[str]]:
    """Return what each row adds to the sums of `of_sums`, (rows, 2, 3, types), and the types."""
    sides = zip(map(_entities, predictions), map(_entities, references), strict=True)
    rows = [[(ours & right, ours, right) for ours, right in zip(*row, strict=True)] for row in sides]
    types = sorted({entity[0] for row in rows for sets in row for entities in sets for entity in entities})
    counts = np.zeros((len(rows), 2, 3, len(types)))
    for row, rule, side in np.ndindex(counts.shape[:-1]):
        for name, _, _ in rows[row][rule][side]:
            counts[row, rule, side, types.index(name)] += 1
    return counts, types


def _entities(tags: Sequence[str]) -> tuple[set[tuple[str, int, int]], set[tuple[str, int, int]]]:
    """Return a row's entities by conlleval's rule, and strictly: their types, first and last words."""
    strict = Tokens(list(tags), IOB2).entities
    return set(get_entities(list(tags))), {(entity.tag, entity.start, entity.end - 1) for entity in strict}
