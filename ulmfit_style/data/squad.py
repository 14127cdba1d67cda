"""Reads the questions of a .json file in the format of SQuAD, each a row with its context and its article's title."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import IO, Any

from pydantic import BaseModel, ValidationError


class _Question(BaseModel, extra="allow"):
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
        articles = _File.model_validate_json(file.read()).data
    except ValidationError as error:
        for details in error.errors():
            place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in details["loc"])
            problem = f"{place.removeprefix('.') or 'the file'}: {details['msg']}"
            yield 1, f"is not in the format of SQuAD ({problem}); rows of one object a line go into a .jsonl file"
        return
    numbers = count(1)
    for article in articles:
        for paragraph in article.paragraphs:
            shared = {"title": article.title, "context": paragraph.context}
            yield from ((next(numbers), {**shared, **question.model_dump()}) for question in paragraph.qas)
