"""What the kinds of text classification share: a text or a pair of texts, and one score or several for the whole."""

import abc
import ast
import json
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator

from ulmfit_style.config.section import Answering, Unhashed
from ulmfit_style.errors import UserError
from ulmfit_style.tasks.base import COLUMNS, Answer, Column, Feature, Name, Row, Several, Task, inputs_of, named_outputs
from ulmfit_style.tasks.types import Batch, Label2id, Model, Module, Tensor, Tokenizer
from ulmfit_style.tasks.values import Architecture, ExplainedPart, Pipeline
from ulmfit_style.tasks.windows import columns_of

Scores = Mapping[str, float]
"""The probability of each label."""

MOST_KEPT = 300
"""Labels whose probabilities are kept of each row that is scored."""

SEPARATORS = "|;,#/&"
"""What people put between labels, in the order in which it is looked for."""

FRACTION = re.compile(r"(-?\d+)\.0*")
"""A whole number as it is written with others that are none."""

QUOTED = re.compile(r"""('(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")(\s+(?=['"]))?""")
"""A name in a list that is written as text, and the blank before the next one, where numpy has no comma."""


class TextTask(Task, abc.ABC):
    """Rows of a text, or a pair of texts, and what a model answers to the whole."""

    scores_whole_texts: ClassVar[bool] = True
    is_explained: ClassVar[bool] = True
    pipeline: ClassVar[Pipeline | None] = Pipeline("text-classification")
    label_columns: ClassVar[Sequence[str]]
    """Names of columns that hold the right answer wherever they stand."""

    text: Annotated[Name | None, Unhashed] = None
    """The column of the text, or several, with a line break between them: task.text=[subject,body]; null: found by its
    name (text, review, sentence ...)."""
    text_pair: Annotated[str | None, Unhashed] = None
    """The column of a second text, where a row is a pair (premise and hypothesis, question and answer)."""
    label: Annotated[str | None, Unhashed] = None
    """The column of the right answer; null: found by its name (label, class, category, stars ...)."""
    long_documents: Annotated[Literal["head", "windows", "pooled", "whole"], Answering] = "head"
    """What is read of a text longer than `finetune.max_length`. head: its beginning; windows: all of it, in windows
    that overlap, whose answers are averaged; pooled: in such windows too, of which the head reads the maximum in each
    feature, with gradients through four of them, by finetune.pooling=mean or concat; whole: all of it at once, by a
    model that carries its state (model=awd_lstm), with gradients through its last `finetune.max_length` tokens (Howard
    and Ruder 2018, section 3.3). Pairs of texts: head."""
    overlap: Annotated[float, Field(ge=0, le=0.9), Answering] = 0.25
    """The share of its tokens that a window has in common with the next one."""

    @field_validator("long_documents")
    @classmethod
    def _of_one_text(cls, value: str, info: ValidationInfo) -> str:
        if info.data.get("text_pair") and value != "head":
            raise ValueError("is for single texts, and task.text_pair names a second; use head")
        return value

    @property
    def long_texts(self) -> str:  # type: ignore[override]  # it depends on the option, as the next two do
        return {"head": "cut", "whole": "read whole"}.get(self.long_documents, "read in windows")

    @property
    def pools_windows(self) -> bool:  # type: ignore[override]
        return self.long_documents == "pooled"

    @property
    def reads_more(self) -> str:  # type: ignore[override]
        return super().reads_more + ("" if self.text_pair else ", or task.long_documents=windows")

    def for_architecture(self, architecture: Architecture) -> Self:
        if self.long_documents == "whole" and not architecture.carries_state:
            problem = f"a model of type '{architecture.model_type}' carries no state from part to part"
            raise UserError(f"task.long_documents=whole: {problem}; take windows, or model=awd_lstm")
        return self

    def auto_class(self, architecture: Architecture) -> str:
        return "AutoModelForSequenceClassification"

    def inputs(self) -> dict[str, Column]:
        pair = {"text_pair": Column("task.text_pair", self.text_pair)} if self.text_pair else {}
        hint = "; of a pair name both: task.text={} task.text_pair={}".format(*COLUMNS["pairs"][0])
        return {"text": Column("task.text", self.text, COLUMNS["text"], hint), **pair}

    def targets(self) -> dict[str, Column]:
        return {"label": Column("task.label", self.label, self.label_columns)}

    def row_problem(self, row: Row) -> str | None:
        problems = (text_problem(name, row.fields[name]) for name in self.inputs())
        return next(filter(None, problems), None) or self.label_problem(row)

    @abc.abstractmethod
    def label_problem(self, row: Row) -> str | None:
        """Return what is wrong with a row's label; None when it is right."""

    def texts(self, row: Row) -> list[str]:
        names = ("text", "text_pair") if self.text_pair else ("text",)  # those of `inputs`
        return ["" if row.fields[name] is None else str(row.fields[name]) for name in names]

    def encode(self, row: Row, tokenizer: Tokenizer, max_length: int, label2id: Label2id | None) -> list[Feature]:
        columns = columns_of(tokenizer, self.texts(row))
        long = len(columns["input_ids"]) > max_length
        if long and self.text_pair:
            columns = columns_of(tokenizer, self.texts(row), max_length=max_length, truncation=True)
        pieces = self._pieces(columns["texts"], max_length, tokenizer.truncation_side)
        shared: Feature = {"long": long}
        if label2id is not None:
            shared |= {"labels": self.encode_target(self.target(row), label2id), "weight": 1 / len(pieces)}
            columns = {name: columns[name] for name in tokenizer.model_input_names if name in columns}
        return [{name: [column[at] for at in piece] for name, column in columns.items()} | shared for piece in pieces]

    def _pieces(self, texts: Sequence[int | None], max_length: int, side: str) -> list[list[int]]:
        """Return the places of the tokens that are read together, each time with all special tokens.

        Windows that are to be pooled are one after the other, each of `max_length` tokens.

        Args:
            texts: The number of the text that each token is of; None for special tokens.
            side: That on which the tokenizer cuts.
        """
        if len(texts) <= max_length or self.long_documents == "whole":
            return [list(range(len(texts)))]
        inside = [place for place, text in enumerate(texts) if text is not None]
        special = [place for place, text in enumerate(texts) if text is None]
        room = max_length - len(special)
        if self.long_documents == "head":
            pieces = [inside[:room] if side == "right" else inside[len(inside) - room :]]
        else:
            step = max(1, room - int(self.overlap * room))
            last = len(inside) - room  # where the last window begins: it is as long as the others
            pieces = [inside[start : start + room] for start in (*range(0, last, step), last)]
        read = [sorted([*special, *piece]) for piece in pieces]
        return [list(chain(*read))] if self.pools_windows else read

    @abc.abstractmethod
    def encode_target(self, target: Any, label2id: Label2id) -> Any:
        """Return the right answer as the loss takes it."""

    def loss(self, model: Module, batch: Batch) -> Tensor:
        losses = self.losses(model(**inputs_of(batch)).logits.float(), batch["labels"])
        return (losses * batch.get("weight", 1)).sum()

    @abc.abstractmethod
    def losses(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the loss of each row, (batch,), from logits (batch, outputs)."""

    def explained_parts(self, features: Sequence[Feature], answer: Answer, label2id: Label2id) -> list[ExplainedPart]:
        """Return the outputs of the labels that were chosen, or all outputs where none are, each of every feature."""
        chosen = answer[self.answer_field]
        labels = [chosen] if isinstance(chosen, str) else chosen if isinstance(chosen, list) else list(label2id)
        return [
            ExplainedPart(name, feature, lambda logits, number=number: logits[:, number])  # type: ignore[misc]
            for name, number in label2id.items()
            if name in labels
            for feature in range(len(features))
        ]


class LabelTask(TextTask, abc.ABC):
    """Rows of a text, or a pair of texts, and labels of a set: one, or several."""

    metrics: ClassVar[str] = "classification"

    top_k: Annotated[int | Literal["all"] | None, Unhashed, Answering] = None
    """A number: an answer has `scores` too, which are so many of the most probable labels with their probabilities, the
    highest first. all: every label. null: of one label its `score`, of several the `scores` of all."""

    @field_validator("top_k", mode="before")
    @classmethod
    def _number_or_all(cls, top_k: Any) -> Any:
        if top_k not in (None, "all") and not (isinstance(top_k, int) and top_k > 0):
            raise ValueError("should be a number of labels, or all")
        return top_k

    def for_scoring(self) -> Self:
        return self.model_copy(update={"top_k": MOST_KEPT})

    def head(self, classes: Sequence[str]) -> dict[str, Any]:
        """Return the outputs, in the words that transformers has for its pipelines."""
        kind = "single_label_classification" if self.is_single_label else "multi_label_classification"
        return {"problem_type": kind, **named_outputs(classes)}

    def labels_of(self, row: Row) -> list[str]:
        return [self.target(row)] if self.is_single_label else self.target(row)

    def baseline_answers(self, rows: Sequence[Row]) -> dict[str, list[Answer]]:
        """Return the largest class of these very rows: how much of a score needs no model at all."""
        largest = [label for label, _ in Counter(label for row in rows for label in self.labels_of(row)).most_common(1)]
        return {"largest class": [{self.answer_field: largest[0] if self.is_single_label else largest}] * len(rows)}

    def answer(self, model: Model, tokenizer: Tokenizer, batch: Batch) -> list[Scores]:
        names: Mapping[Any, str] = model.config.id2label or {}
        rows = self.probabilities(model(**batch).logits.float()).tolist()
        return [{names[index]: probability for index, probability in enumerate(row)} for row in rows]

    @abc.abstractmethod
    def probabilities(self, logits: Tensor) -> Tensor:
        """Return the probabilities of the labels, from logits of the same shape, (batch, labels)."""

    def mean(self, outputs: Sequence[Scores]) -> Scores:
        return {label: sum(scores[label] for scores in outputs) / len(outputs) for label in outputs[0]}

    def merge(self, row: Row, features: Sequence[Feature], outputs: Sequence[Scores]) -> Answer:
        """Return the answer by the mean of the probabilities that the windows of the text give each label."""
        means = self.mean(outputs)
        answer = self.answer_from(means)
        if self.top_k is None:
            return answer
        ranked = sorted(means, key=lambda label: -means[label])
        highest = ranked if self.top_k == "all" else ranked[: self.top_k]
        return {**answer, "scores": {label: round(means[label], 6) for label in highest}}

    @abc.abstractmethod
    def answer_from(self, scores: Scores) -> Answer:
        """Return the answer to a row from the probabilities of its labels: what is chosen, and what is said of it."""


def text_problem(name: str, value: Any) -> str | None:
    """Return what is wrong with a cell that should hold a text."""
    if isinstance(value, (list, dict, bytes)) and not isinstance(value, Several):
        return f"the {name} is a {type(value).__name__}, not a text"
    return None if clean_text(value) else f"the {name} is empty"


def clean_text(value: Any) -> str:
    """Return a cell as text: NFC, without blanks around it; empty where it is missing."""
    missing = value is None or (isinstance(value, float) and math.isnan(value))
    return "" if missing else unicodedata.normalize("NFC", str(value)).strip()


def label_name(value: Any) -> str:
    """Return a cell as the name of a class: 1 and 1.0 are one, and so are true, True and TRUE."""
    name = clean_text(value)
    whole = FRACTION.fullmatch(name)
    return whole[1] if whole else name.casefold() if name.casefold() in ("true", "false") else name


def _typed(value: Any) -> Any:
    """Return a class as it was typed where YAML takes it for a number, a truth value or nothing."""
    return value if isinstance(value, (list, dict)) else "null" if value is None else label_name(str(value))


def read_written(cell: Any) -> Any:
    """Return a cell, in which a list or mapping may be written as text, by Python, JSON, numpy or Label Studio."""
    if isinstance(cell, dict) and isinstance(cell.get("choices"), list):
        return cell["choices"]
    text = clean_text(cell) if isinstance(cell, str) else ""
    if text[:1] + text[-1:] not in ("[]", "{}"):
        return text.split() if re.fullmatch(r"[01](\s+[01])+", text) else cell  # 0 or 1 for each label
    with_commas = QUOTED.sub(lambda name: name[1] + "," * bool(name[2]), text)  # or Python makes one name of two
    for parse, written in ((json.loads, text), (ast.literal_eval, with_commas)):
        try:
            value = parse(written)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            continue
        return read_written(value) if isinstance(value, dict) else list(value)
    return [part.strip() for part in text[1:-1].split("," if "," in text else None)]


def separator_in(labels: Sequence[Any]) -> str | None:
    """Return what stands between the labels of cells, where several are in one."""
    cells = {clean_text(label) for label in labels if not isinstance(read_written(label), (list, dict))}
    parts = {sign: {part.strip() for cell in cells for part in cell.split(sign)} for sign in SEPARATORS}
    # Names of classes hold such signs too, but then their parts are not those of other cells.
    likely = (sign for sign in SEPARATORS if len(parts[sign]) < len(cells) + (sign == "|"))
    return next((sign for sign in likely if any(sign in cell for cell in cells)), None)


Label = Annotated[str, BeforeValidator(_typed)]
"""The name of a class."""
