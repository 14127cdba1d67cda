"""Token classification: the entities of a text, each a stretch of it with a type."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Annotated, Any, ClassVar, Literal, final

import numpy as np
from pydantic import Field

from ulmfit_style.config.schema import Unhashed
from ulmfit_style.metrics.intervals import Array, Points, ratio
from ulmfit_style.tasks import entity_answers, entity_rows, tagging
from ulmfit_style.tasks.base import IGNORED, Answer, Column, Feature, Row, Task
from ulmfit_style.tasks.entity_rows import is_words, text_of, words_of
from ulmfit_style.tasks.models import Architecture, ExplainedPart, Pipeline
from ulmfit_style.tasks.report_parts import ReportPart
from ulmfit_style.tasks.tagging import OUTSIDE, Entity, Range, Unit
from ulmfit_style.tasks.text import TEXT_COLUMNS
from ulmfit_style.tasks.types import Batch, Label2id, Model, Module, Tensor, Tokenizer
from ulmfit_style.tasks.windows import learnable, pieces_of, windows

TOKEN_COLUMNS = ("tokens", "words")
"""Names of columns that hold the words of a text wherever they stand."""

LABEL_COLUMNS = (
    *("tags", "ner_tags", "ner", "entities", "spans", "labels", "label", "annotations"),
    *("태그", "개체명", "라벨", "레이블"),
)

NO_ENTITY = "no entity"
"""The class of a row without entities."""

MOST_BROKEN = 0.1
"""The share of the entities that may break the rules of IOBES before it is taken for a mixture of schemes."""


@final
class TokenClassification(Task):
    """Rows of words and their tags (BIO, IOB1, IOBES, BILOU), or of a text and its entities by their characters."""

    is_explained: ClassVar[bool] = True
    metric: ClassVar[str] = "micro_f1"
    rankings: ClassVar[Sequence[str]] = ("macro_f1", "strict_f1", "precision", "recall")
    answer_options: ClassVar[Sequence[str]] = ("aggregation", "overlap")
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

    @classmethod
    def certainty(cls, texts: Sequence[Any], labels: Sequence[Any]) -> int:
        entries = (entry for label in labels if isinstance(label, list) for entry in label)
        words = any(isinstance(text, list) for text in texts)
        return 3 if words or any(isinstance(entry, (dict, list)) for entry in entries) else 0

    def targets(self) -> dict[str, Column]:
        hint = "; a file with a word and its tag a line is called .conll"
        return {"label": Column("task.label", self.label, LABEL_COLUMNS, hint)}

    def row_problem(self, row: Row) -> str | None:
        text, label = row.fields["text"], row.fields["label"]
        if not isinstance(label, list):
            return "the label is neither a list of tags nor one of entities"
        in_characters = [isinstance(entry, (dict, list)) for entry in label]
        if is_words(row):
            mixed = "the text is words, and its entities are in characters"
            return mixed if any(in_characters) else entity_rows.words_problem(text, self._tags(row))
        if not isinstance(text, str | None):
            return "the text is neither text nor words"
        if not text or not text.strip():
            return "the text is empty"
        if not all(in_characters):
            return "the text is not divided into words, and the label is a list of tags"
        return entity_rows.spans_problem(text, label)

    def dataset_problem(self, rows: Sequence[Row]) -> str | None:
        if not any(map(self._entities, rows)):
            return "no row has an entity; is task.label the column of the tags?"
        tags = [self._tags(row) for row in rows if is_words(row)]
        if tagging.mixed([tag for row_tags in tags for tag in row_tags]):
            return "the tags are of two schemes: those of some rows are IOBES, those of others BILOU"
        scheme, broken, count = tagging.repairs(tags)
        if scheme in ("IOBES", "BILOU") and broken > MOST_BROKEN * count:
            return f"the tags are of two schemes: {broken:,} of {count:,} entities are not whole as {scheme} has it"
        return None

    def remarks(self, rows: Sequence[Row]) -> list[str]:
        remarks = []
        scheme, broken, count = tagging.repairs([self._tags(row) for row in rows if is_words(row)])
        if broken:
            how = "begin with I-, and are taken as if with B-" if scheme == "IOB2" else "are not whole, and are mended"
            remarks.append(f"the tags are {scheme}, but {broken:,} of {count:,} entities {how}")
        texts = [row for row in rows if not is_words(row)]
        given = [(row.fields["text"], entity_rows.entity_of(span)) for row in texts for span in row.fields["label"]]
        spans = [(text, (entity.start, entity.end)) for text, entity in given]
        blank = sum(tagging.trimmed(text, span) != span for text, span in spans)
        if blank:
            remarks.append(f"{blank:,} of {len(spans):,} entities begin or end with a blank, which is left out")
        within = sum(entity_rows.entities_within_words(words_of(row), self._entities(row)) for row in texts)
        if within:
            learnt = "as whole words" if self.subwords == "first" else "by their tokens"
            how = f"learnt {learnt}, and scored as they are (task.subwords, task.aggregation)"
            remarks.append(f"{within:,} of {len(spans):,} entities begin or end within a word; they are {how}")
        return remarks

    def texts(self, row: Row) -> list[str]:
        return [text_of(row)]

    def target(self, row: Row) -> dict[str, Any]:
        """Return the tags of the words in IOB2, or the entities of the text."""
        if is_words(row):
            return {"tags": tagging.iob2(self._tags(row))}
        text = text_of(row)
        return {
            "entities": [
                {"entity_group": one.type, "word": text[one.start : one.end], "start": one.start, "end": one.end}
                for one in self._entities(row)
            ]
        }

    def labels_of(self, row: Row) -> list[str]:
        return sorted({entity.type for entity in self._entities(row)}) or [NO_ENTITY]

    def classes(self, rows: Sequence[Row]) -> list[str]:
        return [NO_ENTITY, *sorted({label for row in rows for label in self.labels_of(row)} - {NO_ENTITY})]

    def head(self, classes: Sequence[str]) -> dict[str, Any]:
        # A type has both tags, whether or not the rows show them: entities of several words may come.
        names = [OUTSIDE, *(f"{letter}-{name}" for name in classes if name != NO_ENTITY for letter in "BI")]
        numbers = {name: number for number, name in enumerate(names)}
        return {"num_labels": len(names), "id2label": dict(enumerate(names)), "label2id": numbers}

    def encode(self, row: Row, tokenizer: Tokenizer, max_length: int, label2id: Label2id | None) -> list[Feature]:
        features = windows(tokenizer, text_of(row), max_length=max_length, overlap=self.overlap)
        if label2id is None:
            return features
        labels = [[IGNORED] * len(feature["offsets"]) for feature in features]
        places = [(window, place) for window, feature in enumerate(features) for place in range(*feature["own"])]
        for token, tag in self._learnt(row, pieces_of(text_of(row), features)):
            window, place = places[token]
            labels[window][place] = label2id[tag]
        return [
            learnable(feature, window_labels)
            for feature, window_labels in zip(features, labels, strict=True)
            if set(window_labels) != {IGNORED}  # a window within one word
        ]

    def _learnt(self, row: Row, tokens: Sequence[Range]) -> list[tuple[int, str]]:
        """Return which tokens have a tag to learn, and which tag."""
        if self.subwords == "all":
            places = [place for place, (start, end) in enumerate(tokens) if start < end]
            pieces = [tokens[place] for place in places]
        else:
            words = words_of(row)
            units = list(tagging.units(words, tokens))
            places, pieces = [unit.tokens[0] for unit in units], [_range_of(unit, words) for unit in units]
        return list(zip(places, tagging.tagged(pieces, self._entities(row)), strict=True))

    def loss(self, model: Module, batch: Batch) -> Tensor:
        from torch.nn.functional import cross_entropy

        inputs = {name: tensor for name, tensor in batch.items() if name not in ("labels", "weight")}
        logits = model(**inputs).logits.float().transpose(1, 2)  # (batch, outputs, length)
        losses = cross_entropy(logits, batch["labels"], ignore_index=IGNORED, reduction="none")
        return (losses.sum(dim=1) * batch.get("weight", 1)).sum()

    def count(self, batch: Batch) -> Tensor:
        return (batch["labels"].ne(IGNORED).sum(dim=1) * batch.get("weight", 1)).sum()

    def answer(self, model: Model, tokenizer: Tokenizer, batch: Batch) -> list[Any]:
        """Return of each feature the names of the outputs, and the probabilities of its tokens, (length, outputs)."""
        probabilities = model(**batch).logits.float().softmax(dim=-1).cpu().numpy()
        masks = batch["attention_mask"].bool().cpu().numpy()
        names = list((model.config.id2label or {}).values())
        return [(names, feature[mask]) for feature, mask in zip(probabilities, masks, strict=True)]

    def merge(self, row: Row, features: Sequence[Feature], outputs: Sequence[Any]) -> Answer:
        text, words = text_of(row), words_of(row)
        tokens = pieces_of(text, features)
        names: list[str] = outputs[0][0] if outputs else []
        parts = [part[slice(*feature["own"])] for feature, (_, part) in zip(features, outputs, strict=True)]
        probabilities: Array = np.concatenate(parts) if parts else np.zeros((0, 0))  # (tokens, outputs)

        def tag(places: Sequence[int]) -> entity_answers.Tag:
            """Return the tag of a word with tokens in these places, and its probability."""
            of_tokens = probabilities[list(places)]
            if self.aggregation == "average":
                of_word = of_tokens.mean(axis=0)
            else:
                of_word = of_tokens[of_tokens.max(axis=1).argmax() if self.aggregation == "max" else 0]
            return names[int(of_word.argmax())], float(of_word.max())

        units = list(tagging.units(words, tokens))
        pieces, tags = [_range_of(unit, words) for unit in units], [tag(unit.tokens) for unit in units]
        answer: Answer = (
            {"tags": entity_answers.tags_of_words(units, [name for name, _ in tags], len(words))}
            if is_words(row)
            else {}
        )
        if self.aggregation in ("none", "simple"):
            places = [place for place, (start, end) in enumerate(tokens) if start < end]
            pieces, tags = [tokens[place] for place in places], [tag([place]) for place in places]
        return {
            **answer,
            "entities": (entity_answers.labelled_tokens if self.aggregation == "none" else entity_answers.grouped)(
                text, pieces, tags
            ),
        }

    def explained_parts(
        self, row: Row, features: Sequence[Feature], answer: Answer, names: Mapping[int, str]
    ) -> list[ExplainedPart]:
        """Return each entity, read from the window that has its first token: the tags that its tokens have there."""
        parts = []
        for entity in answer["entities"]:
            kind = entity.get("entity_group", entity.get("entity", "")[2:])
            outputs = [number for number, name in names.items() if name[2:] == kind]
            for number, feature in enumerate(features):
                tokens = [(place, *feature["offsets"][place]) for place in range(*feature["own"])]
                places = [
                    place for place, start, end in tokens if max(start, entity["start"]) < min(end, entity["end"])
                ]
                if places:
                    read = partial(_highest_logits, places=places, outputs=outputs)
                    parts.append(ExplainedPart(f"{kind}: {entity['word']}", number, read))
                    break
        return parts

    def returned(self, answer: Answer) -> Any:
        """Return the entities of a text."""
        return answer["entities"]

    def points(self, answers: Sequence[Answer], targets: Sequence[Any]) -> Points:
        from ulmfit_style.metrics import entities

        return entities.points(*entity_answers.both_tags(answers, targets))

    def of_means(self, means: Array) -> Array:
        return ratio(means)

    def score(self, answers: Sequence[Answer], targets: Sequence[Any]) -> dict[str, float]:
        from ulmfit_style.metrics import entities

        return entities.scores(*entity_answers.both_tags(answers, targets))

    def intervals(self, answers: Sequence[Answer], targets: Sequence[Any]) -> dict[str, tuple[float, float]]:
        from ulmfit_style.metrics import entities

        return entities.intervals(*entity_answers.both_tags(answers, targets))

    def class_report(self, answers: Sequence[Answer], targets: Sequence[Any]) -> list[dict[str, Any]]:
        from ulmfit_style.metrics import entities

        return entities.report(*entity_answers.both_tags(answers, targets))

    def errors(self, answers: Sequence[Answer], targets: Sequence[Any]) -> Sequence[float]:
        """Return how many entities are missing, too many, or of another type."""
        return [
            len(set(entity_answers.lengths(answer)) ^ set(entity_answers.lengths(target)))
            for answer, target in zip(answers, targets, strict=True)
        ]

    def in_words(self, row: Row | None, answer: Answer, target: Any) -> tuple[str, str]:
        if target.get("tags") is None:
            right = [(entity["entity_group"], entity["word"]) for entity in target["entities"]]
        else:
            words = [text_of(row)[start:end] for start, end in words_of(row)] if row is not None else []
            right = [(one.type, " ".join(words[one.start : one.end])) for one in tagging.entities(target["tags"])]
        predicted = [(entity.get("entity_group") or entity["entity"], entity["word"]) for entity in answer["entities"]]
        sides = ("; ".join(f"{kind}: {word}".strip(": ") for kind, word in side) for side in (right, predicted))
        target_words, answer_words = (side or NO_ENTITY for side in sides)
        return target_words, answer_words

    def confidence(self, answer: Answer, target: Any) -> float | None:
        pairs = self.calibration_pairs([answer], [target])
        return max((score for score, is_right in pairs if not is_right), default=None)

    def calibration_pairs(self, answers: Sequence[Answer], targets: Sequence[Any]) -> list[tuple[float, bool]]:
        """Return the probability of each entity; none where tokens stand by themselves."""
        pairs = []
        for answer, target in zip(answers, targets, strict=True):
            predicted, right = list(entity_answers.lengths(answer)), entity_answers.lengths(target)
            if len(predicted) == len(answer["entities"]):
                scores = [entity["score"] for entity in answer["entities"]]
                pairs += [(score, entity in right) for score, entity in zip(scores, predicted, strict=True)]
        return pairs

    def report_parts(self, answers: Sequence[Answer], targets: Sequence[Any]) -> list[ReportPart]:
        return entity_answers.report_parts(answers, targets)

    def _tags(self, row: Row) -> list[str]:
        """Return the tags of a labelled row, by their names where they have numbers."""
        tags = [str(tag).strip() for tag in row.fields["label"]]
        names = {str(number): name for number, name in enumerate(self.tags or ())}
        return [names.get(tag, tag) for tag in tags]

    def _entities(self, row: Row) -> list[Entity]:
        """Return the entities of a labelled row, in characters of its text."""
        if is_words(row):
            words = words_of(row)
            return [
                Entity(entity.type, words[entity.start][0], words[entity.end - 1][1])
                for entity in tagging.entities(self._tags(row))
            ]
        text, spans = row.fields["text"], map(entity_rows.entity_of, row.fields["label"])
        entities = [Entity(span.type, *tagging.trimmed(text, (span.start, span.end))) for span in spans]
        return sorted(entities, key=lambda entity: entity.start)


def _highest_logits(logits: Tensor, places: Sequence[int], outputs: Sequence[int]) -> Tensor:
    """Return the sum over tokens of the higher logit of a type's two tags, (batch,), from (batch, length, outputs)."""
    return logits[:, places][..., outputs].amax(dim=-1).sum(dim=-1)


def _range_of(unit: Unit, words: Sequence[Range]) -> Range:
    return words[unit.first][0], words[unit.last][1]
