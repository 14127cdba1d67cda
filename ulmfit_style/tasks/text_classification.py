"""Text classification: one class for a text, or for a pair of texts."""

import re
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal, final

from ulmfit_style.config.section import Unhashed
from ulmfit_style.errors import SHOWN_PROBLEMS, nearest
from ulmfit_style.tasks.base import COLUMNS, Answer, Row, in_order
from ulmfit_style.tasks.base_text import Label, LabelTask, Scores, clean_text, label_name, read_written, separator_in
from ulmfit_style.tasks.entities import OUTSIDE, TAG
from ulmfit_style.tasks.types import Tensor
from ulmfit_style.tasks.values import Reference

FOLDS = 5
"""Parts of the training rows by which a reference's penalty is chosen; fewer where no class has so many rows."""


def logistic_regression(features: Any, targets: Sequence[Any], weights: Any = None) -> Any:
    """Return scikit-learn's logistic regression, its penalty chosen by cross-validation on the training rows.

    A fixed penalty would make a weak reference: with a hundred review sentences, scikit-learn's default costs frozen
    features some two points, and with a hundred questions of 77 classes it costs TF-IDF most of its right answers. So
    it is chosen even if classes have a single row, which is in one part alone.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV

    model = LogisticRegression(max_iter=1000)
    folds = min(FOLDS, max(Counter(targets).values()))
    if folds > 1:
        model = GridSearchCV(model, {"C": [0.001, 0.01, 0.1, 1, 10, 100]}, cv=folds)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The (least populated class|number of unique classes)", UserWarning)
        model.fit(features, targets, sample_weight=weights)
    return getattr(model, "best_estimator_", model)


def _fit(features: Any, targets: Sequence[str]) -> Callable[[Any], list[Answer]]:
    model = logistic_regression(features, targets)
    return lambda unseen: [{"label": str(label)} for label in model.predict(unseen)]


@final
class TextClassification(LabelTask):
    """Rows of a text, or a pair of texts, and its class: a name or a whole number."""

    is_single_label: ClassVar[bool] = True
    answer_field: ClassVar[str] = "label"
    metric: ClassVar[str] = "accuracy"
    reference: ClassVar[Reference] = Reference("logistic regression", _fit)
    rankings: ClassVar[Sequence[str]] = ("macro_f1", "micro_f1", "matthews")
    label_columns: ClassVar[Sequence[str]] = COLUMNS["class"]

    labels: Annotated[tuple[Label, ...] | None, Unhashed] = None
    """The classes to keep; rows of other classes are left out, and counted. null for all classes."""
    class_weights: Literal["none", "balanced"] = "none"
    """`balanced`: each class has the same share in the loss, however many of the used training rows it has."""

    @classmethod
    def match_score(cls, texts: Sequence[Any], labels: Sequence[Any]) -> int:
        return 1

    @classmethod
    def settings_by(cls, labels: Sequence[Any]) -> dict[str, Any]:
        names = {label_name(label) for label in labels if not isinstance(label, (list, dict))}
        return {"labels": in_order(names - {""})} if "" in names else {}  # which leaves the others out

    def keeps(self, row: Row) -> bool:
        return self.labels is None or self.target(row) in self.labels

    def label_problem(self, row: Row) -> str | None:
        if isinstance(_label(row), (list, dict)):
            return "the label is a list or mapping; for several labels per row use task=multi_label_classification"
        return None if self.target(row) else "the label is empty; task.labels=[...] leaves all rows of other labels out"

    def dataset_problem(self, rows: Sequence[Row]) -> str | None:
        labels = set(map(self.target, rows))
        for label in self.labels or ():
            if label not in labels:
                yaml = "; YAML reads no and yes as false and true: quote them" if label in ("true", "false") else ""
                return f"no row has the label '{label}' of task.labels{yaml or nearest(label, labels)}"
        labels &= set(self.labels or labels)
        tags = {tag for label in labels for tag in re.split(r"[\s,]+", label)}
        if OUTSIDE in tags and all(map(TAG.fullmatch, tags)):
            return "the labels are tags of words; task=token_classification takes lists of both, or a .conll file"
        if len(labels) == 1:
            return f"every row has the label '{next(iter(labels))}'; two classes are needed"
        if len(labels) > max(2, len(rows) // 2):
            doubt = "is task.label the column of the class? task=text_regression learns numbers"
            return f"{len(labels):,} different labels in {len(rows):,} rows; {doubt}"
        return None

    def remarks(self, rows: Sequence[Row]) -> list[str]:
        written, alike = {clean_text(_label(row)) for row in rows}, defaultdict[str, set[str]](set)
        for name in sorted(written):
            alike[" ".join(label_name(name).casefold().split())].add(label_name(name))
        same = [f"{name} is read as {label_name(name)}" for name in sorted(written) if label_name(name) != name]
        doubtful = [" and ".join(map(repr, sorted(names))) for names in alike.values() if len(names) > 1]
        doubts = [f"the classes {names} differ by case or blanks alone" for names in doubtful]
        if sign := separator_in(sorted(written)):
            doubts.append(f"labels hold '{sign}'; task=multi_label_classification takes several of a row")
        return [*same, *doubts][:SHOWN_PROBLEMS]

    def target(self, row: Row) -> str:
        return label_name(_label(row))

    def classes(self, rows: Sequence[Row]) -> list[str]:
        return super().classes(rows) if rows else in_order(set(self.labels or ()))

    def name_rows(self, classes: Sequence[str]) -> list[Row]:
        if self.text_pair:
            return []
        texts = {name: re.sub(r"[\W_]+|(?<=[a-z])(?=[A-Z])", " ", name).strip() for name in classes}
        named = [name for name in classes if re.search(r"[^\W\d]", texts[name])]
        return [Row("class names", place, {"text": texts[name], "label": name}) for place, name in enumerate(named, 1)]

    def row_weights(self, rows: Sequence[Row]) -> list[float]:
        if self.class_weights == "none":
            return super().row_weights(rows)
        counts = Counter(map(self.target, rows))
        return [len(rows) / (len(counts) * counts[self.target(row)]) for row in rows]

    def encode_target(self, target: str, label2id: Mapping[str, int]) -> int:
        return label2id[target]

    def losses(self, logits: Tensor, labels: Tensor) -> Tensor:
        from torch.nn.functional import cross_entropy

        return cross_entropy(logits, labels, reduction="none")

    def probabilities(self, logits: Tensor) -> Tensor:
        return logits.softmax(dim=-1)

    def answer_from(self, scores: Scores) -> Answer:
        label = max(scores, key=lambda name: scores[name])
        return {"label": label, "score": round(scores[label], 6)}


def _label(row: Row) -> Any:
    """Return the label of a row, which may be alone in a list: so tools for several labels write it."""
    label = row.fields["label"]
    label = read_written(label) if str(label).startswith('{"choices"') else label  # Label Studio's csv
    return label[0] if isinstance(label, list) and len(label) == 1 else label
