"""Summarisation: a short text of a long one."""

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, final

from ulmfit_style.config.section import Unhashed
from ulmfit_style.metrics.intervals import Points, interval
from ulmfit_style.tasks.base import COLUMNS, Answer, Column, Name, Row
from ulmfit_style.tasks.base_generation import GenerationTask
from ulmfit_style.tasks.base_text import clean_text, text_problem
from ulmfit_style.tasks.values import Pipeline

SENTENCE_END = re.compile(r"(?<=[.!?])\s+|(?<=[。\uff01\uff1f])")

LEADS = {"the first sentence": 1, "the first three sentences": 3}
"""The beginnings of a document that summaries are compared with."""


@final
class Summarization(GenerationTask):
    """Rows of a document and its summary."""

    metric: ClassVar[str] = "rougeL"
    parts: ClassVar[tuple[type, ...]] = (str,)
    pipeline: ClassVar[Pipeline] = Pipeline("summarization", exists=False)
    answer_field: ClassVar[str] = "summary_text"
    default_prompt: ClassVar[str] = "{text}\n\nTL;DR: "

    text: Annotated[Name | None, Unhashed] = None
    """The column of the document, which may hold its sentences as a list; null: found by its name (document, article,
    text, dialogue ...)."""
    summary: Annotated[str | None, Unhashed] = None
    """The column of the summary; null: found by its name (summary, highlights, abstract, synopsis ...)."""

    def inputs(self) -> dict[str, Column]:
        return {"text": Column("task.text", self.text, COLUMNS["document"])}

    @classmethod
    def recognised(cls, columns: Mapping[str, str], row: Mapping[str, Any]) -> dict[str, str] | None:
        return {} if columns.keys() & {"summary", "highlights"} and columns.keys() & set(COLUMNS["document"]) else None

    def targets(self) -> dict[str, Column]:
        return {"summary": Column("task.summary", self.summary, COLUMNS["summary"])}

    def row_problem(self, row: Row) -> str | None:
        problem = self.input_problem(row) or text_problem("text", self.source(row))
        return problem or text_problem("summary", row.fields["summary"])

    def source(self, row: Row) -> str:
        text = row.fields["text"]
        return clean_text(" ".join(text) if isinstance(text, list) else text)

    def target(self, row: Row) -> str:
        return clean_text(row.fields["summary"])

    def baseline_answers(self, rows: Sequence[Row]) -> dict[str, list[Answer]]:
        texts = [SENTENCE_END.split(self.source(row)) for row in rows]
        leads = {name: [" ".join(sentences[:count]) for sentences in texts] for name, count in LEADS.items()}
        return {name: [{self.answer_field: text} for text in written] for name, written in leads.items()}

    def row_scores(self, answers: Sequence[Answer], targets: Sequence[str]) -> Points:
        return self.scoring.rouge(*self.sides(answers, targets))[self.metric]

    def intervals(self, answers: Sequence[Answer], targets: Sequence[str]) -> dict[str, tuple[float, float]]:
        return {name: interval(values) for name, values in self.scoring.rouge(*self.sides(answers, targets)).items()}
