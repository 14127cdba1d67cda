"""Question answering: rows, windows, which stretches of tokens are learnt and told, and when none is."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
import torch
from samples import FAMILIES, jsonl, questions, squad, tiny_sizes, tiny_tokenizer, tokenizer_of
from torch.nn.functional import cross_entropy
from transformers import BertConfig, BertForQuestionAnswering, PreTrainedTokenizerFast, set_seed

from ulmfit_style import load
from ulmfit_style.__main__ import main
from ulmfit_style.artefacts import predictions
from ulmfit_style.artefacts.directory import METRICS
from ulmfit_style.cli.compose import compose
from ulmfit_style.data import corpus, labelled
from ulmfit_style.errors import UserError
from ulmfit_style.stages import push
from ulmfit_style.tasks.base import Row
from ulmfit_style.tasks.question_answering import QuestionAnswering
from ulmfit_style.training.batching import collate
from ulmfit_style.training.scoring import Scorer

TASK = QuestionAnswering(path="-")


def asked(context: Any = "Ada left Ottawa.", answer: Any = "Ada", start: Any = 0, question: Any = "who?") -> Row:
    return Row("a.json", 7, {"question": question, "context": context, "answer": answer, "answer_start": start})


# Rows


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        (asked(), None),
        (asked(start="0"), None),
        (asked(start="0.0"), None),
        (asked(answer="", start=""), None),
        (asked(answer=None, start=None), None),
        (asked(answer={"text": ["Ada", "Ottawa"], "answer_start": [0, 9]}), None),
        (asked(answer={"text": [], "answer_start": []}), None),
        (asked(answer={"text": "Ada", "answer_start": 0}), None),
        (asked(answer=[{"text": "Ada", "answer_start": 0}]), None),
        (asked(answer=[]), None),
        (asked(question=" "), "the question is empty"),
        (asked(question=["who?"]), "the question is no text"),
        (asked(context=None), "the context is empty"),
        (
            asked(start=""),
            'the answers are neither as {"text": ["Ada"], "answer_start": [0]}, nor a text beside its an',
        ),
        (asked(start=None), "the answers are neither as"),
        (asked(start=1.5), "the answers are neither as"),
        (asked(start=-1), "the answers are neither as"),
        (asked(answer=["Ada"], start=[0]), None),
        (asked(answer=["Ada"], start=None), "the answers are neither as"),
        (asked(answer={"text": ["Ada"]}), "the answers are neither as"),
        (asked(answer={"text": ["Ada", "Bo"], "answer_start": [0]}), "the answers are neither as"),
        (asked(answer=[{"text": " ", "answer_start": 3}]), "an answer is empty"),
        (asked(answer=[{"text": 7, "answer_start": 3}]), "an answer is no text"),
        (
            asked(answer="left", start=3),
            "the answer 'left' does not begin at character 3 of the context, where ' lef' stands; it stands at 4",
        ),
        (asked("a b a b", "b", 0), "the answer 'b' does not begin at character 0 of the context, where 'a' stands; it"),
        (
            asked(answer="Bo", start=99),
            "the answer 'Bo' does not begin at character 99 of the context; it is nowhere in the context",
        ),
    ],
)
def test_what_is_wrong_with_a_row_is_said(row: Row, problem: str | None):
    found = TASK.row_problem(row)
    assert (found or "").startswith(problem or "")
    assert (found is None) == (problem is None)


def test_all_the_places_where_an_answer_stands_are_suggested():
    assert (TASK.row_problem(asked("a b a b", "b", 0)) or "").endswith("; it stands at 2, 6")


def test_answers_are_told_as_on_the_hub_whatever_their_form():
    expected = {"text": ["Ada"], "answer_start": [0]}
    for answer in ("Ada", expected, [{"text": "Ada", "answer_start": 0}]):
        assert TASK.target(asked(answer=answer)) == expected
    assert TASK.target(asked(answer="", start="")) == {"text": [], "answer_start": []}


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
    assert ("the group is column 'title'" in capsys.readouterr().out) == (column == "title")
    assert 30 < len(found.test) < 66


def test_questions_of_a_test_context_are_left_out_of_training(tmp_path: Path, capsys):
    rows = questions(120)
    files = {"train": str(jsonl(tmp_path / "a.jsonl", rows)), "test": str(jsonl(tmp_path / "b.jsonl", rows[1::40]))}
    found = labelled.load(QuestionAnswering(path=files))
    assert not {row.fields["context"] for row in found.test} & {row.fields["context"] for row in found.pool}
    assert "12 rows are left out because their text is also in test or validation" in capsys.readouterr().out


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


def test_a_sample_has_questions_with_and_without_an_answer(loaded):
    found = loaded(questions(120), train_samples=2)
    assert found.classes == ["answer", "no answer"]
    assert {label for row in found.train for label in TASK.labels_of(row)} == set(found.classes)


def test_columns_of_text_and_place_make_rows_too(tmp_path: Path):
    flat = [
        {"question": row["question"], "context": row["context"], "answer": text, "at": start}
        for row in questions(120)
        for text, start in zip(row["answers"]["text"], row["answers"]["answer_start"], strict=True)
    ]
    pandas.DataFrame(flat).to_csv(tmp_path / "a.csv", index=False)
    labelled.load.cache_clear()
    rows = labelled.load(QuestionAnswering(path=str(tmp_path / "a.csv"), answer_start="at"))
    assert rows.classes == ["answer"]
    assert rows.train[0].fields["answer_start"].isdecimal()


def test_a_wrong_place_is_told_with_its_question(tmp_path: Path):
    rows = questions(60)
    rows[3] = {**rows[3], "answers": {"text": ["film"], "answer_start": [0]}}
    task = QuestionAnswering(path=str(squad(tmp_path / "a.json", rows)))
    with pytest.raises(
        UserError, match=r"a\.json:4: the answer 'film' does not begin at character 0 of the context, wh"
    ):
        labelled.load(task)


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


def test_a_question_that_takes_the_room_of_the_context_is_refused_with_its_row(tokenizer: PreTrainedTokenizerFast):
    message = (
        r"a\.json:7: the question has 25 tokens, and leaves too few of finetune\.max_length=32 for the context; sho"
    )
    with pytest.raises(UserError, match=message):
        TASK.encode(asked(question="x" * 25), tokenizer, 32, None)
    assert TASK.encode(asked(question="x" * 24), tokenizer, 32, None)


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


def test_scores_are_probabilities_over_all_stretches_and_none(tokenizer: PreTrainedTokenizerFast):
    answer = said(tokenizer, "film plot", {0: (2, 1), 1: (0, 3), -1: (1, 1)}, n_best=9)
    exponents = {"film plot": 5, "film": 3, "plot": 3, "": 2}
    total = sum(np.exp(value) for value in exponents.values())
    assert [told["answer"] for told in answer["candidates"]] == list(exponents)
    for told in answer["candidates"]:
        assert told["score"] == pytest.approx(np.exp(exponents[told["answer"]]) / total, abs=1e-6)
    assert answer["candidates"][0] == {name: answer[name] for name in ("answer", "score", "start", "end")}
    assert answer["candidates"][-1]["end"] == 0


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

    task = QuestionAnswering(path="-", max_answer_length=10, overlap=0.6, n_best=5)
    whole, *others = (next(Scorer(Alone(), tokenizer, task, length).answers([row])) for length in (1000, 64, 40))
    assert len({told["answer"] for told in whole["candidates"]}) > 2
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


# The command line


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path) -> Path:
    """A folder with a recipe that `finetune` has run, over a file in the form of SQuAD v2."""
    path = tmp_path_factory.mktemp("asked")
    squad(path / "train.json", questions(150))
    jsonl(path / "test.jsonl", questions(40, seed=1))
    assert main(["finetune", "evaluate", *recipe(path, checkpoint)]) == 0
    return path


def recipe(path: Path, checkpoint: Path) -> list[str]:
    return [
        "task=question_answering",
        f"task.path={{train: {path / 'train.json'}, test: {path / 'test.jsonl'}}}",
        f"model.checkpoint={checkpoint}",
        "model.sha256=null",
        f"runs={path / 'runs'}",
        "adapt=none",
        "finetune.epochs=12",
        "finetune.learning_rate=1e-2",
        "finetune.max_length=40",
    ]


def test_answers_are_learnt_scored_and_kept_with_their_rows(folder: Path, checkpoint: Path, capsys):
    assert main(["evaluate", *recipe(folder, checkpoint)]) == 0
    assert "│ no_answer_accuracy" in capsys.readouterr().out
    found = json.loads((folder / "runs/default/finetune" / METRICS).read_text())
    assert found["train"]["classes"] == ["answer", "no answer"]
    scores = found["test"]["scores"]
    assert scores["f1"] > 0.7
    assert scores["has_answer_f1"] > 0.6
    assert scores["no_answer_accuracy"] > 0.9
    for split in ("validation", "test"):
        rows = predictions.read(folder / "runs/default/finetune", split)
        assert TASK.score(rows, [row["target"] for row in rows]) == found[split]["scores"]
    saved = json.loads((folder / "runs/default/finetune/config.json").read_text())
    assert saved["architectures"] == ["BertForQuestionAnswering"]
    assert saved["unanswerable"] is True


def test_a_model_of_questions_that_all_have_an_answer_always_tells_one(tmp_path: Path, checkpoint: Path, capsys):
    rows = [row for row in questions(80) if row["answers"]["text"]]
    squad(tmp_path / "train.json", rows)
    jsonl(tmp_path / "test.jsonl", [row for row in questions(20, seed=1) if row["answers"]["text"]])
    assert main(["finetune", *recipe(tmp_path, checkpoint), "finetune.max_steps=3"]) == 0
    printed = capsys.readouterr().out
    assert "are longer than 40 tokens, and are read in windows that overlap (finetune.max_length)" in printed
    assert 'print(load("' in printed
    assert '("...", "..."))' in printed
    answered = predictions.read(tmp_path / "runs/default/finetune", "test")
    assert all(row["answer"] for row in answered)
    assert set(json.loads((tmp_path / "runs/default/finetune" / METRICS).read_text())["test"]["scores"]) == {
        "f1",
        "exact_match",
    }


def test_a_test_without_an_answer_is_refused_where_training_has_none_such(tmp_path: Path):
    rows = [row for row in questions(80) if row["answers"]["text"]]
    train, test = squad(tmp_path / "a.json", rows), squad(tmp_path / "b.json", questions(20, seed=1))
    task = QuestionAnswering(path={"train": str(train), "test": str(test)})
    with pytest.raises(UserError, match=r"b\.json:\d+: the label 'no answer' is in no training row"):
        labelled.load(task)


def test_rows_that_no_window_holds_the_answer_of_are_told(tmp_path: Path, checkpoint: Path, capsys):
    rows = questions(80)
    rows[:20] = [{**row, "answers": {"text": [row["context"]], "answer_start": [0]}} for row in rows[:20]]
    squad(tmp_path / "train.json", rows)
    jsonl(tmp_path / "test.jsonl", questions(20, seed=1))
    overrides = [*recipe(tmp_path, checkpoint), "finetune.max_steps=1", "finetune.max_length=24"]
    assert main(["finetune", *overrides]) == 0
    told = re.search(
        r"  (\d+) of them are left out: nothing of them can be learnt in so few tokens", capsys.readouterr().out
    )
    assert told
    assert int(told[1]) > 10


def test_a_model_that_reads_from_left_to_right_learns_them_too(folder: Path, causal_checkpoint: Path):
    overrides = [*recipe(folder, causal_checkpoint), "name=causal", "finetune.epochs=8"]
    assert main(["finetune", *overrides]) == 0
    found = json.loads((folder / "runs/causal/finetune" / METRICS).read_text())
    assert found["test"]["scores"]["f1"] > 0.3


def test_python_answers_a_pair_a_list_and_a_frame(folder: Path):
    model = load(folder / "runs/default/finetune", device="cpu")
    context = "The  film number 7 is Wonderful, and the scene 7 was tedious"
    answer = model(("the film is very what", context))
    assert list(answer) == ["answer", "score", "start", "end"]
    assert answer["answer"] == "Wonderful" == context[answer["start"] : answer["end"]]
    assert 0 < answer["score"] <= 1
    none = {"answer": "", "start": 0, "end": 0}
    other = model(("the actor is very what", context))
    assert {name: other[name] for name in none} == none
    pairs = [("the film is very what", context), ("the actor is very what", context)]
    assert model(pairs) == [answer, other]
    assert model(pandas.DataFrame(pairs, columns=["question", "context"])) == [answer, other]
    long = model(("the film is very what", f"{'the scene was tedious ' * 30}{context}"))
    assert long["answer"] == context[long["start"] - 660 : long["end"] - 660]
    several = load(folder / "runs/default/finetune", task={"n_best": 3})(pairs[0])
    assert several["candidates"][0]["answer"] == "Wonderful"
    assert len(several["candidates"]) == 3
    with pytest.raises(
        UserError, match=r"this model answers a question by a context, not one text; give the context by"
    ):
        model("the film is very what")


def test_a_file_of_questions_is_answered(folder: Path, capsys, tmp_path: Path):
    model = f"predict.model={folder / 'runs/default/finetune'}"
    assert main(["predict", model, f"predict.input={folder / 'train.json'}", "predict.task.n_best=2"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(rows) == 300
    agree = [row["answer"] == (row["answers"] or [{"text": ""}])[0]["text"] for row in rows]
    assert sum(agree) > 0.7 * len(rows)
    assert all(len(row["candidates"]) == 2 for row in rows)
    assert all(row["answer"] == row["context"][row["start"] : row["end"]] for row in rows)

    (tmp_path / "new.csv").write_text("passage,question,answer\nthe film is moving,the film is very what,mine\n")
    assert main(["predict", model, f"predict.input={tmp_path / 'new.csv'}"]) == 0
    printed = capsys.readouterr()
    assert "the input's own column 'answer' is 'input_answer' in the output" in printed.err
    assert json.loads(printed.out)["input_answer"] == "mine"

    assert main(["predict", model, "predict.input=the film is very what"]) == 2
    assert "this model answers a question by a context, not one text" in capsys.readouterr().err
    assert main(["predict", model, "predict.input=the film is very what", "predict.pair=the film is moving"]) == 0
    assert json.loads(capsys.readouterr().out)["context"] == "the film is moving"
    assert main(["predict", model, f"predict.input={tmp_path / 'new.csv'}", "predict.pair=the film"]) == 2
    assert "predict.pair: goes with one text, and predict.input=" in capsys.readouterr().err


def test_the_card_tells_how_to_ask_the_model(folder: Path, tmp_path: Path):
    push._export(tmp_path, compose(), (folder / "runs/default/finetune").resolve(), "me/asked", None)
    card = (tmp_path / "README.md").read_text()
    assert "pipeline_tag: question-answering" in card
    assert "pipeline(" not in card  # transformers has none for it any more
    assert 'print(model(("Who?", "Ada.")))' in card


def test_concat_pooling_is_refused(folder: Path, checkpoint: Path, capsys):
    assert main(["finetune", *recipe(folder, checkpoint), "finetune.pooling=concat"]) == 2
    assert "finetune.pooling=concat: QuestionAnswering does not score whole texts" in capsys.readouterr().err
