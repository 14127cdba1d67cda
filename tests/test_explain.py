"""Which tokens an answer rests on."""

import importlib.util
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from recipes import Trained
from samples import jsonl, sentences
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast, set_seed

from ulmfit_style import load
from ulmfit_style.__main__ import main
from ulmfit_style.errors import UserError
from ulmfit_style.models import attributions, checkpoints
from ulmfit_style.models.pooling import PooledConfig, PooledForSequenceClassification
from ulmfit_style.predictor import Predictor
from ulmfit_style.tasks.base import named_outputs
from ulmfit_style.tasks.question_answering import QuestionAnswering
from ulmfit_style.tasks.text_classification import TextClassification

GOOD, BAD = "the film number 7 is wonderful", "a plot number 12 is dreadful"


@pytest.fixture
def directory(trained: Callable[[str], Trained]) -> Path:
    return trained("text classification").directory


def explained(model: Predictor, *texts: str) -> list[dict]:
    return [answer["explanations"] for answer in model.explained([model.task.row(text) for text in texts])]


def complete(one: dict) -> bool:
    """Tell whether the shares of all tokens sum up to how far the text lies above one of padding."""
    return abs(one["error"]) < 0.05 * max(1, abs(one["logit"] - one["of_padding"]))


def test_the_shares_of_all_tokens_sum_up_in_each_window_of_a_long_text_too(directory: Path):
    model = load(directory)
    parts = explained(model, GOOD, BAD)
    assert max(parts[0][0]["tokens"], key=lambda token: token["score"])["token"] == "wonderful"
    for (one,), text in zip(parts, (GOOD, BAD), strict=True):
        assert one["of"] == model(text)["label"]
        assert complete(one)
        assert all(text[token["start"] : token["end"]] == token["token"] for token in one["tokens"])

    text = " ".join([GOOD] * 12)
    (windows,) = explained(load(directory, task={"long_documents": "windows", "overlap": 0}), text)
    assert len(windows) > 1
    assert {one["of"] for one in windows} == {"good"}
    assert all(map(complete, windows))
    assert {token["end"] for one in windows for token in one["tokens"]} >= {len(text)}


@pytest.mark.parametrize("window", [None, 12])
def test_the_shares_sum_up_under_a_pooled_head_too_and_it_is_told_which_window_decided(
    tiny: dict, tokenizer: PreTrainedTokenizerFast, window: int | None
):
    set_seed(0)
    body, labels = BertConfig(**tiny), named_outputs(["bad", "good"])
    config = PooledConfig(body=body.to_dict(), pooling="concat", summary_token="first", window=window, **labels)
    model = PooledForSequenceClassification(config, BertModel(body)).eval()
    task = TextClassification(path="-", long_documents="head" if window is None else "pooled")
    text = " ".join([GOOD, BAD] * 3)
    (feature,) = task.encode(task.row(text), tokenizer, window or 32, None)
    (answered,) = task.explained_parts([feature], {"label": "good"}, {"bad": 0, "good": 1})
    part = attributions.explain(model, tokenizer, [text], feature, answered)
    assert complete(part)
    assert ("window" in part) == (window is not None)
    if window is not None:
        begin, end = part["window"]
        shares = [
            sum(token["score"] for token in part["tokens"][at : at + window - 2])
            for at in range(0, len(part["tokens"]), window - 2)
        ]
        first = shares.index(max(shares)) * (window - 2)
        assert (begin, end) == (part["tokens"][first]["start"], part["tokens"][first + window - 3]["end"])


def test_each_entity_is_explained(trained: Callable[[str], Trained]):
    model, text = load(trained("entities").directory), " ".join(sentences(1, seed=9)[0])
    entities = model(text)
    (found,) = explained(model, text)
    assert entities
    assert [one["of"] for one in found] == [f"{entity['entity_group']}: {entity['word']}" for entity in entities]
    assert all(map(complete, found))


def test_predict_writes_them_beside_the_answers_and_draws_a_page_that_opens_by_itself(
    directory, tmp_path: Path, capsys
):
    rows = jsonl(tmp_path / "new.jsonl", [{"review": f"<b>& {GOOD}</b>"}, {"review": BAD}])
    out = tmp_path / "answers.jsonl"
    command = ["predict", f"predict.model={directory}", f"predict.input={rows}", f"predict.output={out}"]
    assert main([*command, "predict.explain=true"]) == 0
    answers = [json.loads(line) for line in out.read_text().splitlines()]
    assert [one["of"] for answer in answers for one in answer["explanations"]] == ["good", "bad"]
    page = (tmp_path / "answers.html").read_text(encoding="utf-8")
    assert re.search(r"<span [^>]*>wonderful</span>", page)
    assert "<b>" not in page.partition("<table>")[2]  # it was escaped, and read as text
    assert f"predict: what the answers rest on: {tmp_path / 'answers.html'}" in capsys.readouterr().err


def test_the_checkpoint_that_a_classifier_was_made_of_is_not_asked_for(trained: Callable[[str], Trained], monkeypatch):
    monkeypatch.setattr(checkpoints, "described", None)
    command = ["predict", *trained("text classification").overrides, f"predict.input={GOOD}"]
    assert main([*command, "predict.explain=true"]) == 0


def test_what_cannot_be_explained_is_said(monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(UserError, match=r"predict\.explain=true: answers of QuestionAnswering cannot be explained"):
        attributions.check(QuestionAnswering(path="-"), {})
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"predict\.explain=true: needs captum; install it: pip install captum"):
        attributions.check(TextClassification(path="-"), {})
