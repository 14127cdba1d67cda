"""Text regression: a number for a text, or for a pair of texts."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal, final

import numpy as np

from ulmfit_style.config.section import Unhashed
from ulmfit_style.tasks.base import COLUMNS, Answer, Feature, Row, named_outputs
from ulmfit_style.tasks.base_text import TextTask, clean_text
from ulmfit_style.tasks.types import Batch, Model, Tensor, Tokenizer
from ulmfit_style.tasks.values import Reference

THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2},\d{3}")
"""What may be a number with a decimal comma, or a thousand times as much."""


def _ridge_regression(features: Any, targets: Sequence[float]) -> Callable[[Any], list[Answer]]:
    from sklearn.linear_model import Ridge

    model = Ridge().fit(features, targets)
    return lambda unseen: [{"value": float(value)} for value in model.predict(unseen)]


@final
class TextRegression(TextTask):
    """Rows of a text, or a pair of texts, and a number."""

    answer_field: ClassVar[str] = "value"
    metric: ClassVar[str] = "pearson"
    reference: ClassVar[Reference] = Reference("ridge regression", _ridge_regression)
    metrics: ClassVar[str] = "regression"
    rankings: ClassVar[Sequence[str]] = ("spearman",)
    label_columns: ClassVar[Sequence[str]] = COLUMNS["number"]

    decimal: Annotated[Literal[".", ","] | None, Unhashed] = None
    """The decimal sign of numbers that are written as text; null: found, and said where it is a comma."""

    @classmethod
    def match_score(cls, texts: Sequence[Any], labels: Sequence[Any]) -> int:
        numbers = list(map(_number, labels))
        are_classes = len(set(numbers)) <= max(2, len(numbers) // 2) and not any(number % 1 for number in numbers)
        return 2 if all(map(math.isfinite, numbers)) and not are_classes else 0

    def label_problem(self, row: Row) -> str | None:
        label = clean_text(row.fields["label"])
        if self.decimal is None and THOUSANDS.fullmatch(label):
            return f"the label '{label}' may be less than a thousand or more; say task.decimal=',' or task.decimal=."
        return None if math.isfinite(self.target(row)) else f"the label '{label}' is not a number"

    def dataset_problem(self, rows: Sequence[Row]) -> str | None:
        if len(set(map(self.target, rows))) == 1:
            return f"every row has the number {self.target(rows[0]):g}; there is nothing to learn"
        written = [label for label in (row.fields["label"] for row in rows) if isinstance(label, str)]
        points = [label for label in written if "." in label and "," not in label]
        if self.decimal is None and points and len(points) < len(written) and any("," in label for label in written):
            return f"some numbers have a comma, and others a point, such as {points[0]}; say which by task.decimal"
        return None

    def remarks(self, rows: Sequence[Row]) -> list[str]:
        labels = (clean_text(row.fields["label"]) for row in rows)
        first = next((label for label in labels if "," in label), "")
        return [f"the label '{first}' is read as {_number(first, self.decimal):g} (task.decimal)"] if first else []

    def target(self, row: Row) -> float:
        return _number(row.fields["label"], self.decimal)

    def head(self, classes: Sequence[str]) -> dict[str, Any]:
        return {"problem_type": "regression", **named_outputs(["value"])}

    def prepare_model(self, model: Model, tokenizer: Tokenizer, rows: Sequence[Row]) -> None:
        """Let a fresh head, which answers about 0, start at the numbers' mean and with their spread.

        The few steps of a small data set would else be spent on getting there.
        """
        import torch
        from torch import nn

        (*_, output) = (layer for layer in model.modules() if isinstance(layer, nn.Linear) and layer.out_features == 1)
        numbers = list(map(self.target, rows))
        with torch.no_grad():
            output.weight *= float(np.std(numbers))
            if output.bias is not None:
                output.bias.fill_(float(np.mean(numbers)))

    def encode_target(self, target: float, label2id: Mapping[str, int]) -> float:
        return target

    def losses(self, logits: Tensor, labels: Tensor) -> Tensor:
        return (logits.squeeze(-1) - labels) ** 2

    def answer(self, model: Model, tokenizer: Tokenizer, batch: Batch) -> list[float]:
        return model(**batch).logits.float().squeeze(-1).tolist()

    def mean(self, outputs: Sequence[float]) -> float:
        return sum(outputs) / len(outputs)

    def merge(self, row: Row, features: Sequence[Feature], outputs: Sequence[float]) -> Answer:
        return {"value": round(self.mean(outputs), 6)}

    def baseline_answers(self, rows: Sequence[Row]) -> dict[str, list[Answer]]:
        return {"mean of the numbers": [{"value": float(np.mean(list(map(self.target, rows))))}] * len(rows)}

    def errors(self, answers: Sequence[Answer], targets: Sequence[float]) -> Sequence[float]:
        """Return by how much each number is off."""
        return [abs(value - target) for value, target in zip(*self.sides(answers, targets), strict=True)]

    def display(self, row: Row | None, answer: Answer, target: float) -> tuple[str, str]:
        return f"{target:g}", f"{answer['value']:.3g}"


def _number(label: Any, decimal: str | None = None) -> float:
    """Return the number that a label is; nan where it is none.

    Args:
        decimal: The sign before its fraction; by default a comma that is the last of its signs, else a point.
    """
    text = "".join(clean_text(label).split())
    sign = decimal if isinstance(label, str) else "."
    if sign is None:
        sign = "," if text.count(",") == 1 and text.rfind(",") > text.rfind(".") else "."
    try:
        return float(text.replace("." if sign == "," else ",", "").replace(sign, "."))
    except ValueError:
        return math.nan
