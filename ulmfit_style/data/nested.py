"""Reads the rows of JSON in whatever layout: lines, a list, a field with a list, columns, SQuAD, exports of tools."""

import json
import re
from collections.abc import Iterator, Sequence
from itertools import chain, islice, zip_longest
from typing import IO, Any

from ulmfit_style.errors import NESTED

NO_ROW = 'is not a JSON object such as {"text": "..."}'

OF_PRODIGY = "is from Prodigy, where it may have been rejected; keep what was accepted, and remove its _task_hash"

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
        yield f"{NESTED} ({str(error)[:40]})"


def _of_one(value: Any) -> Sequence[Any]:
    """Return the rows that a single JSON value is."""
    if not isinstance(value, dict):
        return value if isinstance(value, list) else [value]
    lists = [name for name, part in value.items() if isinstance(part, list) and set(map(type, part)) <= {dict}]
    if (name := next((name for name in ("data", "rows", *lists) if name in lists), None)) is not None:
        if len(lists) > 1 and name not in ("data", "rows"):
            raise ValueError(f"it has the lists {', '.join(lists)}; say which by {{field: {name}}}")
        is_squad = value[name] and "paragraphs" in value[name][0]
        return list(_questions(value[name])) if is_squad else [row.get("row", row) for row in value[name]]
    # By columns, in which pandas names each row.
    values = [list(part.values()) if isinstance(part, dict) else part for part in value.values()]
    if all(isinstance(part, list) for part in values) and len(set(map(len, values))) == 1:
        return [dict(zip(value, cells, strict=True)) for cells in zip(*values, strict=True)]
    return [value]


def _questions(articles: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield the questions of a file in the form of SQuAD, each with its context, and its article if there are more."""
    for number, article in enumerate(articles, start=1):
        title = {"title": article.get("title") or f"article {number}"} if len(articles) > 1 else {}
        for paragraph in article["paragraphs"]:
            for asked in paragraph["qas"]:
                row = {**title, "context": paragraph["context"], "question": asked["question"], **asked}
                yield {**row, "answers": []} if asked.get("is_impossible") else row


def _plain(rows: list[Any]) -> list[Any]:
    """Return rows in which the answers of people, in Label Studio or Argilla, are columns, called as the question."""
    parts = [_parts(row) for row in rows]
    asked = dict.fromkeys(name for _, given in parts for name in given)
    return [
        own if own is row else {**own, **dict.fromkeys(asked, [] if row.get("annotations") else None), **given}
        for row, (own, given) in zip(rows, parts, strict=True)
    ]


def _parts(row: Any) -> tuple[Any, dict[str, Any]]:
    """Return the fields of a row, and what people answered, by the names of the questions."""
    if not isinstance(row, dict):
        return row, {}
    given: dict[str, Any] = {}
    own, flat = row.get("fields"), {name[:-10]: row[name] for name in row if name.endswith(".responses")}
    if flat or (isinstance(own, dict) and isinstance(row.get("responses"), dict)):  # Argilla
        for name, values in (flat or row["responses"]).items():
            said = [
                value["value"] if isinstance(value, dict) else value
                for value, state in zip_longest(values or (), row.get(f"{name}.responses.status") or ())
                if (value.get("status") if isinstance(value, dict) else state) in (None, "submitted")
            ]
            given |= {name: max(said, key=said.count)} if said else {}  # what most people say, or the first
        return own or {name: value for name, value in row.items() if ".responses" not in name}, given
    own, done = row.get("data"), row.get("annotations")
    if not isinstance(own, dict) or not isinstance(done, list):
        return row, {}
    results = next((made["result"] for made in done if not made.get("was_cancelled")), ())  # Label Studio
    for value, name in ((result["value"], result.get("from_name", "label")) for result in results):
        spans = [{**value, "label": label} for kind in ("labels", "hypertextlabels") for label in value.get(kind, ())]
        rating, paths = [value["rating"]] if "rating" in value else [], map("/".join, value.get("taxonomy", ()))
        given[name] = [*given.get(name, ()), *value.get("choices", ()), *paths, *rating, *spans]
    return own, given
