"""Tags of words and the entities that they mark, the words of a text, and which token belongs to which word."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace

import regex

OUTSIDE = "O"
TAG = regex.compile(r"O|[BIESLU]-.+")

CHARACTER = "[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
"""A Chinese character or a Japanese syllable: a word by itself, for no blank tells where a longer one ends."""

WORD = regex.compile(rf"{CHARACTER}|(?:(?!{CHARACTER})[\p{{L}}\p{{M}}\p{{N}}\p{{Cf}}])+|\S")
"""Letters, marks and digits together, and each other character by itself."""

Range = tuple[int, int]
"""Where something begins in a text and where it has ended, in characters."""


@dataclass(frozen=True)
class Entity:
    """A stretch of a row, of a type: `start` to `end` count words, or characters."""

    type: str
    start: int
    end: int


def entities(tags: Sequence[str]) -> list[Entity]:
    """Return the entities that BIO, IOB1, IOBES or BILOU tags mark, read as conlleval does.

    A tag that does not go on with the one before it begins an entity, whatever its letter.
    """
    from seqeval.metrics.sequence_labeling import get_entities

    letters = {"L": "E", "U": "S"}
    chunks = get_entities([letters.get(tag[0], tag[0]) + tag[1:] for tag in tags])
    return [Entity(name, first, last + 1) for name, first, last in chunks]


def iob2(tags: Sequence[str]) -> list[str]:
    """Return tags of any scheme in IOB2, where each entity begins with B-."""
    return tagged([(place, place + 1) for place in range(len(tags))], entities(tags))


def tagged(pieces: Sequence[Range], spans: Sequence[Entity]) -> list[str]:
    """Return the IOB2 tag of each piece of a text: that of the first entity that has a part in it.

    Args:
        pieces: Words or tokens, in the order of the text.
        spans: Entities in characters, in the order of the text, none within another.
    """
    tags, begun = [], -1
    ends = [span.end for span in spans]
    for start, end in pieces:
        place = bisect_right(ends, start)
        if place == len(spans) or spans[place].start >= end:
            tags.append(OUTSIDE)
            continue
        tags.append(f"{'I' if place == begun else 'B'}-{spans[place].type}")
        begun = place
    return tags


def words(text: str) -> list[Range]:
    """Return where the words of a text are."""
    return [match.span() for match in WORD.finditer(text)]


@dataclass(frozen=True)
class Unit:
    """Words that share tokens, mostly one word, from the first to the last, and the place of their first token."""

    first: int
    last: int
    token: int


def units(pieces: Sequence[Range], tokens: Sequence[Range]) -> list[Unit]:
    """Divide words so that each token is in one part: a token may be a part of a word, or hold several.

    Words without tokens, which a tokenizer may have thrown away, and tokens without words are left out.

    Args:
        pieces: The words, in the order of the text.
        tokens: The tokens, in this order too.
    """
    starts, ends = [start for start, _ in pieces], [end for _, end in pieces]
    divided: list[Unit] = []
    for place, (start, end) in enumerate(tokens):
        low, high = bisect_right(ends, start), bisect_left(starts, end) - 1
        if start == end or low > high:
            continue
        if divided and low <= divided[-1].last:
            divided[-1] = replace(divided[-1], last=max(divided[-1].last, high))
        else:
            divided.append(Unit(low, high, place))
    return divided


def trimmed(text: str, piece: Range) -> Range:
    """Return a range of a text without the blanks at its ends."""
    start, end = piece
    inner = text[start:end]
    start += len(inner) - len(inner.lstrip())
    return start, start + len(inner.strip())
