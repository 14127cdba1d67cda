"""What the kinds of text classification share: a text or a pair of texts, and one score or several for the whole."""

from __future__ import annotations

import abc
import math
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, ValidationInfo, field_validator

from ulmfit_style.config.schema import Unhashed
from ulmfit_style.errors import UserError
from ulmfit_style.tasks.base import Answer, Architecture, Column, ExplainedPart, Feature, Row, Task

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import BatchEncoding, PreTrainedModel, PreTrainedTokenizerBase

Scores = Mapping[str, float]
"""A number from 0 to 1 for each label."""

TEXT_COLUMNS = (
    *("text", "review", "sentence", "content", "body", "document", "comment", "message", "tweet", "utterance"),
    *("텍스트", "리뷰", "문장", "내용", "본문"),
)
"""Names of columns that are surely the text."""


class TextTask(Task, abc.ABC):
    """Rows of a text, or a pair of texts, and what is to be told of it."""

    label_columns: ClassVar[Sequence[str]]
    """Names of columns that are surely the right answer."""

    text: Annotated[str | None, Unhashed] = None
    """The column of the text; null: found by its name (text, review, sentence ...)."""
    text_pair: Annotated[str | None, Unhashed] = None
    """The column of a second text, where a row is a pair (premise and hypothesis, question and answer)."""
    label: Annotated[str | None, Unhashed] = None
    """The column of the right answer; null: found by its name (label, class, category, stars ...)."""
    long_documents: Literal["head", "head_tail", "windows"] = "head"
    """What is read of a text longer than `finetune.max_length`. head: its beginning; head_tail: a quarter of that from
    its beginning and the rest from its end (Sun et al. 2019, section 5.3.1); windows: all of it, in windows that
    overlap. Pairs of texts: head."""
    overlap: Annotated[float, Field(ge=0, le=0.9)] = 0.25
    """The share of its tokens that a window has in common with the next one."""

    @field_validator("long_documents")
    @classmethod
    def _of_one_text(cls, value: str, info: ValidationInfo) -> str:
        if info.data.get("text_pair") and value != "head":
            raise ValueError("is for one text, and task.text_pair names a second; take head")
        return value

    def determinants(self) -> dict[str, Any]:
        """Return the fields that determine a result; of windows nothing where none are made."""
        without = {"head": {"long_documents", "overlap", "window_scores"}, "head_tail": {"overlap", "window_scores"}}
        unused = without.get(self.long_documents, set())
        return {name: value for name, value in super().determinants().items() if name not in unused}

    @property
    def long_texts(self) -> str:
        return {"head": "cut", "head_tail": "cut in the middle", "windows": "read in windows"}[self.long_documents]

    def auto_class(self, architecture: Architecture) -> str:
        return "AutoModelForSequenceClassification"

    def inputs(self) -> dict[str, Column]:
        pair = {"text_pair": Column("task.text_pair", self.text_pair)} if self.text_pair else {}
        return {"text": Column("task.text", self.text, TEXT_COLUMNS), **pair}

    def targets(self) -> dict[str, Column]:
        return {"label": Column("task.label", self.label, self.label_columns)}

    def row_problem(self, row: Row) -> str | None:
        for name in self.inputs():
            value = row.fields[name]
            if isinstance(value, (list, dict)):
                return f"the {name} is a {type(value).__name__}, and no text"
            if not plain(value):
                return f"the {name} is empty"
        return self.label_problem(row)

    @abc.abstractmethod
    def label_problem(self, row: Row) -> str | None:
        """Return what is wrong with a row's label; None when it is right."""

    def texts(self, row: Row) -> list[str]:
        return ["" if row.fields[name] is None else str(row.fields[name]) for name in self.inputs()]

    def row(self, *texts: str) -> Row:
        names = list(self.inputs())
        if len(texts) != len(names):
            wanted = "a pair of texts" if len(names) == 2 else "one text"
            raise UserError(f"this model answers {wanted}; {len(texts)} texts were given")
        return Row("text", 1, dict(zip(names, texts, strict=True)))

    def encode(
        self, row: Row, tokenizer: PreTrainedTokenizerBase, max_length: int, label2id: Mapping[str, int] | None
    ) -> list[Feature]:
        encoded = tokenizer(
            *self.texts(row),
            truncation=True,
            max_length=max_length,
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
        )
        # The first part is what truncation leaves; the others show that something was cut.
        long, whole = len(encoded["input_ids"]) > 1, _columns(encoded, tokenizer)
        pieces = [list(range(len(whole["input_ids"])))]
        if long and self.long_documents != "head":
            whole = _columns(tokenizer([self.texts(row)[0]], return_offsets_mapping=True), tokenizer)
            pieces = self._pieces(whole["texts"], max_length)
        more: Feature = {"long": long}
        if label2id is not None:
            more |= {"labels": self.encoded(self.target(row), label2id), "weight": 1 / len(pieces)}
            whole = {name: whole[name] for name in tokenizer.model_input_names if name in whole}
        return [{name: [column[place] for place in piece] for name, column in whole.items()} | more for piece in pieces]

    def _pieces(self, texts: Sequence[int | None], max_length: int) -> list[list[int]]:
        """Return the places of the tokens that are read together, each time with all special tokens.

        Args:
            texts: The number of the text that each token is of; None for special tokens.
        """
        inside = [place for place, text in enumerate(texts) if text is not None]
        special = [place for place, text in enumerate(texts) if text is None]
        room = max_length - len(special)
        if self.long_documents == "head_tail":
            pieces = [[*inside[: room // 4], *inside[len(inside) - (room - room // 4) :]]]
        else:
            step = max(1, room - int(self.overlap * room))
            last = len(inside) - room  # where the last window begins: it is as long as the others
            pieces = [inside[start : start + room] for start in (*range(0, last, step), last)]
        return [sorted([*special, *piece]) for piece in pieces]

    @abc.abstractmethod
    def encoded(self, target: Any, label2id: Mapping[str, int]) -> Any:
        """Return the right answer as the loss takes it."""

    def loss(self, model: nn.Module, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        inputs = {name: tensor for name, tensor in batch.items() if name not in ("labels", "weight")}
        losses = self.losses(model(**inputs).logits.float(), batch["labels"])
        return (losses * batch.get("weight", 1)).sum()

    @abc.abstractmethod
    def losses(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return the loss of each row, (batch,), from logits (batch, outputs)."""

    def count(self, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        import torch

        return batch.get("weight", torch.ones(len(batch["labels"]))).sum()


class LabelTask(TextTask, abc.ABC):
    """Rows of a text, or a pair of texts, and names that are chosen from a set: one, or several."""

    problem_type: ClassVar[str]
    """What transformers calls it; its pipelines go by that."""
    label_field: ClassVar[str]
    """Where an answer holds what is chosen: `label` or `labels`."""
    answer_options: ClassVar[Sequence[str]] = ("long_documents", "overlap", "window_scores")

    window_scores: Literal["mean", "max", "vote"] = "mean"
    """How the windows of a text answer together. mean: by the mean of their probabilities; max: each label has its
    highest; vote: each has the share of the windows that would choose it."""

    def classes(self, rows: Sequence[Row]) -> list[str]:
        return in_order({label for row in rows for label in self.labels_of(row)})

    def head(self, classes: Sequence[str]) -> dict[str, Any]:
        return {
            "problem_type": self.problem_type,
            "num_labels": len(classes),
            "id2label": dict(enumerate(classes)),
            "label2id": {label: index for index, label in enumerate(classes)},
        }

    def answer(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, batch: Mapping[str, torch.Tensor]
    ) -> list[Scores]:
        names: Mapping[Any, str] = model.config.id2label or {}
        rows = self.probabilities(model(**batch).logits.float()).tolist()
        return [{names[index]: probability for index, probability in enumerate(row)} for row in rows]

    @abc.abstractmethod
    def probabilities(self, logits: torch.Tensor) -> torch.Tensor:
        """Return the probabilities of the labels, from logits of the same shape, (batch, labels)."""

    @abc.abstractmethod
    def chosen(self, scores: Scores) -> list[str]:
        """Return the labels that their probabilities choose."""

    @abc.abstractmethod
    def answer_from(self, scores: Scores) -> Answer:
        """Return the answer that scores give."""

    def explained_parts(
        self, row: Row, features: Sequence[Feature], answer: Answer, names: Mapping[int, str]
    ) -> list[ExplainedPart]:
        given = answer[self.label_field]
        labels = [given] if isinstance(given, str) else given
        numbers = [(number, name) for number, name in names.items() if name in labels]
        return [
            ExplainedPart(name, part, lambda logits, number=number: logits[:, number])  # type: ignore[misc]
            for number, name in numbers
            for part in range(len(features))
        ]

    def merge(self, row: Row, features: Sequence[Feature], said: Sequence[Scores]) -> Answer:
        means = {label: sum(scores[label] for scores in said) / len(said) for label in said[0]}
        if self.window_scores == "mean":
            return self.answer_from(means)
        if self.window_scores == "max":
            return self.answer_from({label: max(scores[label] for scores in said) for label in means})
        votes = Counter(label for scores in said for label in self.chosen(scores))
        # In a tie the first wins, so that of the higher mean comes first.
        return self.answer_from(
            {label: votes[label] / len(said) for label in sorted(means, key=lambda name: -means[name])}
        )

    def score(self, answers: Sequence[Answer], targets: Sequence[Any]) -> dict[str, float]:
        from ulmfit_style.metrics import classification

        return classification.scores([answer[self.label_field] for answer in answers], targets)

    def intervals(self, answers: Sequence[Answer], targets: Sequence[Any]) -> dict[str, tuple[float, float]]:
        from ulmfit_style.metrics import classification

        return classification.intervals([answer[self.label_field] for answer in answers], targets)

    def class_report(self, answers: Sequence[Answer], targets: Sequence[Any]) -> list[dict[str, Any]]:
        from ulmfit_style.metrics import classification

        return classification.report([answer[self.label_field] for answer in answers], targets)


def _columns(encoded: BatchEncoding, tokenizer: PreTrainedTokenizerBase) -> dict[str, list[Any]]:
    """Return what the first of encoded texts gives of each token: what the model reads, its offsets and its text."""
    names = [name for name in tokenizer.model_input_names if name in encoded]
    columns = {name: encoded[name][0] for name in names}
    return {**columns, "offsets": encoded["offset_mapping"][0], "texts": encoded.sequence_ids(0)}


def plain(value: Any) -> str:
    """Return a cell as text: NFC, without blanks around it; what is missing is empty."""
    missing = value is None or (isinstance(value, float) and math.isnan(value))
    return "" if missing else unicodedata.normalize("NFC", str(value)).strip()


def in_order(labels: set[str]) -> list[str]:
    """Sort labels: numbers as numbers, so that 10 stars do not stand between 1 and 2."""
    return sorted(labels, key=int if all(map(str.isdecimal, labels)) else None)
