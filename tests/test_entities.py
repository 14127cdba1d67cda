"""The scores of entities against those worked by hand and seqeval itself."""

import random

import numpy as np
import pytest
from seqeval.metrics import classification_report, f1_score
from seqeval.scheme import IOB2

from ulmfit_style.metrics import entities
from ulmfit_style.metrics.intervals import ratio

RIGHT = [["B-a", "I-a", "O", "B-b"], ["B-a", "O"], ["O"]]
FOUND = [["B-a", "I-a", "O", "I-b"], ["B-a", "B-b"], ["O"]]


def drawn(count: int, seed: int) -> list[list[str]]:
    """Random tags, most of which break the rules."""
    chance = random.Random(seed)
    return [chance.choices(["O", "B-a", "I-a", "B-b", "I-b"], [4, 2, 2, 1, 1], k=9) for _ in range(count)]


def test_the_scores_are_those_worked_by_hand():
    # Two of a and one of b are right, one of b is too many. Strictly the b that begins with I- is none.
    assert entities.scores(FOUND, RIGHT) == pytest.approx(
        {"micro_f1": 6 / 7, "precision": 3 / 4, "recall": 1, "macro_f1": (1 + 2 / 3) / 2, "strict_f1": 4 / 6}
    )


def test_the_report_tells_each_type():
    a, b = entities.report(FOUND, RIGHT)
    assert a == {"class": "a", "precision": 1, "recall": 1, "f1": 1, "entities": 2}
    assert b == pytest.approx({"class": "b", "precision": 1 / 2, "recall": 1, "f1": 2 / 3, "entities": 1})


def test_where_nothing_is_there_and_nothing_found_all_scores_are_zero():
    assert set(entities.scores([["O"], []], [["O"], []]).values()) == {0}
    assert entities.report([["O"]], [["O"]]) == []
    assert set(entities.intervals([["O"]], [["O"]]).values()) == {(0, 0)}


@pytest.mark.parametrize("seed", range(3))
def test_the_scores_are_those_of_seqeval(seed: int):
    found, right = drawn(30, seed), drawn(30, seed + 100)
    scores = entities.scores(found, right)
    strict = {"mode": "strict", "scheme": IOB2}
    report = classification_report(right, found, output_dict=True, zero_division=0)
    assert scores == pytest.approx(
        {
            "micro_f1": f1_score(right, found),
            "precision": report["micro avg"]["precision"],
            "recall": report["micro avg"]["recall"],
            "macro_f1": report["macro avg"]["f1-score"],
            "strict_f1": f1_score(right, found, zero_division=0, **strict),
        }
    )
    for entry in entities.report(found, right):
        name, *values = entry.values()
        assert values == pytest.approx(list(report[name].values()))


def test_the_points_make_the_micro_f1_of_any_draw_of_rows():
    found, right = drawn(20, 1), drawn(20, 2)
    points = np.array(entities.points(found, right))
    for rows in np.random.default_rng(0).integers(20, size=(10, 20)):
        expected = f1_score([right[row] for row in rows], [found[row] for row in rows])
        assert ratio(points[rows].mean(axis=0)) == pytest.approx(expected)
