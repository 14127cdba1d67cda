"""Rows of words and their tags, or of a text and its entities in characters, as files have them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from ulmfit_style.tasks import tagging
from ulmfit_style.tasks.base import Row
from ulmfit_style.tasks.tagging import Entity, Range


def is_words(row: Row) -> bool:
    """Tell whether a row's text is divided into words."""
    return isinstance(row.fields["text"], (list, tuple, np.ndarray))


def text_of(row: Row) -> str:
    """Return a row's text; words have a blank between them."""
    text = row.fields["text"]
    return " ".join(map(str, text)) if is_words(row) else "" if text is None else str(text)


def words_of(row: Row) -> list[Range]:
    """Return where the words of a row's text are."""
    if not is_words(row):
        return tagging.words(text_of(row))
    words, start = [], 0
    for word in map(str, row.fields["text"]):
        words.append((start, start + len(word)))
        start += len(word) + 1
    return words


def entity_of(span: Any) -> Entity:
    """Return an entity of a file, in characters: [0, 5, person] or {start: 0, end: 5, label: person}.

    The answer of a model has `entity_group` for `label`.
    """
    if isinstance(span, dict):
        span = (span["start"], span["end"], span.get("label") or span.get("entity_group") or "")
    start, end, name = span
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
        if tagging.TAG.fullmatch(tag) is None:
            shape = "O, or a letter and a type, as in B-person (BIO, IOBES or BILOU)"
            return f"word {number}, '{word}', has the tag '{tag}'; a tag is {shape}"
    return None


def spans_problem(text: str, spans: Sequence[Any]) -> str | None:
    """Return what is wrong with the entities of a text."""
    entities = []
    for span in spans:
        is_whole = {"start", "end"} <= set(span) if isinstance(span, dict) else len(span) == 3
        entity = entity_of(span) if is_whole else Entity("", 0, 0)
        if not isinstance(entity.start, int) or not isinstance(entity.end, int) or not entity.type:
            return f"{span} is no entity; write {{start: 0, end: 5, label: person}} or [0, 5, person]"
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
