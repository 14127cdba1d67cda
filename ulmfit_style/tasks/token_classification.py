"""Token classification: the entities of a text, each a stretch of it with a type."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import Annotated, Any, ClassVar, Literal, final

from pydantic import Field

from ulmfit_style.config.section import Answering, Unhashed
from ulmfit_style.metrics.intervals import Array
from ulmfit_style.tasks import entities
from ulmfit_style.tasks.base import COLUMNS, IGNORED, Answer, Column, Feature, Row, Task, inputs_of, named_outputs
from ulmfit_style.tasks.base_text import read_written, text_problem
from ulmfit_style.tasks.entities import OUTSIDE, Entity, is_words, text_of, words_of
from ulmfit_style.tasks.types import Batch, Label2id, Model, Module, Tensor, Tokenizer
from ulmfit_style.tasks.values import Architecture, ExplainedPart, Pipeline, Span
from ulmfit_style.tasks.windows import Range, learnable, pieces_of, trimmed, windows

NO_ENTITY = "no entity"
"""The class of a row without entities."""

Tag = tuple[str, float]
"""The tag of a token, and its probability."""


@final
class TokenClassification(Task):
    """Rows of words and their tags (BIO, IOB1, IOBES, BILOU), or of a text and its entities by their characters."""

    is_explained: ClassVar[bool] = True
    parts: ClassVar[tuple[type, ...]] = (str, int, float)
    metric: ClassVar[str] = "micro_f1"
    metrics: ClassVar[str] = "entities"
    rankings: ClassVar[Sequence[str]] = ("macro_f1", "strict_f1", "precision", "recall")
    long_texts: ClassVar[str] = "read in windows that overlap"
    # Without the option, the pipeline answers single tokens.
    pipeline: ClassVar[Pipeline] = Pipeline("token-classification", options={"aggregation_strategy": "first"})

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
    aggregation: Annotated[Literal["first", "simple"], Answering] = "first"
    """How the labels of tokens become entities, as in transformers. first: a word has the tag of its first token;
    simple: there are no words, and tokens that go on are one entity, which is for subwords=all."""
    overlap: Annotated[float, Field(ge=0, le=0.9), Answering] = 0.25
    """The share of its tokens that a window of a long text has in common with the next one."""

    def auto_class(self, architecture: Architecture) -> str:
        return "AutoModelForTokenClassification"

    def inputs(self) -> dict[str, Column]:
        return {"text": Column("task.text", self.text, COLUMNS["words"] + COLUMNS["text"])}

    @classmethod
    def match_score(cls, texts: Sequence[Any], labels: Sequence[Any]) -> int:
        entries = (entry for label in map(read_written, labels) if isinstance(label, list) for entry in label)
        words = any(isinstance(read_written(text), list) for text in texts)
        return 3 if words or any(isinstance(entry, (dict, list)) for entry in entries) else 0

    def targets(self) -> dict[str, Column]:
        hint = "; a file with a word and its tag a line is called .conll"
        return {"label": Column("task.label", self.label, COLUMNS["entities"], hint)}

    def cleaned(self, row: Row) -> Row:
        label = read_written(row.fields["label"])
        has_tags = isinstance(label, list) and all(isinstance(tag, (str, int)) for tag in label)
        text = read_written(row.fields["text"]) if has_tags else row.fields["text"]
        return replace(row, fields={**row.fields, "text": text, "label": label})

    def row_problem(self, row: Row) -> str | None:
        text, label = row.fields["text"], row.fields["label"]
        if not isinstance(label, list):
            return f"the label is {'empty' if label is None else 'neither a list of tags nor a list of entities'}"
        in_characters = [isinstance(entry, (dict, list)) for entry in label]
        if is_words(row):
            mixed = "the text is a list of words, but the label is a list of entities in characters"
            return mixed if any(in_characters) else entities.words_problem(text, self._tags(row))
        if not all(in_characters):
            return "the label is a list of tags, but the text is not a list of words"
        return text_problem("text", text) or entities.spans_problem(text_of(row), label)

    def dataset_problem(self, rows: Sequence[Row]) -> str | None:
        return None if any(map(self._entities, rows)) else "no row has an entity; is task.label the column of the tags?"

    def remarks(self, rows: Sequence[Row]) -> list[str]:
        texts = [row for row in rows if not is_words(row)]
        spans = [(text_of(row), entities.entity_of(span)) for row in texts for span in row.fields["label"]]
        blank = sum(trimmed(text, (span.start, span.end)) != (span.start, span.end) for text, span in spans)
        within = sum(entities.entities_within_words(words_of(row), self._entities(row)) for row in texts)
        learnt = "as whole words" if self.subwords == "first" else "by their tokens"
        how = f"they are learnt {learnt}, and scored as they are (task.subwords, task.aggregation)"
        counts = {"a blank, which is left out": blank, f"a part of a word; {how}": within}
        of_all = f"of {len(spans):,} entities begin or end with"
        return [f"{count:,} {of_all} {what}" for what, count in counts.items() if count]

    def texts(self, row: Row) -> list[str]:
        return [text_of(row)]

    def target(self, row: Row) -> dict[str, Any]:
        """Return the tags of the words in IOB2, or the entities of the text."""
        if is_words(row):
            return {"tags": entities.iob2(self._tags(row))}
        return {"entities": [_shown(text_of(row), *entity) for entity in self._entities(row)]}

    def labels_of(self, row: Row) -> list[str]:
        return sorted({entity.type for entity in self._entities(row)}) or [NO_ENTITY]

    def classes(self, rows: Sequence[Row]) -> list[str]:
        return [NO_ENTITY, *sorted({label for row in rows for label in self.labels_of(row)} - {NO_ENTITY})]

    def head(self, classes: Sequence[str]) -> dict[str, Any]:
        """Return both tags of each type, whether or not the rows show them: entities of several words may come."""
        names = [OUTSIDE, *(f"{letter}-{name}" for name in classes if name != NO_ENTITY for letter in "BI")]
        return named_outputs(names)

    def encode(self, row: Row, tokenizer: Tokenizer, max_length: int, label2id: Label2id | None) -> list[Feature]:
        features = windows(tokenizer, row, text_of(row), max_length=max_length, overlap=self.overlap)
        if label2id is None:
            return features
        labels = [[IGNORED] * len(feature["offsets"]) for feature in features]
        places = [(window, place) for window, feature in enumerate(features) for place in range(*feature["own"])]
        tokens, pieces = _tagged_pieces(row, pieces_of(text_of(row), features), by_token=self.subwords == "all")
        for token, tag in zip(tokens, entities.tagged(pieces, self._entities(row)), strict=True):
            window, place = places[token]
            labels[window][place] = label2id[tag]
        learnt = zip(features, labels, strict=True)
        return [learnable(*window) for window in learnt if set(window[1]) != {IGNORED}]  # which is within one word

    def loss(self, model: Module, batch: Batch) -> Tensor:
        from torch.nn.functional import cross_entropy

        logits = model(**inputs_of(batch)).logits.float().transpose(1, 2)  # (batch, outputs, length)
        losses = cross_entropy(logits, batch["labels"], ignore_index=IGNORED, reduction="none")
        return (losses.sum(dim=1) * batch.get("weight", 1)).sum()

    def count(self, batch: Batch) -> Tensor:
        return (batch["labels"].ne(IGNORED).sum(dim=1) * batch.get("weight", 1)).sum()

    def answer(self, model: Model, tokenizer: Tokenizer, batch: Batch) -> list[Any]:
        """Return of each feature the likeliest tag of each of its tokens."""
        probabilities = model(**batch).logits.float().softmax(dim=-1).cpu().numpy()
        masks = batch["attention_mask"].bool().cpu().numpy()
        names = list((model.config.id2label or {}).values())
        return [likeliest_tags(names, tokens[mask]) for tokens, mask in zip(probabilities, masks, strict=True)]

    def merge(self, row: Row, features: Sequence[Feature], outputs: Sequence[Any]) -> Answer:
        tokens = pieces_of(text_of(row), features)
        answered = zip(features, outputs, strict=True)
        tags = [tag for feature, window in answered for tag in window[slice(*feature["own"])]]
        places, pieces = _tagged_pieces(row, tokens, by_token=self.aggregation == "simple")
        answer: Answer = {"entities": list(_grouped(text_of(row), pieces, [tags[place] for place in places]))}
        return {"tags": _tags_of_words(words_of(row), tokens, tags), **answer} if is_words(row) else answer

    def explained_parts(self, features: Sequence[Feature], answer: Answer, label2id: Label2id) -> list[ExplainedPart]:
        """Return each entity, read from the window that has its first token: the tags that its tokens have there."""
        parts = []
        for entity in answer["entities"]:
            kind, first, last = entity["entity_group"], entity["start"], entity["end"]
            outputs = [number for name, number in label2id.items() if name[2:] == kind]
            for number, feature in enumerate(features):
                tokens = [(place, *feature["offsets"][place]) for place in range(*feature["own"])]
                if places := [place for place, start, end in tokens if max(start, first) < min(end, last)]:
                    read = partial(_highest_logits, places=places, outputs=outputs)
                    parts.append(ExplainedPart(f"{kind}: {entity['word']}", number, read))
                    break
        return parts

    def returned(self, answer: Answer) -> Any:
        """Return the entities of a text."""
        return answer["entities"]

    def sides(self, answers: Sequence[Answer], targets: Sequence[Any]) -> tuple[list[list[str]], list[list[str]]]:
        pairs = [_as_tags(answer, target) for answer, target in zip(answers, targets, strict=True)]
        return [ours for ours, _ in pairs], [right for _, right in pairs]

    def errors(self, answers: Sequence[Answer], targets: Sequence[Any]) -> Sequence[float]:
        """Return how many entities are missing, too many, or of another type."""
        pairs = zip(answers, targets, strict=True)
        return [len(set(_entities_of(answer)) ^ set(_entities_of(target))) for answer, target in pairs]

    def display(self, row: Row | None, answer: Answer, target: Any) -> tuple[str, str]:
        right = target.get("entities")
        if right is None:
            words = [""] * len(target["tags"]) if row is None else row.fields["text"]
            marked = entities.of_tags(target["tags"])
            right = [{"entity_group": each.type, "word": " ".join(words[each.start : each.end])} for each in marked]
        return _spoken(right), _spoken(answer["entities"])

    def spans(self, row: Row, answer: Answer) -> tuple[Sequence[Span], Sequence[Span]]:
        right = [(entity.start, entity.end, entity.type) for entity in self._entities(row)]
        return right, [(entity["start"], entity["end"], entity["entity_group"]) for entity in answer["entities"]]

    def calibration_pairs(self, answers: Sequence[Answer], targets: Sequence[Any]) -> list[tuple[float, bool]]:
        """Return the probability of each entity; of a row of words only where its tags mark the same number."""
        pairs = []
        for answer, target in zip(answers, targets, strict=True):
            predicted, right = _entities_of(answer), _entities_of(target)
            if len(predicted) == len(answer["entities"]):
                scores = [entity["score"] for entity in answer["entities"]]
                pairs += [(score, entity in right) for score, entity in zip(scores, predicted, strict=True)]
        return pairs

    def _tags(self, row: Row) -> list[str]:
        """Return the tags of a labelled row, by their names where they have numbers."""
        names = {str(number): name for number, name in enumerate(self.tags or ())}
        return [names.get(tag, tag) for tag in map(str.strip, map(str, row.fields["label"]))]

    def _entities(self, row: Row) -> list[Entity]:
        """Return the entities of a labelled row, in characters of its text."""
        if is_words(row):
            words, marked = words_of(row), entities.of_tags(self._tags(row))
            return [Entity(entity.type, words[entity.start][0], words[entity.end - 1][1]) for entity in marked]
        text, spans = row.fields["text"], map(entities.entity_of, row.fields["label"])
        inner = [Entity(span.type, *trimmed(text, (span.start, span.end))) for span in spans]
        return sorted(inner, key=lambda entity: entity.start)


def likeliest_tags(names: Sequence[str], probabilities: Array) -> list[Tag]:
    """Return the likeliest tag of each token, from the probabilities (length, outputs) of the outputs' names."""
    return [(names[int(token.argmax())], float(token.max())) for token in probabilities]


def _highest_logits(logits: Tensor, places: Sequence[int], outputs: Sequence[int]) -> Tensor:
    """Return the sum over tokens of the higher logit of a type's two tags, (batch,), from (batch, length, outputs)."""
    return logits[:, places][..., outputs].amax(dim=-1).sum(dim=-1)


def _tagged_pieces(row: Row, tokens: Sequence[Range], *, by_token: bool) -> tuple[list[int], list[Range]]:
    """Return the places of the tokens that have a tag, and the part of the text that each tags: itself, or words."""
    if by_token:
        places = [place for place, (start, end) in enumerate(tokens) if start < end]
        return places, [tokens[place] for place in places]
    words = words_of(row)
    units = entities.units(words, tokens)
    return [unit.token for unit in units], [(words[unit.first][0], words[unit.last][1]) for unit in units]


def _tags_of_words(words: Sequence[Range], tokens: Sequence[Range], tags: Sequence[Tag]) -> list[str]:
    """Return the tag of each word, that of its first token.

    A word without tokens goes on with the entity around it, or is outside.
    """
    units = entities.units(words, tokens)
    of_units, of_words = [tags[unit.token][0] for unit in units], [OUTSIDE] * len(words)
    for entity in entities.of_tags(of_units):
        first, last = units[entity.start].first, units[entity.end - 1].last
        of_words[first : last + 1] = [of_units[entity.start], *[f"I-{entity.type}"] * (last - first)]
    return of_words


def _grouped(text: str, pieces: Sequence[Range], tags: Sequence[Tag]) -> Iterator[dict[str, Any]]:
    """Yield the entities that words or tokens make together, each with the mean of their probabilities."""
    for entity in entities.of_tags([tag for tag, _ in tags]):
        scores = [score for _, score in tags[entity.start : entity.end]]
        start, end = pieces[entity.start][0], pieces[entity.end - 1][1]
        yield _shown(text, entity.type, start, end, score=round(sum(scores) / len(scores), 6))


def _shown(text: str, kind: str, start: int, end: int, **score: float) -> dict[str, Any]:
    """Return an entity as the pipelines of transformers have it."""
    return {"entity_group": kind, **score, "word": text[start:end], "start": start, "end": end}


def _spoken(found: Sequence[Mapping[str, Any]]) -> str:
    """Return entities as people read them."""
    return "; ".join(f"{entity['entity_group']}: {entity['word']}".strip(": ") for entity in found) or NO_ENTITY


def _entities_of(side: Mapping[str, Any]) -> list[Entity]:
    """Return the entities of an answer or a target: in words where it has tags, else in characters."""
    if side.get("tags") is not None:
        return entities.of_tags(side["tags"])
    return [Entity(entity["entity_group"], entity["start"], entity["end"]) for entity in side["entities"]]


def _as_tags(answer: Answer, target: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Return the tags of an answer and its target: of words, or of what lies between the borders of all entities."""
    if target.get("tags") is not None:
        return list(answer["tags"]), list(target["tags"])
    ours, right = _entities_of({"entities": answer["entities"]}), _entities_of(target)
    pieces = list(pairwise(sorted({place for entity in (*ours, *right) for place in (entity.start, entity.end)})))
    return entities.tagged(pieces, ours), entities.tagged(pieces, right)
