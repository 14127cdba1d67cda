"""Tags of words and the entities that they tell: schemes, their repair, and which token belongs to which word."""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

OUTSIDE = "O"
TAG = re.compile(r"O|[BIESLU]-.+")

ALONE = (("\u3040", "\u30ff"), ("\u3400", "\u9fff"), ("\uf900", "\ufaff"), ("\U00020000", "\U0003ffff"))
"""Chinese characters and Japanese syllables."""

Range = tuple[int, int]
"""Where something begins in a text and where it has ended, in characters."""


@dataclass(frozen=True)
class Entity:
    """A stretch of a row, of a type: `start` to `end` count words, or characters."""

    type: str
    start: int
    end: int


def entities(tags: Sequence[str]) -> list[Entity]:
    """Return the entities that tags of any scheme tell, as conlleval does: a tag that does not go on begins another."""
    found: list[Entity] = []
    before, ended = "", True
    for place, tag in enumerate(tags):
        letter, kind = _parts(tag)
        if kind and (ended or kind != before or letter in "BS"):
            found.append(Entity(kind, place, place + 1))
        elif kind:
            found[-1] = Entity(kind, found[-1].start, place + 1)
        before, ended = kind, not kind or letter in "ES"
    return found


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


def mixed(tags: Sequence[str]) -> bool:
    """Tell whether tags have letters of both IOBES and BILOU."""
    letters = {tag[0] for tag in tags}
    return bool(letters & set("ES")) and bool(letters & set("LU"))


def repairs(sequences: Sequence[Sequence[str]]) -> tuple[str, int, int]:
    """Return the scheme of tags, how many entities break its rules, and how many entities there are.

    Where there are only B- and I-, it is IOB1 if B- stands nowhere but between entities of a type, and IOB2 otherwise.
    """
    letters = {tag[0] for tags in sequences for tag in tags}
    shapes: Counter[str] = Counter()
    for tags in sequences:
        last: Entity | None = None
        for entity in entities(tags):
            adjacent = last is not None and (last.end, last.type) == (entity.start, entity.type)
            shape = "".join(_parts(tag)[0] for tag in tags[entity.start : entity.end])
            shapes[("+" if adjacent else "") + re.sub("I+", "I", shape)] += 1
            last = entity
    count = shapes.total()
    if letters & set("ESLU"):
        whole = ("S", "BE", "BIE")
        scheme = "BILOU" if letters & set("LU") else "IOBES"
        return scheme, count - sum(shapes[more + shape] for more in ("", "+") for shape in whole), count
    loose = shapes["I"]
    if loose and not shapes["B"] + shapes["BI"]:
        return "IOB1", 0, count
    return "IOB2", loose, count


def words(text: str) -> list[Range]:
    """Return the words of a text: letters, marks and digits together, and each other character by itself.

    Chinese characters and Japanese syllables are words by themselves too, for no blank tells where theirs end.
    """
    found, place = [], 0
    for kind, run in groupby(text, _kind):
        length = len(list(run))
        if kind == "word":
            found.append((place, place + length))
        elif kind == "alone":
            found += [(start, start + 1) for start in range(place, place + length)]
        place += length
    return found


@dataclass(frozen=True)
class Unit:
    """Words that share tokens, mostly one word, and the places of these tokens."""

    first: int
    last: int
    tokens: Sequence[int]


def units(pieces: Sequence[Range], tokens: Sequence[Range]) -> Iterator[Unit]:
    """Divide words so that each token is in one part: a token may be a part of a word, or hold several.

    What is left out are words without tokens, which a tokenizer may have thrown away, and tokens without words.

    Args:
        pieces: The words, in the order of the text.
        tokens: The tokens, in this order too.
    """
    starts, ends = [start for start, _ in pieces], [end for _, end in pieces]
    held: list[int] = []
    first = last = -1
    for place, (start, end) in enumerate(tokens):
        low, high = bisect_right(ends, start), bisect_left(starts, end) - 1
        if start == end or low > high:
            continue
        if held and low > last:
            yield Unit(first, last, held)
            held = []
        first, last = (min(first, low), max(last, high)) if held else (low, high)
        held.append(place)
    if held:
        yield Unit(first, last, held)


def trimmed(text: str, piece: Range) -> Range:
    """Return a range of a text without the blanks at its ends."""
    start, end = piece
    inner = text[start:end]
    start += len(inner) - len(inner.lstrip())
    return start, start + len(inner.strip())


def _parts(tag: str) -> tuple[str, str]:
    """Return a tag's letter, as IOBES has it, and its type: both empty outside."""
    letter, _, kind = tag.partition("-")
    return ("", "") if tag == OUTSIDE else ({"L": "E", "U": "S"}.get(letter, letter), kind)


def _kind(character: str) -> str:
    if any(first <= character <= last for first, last in ALONE):
        return "alone"
    category = unicodedata.category(character)
    if category[0] in "LMN" or category == "Cf":
        return "word"
    return "blank" if character.isspace() else "alone"
