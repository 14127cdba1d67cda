"""All kinds of task keep the same contract; those of text classification each have their own arithmetic."""

import json
import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from exact import TASKS, features, labelled, untrained
from samples import tiny_tokenizer
from transformers import BertForQuestionAnswering, PreTrainedModel, pipeline, set_seed

from ulmfit_style.cli.compose import compose
from ulmfit_style.errors import UserError
from ulmfit_style.metrics.intervals import Points
from ulmfit_style.tasks.base import IGNORED, Row, Task, inputs_of
from ulmfit_style.tasks.base_text import TextTask, read_written
from ulmfit_style.tasks.multi_label_classification import MultiLabelClassification
from ulmfit_style.tasks.text_classification import TextClassification
from ulmfit_style.tasks.text_regression import TextRegression
from ulmfit_style.training import batching, scoring
from ulmfit_style.training.batching import collate
from ulmfit_style.training.scoring import Scorer

OF_TEXTS = [kind for kind, task in TASKS.items() if isinstance(task, TextTask)]


@pytest.fixture
def model_for(tiny: dict) -> Callable[[str], PreTrainedModel]:
    """Make a tiny untrained model for a kind, whose weights are large enough to tell texts apart."""

    def make(kind: str) -> PreTrainedModel:
        set_seed(0)
        return untrained(kind, tiny, initializer_range=0.5).eval()

    return make


def of_points(task: Task, points: Points) -> float:
    """Return the score that the points make: their means over the rows, combined."""
    return float(task.of_means(np.mean(points, axis=0).reshape(-1)))


@pytest.mark.parametrize("kind", TASKS)
def test_the_points_of_drawn_rows_make_the_score_of_these_rows(kind: str, model_for, tokenizer):
    task, rows = TASKS[kind], labelled(kind)
    found, targets = Scorer(model_for(kind), tokenizer, task, 32).outputs(rows), [task.target(row) for row in rows]
    points = np.array(task.row_scores(found, targets), dtype=float).reshape(len(rows), -1)
    for drawn in np.random.default_rng(0).integers(len(rows), size=(5, len(rows))):
        expected = task.score([found[place] for place in drawn], [targets[place] for place in drawn])
        assert of_points(task, points[drawn]) == pytest.approx(expected[task.metric], abs=1e-6)


@pytest.mark.parametrize("kind", OF_TEXTS)
def test_rows_are_answered_together_and_in_their_order_as_the_transformers_pipeline_answers_each(
    kind: str, model_for, tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(scoring, "WINDOW", 7)
    monkeypatch.setattr(batching, "BATCH", 3)
    model, task, rows = model_for(kind), TASKS[kind], labelled(kind, 20)
    ask = pipeline("text-classification", model=model, tokenizer=tokenizer, top_k=None)
    for row, ours in zip(rows, Scorer(model, tokenizer, task, 64).answers(rows), strict=True):
        (theirs,) = ask(row.fields["text"])
        told = {answer["label"]: pytest.approx(answer["score"], abs=1e-5) for answer in theirs}
        if kind == "regression":
            assert ours == told
        elif kind == "multi-label classification":
            assert ours["scores"] == told
            assert ours["labels"] == [label for label, score in ours["scores"].items() if score >= 0.5]
        else:
            assert ours == {"label": theirs[0]["label"], "score": told[theirs[0]["label"]]}


@pytest.mark.parametrize("kind", OF_TEXTS)
def test_every_kind_that_tells_of_whole_texts_has_a_linear_reference(kind: str):
    task, rows = TASKS[kind], labelled(kind)
    reference = task.reference
    assert reference is not None
    known = [[float(number % 2 == 0), float(number % 3 == 0), float(number % 7 == 0), number] for number in range(40)]
    found = reference.fit(known, [task.target(row) for row in rows])(known)
    targets = [task.target(row) for row in rows]
    assert task.score(found, targets)[task.metric] > 0.9
    assert json.loads(json.dumps(found)) == found


def test_the_penalty_of_a_reference_is_chosen_with_classes_of_one_row_too(recwarn: pytest.WarningsRecorder):
    targets = [str(label) for label in range(20) for _ in range(1 if label == 0 else 3)]
    small = 0.01 * np.eye(20)[[int(label) for label in targets]]  # so small that a penalty at 1 leaves nothing
    answers = TASKS["classification"].reference.fit(small, targets)(small)
    assert [answer["label"] for answer in answers][1:] == targets[1:]
    assert not [warning for warning in recwarn if issubclass(warning.category, UserWarning)]


def test_balanced_weights_give_each_class_the_same_share_of_the_loss():
    task, rows = TASKS["weighted classification"], labelled("weighted classification")
    shares: Counter[str] = Counter()
    for weight, row in zip(task.row_weights(rows), rows, strict=True):
        shares[task.target(row)] += weight
    assert shares == {"true": pytest.approx(20), "false": pytest.approx(20)}


def mean_of_transformers(model: PreTrainedModel, batch: dict) -> Any:
    """Return the mean loss that transformers gives a batch."""
    labels = batch["labels"]
    if isinstance(model, BertForQuestionAnswering):
        return model(**inputs_of(batch), start_positions=labels[:, 0], end_positions=labels[:, 1]).loss
    return model(**inputs_of(batch), labels=labels).loss


@pytest.mark.parametrize(
    ("kind", "side", "summed"),
    [
        ("classification", "right", 1),
        ("multi-label classification", "right", 3),  # over the labels
        ("regression", "right", 1),
        ("token classification", "right", 1),
        ("question answering", "right", 1),
        ("question answering", "left", 1),
    ],
)
def test_the_loss_of_a_batch_is_the_weighted_sum_of_what_transformers_says_of_each_row(kind, side, summed, model_for):
    tokenizer, task, model = tiny_tokenizer(), TASKS[kind], model_for(kind)
    tokenizer.padding_side = side
    rows = [{**row, "weight": 1 + number / 7} for number, row in enumerate(features(tokenizer, 5, kind))]
    total = count = 0.0
    for row in rows:
        batch = collate([row], tokenizer)
        total += summed * mean_of_transformers(model, batch).item() * task.count(batch).item()
        count += row["weight"] * (sum(label != IGNORED for label in row["labels"]) if "token" in kind else 1)
    batch = collate(rows, tokenizer)
    if side == "left":  # BERT counts places from the padding on; let it count from the text
        batch["position_ids"] = (batch["attention_mask"].cumsum(1) - 1).clamp(min=0)
    assert task.loss(model, batch).item() == pytest.approx(total, rel=1e-4)
    assert task.count(batch).item() == pytest.approx(count)


def test_a_head_for_numbers_starts_at_their_mean_and_with_their_spread(model_for, tokenizer):
    model, task = model_for("regression"), TASKS["regression"]
    rows = [Row("a", number, {"text": "a film", "label": value}) for number, value in enumerate((60, 100, 80, 80))]
    before = [answer["value"] for answer in Scorer(model, tokenizer, task, 32).answers(labelled("regression"))]
    task.prepare_model(model, tokenizer, rows)
    after = [answer["value"] for answer in Scorer(model, tokenizer, task, 32).answers(labelled("regression"))]
    spread = math.sqrt(200)
    assert after == pytest.approx([80 + spread * value for value in before], abs=1e-3)


def test_a_pair_is_read_as_two_segments_and_nothing_else_is_taken_for_one(tokenizer):
    task = TextClassification(path="-", text_pair="b")
    (feature,) = task.encode(task.row("a film", "the story"), tokenizer, 32, None)
    assert tokenizer.decode(feature["input_ids"]).replace(" ##", "") == "[CLS] a film [SEP] the story [SEP]"
    for texts in (("a film",), ("a", "film", "plot")):
        with pytest.raises(UserError, match=f"reads a text and a text_pair, and was given {len(texts)} texts; predict"):
            task.row(*texts)
    with pytest.raises(UserError, match="this model reads a text, and was given 2 texts; give one"):
        TASKS["classification"].row("a film", "the plot")


@pytest.mark.parametrize(
    ("texts", "cut"),
    [
        (("film " * 7,), True),
        (("film " * 3, "film " * 2), False),
        (("film " * 3, "film " * 3), True),
    ],
)
def test_a_text_that_is_longer_than_its_room_is_marked_and_one_that_just_fits_is_not(tokenizer, texts, cut: bool):
    task = TextClassification(path="-", text_pair="b" if len(texts) == 2 else None)
    (feature,) = task.encode(task.row(*texts), tokenizer, 8, None)
    assert feature["long"] == cut
    expected = tokenizer(*texts, truncation=True, max_length=8)
    assert {name: feature[name] for name in expected} == dict(expected)
    assert len(feature["input_ids"]) == 8


@pytest.mark.parametrize("cell", [["b", "a"], "b; a", " a ;b;", ["a", "b", "a"]])
def test_labels_come_as_a_list_or_with_a_separator(cell: Any):
    task = MultiLabelClassification(path="-", label_separator=";")
    assert task.target(Row("a", 1, {"label": cell})) == ["a", "b"]
    assert [task.target(Row("a", 1, {"label": empty})) for empty in ([], "", None, " ")] == [[]] * 4


def test_whole_numbers_are_labels_wherever_they_come_from():
    task = TextClassification(path="-", labels=[1, 2])
    assert task.labels == ("1", "2")
    assert {task.target(Row("a", 1, {"label": label})) for label in (1, "1", " 1 ")} == {"1"}


@pytest.mark.parametrize(
    ("kind", "fields", "problem"),
    [
        ("classification", {"text": " \t", "label": "a"}, "the text is empty"),
        ("classification", {"text": "a", "label": float("nan")}, "the label is empty"),
        ("classification", {"text": "a", "label": ["b", "c"]}, "the label is a list or mapping; for several"),
        ("classification", {"text": "a", "label": {"b": 1}}, "the label is a list or mapping"),
        ("multi-label classification", {"text": "a", "label": ["b", None]}, "one of the labels is empty"),
        (
            "multi-label classification",
            {"text": "a", "label": {"b": 2}},
            "the label 'b' has '2', which is neither 0 nor 1",
        ),
        ("regression", {"text": "a", "label": "many"}, "the label 'many' is not a number"),
        ("regression", {"text": "a", "label": "inf"}, "the label 'inf' is not a number"),
    ],
)
def test_what_is_wrong_with_a_row_is_said(kind: str, fields: dict[str, Any], problem: str):
    assert (TASKS[kind].row_problem(Row("a.csv", 2, fields)) or "").startswith(problem)


@pytest.mark.parametrize(
    ("task", "labels", "doubt"),
    [
        (TASKS["multi-label classification"], ["a;b", "a", "b;c"], "no row has two labels; is task.label_separator=|"),
        (TASKS["multi-label classification"], ["a", "", "a"], "there are 1 different labels; two are needed"),
        (TASKS["regression"], [3, 3, 3], "every row has the number 3; there is nothing to learn"),
    ],
)
def test_labels_that_cannot_be_learnt_from_are_doubted(task: Task, labels: list[Any], doubt: str):
    rows = [Row("a", number, {"text": "x", "label": label}) for number, label in enumerate(labels)]
    assert (task.dataset_problem(rows) or "").startswith(doubt)


@pytest.mark.parametrize(
    "cell",
    [
        "['very late', ',', \"it's kind\"]",
        "['very late' ',' \"it's kind\"]",  # numpy
        "['very late' ','\n \"it's kind\"]",
        '["very late", ",", "it\'s kind"]',
    ],
)
def test_a_list_of_names_is_read_however_it_is_written(cell: str):
    assert read_written(cell) == ["very late", ",", "it's kind"]
    assert read_written("[very late, kind]") == ["very late", "kind"]
    assert read_written("[1. 0.\n 1.]") == ["1.", "0.", "1."]


def test_labels_that_are_named_are_held_to_in_every_form():
    task = MultiLabelClassification(path="-", labels=["late", "kind"])
    for label in (["rude"], {"rude": 1, "late": 0}, '{"choices": ["rude", "late"]}'):
        assert (
            task.row_problem(Row("a.csv", 2, {"text": "a", "label": label}))
            == "the label 'rude' is none of task.labels"
        )
    for label in ({"kind": True, "late": 0}, '{"choices": ["kind"]}', {"choices": ["kind"]}, [0, 1]):
        row = Row("a.csv", 2, {"text": "a", "label": label})
        assert (task.row_problem(row), task.target(row)) == (None, ["kind"])


def test_names_of_classes_are_texts_where_they_are_words():
    names = ["card_arrival", "isSpam", "3", "물류"]
    assert [(row.fields["text"], row.fields["label"]) for row in TextClassification(path="-").name_rows(names)] == [
        ("card arrival", "card_arrival"),
        ("is Spam", "isSpam"),
        ("물류", "물류"),
    ]
    assert TextClassification(path="-", text_pair="b").name_rows(names) == []


# Labels as people write them

HOT = MultiLabelClassification(path="-", labels=("late", "broken", "kind"))


def rows_of(labels: list[Any]) -> list[Row]:
    return [Row("a", n, {"text": f"text {n}", "label": label}) for n, label in enumerate(labels, start=1)]


@pytest.mark.parametrize(
    "cell",
    [[0, 1, 1], [0.0, 1.0, 1.0], [False, True, True], "0|1|1", "0 1 1", "[0, 1, 1]", "[0. 1. 1.]", ["0", "1", "true"]],
)
def test_0_or_1_by_place_is_read_by_the_names_of_the_labels_and_refused_without_them(cell: Any):
    assert HOT.target(rows_of([cell])[0]) == ["broken", "kind"]
    problem = MultiLabelClassification(path="-").dataset_problem(rows_of([cell, cell[:]])) or ""
    assert problem.startswith("every row has 0 or 1 for each of 3 labels; name them in order: task.labels=")


@pytest.mark.parametrize(
    "cell",
    [
        "['broken', 'kind']",
        '["broken", "kind"]',
        {"late": 0, "broken": 1, "kind": True},
        '{"late": 0, "broken": 1, "kind": 1}',
    ],
)
def test_labels_may_be_a_written_list_or_0_or_1_by_name(cell: Any):
    assert MultiLabelClassification(path="-").target(rows_of([cell])[0]) == ["broken", "kind"]


def test_a_name_that_is_none_of_the_labels_is_refused_with_the_nearest():
    (row,) = rows_of([["late", "kindd"]])
    assert HOT.row_problem(row) == "the label 'kindd' is none of task.labels; did you mean 'kind'?"


def test_numbers_and_truth_values_that_are_alike_are_one_class_and_it_is_said():
    task, rows = TextClassification(path="-"), rows_of([1, 1.0, "1.0", "01", True, "TRUE", "true", "1.5", "v1.0"])
    assert [task.target(row) for row in rows] == ["1", "1", "1", "01", "true", "true", "true", "1.5", "v1.0"]
    assert task.remarks(rows) == ["1.0 is read as 1", "TRUE is read as true", "True is read as true"]


def test_classes_that_differ_by_case_or_blanks_are_told():
    rows = rows_of(["Pos", "pos", "POS", "very  good", "very good", "neg"])
    said = ["'POS' and 'Pos' and 'pos'", "'very  good' and 'very good'"]
    assert TextClassification(path="-").remarks(rows) == [
        f"the classes {n} differ by case or blanks alone" for n in said
    ]


def test_words_that_yaml_reads_otherwise_are_classes_as_they_were_typed():
    typed = compose(["task=text_classification", "task.path=a.csv", "task.labels=[True, null, nan, NA, 1.0, no]"])
    assert typed.task.labels == ("true", "null", "nan", "NA", "1", "no")
    task = TextClassification(path="-", labels=(False, True))  # what YAML makes of [no, yes]
    assert "YAML reads no and yes as false and true: quote them" in (task.dataset_problem(rows_of(["no", "yes"])) or "")


def test_words_with_tags_are_no_texts_with_classes():
    problem = TextClassification(path="-").dataset_problem(rows_of(["B-person", "O", "I-person", "O"])) or ""
    assert "task=token_classification takes lists of both, or a .conll file" in problem


def test_a_label_alone_in_a_list_is_the_class_and_a_sign_between_several_is_told():
    task = TextClassification(path="-")
    assert task.target(rows_of([["late"]])[0]) == "late"
    (said,) = task.remarks(rows_of(["late|broken", "late", "broken"]))
    assert said == "labels hold '|'; task=multi_label_classification takes several of a row"


def test_a_label_that_no_row_has_is_told():
    task = MultiLabelClassification(path="-", labels=("late", "broken", "lost"))
    rows = rows_of(["late|broken", "late", "broken"])
    assert task.remarks(rows) == ["no row has the label lost of task.labels, so no answer will"]
    assert task.remarks(rows_of(["0 1 1", "1 0 0"])) == []


@pytest.mark.parametrize(
    ("label", "decimal", "number"),
    [
        *[("0,5", None, 0.5), ("1.234,5", None, 1234.5), ("1,234.5", None, 1234.5), ("-1 234,5", None, -1234.5)],
        *[
            ("1,234,567", None, 1234567),
            ("1,234", ".", 1234),
            ("1,234", ",", 1.234),
            ("1.234", ",", 1234),
            (1.5, ",", 1.5),
        ],
    ],
)
def test_a_number_may_have_a_decimal_comma(label: Any, decimal: str | None, number: float):
    task = TextRegression(path="-", decimal=decimal)
    (row,) = rows_of([label])
    assert task.row_problem(row) is None
    assert task.target(row) == number


def test_a_decimal_comma_is_said_and_a_doubtful_one_is_asked_for():
    task = TextRegression(path="-")
    assert task.remarks(rows_of(["1", "0,5"])) == ["the label '0,5' is read as 0.5 (task.decimal)"]
    assert "say task.decimal" in (task.row_problem(rows_of(["1,234"])[0]) or "")
    assert "some numbers have a comma, and others a point, such as 1.234" in (
        task.dataset_problem(rows_of(["0,5", "1.234"])) or ""
    )
