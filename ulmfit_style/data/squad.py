"""Reads the questions of a .json file in the form of SQuAD, each a row with its context and its article's title."""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO, Any

from pydantic import BaseModel, ConfigDict, ValidationError


class _Question(BaseModel):
    model_config = ConfigDict(extra="allow")

    question: str


class _Paragraph(BaseModel):
    context: str
    qas: list[_Question]


class _Article(BaseModel):
    title: str | None = None
    paragraphs: list[_Paragraph]


class _File(BaseModel):
    data: list[_Article]


def questions(file: IO[str]) -> Iterator[tuple[int, dict[str, Any] | str]]:
    """Yield the number of each question in the file, from 1, and its fields; or what is wrong with the file."""
    try:
        whole = _File.model_validate_json(file.read())
    except ValidationError as error:
        for found in error.errors():
            where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in found["loc"])
            problem = f"{where.removeprefix('.') or 'the file'}: {found['msg']}"
            yield 1, f"is not in the form of SQuAD ({problem}); rows of one object a line go into a .jsonl file"
        return
    rows = (
        {"title": article.title, "context": paragraph.context, **question.model_dump()}
        for article in whole.data
        for paragraph in article.paragraphs
        for question in paragraph.qas
    )
    yield from enumerate(rows, start=1)
