"""Multi-label classification: any number of labels for a text, or for a pair of texts."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, ClassVar, final

from pydantic import Field

from ulmfit_style.config.section import Unhashed
from ulmfit_style.metrics.intervals import Array, Points, ratio
from ulmfit_style.tasks.base import Answer, Row, in_order
from ulmfit_style.tasks.base_text import LabelTask, Scores, plain
from ulmfit_style.tasks.types import Tensor
from ulmfit_style.tasks.values import Reference

THRESHOLD = 0.5
"""The probability from which on a label is given."""


@final
class MultiLabelClassification(LabelTask):
    """Rows of a text, or a pair of texts, and its labels: a list (jsonl, parquet), or names with a separator."""

    problem_type: ClassVar[str] = "multi_label_classification"
    label_field: ClassVar[str] = "labels"
    metric: ClassVar[str] = "micro_f1"
    rankings: ClassVar[Sequence[str]] = ("macro_f1", "accuracy")
    label_columns: ClassVar[Sequence[str]] = (
        *("labels", "label", "classes", "categories", "tags", "topics", "genres", "emotions"),
        *("라벨", "레이블", "분류", "태그"),
    )

    label_separator: Annotated[str, Field(min_length=1), Unhashed] = "|"
    """What stands between labels where they are no list: drama|comedy. An empty cell is a text without labels."""

    @classmethod
    def certainty(cls, texts: Sequence[Any], labels: Sequence[Any]) -> int:
        return 2 if any(isinstance(label, list) for label in labels) else 0

    def label_problem(self, row: Row) -> str | None:
        labels = row.fields["label"]
        if isinstance(labels, list):
            return None if all(map(plain, labels)) else "one of the labels is empty"
        return "the labels are neither a list nor text" if isinstance(labels, dict) else None

    def dataset_problem(self, rows: Sequence[Row]) -> str | None:
        counts = Counter(label for row in rows for label in self.target(row))
        if len(counts) < 2:
            return f"there are {len(counts)} different labels; two are needed"
        if all(len(self.target(row)) <= 1 for row in rows):
            return (
                f"no row has two labels; is task.label_separator={self.label_separator} right? "
                "task=text_classification takes one label of a row"
            )
        return None

    def target(self, row: Row) -> list[str]:
        labels = row.fields["label"]
        parts = labels if isinstance(labels, list) else plain(labels).split(self.label_separator)
        return in_order({plain(part) for part in parts} - {""})

    def labels_of(self, row: Row) -> list[str]:
        return self.target(row)

    def encoded(self, target: Sequence[str], label2id: Mapping[str, int]) -> list[float]:
        return [float(label in target) for label in label2id]

    def losses(self, logits: Tensor, labels: Tensor) -> Tensor:
        from torch.nn.functional import binary_cross_entropy_with_logits

        # Summed over the labels: a row counts once, as with one class a row, however many labels there are.
        return binary_cross_entropy_with_logits(logits, labels, reduction="none").sum(dim=-1)

    def probabilities(self, logits: Tensor) -> Tensor:
        return logits.sigmoid()

    def answer_from(self, scores: Scores) -> Answer:
        labels = [label for label, score in scores.items() if score >= THRESHOLD]
        return {"labels": labels, "scores": {label: round(score, 6) for label, score in scores.items()}}

    def reference(self) -> Reference:
        return Reference("logistic regression", _one_regression_a_label)

    def points(self, answers: Sequence[Answer], targets: Sequence[Sequence[str]]) -> Points:
        """Return the two sums that the micro F1 is the ratio of."""
        pairs = [(set(answer["labels"]), set(target)) for answer, target in zip(answers, targets, strict=True)]
        return [(2 * len(labels & target), len(labels) + len(target)) for labels, target in pairs]

    def of_means(self, means: Array) -> Array:
        return ratio(means)

    def errors(self, answers: Sequence[Answer], targets: Sequence[Sequence[str]]) -> Sequence[float]:
        """Return how many labels are missing or too many."""
        return [len(set(answer["labels"]) ^ set(target)) for answer, target in zip(answers, targets, strict=True)]

    def in_words(self, row: Row | None, answer: Answer, target: Sequence[str]) -> tuple[str, str]:
        return ", ".join(target) or "none", ", ".join(answer["labels"]) or "none"

    def calibration_pairs(
        self, answers: Sequence[Answer], targets: Sequence[Sequence[str]]
    ) -> list[tuple[float, bool]]:
        """Return the probability of every label of every row."""
        pairs = zip(answers, targets, strict=True)
        return [(score, name in target) for answer, target in pairs for name, score in answer["scores"].items()]


def _one_regression_a_label(features: Any, targets: Sequence[Sequence[str]]) -> Callable[[Any], list[Answer]]:
    from sklearn.linear_model import LogisticRegression
    from sklearn.multiclass import OneVsRestClassifier
    from sklearn.preprocessing import MultiLabelBinarizer

    binarizer = MultiLabelBinarizer()
    model = OneVsRestClassifier(LogisticRegression(max_iter=1000)).fit(features, binarizer.fit_transform(targets))
    return lambda unseen: [{"labels": list(labels)} for labels in binarizer.inverse_transform(model.predict(unseen))]
