"""Entities: as files have them, as tags mark them, and which token of a model belongs to which word."""

import re
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Any, NamedTuple

from ulmfit_style.tasks.base import Row
from ulmfit_style.tasks.windows import Range
from ulmfit_style.words import CHARACTER

OUTSIDE = "O"
TAG = re.compile(r"O|[BIESLU]-.+")

WORD = rf"{CHARACTER}|(?:(?!{CHARACTER})[\p{{L}}\p{{M}}\p{{N}}\p{{Cf}}])+|[^\s\x1c-\x1f]"
"""Letters, marks and digits together, and each other character by itself, but for what str.strip takes for a blank."""


class Entity(NamedTuple):
    """A stretch of a row, of a type: `start` to `end` count words, or characters."""

    type: str
    start: int
    end: int


def is_words(row: Row) -> bool:
    """Tell whether a row's text is divided into words."""
    return isinstance(row.fields["text"], (list, tuple))


def text_of(row: Row) -> str:
    """Return a row's text; words have a blank between them."""
    text = row.fields["text"]
    return " ".join(map(str, text)) if is_words(row) else "" if text is None else str(text)


def words_of(row: Row) -> list[Range]:
    """Return where the words of a row's text are."""
    if not is_words(row):
        return words(text_of(row))
    lengths = [len(str(word)) for word in row.fields["text"]]
    starts = accumulate((length + 1 for length in lengths), initial=0)
    return [(start, start + length) for start, length in zip(starts, lengths, strict=False)]


def entity_of(span: Any) -> Entity:
    """Return an entity of a file, in characters: [0, 5, person] or {start: 0, end: 5, label: person}.

    The answer of a model has `entity_group` for `label`, doccano `start_offset`, and Argilla the label first.
    """
    if isinstance(span, dict):
        start, end = (span.get(side, span.get(f"{side}_offset")) for side in ("start", "end"))
        span = (start, end, span.get("label") or span.get("entity_group") or next(iter(span.get("labels") or ()), ""))
    start, end, name = span if not isinstance(span[0], str) else (*span[1:], span[0])
    return Entity(str(name).strip(), start, end)


def words_problem(words: Sequence[Any], tags: Sequence[str]) -> str | None:
    """Return what is wrong with words and their tags."""
    if not words:
        return "the text is empty"
    if len(words) != len(tags):
        return f"has {len(words)} words and {len(tags)} tags"
    for number, (word, tag) in enumerate(zip(words, tags, strict=True), start=1):
        if not isinstance(word, str) or not word:
            return f"word {number} is {'no text' if word else 'empty'}"
        if tag.isdecimal():
            return f"word {number}, '{word}', has the number {tag} for a tag, which task.tags does not name"
        if TAG.fullmatch(tag) is None:
            shape = "O, or a letter and a type, as in B-person (BIO, IOBES or BILOU)"
            return f"word {number}, '{word}', has the tag '{tag}'; a tag is {shape}"
    return None


def spans_problem(text: str, spans: Sequence[Any]) -> str | None:
    """Return what is wrong with the entities of a text."""
    entities = []
    for span in spans:
        is_whole = isinstance(span, dict) or (isinstance(span, list) and len(span) == 3)
        entity = entity_of(span) if is_whole else Entity("", 0, 0)
        if not isinstance(entity.start, int) or not isinstance(entity.end, int) or not entity.type:
            return f"{span} is not an entity; write {{start: 0, end: 5, label: person}} or [0, 5, person]"
        if not 0 <= entity.start < entity.end <= len(text) or not text[entity.start : entity.end].strip():
            where = f"{entity.start} to {entity.end} of the text, which has {len(text)} characters"
            return f"the entity '{entity.type}' has no letters: it is {where}"
        entities.append(entity)
    for first, second in pairwise(sorted(entities, key=lambda entity: (entity.start, entity.end))):
        if second.start < first.end:
            both = f"{first.start} to {first.end} and {second.start} to {second.end}"
            return f"the entities {both} overlap; a character can be in one only"
    return None


def entities_within_words(words: Sequence[Range], entities: Sequence[Entity]) -> int:
    """Return how many entities begin or end within a word."""
    inside = {place for start, end in words for place in range(start + 1, end)}
    return sum(bool({entity.start, entity.end} & inside) for entity in entities)


def of_tags(tags: Sequence[str]) -> list[Entity]:
    """Return the entities that BIO, IOB1, IOBES or BILOU tags mark, read as conlleval does.

    A tag that does not go on with the one before it begins an entity, whatever its letter.
    """
    from seqeval.metrics.sequence_labeling import get_entities

    chunks = get_entities([{"L": "E", "U": "S"}.get(tag[0], tag[0]) + tag[1:] for tag in tags])
    return [Entity(name, first, last + 1) for name, first, last in chunks]


def iob2(tags: Sequence[str]) -> list[str]:
    """Return tags of any scheme in IOB2, where each entity begins with B-."""
    return tagged([(place, place + 1) for place in range(len(tags))], of_tags(tags))


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
        else:
            tags.append(f"{'I' if place == begun else 'B'}-{spans[place].type}")
            begun = place
    return tags


def words(text: str) -> list[Range]:
    """Return where the words of a text are."""
    import regex

    return [match.span() for match in regex.finditer(WORD, text)]


class Unit(NamedTuple):
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
            divided[-1] = divided[-1]._replace(last=max(divided[-1].last, high))
        else:
            divided.append(Unit(low, high, place))
    return divided
