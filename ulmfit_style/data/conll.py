"""Reads CoNLL files: a word a line with its tags beside it, a blank line between sentences."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from typing import IO

from ulmfit_style.tasks.tagging import TAG

TOKENS, TAGS = "tokens", "tags"
"""What the first and the last column are called; those between them are column_2, column_3 and so on."""

SEPARATORS = ("\t", None, "|", ";", ",")
"""What may stand between columns, in the order of preference; None is any blanks."""

LOOKED_AT = 200
"""Lines that tell the separator and the number of columns."""

DOCUMENT = "-DOCSTART-"
"""What CoNLL-2003 has in place of a word between documents."""

BLANKS = re.compile(r"[ \t]+")


def sentences(file: IO[str]) -> Iterator[tuple[int, dict[str, list[str]] | str]]:
    """Yield the line where each sentence begins, and its columns; or a line and what is wrong with it."""
    numbered = enumerate((line.rstrip("\r\n") for line in file), start=1)
    peeked = list(islice(numbered, LOOKED_AT))
    separator, width = _layout([line for _, line in peeked])
    start, rows = 0, list[list[str]]()
    for number, line in chain(peeked, numbered):
        cells = _cells(line, separator)
        if not line.strip() or cells[0] == DOCUMENT:
            if rows:
                yield start, _columns(rows)
            rows = []
        elif line.startswith("#") and width > 1 and not any(map(TAG.fullmatch, cells[1:])):
            continue  # a comment; a word that begins with # has a tag
        elif len(cells) != width:
            yield number, _other_width(len(cells), width)
        else:
            start = start if rows else number
            rows.append(cells)
    if rows:
        yield start, _columns(rows)


def _layout(lines: Sequence[str]) -> tuple[str | None, int]:
    """Return what stands between the columns of most lines, and how many columns most lines have."""
    words = [line for line in lines if line.strip() and not line.startswith(("#", DOCUMENT))]
    words = words or [line for line in lines if line.strip()]
    for separator in SEPARATORS:
        widths = Counter(len(_cells(line, separator)) for line in words)
        width = widths.most_common(1)[0][0] if widths else 1
        if width > 1:
            return separator, width
    return None, 1


def _cells(line: str, separator: str | None) -> list[str]:
    # Not by str.split(): a no-break space is a part of its word.
    return [
        cell.strip(" ") for cell in (BLANKS.split(line.strip(" \t")) if separator is None else line.split(separator))
    ]


def _columns(rows: Sequence[Sequence[str]]) -> dict[str, list[str]]:
    columns = list(map(list, zip(*rows, strict=True)))
    names = [TOKENS, *(f"column_{number}" for number in range(2, len(columns))), TAGS]
    return dict(zip(names, columns, strict=False))  # words alone have no tags


def _other_width(count: int, width: int) -> str:
    what = "is a word without its tag" if count == 1 else f"has {count} columns, and the other lines {width}"
    return f"{what}; between two sentences there is a blank line"
