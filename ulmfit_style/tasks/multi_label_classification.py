"""Multi-label classification: any number of labels for a text, or for a pair of texts."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import compress
from typing import Annotated, Any, ClassVar, final

from pydantic import Field

from ulmfit_style.config.section import Unhashed
from ulmfit_style.errors import nearest
from ulmfit_style.tasks.base import COLUMNS, Answer, Name, Row, in_order
from ulmfit_style.tasks.base_text import Label, LabelTask, Scores, clean_text, label_name, read_written, separator_in
from ulmfit_style.tasks.types import Tensor
from ulmfit_style.tasks.values import Reference

THRESHOLD = 0.5
"""The probability from which on a label is given."""

GIVEN: Mapping[str, bool] = {"0": False, "1": True, "false": False, "true": True}
"""What says of one label whether a row has it."""


def _one_regression_a_label(features: Any, targets: Sequence[Sequence[str]]) -> Callable[[Any], list[Answer]]:
    from sklearn.linear_model import LogisticRegression
    from sklearn.multiclass import OneVsRestClassifier
    from sklearn.preprocessing import MultiLabelBinarizer

    binarizer = MultiLabelBinarizer()
    model = OneVsRestClassifier(LogisticRegression(max_iter=1000)).fit(features, binarizer.fit_transform(targets))
    return lambda unseen: [{"labels": list(labels)} for labels in binarizer.inverse_transform(model.predict(unseen))]


@final
class MultiLabelClassification(LabelTask):
    """Rows of a text, or a pair of texts, and its labels: a list, names with a separator, or 0 or 1 for each."""

    answer_field: ClassVar[str] = "labels"
    metric: ClassVar[str] = "micro_f1"
    reference: ClassVar[Reference] = Reference("logistic regression", _one_regression_a_label)
    rankings: ClassVar[Sequence[str]] = ("macro_f1", "accuracy")
    label_columns: ClassVar[Sequence[str]] = COLUMNS["labels"]

    label: Annotated[Name | None, Unhashed] = None  # type: ignore[assignment]  # others take one
    """The column of the labels, or those of each label, which hold 0 or 1: task.label=[sport,money]; null: found by its
    name (labels, tags, topics, genres ...)."""
    labels: Annotated[tuple[Label, ...] | None, Unhashed] = None
    """The names of all labels. Where a row holds 0 or 1 for each ([1, 0, 1]), they are in this order. null: those that
    the rows name."""
    label_separator: Annotated[str, Field(min_length=1), Unhashed] = "|"
    """What stands between labels where they are no list: drama|comedy. An empty cell is a text without labels."""

    @classmethod
    def match_score(cls, texts: Sequence[Any], labels: Sequence[Any]) -> int:
        read = list(map(read_written, labels))
        has_lists = any(isinstance(label, dict) or (isinstance(label, list) and len(label) != 1) for label in read)
        return 2 if has_lists or separator_in(labels) else 0

    @classmethod
    def settings_by(cls, labels: Sequence[Any]) -> dict[str, Any]:
        found: dict[str, Any] = {"label_separator": sign} if (sign := separator_in(labels)) else {}
        cells = list(map(cls(path=None, **found)._parts, labels))
        return found | ({"labels": [f"name_{n}" for n, _ in enumerate(cells[0])]} if _are_by_place(cells) else {})

    def label_problem(self, row: Row) -> str | None:
        labels = read_written(row.fields["label"])
        given = labels.items() if isinstance(labels, dict) else ()
        if wrong := [f"'{name}' has '{value}'" for name, value in given if _is_given(value) is None]:
            return f"the label {wrong[0]}, which is neither 0 nor 1; task.label=<column>.<name> takes one value within"
        if any(isinstance(part, (list, dict)) or not clean_text(part) for part in self._parts(labels)):
            return "one of the labels is empty, or no name" if isinstance(labels, list) else None
        unknown = next((name for name in self.target(row) if name not in (self.labels or (name,))), None)
        return unknown and f"the label '{unknown}' is none of task.labels{nearest(unknown, self.labels or ())}"

    def dataset_problem(self, rows: Sequence[Row]) -> str | None:
        cells = [self._parts(row.fields["label"]) for row in rows]
        if not self.labels and _are_by_place(cells):
            return f"every row has 0 or 1 for each of {len(cells[0])} labels; name them in order: task.labels=[...]"
        counts = Counter(label for row in rows for label in self.target(row))
        if len(counts) < 2:
            return f"there are {len(counts)} different labels; two are needed"
        if all(len(self.target(row)) <= 1 and isinstance(read_written(row.fields["label"]), str) for row in rows):
            doubt = f"is task.label_separator={self.label_separator} right?"
            return f"no row has two labels; {doubt} task=text_classification takes one label of a row"
        return None

    def remarks(self, rows: Sequence[Row]) -> list[str]:
        unused = sorted(set(self.labels or ()) - {label for row in rows for label in self.target(row)})
        return [f"no row has the label {' or '.join(unused)} of task.labels, so no answer will"] if unused else []

    def target(self, row: Row) -> list[str]:
        parts = self._parts(row.fields["label"])
        if self.labels and len(parts) == len(self.labels) and _are_by_place([parts]):
            parts = list(compress(self.labels or (), map(_is_given, parts)))
        return in_order({label_name(part) for part in parts} - {""})

    def _parts(self, cell: Any) -> Sequence[Any]:
        """Return the labels of a cell one by one; of 0 or 1 by name those that have a 1."""
        labels = read_written(cell)
        if isinstance(labels, dict):
            return [name for name, value in labels.items() if _is_given(value)]
        return labels if isinstance(labels, list) else clean_text(labels).split(self.label_separator)

    def encode_target(self, target: Sequence[str], label2id: Mapping[str, int]) -> list[float]:
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

    def errors(self, answers: Sequence[Answer], targets: Sequence[Sequence[str]]) -> Sequence[float]:
        """Return how many labels are missing or too many."""
        return [len(set(answer["labels"]) ^ set(target)) for answer, target in zip(answers, targets, strict=True)]

    def display(self, row: Row | None, answer: Answer, target: Sequence[str]) -> tuple[str, str]:
        return ", ".join(target) or "none", ", ".join(answer["labels"]) or "none"

    def calibration_pairs(self, answers: Sequence[Answer], targets: Sequence[Any]) -> list[tuple[float, bool]]:
        """Return the probability of every label of every row."""
        pairs = zip(answers, targets, strict=True)
        return [(score, name in target) for answer, target in pairs for name, score in answer["scores"].items()]


def _is_given(value: Any) -> bool | None:
    """Tell whether a row has a label, of which a cell holds 0, 1, true, false or nothing; None for all else."""
    return GIVEN.get(label_name(value) or "0")


def _are_by_place(cells: Sequence[Sequence[Any]]) -> bool:
    """Tell whether all cells hold 0 or 1 for each of the same number of labels."""
    sizes = set(map(len, cells))
    return len(sizes) == 1 and min(sizes) > 1 and all(_is_given(part) is not None for cell in cells for part in cell)
