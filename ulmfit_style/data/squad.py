"""Reads the questions of a .json file in the format of SQuAD, each a row with its context and its article's title."""

import json
from collections.abc import Iterator
from typing import IO, Any


def questions(file: IO[str]) -> Iterator[tuple[int, dict[str, Any] | str]]:
    """Yield the number of each question in the file, from 1, and its fields; or what is wrong with the file."""
    number = 0
    try:
        for article in json.load(file)["data"]:
            for paragraph in article["paragraphs"]:
                shared = {"title": article.get("title"), "context": paragraph["context"]}
                for question in paragraph["qas"]:
                    yield number + 1, {**shared, "question": question["question"], **question}
                    number += 1
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        problem = f"lacks {error}" if isinstance(error, KeyError) else error
        remedy = "one JSON object a line goes into a .jsonl file"
        yield number + 1, f"is not in the format of SQuAD ({problem}); {remedy}"
