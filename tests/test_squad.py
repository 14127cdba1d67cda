"""Files in the form of SQuAD; the scores of answers against those worked by hand and another reading of the rules."""

import random
import re
import string
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from samples import questions
from samples import squad as write

from ulmfit_style.data import labelled, reading
from ulmfit_style.errors import UserError
from ulmfit_style.metrics import squad
from ulmfit_style.tasks.question_answering import QuestionAnswering


def test_every_question_is_a_row_with_its_number_its_context_and_its_title(tmp_path: Path):
    rows = questions(10)
    path = write(tmp_path / "a.json", rows)
    read = list(reading.read("task.path", str(path), lambda present: {"question": "question"}))
    assert [row.place for row, _ in read] == [f"a.json:{number}" for number in range(1, 21)]
    for (_, record), row in zip(read, rows, strict=True):
        names = ("id", "title", "context", "question")
        assert [record[name] for name in names] == [row[name] for name in names]
        assert [answer["text"] for answer in record["answers"]] == row["answers"]["text"]
        assert record["is_impossible"] == (not row["answers"]["text"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            '{"data": [{"paragraphs": [{"context": "a", "qas": [{"question": "b", "answers": []}, {}]}]}]}',
            "a.json:2: .*lacks 'question'",
        ),
        ('{"data": [{"paragraphs": [{"qas": []}]}]}', r"is not in the format of SQuAD \(lacks 'context'\)"),
        ('[{"question": "a"}]', "is not in the format of SQuAD .*; one JSON object a line goes into a .jsonl file"),
        ('{"question": "a"}\n{"question": "b"}\n', "Extra data: line 2 .*; one JSON object a line goes into a .jsonl"),
        ('{"data": []}', "holds no rows"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(tmp_path: Path, content: str, message: str):
    (tmp_path / "a.json").write_text(content)
    task = QuestionAnswering(path=str(tmp_path / "a.json"))
    with pytest.raises(UserError, match=message):
        labelled.load(task)


def test_the_scores_are_those_worked_by_hand():
    found = ["The Ada, Lovelace", "in 1815", "", "Bo", ""]
    right = [["Ada Lovelace", "Ada"], ["1815", "in the year 1815"], [], [], ["London"]]
    # F1: 1; 1815 has 2/3 and the longer one 4/5; nothing is there 1; one too many 0; one too few 0.
    assert squad.scores(found, right) == pytest.approx(
        {
            "f1": (1 + 4 / 5 + 1) / 5,
            "exact_match": 2 / 5,
            "has_answer_f1": (1 + 4 / 5) / 3,
            "has_answer_exact_match": 1 / 3,
            "no_answer_accuracy": 1 / 2,
        }
    )
    assert squad.points(found, right) == pytest.approx([1, 4 / 5, 1, 0, 0])
    assert set(squad.scores(["a"], [["b"]])) == {"f1", "exact_match"}


def test_an_answer_that_nothing_is_left_of_is_no_answer():
    assert squad.points(["", "x"], [["The."], ["the", "x"]]) == [1, 1]
    assert squad.points(["a the"], [[]]) == [1]


def official(found: list[str], right: list[list[str]]) -> dict[str, float]:
    """The scores as one reads them in the description of the official script, in another way."""

    def words(text: str) -> list[str]:
        kept = "".join(letter for letter in text.lower() if letter not in set(string.punctuation))
        return re.sub(r"\b(a|an|the)\b", " ", kept).split()

    def f1(one: str, other: str) -> float:
        ours, theirs = words(one), words(other)
        if not ours or not theirs:
            return float(ours == theirs)
        common = sum((Counter(ours) & Counter(theirs)).values())
        if not common:
            return 0.0
        precision, recall = common / len(ours), common / len(theirs)
        return 2 * precision * recall / (precision + recall)

    gold = [[one for one in own if words(one)] or [""] for own in right]
    best = [max(f1(one, other) for other in own) for one, own in zip(found, gold, strict=True)]
    exact = [max(float(words(one) == words(other)) for other in own) for one, own in zip(found, gold, strict=True)]
    told = {"f1": float(np.mean(best)), "exact_match": float(np.mean(exact))}
    if all(right):
        return told
    there = [place for place, own in enumerate(right) if own]
    none = [place for place, own in enumerate(right) if not own]
    told["has_answer_f1"] = float(np.mean([best[place] for place in there]))
    told["has_answer_exact_match"] = float(np.mean([exact[place] for place in there]))
    return {**told, "no_answer_accuracy": float(np.mean([exact[place] for place in none]))}


def drawn(count: int, seed: int) -> tuple[list[str], list[list[str]]]:
    """Answers and right answers of words that often agree, with articles and punctuation between them."""
    chance = random.Random(seed)

    def some() -> str:
        return " ".join(
            chance.choices(["Ada", "ada,", "the", "an", "left", "1815.", "서울", "É"], k=chance.randrange(5))
        )

    right = [[some() or "x" for _ in range(chance.choice([0, 1, 1, 3]))] for _ in range(count)]
    return [some() for _ in range(count)], right


@pytest.mark.parametrize("seed", range(5))
def test_the_scores_are_those_of_another_reading_of_the_rules(seed: int):
    found, right = drawn(60, seed)
    assert squad.scores(found, right) == pytest.approx(official(found, right))


def test_every_score_has_an_interval_around_it():
    found, right = drawn(120, 7)
    scores, intervals = squad.scores(found, right), squad.intervals(found, right)
    assert list(intervals) == list(scores)
    assert all(low < scores[name] < high for name, (low, high) in intervals.items())
