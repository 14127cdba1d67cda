"""Entities as answers have them: made of tags, and compared with the right ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from ulmfit_style.tasks import tagging
from ulmfit_style.tasks.base import Answer
from ulmfit_style.tasks.report_parts import Listing, ReportPart
from ulmfit_style.tasks.tagging import OUTSIDE, Entity, Range, Unit

OUTCOMES = ("found", "of another type", "with other borders", "missed")
"""What may become of an entity."""

LONG = 4
"""Words from which on entities are counted together."""

Tag = tuple[str, float]
"""A tag and its probability."""


def tags_of_words(units: Sequence[Unit], tags: Sequence[str], count: int) -> list[str]:
    """Return the tag of each of `count` words from those of units; words without tokens go on, or are outside."""
    of_words = [OUTSIDE] * count
    for entity in tagging.entities(tags):
        first, last = units[entity.start].first, units[entity.end - 1].last
        of_words[first : last + 1] = [tags[entity.start], *[f"I-{entity.type}"] * (last - first)]
    return of_words


def labelled_tokens(text: str, pieces: Sequence[Range], tags: Sequence[Tag]) -> list[dict[str, Any]]:
    """Return each token that has a label, by its number from 1."""
    return [
        {"entity": tag, "score": round(score, 6), "index": index, "word": text[start:end], "start": start, "end": end}
        for index, ((start, end), (tag, score)) in enumerate(zip(pieces, tags, strict=True), start=1)
        if tag != OUTSIDE
    ]


def grouped(text: str, pieces: Sequence[Range], tags: Sequence[Tag]) -> list[dict[str, Any]]:
    """Return the entities that words or tokens make together, each with the mean of their scores."""
    entities = []
    for entity in tagging.entities([tag for tag, _ in tags]):
        scores = [score for _, score in tags[entity.start : entity.end]]
        start, end = pieces[entity.start][0], pieces[entity.end - 1][1]
        score = round(sum(scores) / len(scores), 6)
        word = text[start:end]
        entities.append({"entity_group": entity.type, "score": score, "word": word, "start": start, "end": end})
    return entities


def both_tags(answers: Sequence[Answer], targets: Sequence[Any]) -> tuple[list[list[str]], list[list[str]]]:
    """Return the tags of answers and targets: of words, or of the stretches between the borders of all entities."""
    both = []
    for answer, target in zip(answers, targets, strict=True):
        if target.get("tags") is not None:
            both.append((list(answer["tags"]), list(target["tags"])))
            continue
        sides = [_entities_in(answer["entities"]), _entities_in(target["entities"])]
        borders = sorted({place for side in sides for entity in side for place in (entity.start, entity.end)})
        predicted, right = (tagging.tagged(list(pairwise(borders)), side) for side in sides)
        both.append((predicted, right))
    return [predicted for predicted, _ in both], [right for _, right in both]


def lengths(side: Mapping[str, Any]) -> dict[Entity, int]:
    """Return the entities of an answer or a target, each with how many words it has."""
    if side.get("tags") is not None:
        return {entity: entity.end - entity.start for entity in tagging.entities(side["tags"])}
    words = {entity.get("start"): len(entity["word"].split()) for entity in side["entities"]}
    return {entity: words[entity.start] for entity in _entities_in(side["entities"])}


def _outcome(entity: Entity, predicted: Iterable[Entity]) -> str:
    """Return which of `OUTCOMES` a right entity has."""
    near = [other for other in predicted if other.start < entity.end and entity.start < other.end]
    if entity in near:
        return OUTCOMES[0]
    same = any((other.start, other.end) == (entity.start, entity.end) for other in near)
    return OUTCOMES[1] if same else OUTCOMES[2] if near else OUTCOMES[3]


def _entities_in(answered: Sequence[Mapping[str, Any]]) -> list[Entity]:
    """Return the entities of an answer; tokens that stand by themselves are grouped."""
    if not answered or answered[0].get("index") is None:
        return [Entity(entity["entity_group"], entity["start"], entity["end"]) for entity in answered]
    count = answered[-1]["index"]
    tags, pieces = [OUTSIDE] * count, [(0, 0)] * count
    for token in answered:
        tags[token["index"] - 1], pieces[token["index"] - 1] = token["entity"], (token["start"], token["end"])
    return [Entity(span.type, pieces[span.start][0], pieces[span.end - 1][1]) for span in tagging.entities(tags)]


def report_parts(answers: Sequence[Answer], targets: Sequence[Any]) -> list[ReportPart]:
    """Return what became of the right entities, by their type, and how many are found, by their length."""
    rows = [(lengths(target), lengths(answer)) for answer, target in zip(answers, targets, strict=True)]
    outcomes = Counter((entity.type, _outcome(entity, told)) for right, told in rows for entity in right)
    types = sorted({kind for kind, _ in outcomes})
    found = [{entity: length for entity, length in right.items() if entity in told} for right, told in rows]
    right, told, hits = (
        Counter(min(length, LONG) for by_entity in side for length in by_entity.values())
        for side in ([right for right, _ in rows], [told for _, told in rows], found)
    )
    by_length = [
        [
            *(str(length) if length < LONG else f"{LONG} or more", right[length], told[length]),
            *(hits[length] / side[length] if side[length] else None for side in (right, told)),
        ]
        for length in sorted(right | told)
    ]
    by_type = [(kind, *(outcomes[kind, outcome] for outcome in OUTCOMES)) for kind in types]
    return [
        Listing("What became of the entities", ("type", *OUTCOMES), by_type),
        Listing("By length", ("words", "entities", "told", "recall", "precision"), by_length),
    ]
