"""Reads the rows of JSON in whatever layout: lines, a list, a field with a list, columns, SQuAD, exports of tools."""

import json
import re
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from typing import IO, Any

NO_ROW = 'is not a JSON object such as {"text": "..."}'

BETWEEN = re.compile(r"[\s,]*")
"""What may stand between objects that are no list."""


def rows(file: IO[str], field: str | None, *, is_one: bool) -> Iterator[tuple[int, Any]]:
    """Yield each row of a file with its line, or where rows are no lines its number; or what is wrong with it.

    Args:
        field: What holds the list of rows, where the file is one object.
        is_one: Whether a file of a single object is one row.
    """
    numbered = enumerate(file, start=1)
    head = list(islice(((number, line) for number, line in numbered if line.strip()), 2))
    if len(head) == 2 and all(line.lstrip()[:1] == "{" for _, line in head) and head[0][1].rstrip()[-1:] == "}":
        for number, line in chain(head, numbered):
            yield from ((number, row) for row in _plain(list(_parsed(line.strip()))))
        return
    file.seek(0)
    values = list(_parsed(file.read().strip()))
    try:
        if len(values) == 1 and (isinstance(values[0], list) or not is_one or field):
            values = list(_of_one(values[0] if field is None else values[0][field]))
        yield from enumerate(_plain(values), start=1)
    except (LookupError, TypeError, AttributeError) as error:
        yield 1, f"is in no known form, such as that of SQuAD (lacks {error})"


def _parsed(text: str) -> Iterator[Any]:
    """Yield the objects and lists of a text one after another; in the end it may be said why it goes no further."""
    decoder, place, has_halves = json.JSONDecoder(), 0, "\\ud" in text or "\\uD" in text
    try:
        while place < len(text):
            value, place = decoder.raw_decode(text, place)
            place = BETWEEN.match(text, place).end()  # type: ignore[union-attr]  # it always matches
            if has_halves:  # a half of a surrogate pair cannot be encoded
                json.dumps(value, ensure_ascii=False).encode()
            yield value if isinstance(value, (dict, list)) else NO_ROW
    except json.JSONDecodeError as error:
        yield f"is not JSON ({error.msg} at {f'line {error.lineno}, ' * (error.lineno > 1)}column {error.colno})"
    except UnicodeEncodeError:
        yield "contains half a character, such as \\ud83d alone; a text was cut within an emoji"
    except (ValueError, RecursionError) as error:
        yield f"is not JSON ({error})"


def _of_one(value: Any) -> Sequence[Any]:
    """Return the rows that a single JSON value is."""
    if not isinstance(value, dict):
        return value if isinstance(value, list) else [value]
    parts = {
        name: part
        for name, part in value.items()
        if isinstance(part, list) and all(isinstance(row, dict) for row in part)
    }
    if (name := next((name for name in ("data", "rows", *parts) if name in parts), None)) is not None:
        if len(parts) > 1 and name not in ("data", "rows"):
            raise ValueError(f"it has the lists {', '.join(parts)}; say which by {{field: {name}}}")
        is_squad = parts[name] and "paragraphs" in parts[name][0]
        return _questions(parts[name]) if is_squad else [row.get("row", row) for row in parts[name]]
    columns = [
        list(part.values()) if isinstance(part, dict) else part for part in value.values()
    ]  # as pandas writes them
    if all(isinstance(column, list) for column in columns) and len(set(map(len, columns))) == 1:
        return [dict(zip(value, cells, strict=True)) for cells in zip(*columns, strict=True)]
    return [value]


def _questions(articles: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the questions of a file in the form of SQuAD, each with its context, and its article if there are more."""
    found = list[dict[str, Any]]()
    for number, article in enumerate(articles, start=1):
        title = {"title": article.get("title") or f"article {number}"} if len(articles) > 1 else {}
        for paragraph in article["paragraphs"]:
            for asked in paragraph["qas"]:
                answers: dict[str, Any] = {"answers": []} if asked.get("is_impossible") else {}
                found.append(
                    {**title, "context": paragraph["context"], "question": asked["question"], **asked, **answers}
                )
    return found


def _plain(rows: list[Any]) -> list[Any]:
    """Return rows in which the answers of people, in Label Studio or Argilla, are columns, called as the question."""
    if not any(isinstance(row, dict) and {"annotations", "responses"} & row.keys() for row in rows):
        return rows
    answers = [_answers(row) if isinstance(row, dict) else {} for row in rows]
    asked = dict.fromkeys(name for row in answers for name in row)
    return [
        {
            **row.get("data", row.get("fields", row)),
            **dict.fromkeys(asked, [] if row.get("annotations") else None),
            **answer,
        }
        for row, answer in zip(rows, answers, strict=True)
    ]


def _answers(row: dict[str, Any]) -> dict[str, Any]:
    if "responses" in row:  # of Argilla; the answer that most people gave
        given = {name: [str(answer["value"]) for answer in answers] for name, answers in row["responses"].items()}
        return {
            name: row["responses"][name][values.index(max(values, key=values.count))]["value"]
            for name, values in given.items()
            if values
        }
    results: list[Any] = next((done["result"] for done in row["annotations"] if not done.get("was_cancelled")), [])
    answers: dict[str, Any] = {}
    for value, name in ((result["value"], result.get("from_name", "label")) for result in results):
        labels = value.get("choices") or [
            {**value, "label": label} for label in value.get("labels", value.get("hypertextlabels", ()))
        ]
        answers[name] = [*answers.get(name, ()), *labels]
    return answers
