"""Files in the form of SQuAD; the scores of answers against those worked by hand and another reading of the rules."""

import json
from pathlib import Path

import pytest
from samples import questions
from samples import squad as write

from ulmfit_style.data import labelled, reading
from ulmfit_style.errors import UserError
from ulmfit_style.metrics import squad
from ulmfit_style.tasks.base import Row
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
            "json:1: .*lacks 'ques",
        ),
        (
            '{"data": [{"paragraphs": [{"qas": [{"question": "b"}]}]}]}',
            r"is in no known form, such as that of SQuAD \(lacks 'context'\)",
        ),
        ('[{"question": "a"}]', "no column could be identified as the context"),
        ('{"data": []}', "holds no rows"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(tmp_path: Path, content: str, message: str):
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(UserError, match=message):
        labelled.load(QuestionAnswering(path=str(tmp_path / "a.json")))


@pytest.mark.parametrize("answers", [[], [{"text": "", "answer_start": -1}], [{"text": "Ada", "answer_start": 9}]])
def test_an_impossible_question_or_an_empty_answer_has_none_and_articles_may_lack_a_title(
    tmp_path: Path, answers: list
):
    asked = {"question": "who", "answers": answers, "is_impossible": bool(answers and answers[0]["text"])}
    data = [{"paragraphs": [{"context": f"Ada left {number}", "qas": [asked]}]} for number in range(2)]
    (tmp_path / "a.json").write_text(json.dumps({"data": data}))
    task = QuestionAnswering(path="-")
    rows = [Row("a", 1, fields | {"answer": fields["answers"]}) for fields in records(tmp_path / "a.json")]
    assert [(task.row_problem(row), task.labels_of(row)) for row in rows] == [(None, ["no answer"])] * 2
    assert [row.fields["title"] for row in rows] == ["article 1", "article 2"]


def records(path: Path) -> list[dict]:
    return [dict(record) for _, record in reading.read("task.path", str(path), lambda present: {})]


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
