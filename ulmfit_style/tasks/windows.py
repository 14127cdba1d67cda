"""Windows over a text that is longer than a model reads: they overlap, and each token belongs to one of them."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from ulmfit_style.errors import UserError
from ulmfit_style.tasks.base import Feature, Row
from ulmfit_style.tasks.types import Encoded, Tokenizer

Range = tuple[int, int]
"""Where something begins in a text and where it has ended, in characters."""

UNREAD = ("offsets", "texts", "first", "inside", "own", "none")
"""What a window has that the model does not read."""


def windows(tokenizer: Tokenizer, row: Row, *texts: str, max_length: int, overlap: float) -> list[Feature]:
    """Encode the text of a row, or the second of two after the first, in as many windows as it takes.

    An empty text has none.

    Each feature has what the model reads, and fields that it does not. `offsets` say where each token stands in the
    text, (length,) pairs of characters, empty for special tokens and for what stands for a blank alone. `texts` are the
    numbers of the texts that the tokens are of, None for special tokens. `inside`, the first place and the place after
    the last, are the tokens of the text, and `first` is the number of the first of them in the whole text; `own` are
    those that belong to this window alone: they stand farther from its ends than from those of its neighbours. `long`
    says whether there are several windows.

    Args:
        max_length: Tokens of a window, special tokens and first text included.
        overlap: The share of the tokens of a window that the next one has too.

    Raises:
        UserError: if the tokenizer is slow, or the first text leaves less than an eighth of a window.
    """
    if not tokenizer.is_fast:
        name = type(tokenizer).__name__
        raise UserError(f"{name} cannot say where its tokens stand in a text; choose a model with a fast tokenizer")
    is_pair = len(texts) > 1
    before = len(tokenizer(texts[0], add_special_tokens=False)["input_ids"]) if is_pair else 0
    room = max_length - tokenizer.num_special_tokens_to_add(pair=is_pair) - before
    if room < max(1, max_length // 8):
        problem = f"{max(0, room)} of finetune.max_length={max_length} tokens are left for the text"
        remedy = f"shorten the question, which has {before}, or train with a larger one" if is_pair else "raise it"
        raise UserError(f"{row.place}: only {problem}; {remedy}")
    shared = int(overlap * room)
    encoded = in_parts(tokenizer, texts, max_length, truncation="only_second" if is_pair else True, stride=shared)
    features = []
    for number, encoding in enumerate(encoded.encodings or ()):
        inside = [place for place, text in enumerate(encoding.sequence_ids) if text == len(texts) - 1]
        if not inside:
            continue
        offsets = [(0, 0)] * len(encoding.ids)
        for place in inside:
            # Metaspace puts one before the text that has no character of its own, and takes it from the next token.
            offsets[place] = (0, 0) if encoding.tokens[place] == "\u2581" else encoding.offsets[place]
        feature: Feature = {name: encoded[name][number] for name in tokenizer.model_input_names if name in encoded}
        feature |= {"offsets": offsets, "texts": list(encoding.sequence_ids), "first": 0}
        feature |= dict.fromkeys(("inside", "own"), (inside[0], inside[-1] + 1))
        features.append({**feature, "long": len(encoded.encodings or ()) > 1})
    if tokenizer.truncation_side == "left":
        features.reverse()
    for left, right in pairwise(features):
        right["first"] = left["first"] + left["inside"][1] - left["inside"][0] - shared
        left["own"] = (left["own"][0], left["own"][1] - (shared - shared // 2))
        right["own"] = (right["own"][0] + shared // 2, right["own"][1])
    return features


def in_parts(tokenizer: Tokenizer, texts: Sequence[str], max_length: int, **options: Any) -> Encoded:
    """Encode a text or a pair: first what truncation leaves, then what it cut off, each token with its offsets."""
    parts: dict[str, Any] = {"return_overflowing_tokens": True, "return_offsets_mapping": True}
    return tokenizer(*texts, max_length=max_length, **parts, **options)


def trimmed(text: str, piece: Range) -> Range:
    """Return a range of a text without the blanks at its ends."""
    start, end = piece
    inner = text[start:end]
    start += len(inner) - len(inner.lstrip())
    return start, start + len(inner.strip())


def pieces_of(text: str, features: Sequence[Feature]) -> list[Range]:
    """Return where each token of a text is, whichever window it belongs to, without blanks at its ends."""
    return [trimmed(text, piece) for feature in features for piece in feature["offsets"][slice(*feature["own"])]]


def learnable(feature: Feature, labels: list[int]) -> Feature:
    """Return what is learnt of a window: what the model reads, its labels, and whether the text is long."""
    return {name: value for name, value in feature.items() if name not in UNREAD} | {"labels": labels}
