"""The scores of answers that are stretches of a text, by the rules of SQuAD v2 (Rajpurkar et al. 2018), from 0 to 1."""

import re
import string
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from datasets import List

from ulmfit_style.metrics.intervals import Array, Interval, combined, interval
from ulmfit_style.metrics.metric import TEXT, metric

PUNCTUATION = str.maketrans("", "", string.punctuation)
ARTICLES = re.compile(r"\b(a|an|the)\b")


@metric((TEXT, List(TEXT)))
def scores(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, Any]:
    """Return `f1` and `exact_match` of the words, the highest over the right answers.

    Where questions have no answer, also `has_answer_f1`, `has_answer_exact_match` and `no_answer_accuracy`; an empty
    answer says that there is none.

    Args:
        references: The right answers of each row; none where there is no answer.
    """
    return {name: combined(pairs.mean(axis=0)) for name, pairs in _pairs(predictions, references).items()}


def points(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> list[float]:
    """Return the F1 of each row."""
    return [_best(answer, right)[0] for answer, right in zip(predictions, references, strict=True)]


def intervals(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, Interval]:
    """Return the 95 % bootstrap interval of each of the `scores`."""
    return {name: interval(pairs.tolist()) for name, pairs in _pairs(predictions, references).items()}


def normalised(text: str) -> list[str]:
    """Return the words of an answer: in lower case, without ASCII punctuation and English articles."""
    return ARTICLES.sub(" ", text.lower().translate(PUNCTUATION)).split()


def _pairs(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, Array]:
    """Return for each score the two numbers of each row that it is the ratio of the sums of, (rows, 2)."""
    best = [_best(answer, right) for answer, right in zip(predictions, references, strict=True)]
    f1, exact = np.array(best, dtype=float).T
    answered = np.array([bool(len(right)) for right in references], dtype=float)
    every = np.ones_like(f1)
    parts = {"f1": (f1, every), "exact_match": (exact, every)}
    if not answered.all():
        parts["has_answer_f1"] = (f1, answered)
        parts["has_answer_exact_match"] = (exact, answered)
        parts["no_answer_accuracy"] = (exact, 1 - answered)
    return {name: np.stack([values * part, part], axis=1) for name, (values, part) in parts.items()}


def _best(answer: str, references: Sequence[str]) -> tuple[float, float]:
    """Return the highest F1 and exact match of an answer over the right ones."""
    # As in the official script, a right answer of which no word is left counts as none, and where none is left the
    # question has no answer.
    words, right = normalised(answer), [words for words in map(normalised, references) if words] or [[]]
    return max(_f1(words, other) for other in right), float(words in right)


def _f1(answer: Sequence[str], right: Sequence[str]) -> float:
    """Return the F1 of two answers' words."""
    if not answer or not right:
        return float(answer == right)
    return 2 * (Counter(answer) & Counter(right)).total() / (len(answer) + len(right))
