"""What the kinds of text classification share: a text or a pair of texts, and one score or several for the whole."""

from __future__ import annotations

import abc
import math
import unicodedata
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from ulmfit_style.errors import UserError
from ulmfit_style.schema import Unhashed
from ulmfit_style.tasks.base import Answer, Column, Feature, Row, Task

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import PreTrainedTokenizerBase

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

    def auto_class(self, model_type: str) -> str:
        return "AutoModelForSequenceClassification"

    def inputs(self) -> dict[str, Column]:
        pair = {"text_pair": Column("task.text_pair", self.text_pair)} if self.text_pair else {}
        return {"text": Column("task.text", self.text, TEXT_COLUMNS), **pair}

    def targets(self) -> dict[str, Column]:
        return {"label": Column("task.label", self.label, self.label_columns)}

    def problem(self, row: Row) -> str | None:
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
        encoded = tokenizer(*self.texts(row), truncation=True, max_length=max_length, return_overflowing_tokens=True)
        # The first part is what truncation leaves; the others show that something was cut.
        feature: Feature = {name: encoded[name][0] for name in tokenizer.model_input_names if name in encoded}
        feature["long"] = len(encoded["input_ids"]) > 1
        if label2id is not None:
            feature["labels"] = self.encoded(self.target(row), label2id)
        return [feature]

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

    def merge(self, row: Row, features: Sequence[Feature], said: Sequence[Any]) -> Answer:
        answer: Answer = said[0]
        return answer


class LabelTask(TextTask, abc.ABC):
    """Rows of a text, or a pair of texts, and names that are chosen from a set: one, or several."""

    problem_type: ClassVar[str]
    """What transformers calls it; its pipelines go by that."""
    answered: ClassVar[str]
    """Where an answer holds what is chosen: `label` or `labels`."""

    def classes(self, rows: Sequence[Row]) -> list[str]:
        return in_order({label for row in rows for label in self.labels_of(row)})

    def head(self, classes: Sequence[str]) -> dict[str, Any]:
        return {
            "problem_type": self.problem_type,
            "num_labels": len(classes),
            "id2label": dict(enumerate(classes)),
            "label2id": {label: index for index, label in enumerate(classes)},
        }

    def score(self, answers: Sequence[Answer], targets: Sequence[Any]) -> dict[str, float]:
        from ulmfit_style.metrics import classification

        return classification.scores([answer[self.answered] for answer in answers], targets)

    def intervals(self, answers: Sequence[Answer], targets: Sequence[Any]) -> dict[str, tuple[float, float]]:
        from ulmfit_style.metrics import classification

        return classification.intervals([answer[self.answered] for answer in answers], targets)

    def report(self, answers: Sequence[Answer], targets: Sequence[Any]) -> list[dict[str, Any]]:
        from ulmfit_style.metrics import classification

        return classification.report([answer[self.answered] for answer in answers], targets)


def plain(value: Any) -> str:
    """Return a cell as text: NFC, without blanks around it; what is missing is empty."""
    missing = value is None or (isinstance(value, float) and math.isnan(value))
    return "" if missing else unicodedata.normalize("NFC", str(value)).strip()


def in_order(labels: set[str]) -> list[str]:
    """Sort labels: numbers as numbers, so that 10 stars do not stand between 1 and 2."""
    return sorted(labels, key=int if all(map(str.isdecimal, labels)) else None)
