import random

import pytest
from samples import FAMILIES, tokenizer_of
from transformers import PreTrainedTokenizerFast

from ulmfit_style.errors import UserError
from ulmfit_style.tasks.base import Row
from ulmfit_style.tasks.windows import windows

ROW = Row("a.jsonl", 7, {})
TEXT = "the film number 12 is very wonderful, and the plot (a story!) is 😀 서울 moving. "


@pytest.fixture(scope="module", params=FAMILIES)
def tokenizer(request: pytest.FixtureRequest) -> PreTrainedTokenizerFast:
    return tokenizer_of(request.param, [TEXT])


def owned(features, name: str) -> list:
    """Return a field of the tokens of a text, each from the window that it belongs to."""
    return [value for feature in features for value in feature[name][slice(*feature["own"])]]


@pytest.mark.parametrize("side", ["right", "left"])
def test_every_token_belongs_to_one_window_whatever_their_length_and_overlap(
    tokenizer: PreTrainedTokenizerFast, side: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(tokenizer, "truncation_side", side)
    chance = random.Random(0)
    several = 0
    for _ in range(60):
        text = (TEXT * 3)[chance.randrange(30) : chance.randrange(31, 240)]
        length, overlap = chance.randrange(4, 40), chance.choice([0.0, 0.1, 0.25, 0.5, 0.9])
        features = windows(tokenizer, ROW, text, max_length=length, overlap=overlap)
        plain = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert owned(features, "input_ids") == plain
        assert all(len(feature["input_ids"]) <= length for feature in features)
        assert {feature["long"] for feature in features} == {len(features) > 1}
        several += len(features) > 2
    assert several > 20


def test_a_token_belongs_to_the_window_where_it_has_most_on_both_sides(tokenizer: PreTrainedTokenizerFast):
    features = windows(tokenizer, ROW, TEXT * 4, max_length=32, overlap=0.5)
    room = 32 - tokenizer.num_special_tokens_to_add()
    shared = room // 2
    for feature in features[1:-1]:
        first, last = feature["own"]
        assert last - first == room - shared
        assert abs((first - 0) - (len(feature["input_ids"]) - last)) <= 1


def test_offsets_tell_the_text_of_each_token(tokenizer: PreTrainedTokenizerFast):
    features = windows(tokenizer, ROW, TEXT * 3, max_length=20, overlap=0.3)
    covered = {place for start, end in owned(features, "offsets") for place in range(start, end)}
    blanks = {place for place, letter in enumerate(TEXT * 3) if letter == " "}
    assert covered | blanks == set(range(len(TEXT * 3)))


def test_the_second_of_two_texts_is_read_in_windows_after_the_first(tokenizer: PreTrainedTokenizerFast):
    (alone,) = windows(tokenizer, ROW, TEXT * 3, max_length=500, overlap=0.25)
    features = windows(tokenizer, ROW, "the film", TEXT * 3, max_length=30, overlap=0.25)
    assert len(features) > 2
    assert owned(features, "offsets") == owned([alone], "offsets")
    first = tokenizer("the film", add_special_tokens=False)["input_ids"]
    assert all(str(first)[1:-1] in str(feature["input_ids"]) for feature in features)


def test_a_text_without_tokens_has_no_window(tokenizer: PreTrainedTokenizerFast):
    assert windows(tokenizer, ROW, "", max_length=30, overlap=0.25) == []
    blank = windows(tokenizer, ROW, " ", max_length=30, overlap=0.25)
    assert all(start == end or (start, end) == (0, 1) for start, end in owned(blank, "offsets"))


def test_texts_that_leave_no_room_are_refused(tokenizer: PreTrainedTokenizerFast):
    with pytest.raises(UserError, match=r"a\.jsonl:7: only 0 of finetune\.max_length=8 tokens are left for the text"):
        windows(tokenizer, ROW, TEXT, TEXT, max_length=8, overlap=0.25)
