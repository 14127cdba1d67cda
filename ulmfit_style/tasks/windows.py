"""Windows over a text that is longer than a model reads: they overlap, and each token belongs to one of them."""

from collections.abc import Sequence
from typing import Any

from ulmfit_style.errors import UserError
from ulmfit_style.tasks.base import Feature, Row
from ulmfit_style.tasks.types import Tokenizer

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
    columns, last = columns_of(tokenizer, texts), len(texts) - 1
    # Metaspace puts one before the text that has no character of its own, and takes it from the next token.
    places = zip(tokenizer.convert_ids_to_tokens(columns["input_ids"]), columns["offsets"], strict=True)
    columns["offsets"] = [(0, 0) if token == "\u2581" else place for token, place in places]
    inside = [place for place, text in enumerate(columns["texts"]) if text == last]
    around = [place for place, text in enumerate(columns["texts"]) if text != last]
    room = max_length - len(around)
    if room < max(1, max_length // 8):
        problem = f"{max(0, room)} of finetune.max_length={max_length} tokens are left for the text"
        remedy = f"shorten the question, which has {columns['texts'].count(0)}, or train with a larger one"
        raise UserError(f"{row.place}: only {problem}; {remedy if last else 'raise it'}")
    shared = int(overlap * room)
    starts = range(0, max(1, len(inside) - shared) if inside else 0, room - shared)
    features: list[Feature] = []
    for start in starts:
        piece = inside[start : start + room]
        read = sorted([*around, *piece])
        begin = read.index(piece[0])
        end = begin + len(piece)
        own = (begin + shared // 2 * (start > 0), end - (shared - shared // 2) * (start != starts[-1]))
        tokens = {name: [column[place] for place in read] for name, column in columns.items()}
        features.append({**tokens, "first": start, "inside": (begin, end), "own": own, "long": len(starts) > 1})
    return features


def columns_of(tokenizer: Tokenizer, texts: Sequence[str], **options: Any) -> dict[str, list[Any]]:
    """Encode a text or a pair; return what there is of each token: what the model reads, its offsets and its text."""
    encoded = tokenizer(*([text] for text in texts), return_offsets_mapping=True, verbose=False, **options)
    columns = {name: encoded[name][0] for name in tokenizer.model_input_names if name in encoded}
    return {**columns, "offsets": encoded["offset_mapping"][0], "texts": encoded.sequence_ids(0)}


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
