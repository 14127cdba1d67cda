"""The scores of entities against those worked by hand and seqeval itself."""

import random

import pytest
from seqeval.metrics import classification_report, f1_score
from seqeval.scheme import IOB2

from ulmfit_style.metrics import entities


def drawn(count: int, seed: int) -> list[list[str]]:
    """Random tags, most of which break the rules."""
    chance = random.Random(seed)
    return [chance.choices(["O", "B-a", "I-a", "B-b", "I-b"], [4, 2, 2, 1, 1], k=9) for _ in range(count)]


def test_where_nothing_is_there_and_nothing_found_all_scores_are_zero():
    assert set(entities.scores([["O"], []], [["O"], []]).values()) == {0}
    assert entities.report([["O"]], [["O"]]) == []
    assert {low for low, _ in entities.intervals([["O"]], [["O"]]).values()} == {0}


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
