"""Question answering: rows, windows, which stretches of tokens are learnt and told, and when none is."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas
import pytest
import torch
from recipes import Trained
from samples import TEXT, Alone, questions, tiny_sizes, tiny_tokenizer
from tokenizers.processors import TemplateProcessing
from transformers import BertConfig, BertForQuestionAnswering, PreTrainedTokenizerFast, set_seed

from ulmfit_style import load
from ulmfit_style.data import labelled
from ulmfit_style.errors import UserError
from ulmfit_style.tasks.base import Row
from ulmfit_style.tasks.question_answering import QuestionAnswering
from ulmfit_style.training.scoring import Scorer

TASK = QuestionAnswering(path="-")
ADA, NONE = {"text": ["Ada"], "answer_start": [0]}, {"text": [], "answer_start": []}
CONTEXT = f"{TEXT} " * 3


def asked(context: Any = "Ada left Ottawa.", answer: Any = "Ada", start: Any = 0, question: Any = "who?") -> Row:
    return Row("a.json", 7, {"question": question, "context": context, "answer": answer, "answer_start": start})


# Rows


@pytest.mark.parametrize(
    ("answer", "start", "target"),
    [
        ("Ada", "0.0", ADA),
        ({"text": ["Ada"], "answer_start": [0]}, None, ADA),
        ([{"text": "Ada", "answer_start": 0}], None, ADA),
        ("", "", NONE),
        (None, "", NONE),
        ([], "", NONE),
        ({"text": [], "answer_start": []}, "", NONE),
    ],
)
def test_an_answer_may_have_several_forms_or_not_be_there(answer: Any, start: Any, target: dict):
    row = asked(answer=answer, start=start)
    assert TASK.row_problem(row) is None
    assert TASK.target(row) == target


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        (asked(question=" "), "the question is empty"),
        (asked(question=["who?"]), "the question is a list, not a text"),
        (asked(context=None), "the context is empty"),
        (asked(start=""), 'the answers are neither like {"text": ["Ada"], "answer_start": [0]} nor a text beside'),
        (asked(start=-1), "the answers are neither like"),
        (asked(answer={"text": ["Ada", "Bo"], "answer_start": [0]}), "the answers are neither like"),
        (asked(answer=[{"text": 5, "answer_start": 0}]), "an answer is no text"),
        (asked(answer="left", start=3), "the answer 'left' does not begin at character 3 of the context; it be"),
        (asked(answer="Bo", start=99), "the answer 'Bo' does not begin at character 99 of the context; it is "),
    ],
)
def test_what_is_wrong_with_a_row_is_said(row: Row, problem: str):
    assert (TASK.row_problem(row) or "").startswith(problem)


def test_questions_without_an_answer_are_counted_and_not_all_may_be_such():
    rows = [asked(), asked(answer=""), asked(answer=[])]
    assert TASK.remarks(rows) == ["2 of 3 questions have no answer in their context"]
    assert TASK.remarks(rows[:1]) == []
    assert TASK.dataset_problem(rows) is None
    assert TASK.dataset_problem(rows[1:]) == "no question has an answer"


def test_the_documents_of_adapt_are_the_contexts_each_once():
    rows = [asked(), asked(question="where?"), asked(context="Bo came.", answer="Bo")]
    assert TASK.documents(rows) == ["Ada left Ottawa.", "Bo came."]


def test_another_question_or_answer_is_other_data():
    rows = [asked(), asked(question="where?"), asked(answer="")]
    assert len({labelled.digest_of(TASK, [row]) for row in rows}) == 3


# Tokens

SPANS = [(0, 3), (10, 20), (31, 39), (42, 44), (53, 57), (58, 59), (60, 63), (64, 68), (23, 39), (60, 68)]


def oracle(taught: list[dict]) -> list[Any]:
    """Return what a model says that has learnt the labels of all windows."""
    return [(*(10.0 * np.eye(len(own["input_ids"]))[place] for place in own["labels"]), True) for own in taught]


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("length", [400, 64])
def test_what_is_learnt_is_told_as_it_stands_in_the_context(family, length: int, side: str, monkeypatch):
    monkeypatch.setattr(family, "truncation_side", side)
    later = len(CONTEXT) // 3
    for start, end in [*SPANS, *((start + later, end + later) for start, end in SPANS)]:
        row = asked(CONTEXT, CONTEXT[start:end], start, question="St. Gallen?")
        taught, features = TASK.encode(row, family, length, {}), TASK.encode(row, family, length, None)
        assert [own["input_ids"] for own in taught] == [own["input_ids"] for own in features]
        assert all(own.keys() <= {*family.model_input_names, "labels", "long"} for own in taught)
        answer = TASK.merge(row, features, oracle(taught))
        assert (answer["start"], answer["end"], answer["answer"]) == (start, end, CONTEXT[start:end])


def test_windows_without_the_whole_answer_say_none(family: PreTrainedTokenizerFast):
    row = asked(CONTEXT, "New-York's 北京 office", 31, question="where?")
    taught, features = TASK.encode(row, family, 64, {}), TASK.encode(row, family, 64, None)
    whole = [own["labels"] != [feature["none"]] * 2 for own, feature in zip(taught, features, strict=True)]
    assert set(whole) == {True, False}
    for own, feature in zip(taught, features, strict=True):
        first, last = feature["inside"]
        assert all(first <= place < last for place in own["labels"]) or own["labels"] == [feature["none"]] * 2
        assert not first <= feature["none"] < last
    none = TASK.encode(asked(CONTEXT, ""), family, 64, {})
    assert [own["labels"] for own in none] == [[feature["none"]] * 2 for feature in features]


def test_an_answer_that_no_window_holds_is_not_learnt_as_none(tokenizer: PreTrainedTokenizerFast):
    assert TASK.encode(asked("x" * 60, "x" * 60), tokenizer, 32, {}) == []
    assert TASK.encode(asked("\N{ZERO WIDTH SPACE} film", "\N{ZERO WIDTH SPACE}"), tokenizer, 32, {}) == []


def test_no_answer_stands_at_the_cls_token_wherever_it_is():
    tokenizer = tiny_tokenizer()
    assert TASK.encode(asked(), tokenizer, 32, None)[0]["none"] == 0
    ends = [(token, tokenizer.convert_tokens_to_ids(token)) for token in ("[SEP]", "[CLS]")]
    pair = "$A [SEP] $B:1 [SEP]:1 [CLS]:1"  # as that of XLNet
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing("$A [SEP] [CLS]", pair, ends)
    (feature,) = TASK.encode(asked(), tokenizer, 32, None)
    assert feature["none"] == len(feature["input_ids"]) - 1
    assert TASK.encode(asked(answer=""), tokenizer, 32, {})[0]["labels"] == [feature["none"]] * 2


# Answers


def answered(tokenizer: PreTrainedTokenizerFast, logits: dict[int, tuple[float, float]], **options: Any) -> dict:
    """Return the answer in a context of one window, by the two logits of some tokens; those of -1 are of none."""
    task = QuestionAnswering(path="-", **options)
    row = task.row("very", "the film plot story is very number")
    (feature,) = task.encode(row, tokenizer, 64, None)
    both = np.full((2, len(feature["input_ids"])), -20.0)
    for place, pair in logits.items():
        both[:, feature["none"] if place < 0 else feature["inside"][0] + place] = pair
    return task.merge(row, [feature], [(*both, -1 in logits)])


def test_the_best_stretch_begins_before_it_ends_and_is_not_too_long(tokenizer: PreTrainedTokenizerFast):
    assert answered(tokenizer, {0: (0, 9), 1: (9, 0), 3: (0, 8)})["answer"] == "film plot story"
    assert answered(tokenizer, {1: (9, 0), 2: (5, 1), 3: (0, 8)}, max_answer_length=2)["answer"] == "plot story"


def test_the_score_is_a_probability_over_all_stretches_and_none(tokenizer: PreTrainedTokenizerFast):
    answer = answered(tokenizer, {1: (2, 1), 2: (0, 3), -1: (1, 1)})
    assert answer["answer"] == "film plot"
    assert answer["score"] == pytest.approx(np.exp(5) / np.exp([5, 3, 3, 2]).sum(), abs=1e-6)


def test_a_question_that_leaves_too_little_room_for_the_context_is_refused_with_its_row(tokenizer):
    message = r"a\.json:7: only 3 of finetune\.max_length=32 tokens are left for the text; shorten the question, which"
    with pytest.raises(UserError, match=message):
        TASK.encode(asked(question="x" * 26), tokenizer, 32, None)
    assert TASK.encode(asked(question="x" * 25), tokenizer, 32, None)


def test_none_is_told_where_it_exceeds_the_best_by_the_threshold(tokenizer: PreTrainedTokenizerFast):
    for threshold, expected in ((0, ""), (1.9, ""), (2.1, "the"), (-9, "")):
        assert answered(tokenizer, {0: (2, 2), -1: (3, 3)}, null_threshold=threshold)["answer"] == expected
    assert answered(tokenizer, {0: (2, 2)})["answer"] == "the"  # a model that has learnt no such questions


def test_a_context_without_tokens_has_no_answer(tokenizer: PreTrainedTokenizerFast):
    nothing = {"answer": "", "score": 0.0, "start": 0, "end": 0}
    assert TASK.merge(TASK.row("who?", ""), [], []) == nothing
    assert TASK.merge(Row("a", 1, {"question": 7, "context": None}), [], []) == nothing


def test_what_is_told_is_the_highest_sum_of_two_logits_of_the_context(tokenizer: PreTrainedTokenizerFast):
    set_seed(3)
    network = BertForQuestionAnswering(BertConfig(**tiny_sizes(tokenizer), initializer_range=0.6)).eval()
    rows = [TASK.row(row["question"], row["context"]) for row in questions(20)]
    found = list(Scorer(network, tokenizer, TASK, 128).answers(rows))
    for row, answer in zip(rows, found, strict=True):
        encoded = tokenizer(*TASK.texts(row), return_tensors="pt", return_offsets_mapping=True)
        offsets = encoded.pop("offset_mapping")[0].tolist()
        output = network(**encoded)
        places = [place for place, text in enumerate(encoded.sequence_ids()) if text == 1]
        stretches = {
            (first, last): (output.start_logits[0, first] + output.end_logits[0, last]).item()
            for first in places
            for last in places
            if first <= last < first + 30
        }
        first, last = max(stretches, key=lambda stretch: stretches[stretch])
        assert (answer["start"], answer["end"]) == (offsets[first][0], offsets[last][1])
        total = np.logaddexp.reduce(list(stretches.values()))
        assert answer["score"] == pytest.approx(np.exp(stretches[first, last] - total), abs=1e-5)
    assert len({answer["answer"] for answer in found}) > 5


def test_windows_tell_what_the_whole_context_tells_where_they_see_enough(tokenizer: PreTrainedTokenizerFast):
    row = TASK.row("the film", " ".join(text["context"] for text in questions(6)[::2]))
    torch.manual_seed(0)
    logits = 3 * torch.randn(len(tokenizer), 2)

    def output(ids: torch.Tensor) -> Any:
        return SimpleNamespace(start_logits=logits[ids][..., 0], end_logits=logits[ids][..., 1])

    task, model = QuestionAnswering(path="-", max_answer_length=10, overlap=0.6), Alone(BertConfig(), output)
    whole, *others = (next(Scorer(model, tokenizer, task, length).answers([row])) for length in (1000, 64, 40))
    assert whole["answer"]
    assert all(other == whole for other in others)


def test_python_answers_a_pair_a_list_and_a_frame_as_it_stands_in_the_context(trained: Callable[[str], Trained]):
    run = trained("questions")
    assert {"has_answer_f1", "no_answer_accuracy"} <= run.metrics["test"]["scores"].keys()
    model = load(run.directory, device="cpu")
    context = "The  film number 7 is Wonderful, and the scene 7 was tedious"
    pairs = [("the film is very what", context), ("the actor is very what", context)]
    answer, none = model(pairs)
    assert answer["answer"] == "Wonderful" == context[answer["start"] : answer["end"]]
    assert (none["answer"], none["start"], none["end"]) == ("", 0, 0)
    assert model(pairs[0]) == answer
    assert model(pandas.DataFrame(pairs, columns=["question", "context"])) == [answer, none]
    with pytest.raises(UserError, match="this model reads a question and a context, and was given 1 texts; "):
        model(pairs[0][0])
