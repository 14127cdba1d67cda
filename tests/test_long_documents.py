"""Texts longer than a model reads: their beginning, or all of it in windows that answer together, or under one head."""

import random
from pathlib import Path

import pytest
from hypothesis import given, strategies
from pydantic import ValidationError
from samples import TEXT, UNICODE, jsonl
from transformers import PreTrainedTokenizerFast

from ulmfit_style import load
from ulmfit_style.__main__ import main
from ulmfit_style.errors import UserError
from ulmfit_style.stages import finetune
from ulmfit_style.tasks.base import Row
from ulmfit_style.tasks.text_classification import TextClassification
from ulmfit_style.tasks.text_regression import TextRegression
from ulmfit_style.tasks.windows import pieces_of, trimmed, windows


def task(**options: object) -> TextClassification:
    return TextClassification(path="rows.csv", **options)


def row(text: str) -> Row:
    return Row("rows.csv", 1, {"text": text, "label": "good"})


def read(
    tokenizer: PreTrainedTokenizerFast, text: str, length: int, **options: object
) -> tuple[list[list[int]], list[int]]:
    """Return the tokens of the text in each feature or pooled part of one, and all tokens of the text."""
    features, special = task(**options).encode(row(text), tokenizer, length, {"good": 0}), tokenizer("")["input_ids"]
    assert sum(feature["weight"] for feature in features) == pytest.approx(1)
    read = [feature["input_ids"] for feature in features]
    if options.get("long_documents") == "pooled" and features[0]["long"]:
        assert len(read) == 1
        assert not len(read[0]) % length
        read = [read[0][at : at + length] for at in range(0, len(read[0]), length)]
    for ids in read:
        assert len(ids) <= length
        assert [token for token in ids if token in special] == special
    parts = [[token for token in ids if token not in special] for ids in read]
    return parts, tokenizer(text, add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize("pair", [(), (TEXT * 3,)], ids=["text", "pair"])
@pytest.mark.parametrize("side", ["right", "left"])
def test_a_text_that_is_cut_is_cut_as_the_tokenizer_does_it(family, side: str, pair: tuple[str, ...], monkeypatch):
    monkeypatch.setattr(family, "truncation_side", side)
    asked = Row("rows.csv", 1, dict(zip(("text", "text_pair"), (TEXT * 5, *pair), strict=False)))
    (feature,) = task(text_pair="b" if pair else None).encode(asked, family, 40, None)
    theirs = family(TEXT * 5, *pair, truncation=True, max_length=40)
    assert feature["long"]
    assert {name: feature[name] for name in theirs} == dict(theirs)


@pytest.mark.parametrize("how", ["windows", "pooled"])
def test_windows_hold_every_token_are_of_one_length_and_overlap_as_told(family: PreTrainedTokenizerFast, how: str):
    chance = random.Random(0)
    for _ in range(40):
        length, overlap = chance.randrange(8, 40), chance.choice([0.0, 0.25, 0.5, 0.9])
        parts, whole = read(family, TEXT * 4, length, long_documents=how, overlap=overlap)
        room = length - family.num_special_tokens_to_add()
        step = max(1, room - int(overlap * room))
        assert len(parts) > 2
        assert all(part == whole[step * number : step * number + room] for number, part in enumerate(parts[:-1]))
        assert parts[-1] == whole[-room:]
        assert step * (len(parts) - 2) + room < len(whole) <= step * (len(parts) - 1) + room


@pytest.mark.parametrize("how", ["head", "windows", "pooled"])
def test_a_text_that_fits_is_read_once_and_whole(family: PreTrainedTokenizerFast, how: str):
    (part,), whole = read(family, TEXT, 200, long_documents=how)
    assert part == whole


def test_windows_are_pooled_by_a_head_that_pools_and_by_a_model_that_was_trained_so(
    not_adapted: list[str], tmp_path: Path, capsys
):
    pooled = ["task.long_documents=pooled", "finetune.max_length=8", "finetune.epochs=2"]
    assert main(["finetune", *not_adapted, *pooled]) != 0
    told = "task.long_documents=pooled: goes with finetune.pooling=mean or concat; add one of them"
    assert told in " ".join(capsys.readouterr().err.split())
    assert main(["finetune", *not_adapted, *pooled, "finetune.pooling=mean", "name=pooled"]) == 0
    assert main(["finetune", *not_adapted, *pooled[1:], "finetune.pooling=mean", "name=cut"]) == 0
    first, rest = "the film was good and the plot was moving", " a story of nothing at all" * 30
    model = load(tmp_path / "runs/pooled/finetune")
    assert model(first)["score"] != model(first + rest)["score"]
    assert model(first + rest)["score"] != model(first + rest + " wonderful")["score"]
    with pytest.raises(UserError, match=r"cut/finetune: was not trained with task.long_documents=pooled; take windows"):
        load(tmp_path / "runs/cut/finetune", task={"long_documents": "pooled"})("a film")
    updated = [*not_adapted, *pooled, "finetune.pooling=mean", "name=updated", "finetune.init=cut"]
    assert main(["finetune", *updated]) != 0
    assert "was not trained with task.long_documents=pooled; leave that out" in " ".join(
        capsys.readouterr().err.split()
    )


def test_a_frozen_body_is_run_once_over_windows_of_texts_of_many_lengths(not_adapted: list[str], tmp_path: Path):
    filler = " the plot number seven is a story"
    rows = [
        {"text": f"{TEXT}{filler * (36 + number % 20)}", "stars": ["good", "bad"][number % 2]} for number in range(60)
    ]
    data = [f"task.path={jsonl(tmp_path / 'long.jsonl', rows)}", "task.text=text", "task.train_samples=null"]
    pooled = ["task.long_documents=pooled", "finetune.max_length=8", "finetune.pooling=mean", "finetune.unfreeze=[1]"]
    assert main(["finetune", *not_adapted, *data, *pooled, "finetune.epochs=3", "finetune.batch_size=8"]) == 0


def test_windows_answer_by_their_mean():
    outputs = [{"bad": 0.9, "good": 0.1}, {"bad": 0.4, "good": 0.6}, {"bad": 0.45, "good": 0.55}]
    assert task().merge(row(""), [], outputs) == {"label": "bad", "score": 0.583333}
    assert TextRegression(path="rows.csv").merge(row(""), [], [1.0, 2.0, 6.0]) == {"value": 3.0}


def test_pairs_of_texts_are_read_from_their_beginning():
    with pytest.raises(ValidationError, match=r"is for single texts, and .* names a second; use head"):
        task(text_pair="b", long_documents="windows")


@pytest.mark.parametrize(
    ("options", "short", "told"),
    [
        ({}, 0, "a higher finetune.max_length, or task.long_documents=windows reads more"),
        ({"text_pair": "b"}, 0, "a higher finetune.max_length reads more"),
        ({"long_documents": "windows"}, 0, None),
        ({}, 4, None),
    ],
)
def test_where_much_is_cut_it_is_said_what_reads_more(family, capsys, options: dict[str, str], short: int, told):
    cut = Row("rows.csv", 1, {"text": TEXT * 5, "text_pair": "a question", "label": "good"})
    finetune._encoded(task(**options), [cut, *[row("a word")] * short], family, 40, {"label2id": {"good": 0}})
    said = capsys.readouterr().out
    assert f"of {1 + short} labelled rows, 1 (" in said
    assert told in " ".join(said.split()) if told else "reads more" not in said


# Windows in which each token belongs to one


def owned(features, name: str) -> list:
    """Return a field of the tokens of a text, each from the window that it belongs to."""
    return [value for feature in features for value in feature[name][slice(*feature["own"])]]


@pytest.mark.parametrize("side", ["right", "left"])
def test_every_token_belongs_to_one_window_whatever_their_length_and_overlap(family, side: str, monkeypatch):
    monkeypatch.setattr(family, "truncation_side", side)
    chance = random.Random(0)
    several = 0
    for _ in range(30):
        text = (TEXT * 4)[chance.randrange(30) : chance.randrange(31, 240)]
        length, overlap = chance.randrange(4, 40), chance.choice([0.0, 0.1, 0.25, 0.5, 0.9])
        features = windows(family, row(""), text, max_length=length, overlap=overlap)
        assert owned(features, "input_ids") == family(text, add_special_tokens=False)["input_ids"]
        covered = {place for start, end in owned(features, "offsets") for place in range(start, end)}
        assert {place for place, letter in enumerate(text) if letter.isalnum()} <= covered
        assert all(len(feature["input_ids"]) <= length for feature in features)
        assert {feature["long"] for feature in features} == {len(features) > 1}
        several += len(features) > 2
    assert several > 10
    assert windows(family, row(""), "", max_length=30, overlap=0.25) == []


@given(text=UNICODE, length=strategies.integers(4, 40), overlap=strategies.floats(0, 0.9))
def test_windows_hold_every_token_once_and_where_it_stands_in_any_unicode(family, text: str, length: int, overlap):
    features = windows(family, row(""), text, max_length=length, overlap=overlap)
    whole = family(text, add_special_tokens=False, return_offsets_mapping=True)
    assert owned(features, "input_ids") == whole["input_ids"]
    pieces = [trimmed(text, piece) for piece in owned(features, "offsets")]
    tokens = zip(whole.tokens(), whole["offset_mapping"], strict=True)
    assert [piece for piece in pieces if piece[0] < piece[1]] == [
        piece for token, place in tokens if (piece := trimmed(text, place))[0] < piece[1] and token != "\u2581"
    ]
    assert pieces_of(text, features) == pieces
    if "Ġ" in family.get_vocab():  # of bytes, of which none is thrown away
        covered = {place for start, end in pieces for place in range(start, end)}
        assert {place for place, letter in enumerate(text) if not letter.isspace()} == {
            place for place in covered if not text[place].isspace()
        }


def test_a_token_belongs_to_the_window_where_it_has_most_on_both_sides(family: PreTrainedTokenizerFast):
    features = windows(family, row(""), TEXT * 4, max_length=32, overlap=0.5)
    room = 32 - family.num_special_tokens_to_add()
    shared = room // 2
    for feature in features[1:-1]:
        first, last = feature["own"]
        assert last - first == room - shared
        assert abs((first - 0) - (len(feature["input_ids"]) - last)) <= 1
