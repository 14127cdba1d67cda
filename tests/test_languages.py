"""Which model `model=auto` takes, and that a text which a tokenizer cannot read is told before training."""

from collections.abc import Callable
from pathlib import Path

import pytest
from samples import jsonl, save_bert, tokenizer_of

from ulmfit_style import console
from ulmfit_style.__main__ import main
from ulmfit_style.cli.compose import compose
from ulmfit_style.data import languages
from ulmfit_style.errors import UserError
from ulmfit_style.models import checkpoints
from ulmfit_style.stages.table import resolve

ENGLISH = "the waiter was friendly and we would come again on a rainy evening number {}"
GERMAN = "der Kellner war freundlich und wir kommen an einem verregneten Abend wieder Nummer {}"
KOREAN = "이 영화는 정말 재미있었고 배우들의 연기도 훌륭했다 {}"
CODE = "def total(values: list[int]) -> int:\n    return sum(value for value in values if value > {})"


@pytest.fixture
def options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], list[str]]:
    """What to type for labelled rows of such a text."""
    monkeypatch.setattr(console, "_SAID", set())

    def typed(text: str) -> list[str]:
        rows = [{"text": text.format(number), "label": "ab"[number % 2]} for number in range(60)]
        return ["task=text_classification", f"task.path={jsonl(tmp_path / 'rows.jsonl', rows)}", f"runs={tmp_path}"]

    return typed


@pytest.mark.parametrize(
    ("text", "preset"),
    [(ENGLISH, "minilm"), (CODE, "minilm"), (GERMAN, "multilingual_e5_small"), (KOREAN, "multilingual_e5_small")],
)
def test_the_script_and_the_language_choose_the_model(text: str, preset: str, options, monkeypatch, capsys):
    monkeypatch.setattr(checkpoints, "commit", lambda *_: "0" * 40)
    model = resolve(compose([*options(text), "model=auto"])).config.model
    assert model == compose([f"model={preset}"]).model
    assert f"model=auto takes {preset}: " in capsys.readouterr().out


def test_what_is_out_of_reach_is_not_taken_and_it_is_said(options, monkeypatch, capsys):
    def unreachable(*_: object) -> str:
        raise UserError("no network")

    monkeypatch.setattr(checkpoints, "commit", unreachable)
    assert resolve(compose([*options(KOREAN), "model=auto"])).config.model == compose(["model=minilm"]).model
    assert "multilingual_e5_small would fit, but is not on the disk" in capsys.readouterr().out


@pytest.mark.parametrize(("text", "is_told"), [(KOREAN, True), ("the film number {} is moving", False)])
def test_a_text_that_the_tokenizer_breaks_into_pieces_is_told_before_training(
    text: str, is_told: bool, options, checkpoint: Path, capsys
):
    typed = [*options(text), f"model.checkpoint={checkpoint}", "adapt=none", "compare=false"]
    assert main(["plan", "finetune", *typed]) == 0
    assert ("of the tokens of this text are unknown to" in capsys.readouterr().out) is is_told


def test_the_bytes_of_a_character_count_as_parts_of_it(tmp_path: Path, options, capsys):
    tokenizer_of("byte-level", ["a b c"]).save_pretrained(save_bert(tmp_path / "model"))
    languages.say_if_unfit(compose([*options(KOREAN), f"model.checkpoint={tmp_path / 'model'}"]))
    assert "% of the tokens of this text are unknown to" in capsys.readouterr().out
