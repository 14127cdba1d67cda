"""Extractive question answering: the stretch of a context that answers a question, or that there is none."""

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, final

import numpy as np
from pydantic import Field

from ulmfit_style.config.section import Answering, Count, Unhashed
from ulmfit_style.metrics.intervals import Array
from ulmfit_style.tasks.base import COLUMNS, Answer, Column, Feature, Row, Task, inputs_of
from ulmfit_style.tasks.base_text import clean_text, text_problem
from ulmfit_style.tasks.types import Batch, Label2id, Model, Module, Tensor, Tokenizer
from ulmfit_style.tasks.values import Architecture, Pipeline
from ulmfit_style.tasks.windows import Range, learnable, pieces_of, trimmed, windows

ANSWERED, UNANSWERABLE = "answer", "no answer"
"""The classes of questions."""

WHOLE_NUMBER = re.compile(r"\d+(\.0)?")
"""The place of a character, also as pandas writes a column where some are missing."""


@final
class QuestionAnswering(Task):
    """Rows of a question, a context, and the stretches of the context that answer it, if any."""

    metric: ClassVar[str] = "f1"
    metrics: ClassVar[str] = "squad"
    rankings: ClassVar[Sequence[str]] = ("exact_match",)
    long_texts: ClassVar[str] = "read in windows that overlap"
    pipeline: ClassVar[Pipeline] = Pipeline("question-answering", exists=False)

    question: Annotated[str | None, Unhashed] = None
    """The column of the question; null: found by its name."""
    context: Annotated[str | None, Unhashed] = None
    """The column of the context, in which the answer is; null: found by its name (context, passage, paragraph)."""
    answers: Annotated[str | None, Unhashed] = None
    """The column of the right answers, {text: [...], answer_start: [...]} or a list of {text: ..., answer_start: ...},
    or of the text of the only one; null: found by its name (answers, answer)."""
    answer_start: Annotated[str | None, Unhashed] = None
    """Where the answers are text alone, the column of the place of its first character in the context, from 0; null:
    found by its name (answer_start)."""
    overlap: Annotated[float, Field(ge=0, le=0.9), Answering] = 0.5
    """The share of the tokens of a context that a window of it has in common with the next one. An answer that is
    longer than that may be whole in no window, and is then never given."""
    max_answer_length: Annotated[Count, Answering] = 30
    """The most tokens of an answer."""
    null_threshold: Annotated[float, Answering] = 0.0
    """By how much the score of no answer, the sum of two logits, must exceed that of the best answer for none to be
    given. Only models that were trained on questions without an answer give none."""

    def auto_class(self, architecture: Architecture) -> str:
        return "AutoModelForQuestionAnswering"

    def inputs(self) -> dict[str, Column]:
        return {name: Column(f"task.{name}", getattr(self, name), COLUMNS[name]) for name in ("question", "context")}

    @classmethod
    def recognised(cls, columns: Mapping[str, str], row: Mapping[str, Any]) -> dict[str, str] | None:
        return {} if all(columns.keys() & set(COLUMNS[field]) for field in ("question", "context", "answers")) else None

    def targets(self) -> dict[str, Column]:
        start = Column("task.answer_start", self.answer_start, COLUMNS["answer_start"], needed=False)
        return {"answer": Column("task.answers", self.answers, COLUMNS["answers"]), "answer_start": start}

    def columns(self) -> dict[str, Column]:
        article = {} if self.group else {"group": Column("task.group", None, ("title",), needed=False)}
        return {**super().columns(), **article}

    def row_problem(self, row: Row) -> str | None:
        for name in self.inputs():
            if (problem := text_problem(name, row.fields[name])) is not None:
                return problem
        answers, context = _answers(row), self.texts(row)[1]
        if answers is None:
            shape = '{"text": ["Ada"], "answer_start": [0]}'
            return f"the answers are neither like {shape} nor a text beside its answer_start"
        for text, start in answers:
            if not isinstance(text, str):
                return "an answer is no text"
            if not context.startswith(text, start):
                place = context.find(text)
                remedy = "it is nowhere in the context" if place < 0 else f"it begins at {place}"
                return f"the answer '{text}' does not begin at character {start} of the context; {remedy}"
        return None

    def dataset_problem(self, rows: Sequence[Row]) -> str | None:
        return None if any(map(_answers, rows)) else "no question has an answer"

    def remarks(self, rows: Sequence[Row]) -> list[str]:
        count = sum(not _answers(row) for row in rows)
        return [f"{count:,} of {len(rows):,} questions have no answer in their context"] if count else []

    def texts(self, row: Row) -> list[str]:
        question, context = ("" if row.fields[name] is None else str(row.fields[name]) for name in self.inputs())
        return [question.strip(), context]

    def documents(self, rows: Sequence[Row]) -> list[str]:
        """Return the contexts, each once: questions are no text of the domain, and several are about one context."""
        return list(dict.fromkeys(self.texts(row)[1] for row in rows))

    def target(self, row: Row) -> dict[str, Any]:
        """Return the right answers as data sets of the Hub have them; none where there is no answer."""
        answers = _answers(row) or []
        return {"text": [text for text, _ in answers], "answer_start": [start for _, start in answers]}

    def labels_of(self, row: Row) -> list[str]:
        return [ANSWERED if _answers(row) else UNANSWERABLE]

    def stratum(self, row: Row) -> str:
        return ""  # articles and contexts stay whole, whatever their questions

    def head(self, classes: Sequence[str]) -> dict[str, Any]:
        return {"num_labels": 2}

    def prepare_model(self, model: Model, tokenizer: Tokenizer, rows: Sequence[Row]) -> None:
        """Keep in config.json whether "none" is learnt of a context: windows without the answer say it too."""
        model.config.unanswerable = UNANSWERABLE in self.classes(rows)

    def encode(self, row: Row, tokenizer: Tokenizer, max_length: int, label2id: Label2id | None) -> list[Feature]:
        question, context = self.texts(row)
        features = windows(tokenizer, row, question, context, max_length=max_length, overlap=self.overlap)
        for feature in features:
            ids = feature["input_ids"]
            feature["none"] = ids.index(tokenizer.cls_token_id) if tokenizer.cls_token_id in ids else 0
        return features if label2id is None else _labelled(context, _answers(row) or [], features)

    def loss(self, model: Module, batch: Batch) -> Tensor:
        from torch.nn.functional import cross_entropy

        output, padding = model(**inputs_of(batch)), batch["attention_mask"].eq(0)
        first = batch["attention_mask"].argmax(dim=1)  # where the padding is on the left, all places are shifted
        # The padding is no choice, or the loss would depend on which rows share a batch.
        starts, ends = (
            cross_entropy(logits.float().masked_fill(padding, -float("inf")), first + places, reduction="none")
            for logits, places in zip((output.start_logits, output.end_logits), batch["labels"].T, strict=True)
        )
        return ((starts + ends) / 2 * batch.get("weight", 1)).sum()

    def answer(self, model: Model, tokenizer: Tokenizer, batch: Batch) -> list[Any]:
        """Return of each feature the logits of its tokens, (length,) each, and whether none may be the answer."""
        output, masks = model(**batch), batch["attention_mask"].bool().cpu().numpy()
        starts, ends = (logits.float().cpu().numpy() for logits in (output.start_logits, output.end_logits))
        may_be_none = getattr(model.config, "unanswerable", False)
        return [(start[mask], end[mask], may_be_none) for start, end, mask in zip(starts, ends, masks, strict=True)]

    def merge(self, row: Row, features: Sequence[Feature], outputs: Sequence[Any]) -> Answer:
        context = self.texts(row)[1]
        pieces = pieces_of(context, features)
        scores = self._scores(pieces, features, outputs)
        best, none = float(scores.max(initial=-np.inf)), -np.inf
        if any(may_be_none for *_, may_be_none in outputs):
            places = [feature["none"] for feature in features]
            none = min(float(start[at] + end[at]) for at, (start, end, _) in zip(places, outputs, strict=True))
        total = np.logaddexp(np.logaddexp.reduce(scores, axis=None), none)
        score, start, end = none, 0, 0
        if best > -np.inf and none <= best + self.null_threshold:
            first, more = divmod(int(scores.argmax()), self.max_answer_length)
            score, start, end = best, pieces[first][0], pieces[first + more][1]
        probability = float(np.exp(score - total)) if score > -np.inf else 0.0
        return {"answer": context[start:end], "score": round(probability, 6), "start": start, "end": end}

    def sides(self, answers: Sequence[Answer], targets: Sequence[Any]) -> tuple[list[str], list[list[str]]]:
        return [answer["answer"] for answer in answers], [list(target["text"]) for target in targets]

    def display(self, row: Row | None, answer: Answer, target: Any) -> tuple[str, str]:
        return " / ".join(dict.fromkeys(target["text"])) or UNANSWERABLE, answer["answer"] or UNANSWERABLE

    def _scores(self, pieces: Sequence[Range], features: Sequence[Feature], outputs: Sequence[Any]) -> Array:
        """Return the score of every stretch of tokens, (tokens, max_answer_length), by its first and its other tokens.

        It is the sum of two logits, and the highest where several windows hold the stretch.
        """
        scores = np.full((len(pieces), self.max_answer_length), -np.inf)
        blank = np.array([start == end for start, end in pieces], dtype=bool)
        for feature, (start, end, _) in zip(features, outputs, strict=True):
            first, inside = feature["first"], slice(*feature["inside"])
            count = inside.stop - inside.start
            starts, ends = (np.where(blank[first : first + count], -np.inf, logits[inside]) for logits in (start, end))
            for more in range(min(self.max_answer_length, count)):
                held = scores[first : first + count - more, more]
                np.maximum(held, starts[: count - more] + ends[more:], out=held)
        return scores


def _answers(row: Row) -> list[tuple[Any, int]] | None:
    """Return the right answers of a row and where they begin; None where they have no known form."""
    value: Any = row.fields["answer"]
    start: Any = row.fields.get("answer_start")
    if isinstance(value, dict):
        value, start = value.get("text"), value.get("answer_start")
    elif isinstance(value, list) and all(isinstance(answer, dict) for answer in value):
        value, start = [answer.get("text") for answer in value], [answer.get("answer_start") for answer in value]
    elif not isinstance(value, list) and not clean_text(value):
        return []
    texts, starts = (cell if isinstance(cell, list) else [cell] for cell in (value, start))
    if not any(map(clean_text, texts)):
        return []
    if len(texts) != len(starts) or not all(WHOLE_NUMBER.fullmatch(str(number)) for number in starts):
        return None
    return [(text, int(float(number))) for text, number in zip(texts, starts, strict=True)]


def _labelled(context: str, answers: Sequence[tuple[str, int]], features: Sequence[Feature]) -> list[Feature]:
    """Return the windows with the places of the first and last token of the first answer; "none" where it is not whole.

    Nothing is learnt from a context that no window holds the answer of: all would say that there is none.
    """
    held: list[int] = []
    for text, start in answers[:1]:
        begin, end = trimmed(context, (start, start + len(text)))
        pieces = enumerate(pieces_of(context, features))
        held = [place for place, piece in pieces if piece[0] < piece[1] and piece[0] < end and piece[1] > begin]
    labels = []
    for feature in features:
        first, (begin, end) = feature["first"], feature["inside"]
        is_whole = bool(held) and first <= held[0] and held[-1] < first + end - begin
        labels.append([begin + place - first for place in (held[0], held[-1])] if is_whole else [feature["none"]] * 2)
    is_lost = bool(answers) and labels == [[feature["none"]] * 2 for feature in features]
    return [] if is_lost else list(map(learnable, features, labels))
