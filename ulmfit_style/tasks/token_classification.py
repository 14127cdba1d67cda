"""Token classification: the entities of a text, each a stretch of it with a type."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, final

import numpy as np
from pydantic import Field

from ulmfit_style.config.schema import Unhashed
from ulmfit_style.errors import UserError
from ulmfit_style.tasks import tagging
from ulmfit_style.tasks.base import (
    IGNORED,
    Answer,
    Architecture,
    Column,
    ExplainedPart,
    Feature,
    Listing,
    ReportPart,
    Row,
    Task,
)
from ulmfit_style.tasks.tagging import OUTSIDE, Entity, Range, Unit
from ulmfit_style.tasks.text import TEXT_COLUMNS
from ulmfit_style.tasks.windows import windows

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from ulmfit_style.metrics.intervals import Array, Points

TOKEN_COLUMNS = ("tokens", "words")
"""Names of columns that are surely the words of a text."""

LABEL_COLUMNS = (
    *("tags", "ner_tags", "ner", "entities", "spans", "labels", "label", "annotations"),
    *("태그", "개체명", "라벨", "레이블"),
)

TYPE_KEYS = ("label", "entity_group", "type")
"""What may hold the type of an entity; the second is what an answer has."""

NO_ENTITY = "no entity"
"""The class of a row without entities."""

FATES = ("found", "of another type", "with other borders", "missed")
"""What may become of an entity."""

LONG = 4
"""Words from which on entities are counted together."""

MOST_BROKEN = 0.1
"""The share of the entities that may break the rules of IOBES before it is taken for a mixture of schemes."""


@final
class TokenClassification(Task):
    """Rows of words and their tags (BIO, IOB1, IOBES, BILOU), or of a text and its entities by their characters."""

    metric: ClassVar[str] = "micro_f1"
    rankings: ClassVar[Sequence[str]] = ("macro_f1", "strict_f1", "precision", "recall")
    answer_options: ClassVar[Sequence[str]] = ("aggregation", "overlap")

    text: Annotated[str | None, Unhashed] = None
    """The column of the words, a list, or of the text; null: found by its name (tokens, words, text ...). The columns
    of a .conll file are called tokens (the first), column_2, column_3 ... and tags (the last)."""
    label: Annotated[str | None, Unhashed] = None
    """The column of the tags of the words, or of the entities of the text in characters, each {start: 0, end: 5, label:
    person} or [0, 5, person]; null: found by its name (tags, ner_tags, entities, spans ...)."""
    tags: Annotated[tuple[str, ...] | None, Unhashed] = None
    """The tags in the order of their numbers, where the file holds numbers: [O, B-person, I-person]."""
    subwords: Literal["first", "all"] = "first"
    """Which tokens of a word its tag is learnt on: the first, or all of them."""
    aggregation: Literal["none", "simple", "first", "average", "max"] = "first"
    """How the labels of tokens become entities, as in transformers. none: each token stands by itself; simple: tokens
    that go on are one entity; first, average, max: a word has one tag, that of its first token, of the mean of its
    tokens, or of the one that is surest. With subwords=first only `first` reads what was learnt."""
    overlap: Annotated[float, Field(ge=0, le=0.9)] = 0.25
    """The share of its tokens that a window of a long text has in common with the next one."""

    @property
    def long_texts(self) -> str:
        return "read in windows that overlap"

    def auto_class(self, architecture: Architecture) -> str:
        return "AutoModelForTokenClassification"

    def inputs(self) -> dict[str, Column]:
        return {"text": Column("task.text", self.text, (*TOKEN_COLUMNS, *TEXT_COLUMNS))}

    def targets(self) -> dict[str, Column]:
        hint = "; a file with a word and its tag a line is called .conll"
        return {"label": Column("task.label", self.label, LABEL_COLUMNS, hint)}

    @classmethod
    def certainty(cls, texts: Sequence[Any], labels: Sequence[Any]) -> int:
        entries = (entry for label in labels if isinstance(label, list) for entry in label)
        words = any(isinstance(text, list) for text in texts)
        return 3 if words or any(isinstance(entry, (dict, list)) for entry in entries) else 0

    def row_problem(self, row: Row) -> str | None:
        text, label = row.fields["text"], row.fields["label"]
        if not isinstance(label, list):
            return "the label is neither a list of tags nor one of entities"
        in_characters = [isinstance(entry, (dict, list)) for entry in label]
        if _is_words(row):
            return "the text is words, and its entities are in characters" if any(in_characters) else self._wrong(row)
        if not isinstance(text, str | None):
            return "the text is neither text nor words"
        if not text or not text.strip():
            return "the text is empty"
        if not all(in_characters):
            return "the text is not divided into words, and the label is a list of tags"
        return _wrong_spans(text, label)

    def _wrong(self, row: Row) -> str | None:
        """Return what is wrong with words and their tags."""
        words, tags = row.fields["text"], self._tags(row)
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
        return "the tags are of two schemes, IOBES and BILOU" if tagging.mixed(tags) else None

    def dataset_problem(self, rows: Sequence[Row]) -> str | None:
        if not any(map(self._entities, rows)):
            return "no row has an entity; is task.label the column of the tags?"
        tags = [self._tags(row) for row in rows if _is_words(row)]
        if tagging.mixed([tag for own in tags for tag in own]):
            return "the tags are of two schemes: those of some rows are IOBES, those of others BILOU"
        scheme, broken, count = tagging.repairs(tags)
        if scheme in ("IOBES", "BILOU") and broken > MOST_BROKEN * count:
            return f"the tags are of two schemes: {broken:,} of {count:,} entities are not whole as {scheme} has it"
        return None

    def remarks(self, rows: Sequence[Row]) -> list[str]:
        told = []
        scheme, broken, count = tagging.repairs([self._tags(row) for row in rows if _is_words(row)])
        if broken:
            how = "begin with I-, and are taken as if with B-" if scheme == "IOB2" else "are not whole, and are mended"
            told.append(f"the tags are {scheme}, but {broken:,} of {count:,} entities {how}")
        whole = [row for row in rows if not _is_words(row)]
        spans = [(row.fields["text"], _range(span)) for row in whole for span in row.fields["label"]]
        blank = sum(tagging.trimmed(text, span) != span for text, span in spans)
        if blank:
            told.append(f"{blank:,} of {len(spans):,} entities begin or end with a blank, which is left out")
        cutting = sum(_cut(tagging.words(row.fields["text"]), self._entities(row)) for row in whole)
        if cutting:
            learnt = "as whole words" if self.subwords == "first" else "by their tokens"
            how = f"learnt {learnt}, and scored as they are (task.subwords, task.aggregation)"
            told.append(f"{cutting:,} of {len(spans):,} entities begin or end within a word; they are {how}")
        return told

    def texts(self, row: Row) -> list[str]:
        return [_text(row)]

    def target(self, row: Row) -> dict[str, Any]:
        """Return the tags of the words in IOB2, or the entities of the text."""
        if _is_words(row):
            return {"tags": tagging.iob2(self._tags(row))}
        text = _text(row)
        return {"entities": [_told(text, entity.type, entity.start, entity.end) for entity in self._entities(row)]}

    def row(self, *texts: str) -> Row:
        if len(texts) != 1:
            raise UserError(f"this model answers one text; {len(texts)} texts were given")
        return Row("text", 1, {"text": texts[0]})

    def labels_of(self, row: Row) -> list[str]:
        return sorted({entity.type for entity in self._entities(row)}) or [NO_ENTITY]

    def strata(self, rows: Sequence[Row]) -> list[str]:
        # Each split gets its share of a row's rarest type.
        labels = [self.labels_of(row) for row in rows]
        counts = Counter(label for own in labels for label in own)
        return [min(own, key=lambda label: (counts[label], label)) for own in labels]

    def classes(self, rows: Sequence[Row]) -> list[str]:
        return [NO_ENTITY, *sorted({label for row in rows for label in self.labels_of(row)} - {NO_ENTITY})]

    def head(self, classes: Sequence[str]) -> dict[str, Any]:
        # A type has both tags, whether or not the rows show them: entities of several words may come.
        names = [OUTSIDE, *(f"{letter}-{name}" for name in classes if name != NO_ENTITY for letter in "BI")]
        numbers = {name: number for number, name in enumerate(names)}
        return {"num_labels": len(names), "id2label": dict(enumerate(names)), "label2id": numbers}

    def encode(
        self, row: Row, tokenizer: PreTrainedTokenizerBase, max_length: int, label2id: Mapping[str, int] | None
    ) -> list[Feature]:
        features = windows(tokenizer, _text(row), max_length=max_length, overlap=self.overlap)
        if label2id is None:
            return features
        labels = [[IGNORED] * len(feature["offsets"]) for feature in features]
        places = [(window, place) for window, feature in enumerate(features) for place in range(*feature["own"])]
        for token, tag in self._learnt(row, _tokens(row, features)):
            window, place = places[token]
            labels[window][place] = label2id[tag]
        unread = ("offsets", "texts", "inside", "own")
        return [
            {**{name: value for name, value in feature.items() if name not in unread}, "labels": own}
            for feature, own in zip(features, labels, strict=True)
            if set(own) != {IGNORED}  # a window within one word
        ]

    def loss(self, model: nn.Module, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        from torch.nn.functional import cross_entropy

        inputs = {name: tensor for name, tensor in batch.items() if name not in ("labels", "weight")}
        logits = model(**inputs).logits.float().transpose(1, 2)  # (batch, outputs, length)
        losses = cross_entropy(logits, batch["labels"], ignore_index=IGNORED, reduction="none")
        return (losses.sum(dim=1) * batch.get("weight", 1)).sum()

    def count(self, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        return (batch["labels"].ne(IGNORED).sum(dim=1) * batch.get("weight", 1)).sum()

    def answer(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, batch: Mapping[str, torch.Tensor]
    ) -> list[Any]:
        """Return of each feature the names of the outputs, and the probabilities of its tokens, (length, outputs)."""
        probabilities = model(**batch).logits.float().softmax(dim=-1).cpu().numpy()
        there = batch["attention_mask"].bool().cpu().numpy()
        names = list((model.config.id2label or {}).values())
        return [(names, own[mask]) for own, mask in zip(probabilities, there, strict=True)]

    def merge(self, row: Row, features: Sequence[Feature], said: Sequence[Any]) -> Answer:
        text, words, tokens = _text(row), _words(row), _tokens(row, features)
        names: list[str] = said[0][0] if said else []
        own = [part[slice(*feature["own"])] for feature, (_, part) in zip(features, said, strict=True)]
        probabilities: Array = np.concatenate(own) if own else np.zeros((0, 0))  # (tokens, outputs)

        def read(places: Sequence[int]) -> tuple[str, float]:
            """Return the tag of a word with tokens in these places, and how sure it is."""
            found = probabilities[list(places)]
            if self.aggregation == "average":
                one = found.mean(axis=0)
            else:
                one = found[found.max(axis=1).argmax() if self.aggregation == "max" else 0]
            return names[int(one.argmax())], float(one.max())

        parts = list(tagging.units(words, tokens))
        pieces, found = [_range_of(part, words) for part in parts], [read(part.tokens) for part in parts]
        answer: Answer = {"tags": _by_words(parts, [tag for tag, _ in found], len(words))} if _is_words(row) else {}
        if self.aggregation in ("none", "simple"):
            places = [place for place, (start, end) in enumerate(tokens) if start < end]
            pieces, found = [tokens[place] for place in places], [read([place]) for place in places]
        tell = _each if self.aggregation == "none" else _grouped
        return {**answer, "entities": tell(text, pieces, found)}

    def explained_parts(
        self, row: Row, features: Sequence[Feature], answer: Answer, names: Mapping[int, str]
    ) -> list[ExplainedPart]:
        """Return each entity, read from the window that has its first token: the tags that its tokens have there."""
        found = []
        for entity in answer["entities"]:
            kind = entity.get("entity_group", entity.get("entity", "")[2:])
            outputs = [number for number, name in names.items() if name[2:] == kind]
            for part, feature in enumerate(features):
                first, last = feature["own"]
                places = [
                    place
                    for place in range(first, last)
                    if max(feature["offsets"][place][0], entity["start"])
                    < min(feature["offsets"][place][1], entity["end"])
                ]
                if places:
                    name = f"{kind}: {entity['word']}"
                    found.append(ExplainedPart(name, part, partial(_likeliest, places=places, outputs=outputs)))
                    break
        return found

    def returned(self, answer: Answer) -> Any:
        """Return the entities of a text."""
        return answer["entities"]

    def points(self, answers: Sequence[Answer], targets: Sequence[Any]) -> Points:
        from ulmfit_style.metrics import entities

        return entities.points(*_sides(answers, targets))

    def of_means(self, means: Array) -> Array:
        from ulmfit_style.metrics.intervals import ratio

        return ratio(means)

    def score(self, answers: Sequence[Answer], targets: Sequence[Any]) -> dict[str, float]:
        from ulmfit_style.metrics import entities

        return entities.scores(*_sides(answers, targets))

    def intervals(self, answers: Sequence[Answer], targets: Sequence[Any]) -> dict[str, tuple[float, float]]:
        from ulmfit_style.metrics import entities

        return entities.intervals(*_sides(answers, targets))

    def class_report(self, answers: Sequence[Answer], targets: Sequence[Any]) -> list[dict[str, Any]]:
        from ulmfit_style.metrics import entities

        return entities.report(*_sides(answers, targets))

    def errors(self, answers: Sequence[Answer], targets: Sequence[Any]) -> Sequence[float]:
        """Return how many entities are missing, too many, or of another type."""
        return [
            len(set(_lengths(answer)) ^ set(_lengths(target))) for answer, target in zip(answers, targets, strict=True)
        ]

    def in_words(self, row: Row | None, answer: Answer, target: Any) -> tuple[str, str]:
        if target.get("tags") is None:
            right = [(entity["entity_group"], entity["word"]) for entity in target["entities"]]
        else:
            words = [_text(row)[start:end] for start, end in _words(row)] if row is not None else []
            right = [(one.type, " ".join(words[one.start : one.end])) for one in tagging.entities(target["tags"])]
        ours = [(one.get("entity_group") or one["entity"], one["word"]) for one in answer["entities"]]
        told, said = ("; ".join(f"{kind}: {word}".strip(": ") for kind, word in side) for side in (right, ours))
        return told or NO_ENTITY, said or NO_ENTITY

    def confidence(self, answer: Answer, target: Any) -> float | None:
        return max(
            (score for score, is_right in self.calibration_pairs([answer], [target]) if not is_right), default=None
        )

    def calibration_pairs(self, answers: Sequence[Answer], targets: Sequence[Any]) -> list[tuple[float, bool]]:
        """Return how sure the model is of each entity; none where tokens stand by themselves."""
        found = []
        for answer, target in zip(answers, targets, strict=True):
            ours, right = list(_lengths(answer)), _lengths(target)
            if len(ours) == len(answer["entities"]):
                scores = [entity["score"] for entity in answer["entities"]]
                found += [(score, one in right) for score, one in zip(scores, ours, strict=True)]
        return found

    def report_parts(self, answers: Sequence[Answer], targets: Sequence[Any]) -> list[ReportPart]:
        became: Counter[tuple[str, str]] = Counter()
        there, hits, told = Counter[int](), Counter[int](), Counter[int]()
        for answer, target in zip(answers, targets, strict=True):
            ours, right = _lengths(answer), _lengths(target)
            became.update((one.type, _fate(one, ours)) for one in right)
            for counts, side in (
                (there, right),
                (told, ours),
                (hits, {one: right[one] for one in right if one in ours}),
            ):
                counts.update(min(length, LONG) for length in side.values())
        types = sorted({kind for kind, _ in became})
        fates = [(kind, *(became[kind, fate] for fate in FATES)) for kind in types]
        lengths = [
            [
                *(str(length) if length < LONG else f"{LONG} or more", there[length], told[length]),
                *(hits[length] / counts[length] if counts[length] else None for counts in (there, told)),
            ]
            for length in sorted(there | told)
        ]
        return [
            Listing("What became of the entities", ("type", *FATES), fates),
            Listing("By length", ("words", "entities", "told", "recall", "precision"), lengths),
        ]

    def _tags(self, row: Row) -> list[str]:
        """Return the tags of a labelled row, by their names where they have numbers."""
        tags = [str(tag).strip() for tag in row.fields["label"]]
        names = dict(zip(map(str, range(len(self.tags))), self.tags, strict=True)) if self.tags else {}
        return [names.get(tag, tag) for tag in tags]

    def _entities(self, row: Row) -> list[Entity]:
        """Return the entities of a labelled row, in characters of its text."""
        if not _is_words(row):
            text = row.fields["text"]
            spans = [Entity(_type(span), *tagging.trimmed(text, _range(span))) for span in row.fields["label"]]
            return sorted(spans, key=lambda span: span.start)
        words, found = _words(row), tagging.entities(self._tags(row))
        return [Entity(entity.type, words[entity.start][0], words[entity.end - 1][1]) for entity in found]

    def _learnt(self, row: Row, tokens: Sequence[Range]) -> list[tuple[int, str]]:
        """Return which tokens have a tag to learn, and which tag."""
        if self.subwords == "all":
            places = [place for place, (start, end) in enumerate(tokens) if start < end]
            pieces = [tokens[place] for place in places]
        else:
            words = _words(row)
            parts = list(tagging.units(words, tokens))
            places, pieces = [part.tokens[0] for part in parts], [_range_of(part, words) for part in parts]
        return list(zip(places, tagging.tagged(pieces, self._entities(row)), strict=True))


def _likeliest(logits: torch.Tensor, places: Sequence[int], outputs: Sequence[int]) -> torch.Tensor:
    """Return the sum over tokens of the higher logit of a type's two tags, (batch,), from (batch, length, outputs)."""
    return logits[:, places][..., outputs].amax(dim=-1).sum(dim=-1)


def _is_words(row: Row) -> bool:
    """Tell whether a row's text is divided into words."""
    return isinstance(row.fields["text"], (list, tuple, np.ndarray))


def _text(row: Row) -> str:
    """Return a row's text; words have a blank between them."""
    text = row.fields["text"]
    return " ".join(map(str, text)) if _is_words(row) else "" if text is None else str(text)


def _words(row: Row) -> list[Range]:
    """Return where the words of a row's text are."""
    if not _is_words(row):
        return tagging.words(_text(row))
    words, start = [], 0
    for word in map(str, row.fields["text"]):
        words.append((start, start + len(word)))
        start += len(word) + 1
    return words


def _tokens(row: Row, features: Sequence[Feature]) -> list[Range]:
    """Return where each token of a row's text is, whichever window it belongs to, without blanks at its ends."""
    text = _text(row)
    return [
        tagging.trimmed(text, piece) for feature in features for piece in feature["offsets"][slice(*feature["own"])]
    ]


def _range_of(part: Unit, words: Sequence[Range]) -> Range:
    return words[part.first][0], words[part.last][1]


def _range(span: Any) -> Range:
    """Return where an entity of a file begins and ends."""
    return (span["start"], span["end"]) if isinstance(span, dict) else (span[0], span[1])


def _type(span: Any) -> str:
    """Return the type of an entity of a file."""
    if isinstance(span, dict):
        return next((str(span[key]).strip() for key in TYPE_KEYS if span.get(key) is not None), "")
    return str(span[2]).strip()


def _wrong_spans(text: str, spans: Sequence[Any]) -> str | None:
    """Return what is wrong with the entities of a text."""
    for span in spans:
        whole = {"start", "end"} <= set(span) if isinstance(span, dict) else len(span) == 3
        if not whole or not all(isinstance(place, int) for place in _range(span)) or not _type(span):
            return f"{span} is no entity; write {{start: 0, end: 5, label: person}} or [0, 5, person]"
        start, end = _range(span)
        if not 0 <= start < end <= len(text):
            return f"the entity {start} to {end} ('{_type(span)}') is not in the text, which has {len(text)} characters"
        if not text[start:end].strip():
            return f"the entity {start} to {end} ('{_type(span)}') holds nothing but blanks"
    places = sorted(map(_range, spans))
    for (start, end), (other, last) in pairwise(places):
        if other < end:
            return f"the entities {start} to {end} and {other} to {last} overlap; a character can be in one only"
    return None


def _cut(words: Sequence[Range], found: Sequence[Entity]) -> int:
    """Return how many entities begin or end within a word."""
    borders = {place for start, end in words for place in range(start + 1, end)}
    return sum(bool({entity.start, entity.end} & borders) for entity in found)


def _by_words(parts: Sequence[Unit], tags: Sequence[str], count: int) -> list[str]:
    """Return the tag of each of `count` words from those of the parts; words without tokens go on, or are outside."""
    found = [OUTSIDE] * count
    for entity in tagging.entities(tags):
        first, last = parts[entity.start].first, parts[entity.end - 1].last
        found[first : last + 1] = [tags[entity.start], *[f"I-{entity.type}"] * (last - first)]
    return found


def _told(text: str, name: str, start: int, end: int) -> dict[str, Any]:
    return {"entity_group": name, "word": text[start:end], "start": start, "end": end}


def _each(text: str, pieces: Sequence[Range], found: Sequence[tuple[str, float]]) -> list[dict[str, Any]]:
    """Return each token that has a label, by its number from 1."""
    return [
        {"entity": tag, "score": round(score, 6), "index": index, "word": text[start:end], "start": start, "end": end}
        for index, ((start, end), (tag, score)) in enumerate(zip(pieces, found, strict=True), start=1)
        if tag != OUTSIDE
    ]


def _grouped(text: str, pieces: Sequence[Range], found: Sequence[tuple[str, float]]) -> list[dict[str, Any]]:
    """Return the entities that words or tokens make together, each with the mean of their scores."""
    told = []
    for entity in tagging.entities([tag for tag, _ in found]):
        scores = [score for _, score in found[entity.start : entity.end]]
        start, end = pieces[entity.start][0], pieces[entity.end - 1][1]
        score = round(sum(scores) / len(scores), 6)
        told.append({"entity_group": entity.type, "score": score, "word": text[start:end], "start": start, "end": end})
    return told


def _sides(answers: Sequence[Answer], targets: Sequence[Any]) -> tuple[list[list[str]], list[list[str]]]:
    """Return the tags of both sides, row by row: of words, or of the stretches between the borders of all entities."""
    predicted, right = [], []
    for answer, target in zip(answers, targets, strict=True):
        if target.get("tags") is not None:
            sides = [answer["tags"], target["tags"]]
        else:
            spans = [_spans(answer["entities"]), _spans(target["entities"])]
            borders = sorted({place for side in spans for span in side for place in (span.start, span.end)})
            sides = [tagging.tagged(list(pairwise(borders)), side) for side in spans]
        predicted.append(list(sides[0]))
        right.append(list(sides[1]))
    return predicted, right


def _lengths(side: Mapping[str, Any]) -> dict[Entity, int]:
    """Return the entities of an answer or a target, each with how many words it has."""
    if side.get("tags") is not None:
        return {entity: entity.end - entity.start for entity in tagging.entities(side["tags"])}
    words = {entity.get("start"): len(entity["word"].split()) for entity in side["entities"]}
    return {entity: words[entity.start] for entity in _spans(side["entities"])}


def _fate(entity: Entity, told: Iterable[Entity]) -> str:
    """Return which of `FATES` a right entity has among those that were told."""
    near = [other for other in told if other.start < entity.end and entity.start < other.end]
    if entity in near:
        return FATES[0]
    same = any((other.start, other.end) == (entity.start, entity.end) for other in near)
    return FATES[1] if same else FATES[2] if near else FATES[3]


def _spans(told: Sequence[Mapping[str, Any]]) -> list[Entity]:
    """Return entities that were told; tokens that were told by themselves are grouped."""
    if told and told[0].get("index") is not None:
        tags, pieces = [OUTSIDE] * told[-1]["index"], [(0, 0)] * told[-1]["index"]
        for token in told:
            tags[token["index"] - 1], pieces[token["index"] - 1] = token["entity"], (token["start"], token["end"])
        return [Entity(span.type, pieces[span.start][0], pieces[span.end - 1][1]) for span in tagging.entities(tags)]
    return [Entity(entity["entity_group"], entity["start"], entity["end"]) for entity in told]
