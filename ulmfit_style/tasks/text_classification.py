"""Text classification: one label for one text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar, final

from ulmfit_style.schema import Unhashed
from ulmfit_style.tasks.base import Answer, Feature, Row, Task

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@final
class TextClassification(Task):
    """Rows of a text and its class."""

    auto_class: ClassVar[str] = "AutoModelForSequenceClassification"
    metric: ClassVar[str] = "accuracy"

    text: Annotated[str, Unhashed]
    """The column of the text."""
    label: Annotated[str, Unhashed]
    """The column of the class: a name or a whole number."""
    labels: Annotated[tuple[str, ...] | None, Unhashed] = None
    """The classes to keep; rows of other classes are left out, and counted. null for all classes."""

    def columns(self) -> list[str]:
        return [self.text, self.label, *([self.group] if self.group else [])]

    def wanted(self, row: Row) -> bool:
        return self.labels is None or self.target(row) in self.labels

    def check(self, rows: Sequence[Row]) -> list[str]:
        problems = [f"{row.place}: '{self.text}' is empty" for row in rows if not self.document(row).strip()]
        problems += [f"{row.place}: '{self.label}' is empty" for row in rows if not self.target(row)]
        counts = Counter(self.target(row) for row in rows)
        if len(counts) == 1:
            problems.append(f"{rows[0].file}: every row has the label '{next(iter(counts))}'; two classes are needed")
        elif rows and len(counts) > max(2, len(rows) // 2):
            problems.append(
                f"{rows[0].file}: {len(counts)} different values of '{self.label}' in {len(rows)} rows; "
                "is it the column of the class?"
            )
        return problems

    def document(self, row: Row) -> str:
        return str(row.fields[self.text] or "")

    def target(self, row: Row) -> str:
        label = row.fields[self.label]
        return "" if label is None else str(label).strip()

    def row(self, text: str) -> Row:
        return Row("text", 1, {self.text: text})

    def classes(self, rows: Sequence[Row]) -> list[str]:
        labels = {self.target(row) for row in rows}
        # Numbers sort as numbers, so that 10 stars do not stand between 1 and 2.
        return sorted(labels, key=int if all(map(str.isdecimal, labels)) else None)

    def encode(
        self, row: Row, tokenizer: PreTrainedTokenizerBase, max_length: int, label2id: Mapping[str, int] | None
    ) -> list[Feature]:
        feature: Feature = dict(tokenizer(self.document(row), truncation=True, max_length=max_length))
        if label2id is not None:
            feature["labels"] = label2id[self.target(row)]
        return [feature]

    def loss(self, model: nn.Module, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        from torch.nn.functional import cross_entropy

        inputs = {name: tensor for name, tensor in batch.items() if name != "labels"}
        return cross_entropy(model(**inputs).logits.float(), batch["labels"], reduction="sum")

    def count(self, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        return batch["labels"].ne(-100).sum()

    def answer(self, model: PreTrainedModel, batch: Mapping[str, torch.Tensor]) -> list[Answer]:
        probabilities, classes = model(**batch).logits.float().softmax(dim=-1).max(dim=-1)
        names = model.config.id2label or {}
        return [
            {"label": names[index], "score": round(probability, 6)}
            for index, probability in zip(classes.tolist(), probabilities.tolist(), strict=True)
        ]

    def merge(self, answers: Sequence[Answer]) -> Answer:
        return answers[0]

    def points(self, answers: Sequence[Answer], targets: Sequence[str]) -> list[float]:
        return [float(answer["label"] == target) for answer, target in zip(answers, targets, strict=True)]

    def score(self, answers: Sequence[Answer], targets: Sequence[str]) -> dict[str, float]:
        from sklearn.metrics import accuracy_score, f1_score

        labels = [answer["label"] for answer in answers]
        return {
            "accuracy": float(accuracy_score(targets, labels)),
            "macro_f1": float(f1_score(targets, labels, average="macro", zero_division=0)),
        }
