"""Question answering: rows, windows, which stretches of tokens are learnt and told, and when none is."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
import torch
from recipes import Trained
from samples import FAMILIES, jsonl, questions, tiny_sizes, tiny_tokenizer, tokenizer_of
from torch.nn.functional import cross_entropy
from transformers import BertConfig, BertForQuestionAnswering, PreTrainedTokenizerFast, set_seed

from ulmfit_style import load
from ulmfit_style.cli.compose import compose
from ulmfit_style.data import corpus, labelled
from ulmfit_style.errors import UserError
from ulmfit_style.tasks.base import Row
from ulmfit_style.tasks.question_answering import QuestionAnswering
from ulmfit_style.training.batching import collate
from ulmfit_style.training.scoring import Scorer

TASK = QuestionAnswering(path="-")


def asked(context: Any = "Ada left Ottawa.", answer: Any = "Ada", start: Any = 0, question: Any = "who?") -> Row:
    return Row("a.json", 7, {"question": question, "context": context, "answer": answer, "answer_start": start})


# Rows


@pytest.mark.parametrize(
    "row",
    [
        asked(),
        asked(start="0"),
        asked(start="0.0"),
        asked(answer={"text": ["Ada"], "answer_start": [0]}),
        asked(answer=[{"text": "Ada", "answer_start": 0}]),
    ],
)
def test_an_answer_may_have_several_forms(row: Row):
    assert TASK.row_problem(row) is None
    assert TASK.target(row) == {"text": ["Ada"], "answer_start": [0]}


@pytest.mark.parametrize("answer", ["", None, [], {"text": [], "answer_start": []}])
def test_there_may_be_no_answer(answer: Any):
    assert TASK.row_problem(asked(answer=answer, start="")) is None
    assert TASK.target(asked(answer=answer, start="")) == {"text": [], "answer_start": []}


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        (asked(question=" "), "the question is empty"),
        (asked(question=["who?"]), "the question is a list, and no text"),
        (asked(context=None), "the context is empty"),
        (
            asked(start=""),
            'the answers are neither as {"text": ["Ada"], "answer_start": [0]}, nor a text beside',
        ),
        (asked(start=1.5), "the answers are neither as"),
        (asked(start=-1), "the answers are neither as"),
        (asked(answer=["Ada"], start=None), "the answers are neither as"),
        (asked(answer={"text": ["Ada"]}), "the answers are neither as"),
        (asked(answer={"text": ["Ada", "Bo"], "answer_start": [0]}), "the answers are neither as"),
        (asked(answer=[{"text": " ", "answer_start": 3}]), "an answer is empty, or no text"),
        (asked(answer=[{"text": 7, "answer_start": 3}]), "an answer is empty, or no text"),
        (
            asked(answer="left", start=3),
            "the answer 'left' does not begin at character 3 of the context; it begins",
        ),
        (
            asked(answer="Bo", start=99),
            "the answer 'Bo' does not begin at character 99 of the context; it is nowh",
        ),
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


@pytest.fixture
def loaded(tmp_path: Path) -> Callable[..., labelled.Labelled]:
    """Load the task of a file of rows."""

    def make(rows: list[dict], **options: Any) -> labelled.Labelled:
        labelled.load.cache_clear()
        return labelled.load(QuestionAnswering(path=str(jsonl(tmp_path / "a.jsonl", rows)), **options))

    return make


@pytest.mark.parametrize("column", ["title", "context"])
def test_no_article_and_no_context_is_on_two_sides(loaded, column: str, capsys):
    rows = questions(120)
    if column == "context":
        rows = [{name: value for name, value in row.items() if name != "title"} for row in rows]
    found = loaded(rows)
    field = "group" if column == "title" else "context"
    sides = [{row.fields[field] for row in side} for side in (found.pool, found.validation, found.test)]
    assert sum(map(len, sides)) == len(set.union(*sides)) == len({row[column] for row in rows})
    assert ("column 'title' as the group" in capsys.readouterr().out) == (column == "title")
    assert 30 < len(found.test) < 66


def test_the_documents_of_adapt_are_the_contexts_each_once(tmp_path: Path):
    path = jsonl(tmp_path / "a.jsonl", questions(120))
    labelled.load.cache_clear()
    config = compose(["task=question_answering", f"task.path={path}", f"runs={tmp_path / 'runs'}"])
    documents = corpus.load(config.corpus, config.task, config.runs)
    read = sorted([*documents.train, *documents.heldout])
    assert read == sorted({row.fields["context"] for row in labelled.load(config.task).pool})


def test_another_question_or_answer_is_other_data(loaded):
    rows = questions(60)
    digests = set()
    for change in ({}, {"question": "who?"}, {"answers": {"text": [], "answer_start": []}}):
        digests.add(loaded([{**row, **change} for row in rows[:1]] + rows[1:]).digest)
    assert len(digests) == 3


# Tokens

TEXT = "Zoë (from St. Gallen)  visited New-York's 北京 office;\n서울에서 😀 e\u0301t U.S. " * 3
SPANS = [(0, 3), (10, 20), (31, 39), (42, 44), (53, 57), (58, 59), (60, 63), (64, 68), (23, 39), (60, 68)]


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> PreTrainedTokenizerFast:
    """A tokenizer of each family, which gives most words several tokens."""
    return tokenizer_of(request.param, [TEXT])


def oracle(taught: list[dict]) -> list[Any]:
    """Return what a model says that has learnt the labels of all windows."""
    return [(*(10.0 * np.eye(len(own["input_ids"]))[place] for place in own["labels"]), True) for own in taught]


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("length", [400, 64])
def test_what_is_learnt_is_told_as_it_stands_in_the_context(
    family: PreTrainedTokenizerFast, length: int, side: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(family, "truncation_side", side)
    later = len(TEXT) // 3
    for start, end in [*SPANS, *((start + later, end + later) for start, end in SPANS)]:
        row = asked(TEXT, TEXT[start:end], start, question="St. Gallen?")
        taught = TASK.encode(row, family, length, {})
        features = TASK.encode(row, family, length, None)
        assert [own["input_ids"] for own in taught] == [own["input_ids"] for own in features]
        assert all(own.keys() <= {*family.model_input_names, "labels", "long"} for own in taught)
        answer = TASK.merge(row, features, oracle(taught))
        assert (answer["start"], answer["end"], answer["answer"]) == (start, end, TEXT[start:end])


def test_windows_without_the_whole_answer_say_none(family: PreTrainedTokenizerFast):
    row = asked(TEXT, "New-York's 北京 office", 31, question="where?")
    taught = TASK.encode(row, family, 64, {})
    features = TASK.encode(row, family, 64, None)
    whole = [own["labels"] != [feature["none"]] * 2 for own, feature in zip(taught, features, strict=True)]
    assert any(whole)
    assert not all(whole)
    for own, feature in zip(taught, features, strict=True):
        first, last = feature["inside"]
        assert all(first <= place < last for place in own["labels"]) or own["labels"] == [feature["none"]] * 2
        assert not first <= feature["none"] < last
    none = TASK.encode(asked(TEXT, ""), family, 64, {})
    assert [own["labels"] for own in none] == [[feature["none"]] * 2 for feature in features]


def test_an_answer_that_no_window_holds_is_not_learnt_as_none(tokenizer: PreTrainedTokenizerFast):
    assert TASK.encode(asked("x" * 60, "x" * 60), tokenizer, 32, {}) == []
    assert TASK.encode(asked("\N{ZERO WIDTH SPACE} film", "\N{ZERO WIDTH SPACE}"), tokenizer, 32, {}) == []


def test_no_answer_stands_at_the_cls_token_wherever_it_is():
    tokenizer = tiny_tokenizer()
    assert TASK.encode(asked(), tokenizer, 32, None)[0]["none"] == 0
    from tokenizers.processors import TemplateProcessing

    ends = [(token, tokenizer.convert_tokens_to_ids(token)) for token in ("[SEP]", "[CLS]")]
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        "$A [SEP] [CLS]", "$A [SEP] $B:1 [SEP]:1 [CLS]:1", ends
    )  # as that of XLNet
    (feature,) = TASK.encode(asked(), tokenizer, 32, None)
    assert feature["none"] == len(feature["input_ids"]) - 1
    assert TASK.encode(asked(answer=""), tokenizer, 32, {})[0]["labels"] == [feature["none"]] * 2


# Answers


def said(tokenizer: PreTrainedTokenizerFast, context: str, *logits: dict[int, tuple[float, float]], **options: Any):
    """Return what is told of a context in one window, of a logit pair for each of some of its tokens."""
    task = QuestionAnswering(path="-", **options)
    row = task.row("very", context)
    (feature,) = task.encode(row, tokenizer, 64, None)
    found = np.full((2, len(feature["input_ids"])), -20.0)
    for place, pair in logits[0].items():
        found[:, feature["none"] if place < 0 else feature["inside"][0] + place] = pair
    return task.merge(row, [feature], [(*found, any(place < 0 for place in logits[0]))])


def test_the_best_stretch_begins_before_it_ends_and_is_not_too_long(tokenizer: PreTrainedTokenizerFast):
    context = "the film plot story is very number"
    assert said(tokenizer, context, {0: (0, 9), 1: (9, 0), 3: (0, 8)})["answer"] == "film plot story"
    assert said(tokenizer, context, {1: (9, 0), 2: (5, 1), 3: (0, 8)}, max_answer_length=2)["answer"] == "plot story"


def test_the_score_is_a_probability_over_all_stretches_and_none(tokenizer: PreTrainedTokenizerFast):
    answer = said(tokenizer, "film plot", {0: (2, 1), 1: (0, 3), -1: (1, 1)})
    assert answer["answer"] == "film plot"
    assert answer["score"] == pytest.approx(np.exp(5) / np.exp([5, 3, 3, 2]).sum(), abs=1e-6)


def test_a_question_that_leaves_too_little_room_for_the_context_is_refused_with_its_row(tokenizer):
    message = (
        r"a\.json:7: only 3 of finetune\.max_length=32 tokens are left for the text; shorten the question, which has 26"
    )
    with pytest.raises(UserError, match=message):
        TASK.encode(asked(question="x" * 26), tokenizer, 32, None)
    assert TASK.encode(asked(question="x" * 25), tokenizer, 32, None)


def test_none_is_told_where_it_exceeds_the_best_by_the_threshold(tokenizer: PreTrainedTokenizerFast):
    logits = {0: (2, 2), -1: (3, 3)}
    for threshold, expected in ((0, ""), (1.9, ""), (2.1, "film"), (-9, "")):
        assert said(tokenizer, "film plot", logits, null_threshold=threshold)["answer"] == expected
    assert said(tokenizer, "film plot", {0: (2, 2)})["answer"] == "film"  # a model that has learnt no such questions


def test_a_context_without_tokens_has_no_answer(tokenizer: PreTrainedTokenizerFast):
    nothing = {"answer": "", "score": 0.0, "start": 0, "end": 0}
    assert TASK.merge(TASK.row("who?", ""), [], []) == nothing
    assert TASK.merge(Row("a", 1, {"question": 7, "context": None}), [], []) == nothing


@pytest.fixture(scope="module")
def network() -> BertForQuestionAnswering:
    """A tiny untrained model that tells many stretches, whatever the question."""
    set_seed(3)
    return BertForQuestionAnswering(BertConfig(**tiny_sizes(tiny_tokenizer()), initializer_range=0.6)).eval()


def test_what_is_told_is_the_highest_sum_of_two_logits_of_the_context(network: BertForQuestionAnswering):
    tokenizer = tiny_tokenizer()
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


def test_windows_tell_what_the_whole_context_tells_where_they_see_enough():
    """A model that sees each token alone is the same in any window."""
    tokenizer = tiny_tokenizer()
    row = TASK.row("the film", " ".join(text["context"] for text in questions(6)[::2]))
    torch.manual_seed(0)
    logits = 3 * torch.randn(len(tokenizer), 2)

    class Alone:
        config, device = BertConfig(), torch.device("cpu")

        def eval(self) -> None:
            return

        def __call__(self, input_ids: torch.Tensor, **others: torch.Tensor) -> Any:
            start, end = logits[input_ids].unbind(-1)
            return type("Output", (), {"start_logits": start, "end_logits": end})

    task = QuestionAnswering(path="-", max_answer_length=10, overlap=0.6)
    whole, *others = (next(Scorer(Alone(), tokenizer, task, length).answers([row])) for length in (1000, 64, 40))
    assert whole["answer"]
    assert all(other == whole for other in others)


@pytest.mark.parametrize("side", ["right", "left"])
def test_the_loss_is_the_mean_cross_entropy_of_both_ends_and_no_padding_counts(
    network: BertForQuestionAnswering, side: str, monkeypatch: pytest.MonkeyPatch
):
    tokenizer = tiny_tokenizer()
    monkeypatch.setattr(tokenizer, "padding_side", side)
    rows = [Row("a", 1, {**row, "answer": row["answers"]}) for row in questions(16)[1::5]]
    encoded = [feature for row in rows for feature in TASK.encode(row, tokenizer, 128, {})]
    weights = [1.0 + place / 7 for place in range(len(encoded))]
    weighted = [{**feature, "weight": weight} for feature, weight in zip(encoded, weights, strict=True)]
    assert len({len(feature["input_ids"]) for feature in encoded}) > 1
    assert any(feature["labels"] == [0, 0] for feature in encoded)
    total = 0.0
    for feature, weight in zip(encoded, weights, strict=True):
        found = network(
            **{name: torch.tensor([feature[name]]) for name in tokenizer.model_input_names},
            position_ids=torch.arange(len(feature["input_ids"]))[None] + 0,
        )
        ends = zip((found.start_logits, found.end_logits), feature["labels"], strict=True)
        total += weight * sum(cross_entropy(logits, torch.tensor([place])).item() for logits, place in ends) / 2
    batch = collate(weighted, tokenizer)
    assert TASK.count(batch).item() == pytest.approx(sum(weights))
    assert TASK.count(collate(encoded, tokenizer)).item() == len(encoded)
    if side == "left":  # BERT counts places from the padding on; let it count from the text
        batch["position_ids"] = (batch["attention_mask"].cumsum(1) - 1).clamp(min=0)
    assert TASK.loss(network, batch).item() == pytest.approx(total, rel=1e-5)


# A trained model


def test_python_answers_a_pair_a_list_and_a_frame_as_it_stands_in_the_context(trained: Callable[[str], Trained]):
    run = trained("questions")
    assert {"has_answer_f1", "no_answer_accuracy"} <= run.metrics["test"]["scores"].keys()
    model = load(run.directory, device="cpu")
    context = "The  film number 7 is Wonderful, and the scene 7 was tedious"
    pairs = [("the film is very what", context), ("the actor is very what", context)]
    answer, none = model(pairs)
    assert list(answer) == ["answer", "score", "start", "end"]
    assert answer["answer"] == "Wonderful" == context[answer["start"] : answer["end"]]
    assert 0 < answer["score"] <= 1
    assert (none["answer"], none["start"], none["end"]) == ("", 0, 0)
    assert model(pairs[0]) == answer
    assert model(pandas.DataFrame(pairs, columns=["question", "context"])) == [answer, none]
    long = model((pairs[0][0], f"{'the scene was tedious ' * 30}{context}"))
    assert long["answer"] == context[long["start"] - 660 : long["end"] - 660]
    with pytest.raises(UserError, match="this model reads a question and a context, and was given 1 texts; "):
        model(pairs[0][0])
