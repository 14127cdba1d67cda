"""The scores of answers that are stretches of a text, by the rules of SQuAD v2 (Rajpurkar et al. 2018), from 0 to 1."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence
from typing import Any, final

import evaluate
import numpy as np
from datasets import Features, List, Value

from ulmfit_style.metrics import Array, Interval, compute, interval, ratio

PUNCTUATION = str.maketrans("", "", string.punctuation)
ARTICLES = re.compile(r"\b(a|an|the)\b")


@final
class Squad(evaluate.Metric):
    """F1 and exact match of the words, the highest over the right answers; an empty one says that there is none."""

    def _info(self) -> evaluate.MetricInfo:
        text = Value("string")
        return evaluate.MetricInfo(
            description=type(self).__doc__,
            citation="",
            features=Features({"predictions": text, "references": List(text)}),
        )

    def _compute(self, *, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, Any]:
        parts = _parts(list(predictions), list(references))
        return {name: float(ratio(pairs.mean(axis=0))) for name, pairs in parts.items()}


def scores(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, float]:
    """Return `f1` and `exact_match`; where questions have no answer, these of the others too, and `no_answer_accuracy`.

    Args:
        references: The right answers of each row; none where there is no answer.
    """
    found: dict[str, float] = compute([Squad], predictions, references)
    return found


def points(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> list[float]:
    """Return the F1 of each row."""
    return [_best(ours, right)[0] for ours, right in zip(predictions, references, strict=True)]


def intervals(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, Interval]:
    """Return the 95 % bootstrap interval of each of the `scores`."""
    return {name: interval(pairs.tolist(), ratio) for name, pairs in _parts(predictions, references).items()}


def normalised(text: str) -> list[str]:
    """Return the words of an answer: lower case, without punctuation (that of ASCII) and English articles."""
    return ARTICLES.sub(" ", text.lower().translate(PUNCTUATION)).split()


def _parts(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, Array]:
    """Return of each score the two numbers of each row that it is the ratio of the sums of, (rows, 2)."""
    found = [_best(ours, right) for ours, right in zip(predictions, references, strict=True)]
    f1, exact = np.array(found, dtype=float).T
    answered = np.array([bool(len(right)) for right in references], dtype=float)
    every = np.ones_like(f1)
    parts = {"f1": (f1, every), "exact_match": (exact, every)}
    if not answered.all():
        parts["has_answer_f1"] = (f1, answered)
        parts["has_answer_exact_match"] = (exact, answered)
        parts["no_answer_accuracy"] = (exact, 1 - answered)
    return {name: np.stack([values * part, part], axis=1) for name, (values, part) in parts.items()}


def _best(ours: str, right: Sequence[str]) -> tuple[float, float]:
    """Return the highest F1 and exact match of an answer over the right ones."""
    words = [normalised(one) for one in right]
    # As in the official script, answers that nothing is left of are no answers, and where none is left none is right.
    both = [_agreement(normalised(ours), one) for one in filter(None, words)] or [_agreement(normalised(ours), [])]
    return max(f1 for f1, _ in both), max(exact for _, exact in both)


def _agreement(ours: Sequence[str], right: Sequence[str]) -> tuple[float, float]:
    """Return the F1 and the exact match of two answers' words."""
    exact = float(ours == right)
    if not ours or not right:
        return exact, exact
    return 2 * sum((Counter(ours) & Counter(right)).values()) / (len(ours) + len(right)), exact
