"""Which tokens an answer rests on."""

import importlib.util
import json
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest
from recipes import Trained
from samples import jsonl, sentences

from ulmfit_style import load
from ulmfit_style.__main__ import main
from ulmfit_style.analysis import explain
from ulmfit_style.predictor import Predictor

GOOD, BAD = "the film number 7 is wonderful", "a plot number 12 is dreadful"


def directory(overrides: list[str]) -> str:
    runs = next(override for override in overrides if override.startswith("runs=")).partition("=")[2]
    return f"{runs}/default/finetune"


def explained(model: Predictor, *texts: str) -> list[dict]:
    return [answer[explain.EXPLANATIONS] for answer in model.explained([model.task.row(text) for text in texts])]


def complete(one: dict) -> bool:
    """Tell whether the shares of all tokens sum up to how far the text lies above one of padding."""
    return abs(one["error"]) < 0.05 * max(1, abs(one["logit"] - one["of_padding"]))


def test_the_shares_of_all_tokens_sum_up(finetuned: list[str]):
    model = load(directory(finetuned))
    for (one,), text in zip(explained(model, GOOD, BAD), (GOOD, BAD), strict=True):
        assert one["of"] == model(text)["label"]
        assert complete(one)
        assert all(text[token["start"] : token["end"]] == token["token"] for token in one["tokens"])


def test_the_word_that_tells_has_the_largest_share_under_a_concat_head(finetuned: list[str], tmp_path: Path):
    options = [override for override in finetuned if not override.startswith("runs=")]
    assert main(["finetune", *options, f"runs={tmp_path}", "finetune.pooling=concat"]) == 0
    ((one,),) = explained(load(f"{tmp_path}/default/finetune"), GOOD)
    assert complete(one)
    assert max(one["tokens"], key=lambda token: token["score"])["token"] == "wonderful"


def test_each_window_of_a_long_text_is_explained_by_itself(finetuned: list[str]):
    model = load(directory(finetuned), task={"long_documents": "windows", "overlap": 0})
    text = " ".join([GOOD] * 12)
    (found,) = explained(model, text)
    assert len(found) > 1
    assert {one["of"] for one in found} == {"good"}
    assert all(map(complete, found))
    assert {token["end"] for one in found for token in one["tokens"]} >= {len(text)}


def test_each_entity_is_explained(trained: Callable[[str], Trained]):
    model, text = load(trained("entities").directory), " ".join(sentences(1, seed=9)[0])
    entities = model(text)
    (found,) = explained(model, text)
    assert entities
    assert [one["of"] for one in found] == [f"{entity['entity_group']}: {entity['word']}" for entity in entities]
    assert all(map(complete, found))


class Spans(HTMLParser):
    """Gathers the coloured text of a page, and sees that every element that is opened is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.coloured: list[str] = []

    def handle_starttag(self, name: str, attributes: list[tuple[str, str | None]]) -> None:
        if name not in ("meta", "html"):
            self.open.append(name)
        assert not {"src", "href"} & {key for key, _ in attributes}

    def handle_endtag(self, name: str) -> None:
        assert self.open.pop() == name

    def handle_data(self, text: str) -> None:
        if self.open and self.open[-1] == "span":
            self.coloured.append(text)


def test_predict_writes_them_beside_the_answers_and_draws_a_page_that_opens_by_itself(
    finetuned: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    rows = jsonl(tmp_path / "new.jsonl", [{"review": f"<b>& {GOOD}</b>"}, {"review": BAD}])
    out = tmp_path / "answers.jsonl"
    command = ["predict", f"predict.model={directory(finetuned)}", f"predict.input={rows}", f"predict.output={out}"]
    assert main([*command, "predict.explain=true"]) == 0
    answers = [json.loads(line) for line in out.read_text().splitlines()]
    assert [one["of"] for answer in answers for one in answer["explanations"]] == ["good", "bad"]
    page = Spans()
    page.feed((tmp_path / "answers.html").read_text())
    assert page.open == []
    assert "wonderful" in page.coloured
    assert "<b>" not in page.coloured  # it was escaped, and read as text
    assert f"predict: what the answers rest on: {tmp_path / 'answers.html'}" in capsys.readouterr().err


def test_without_a_file_of_answers_the_page_is_in_the_folder_of_the_recipe(
    finetuned: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    command = ["predict", f"predict.model={directory(finetuned)}", f"predict.input={GOOD}", f"runs={tmp_path}"]
    assert main([*command, "predict.explain=true"]) == 0
    assert "wonderful" in (tmp_path / "default/explained.html").read_text()
    assert json.loads(capsys.readouterr().out.splitlines()[0])["explanations"][0]["of"] == "good"


def test_without_captum_it_is_said_how_to_get_it(
    finetuned: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    there = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "captum" else there(name))
    command = ["predict", f"predict.model={directory(finetuned)}", "predict.input=hello", "predict.explain=true"]
    assert main(command) == 2
    assert "predict.explain=true: needs Captum; install it: pip install captum" in capsys.readouterr().err
    assert main(["finetune", "predict", *finetuned, "finetune.seed=9", *command[2:]]) == 2
    assert "labelled rows" not in capsys.readouterr().out  # nothing was trained before
