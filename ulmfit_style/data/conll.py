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

SAMPLED_LINES = 200
"""Lines by which the separator and the number of columns are found."""

DOCUMENT = "-DOCSTART-"
"""What CoNLL-2003 has in place of a word between documents."""

BLANKS = re.compile(r"[ \t]+")


def sentences(file: IO[str]) -> Iterator[tuple[int, dict[str, list[str]] | str]]:
    """Yield the line where each sentence begins, and its columns; or a line and what is wrong with it."""
    numbered = enumerate((line.rstrip("\r\n") for line in file), start=1)
    sample = list(islice(numbered, SAMPLED_LINES))
    separator, width = _layout([line for _, line in sample])
    start, words = 0, list[list[str]]()
    for number, line in chain(sample, numbered, [(0, "")]):  # a blank line ends the last sentence too
        cells = _cells(line, separator)
        if not line.strip() or cells[0] == DOCUMENT:
            if words:
                yield start, _columns(words)
            words = []
        elif line.startswith("#") and width > 1 and not any(map(TAG.fullmatch, cells[1:])):
            continue  # a comment; a word that begins with # has a tag
        elif len(cells) != width:
            counts = f"has {len(cells)} columns, and the other lines {width}"
            problem = "is a word without a tag" if len(cells) == 1 else counts
            yield number, f"{problem}; between two sentences there is a blank line"
        else:
            start = start if words else number
            words.append(cells)


def _layout(lines: Sequence[str]) -> tuple[str | None, int]:
    """Return what stands between the columns of most lines, and how many columns most lines have."""
    filled = [line for line in lines if line.strip()]
    words = [line for line in filled if not line.startswith(("#", DOCUMENT))] or filled
    for separator in SEPARATORS if words else ():
        [(width, _)] = Counter(len(_cells(line, separator)) for line in words).most_common(1)
        if width > 1:
            return separator, width
    return None, 1


def _cells(line: str, separator: str | None) -> list[str]:
    # Not by str.split() without a separator: a no-break space is a part of its word.
    cells = BLANKS.split(line.strip(" \t")) if separator is None else line.split(separator)
    return [cell.strip(" ") for cell in cells]


def _columns(words: Sequence[Sequence[str]]) -> dict[str, list[str]]:
    columns = list(map(list, zip(*words, strict=True)))
    names = [TOKENS, *(f"column_{number}" for number in range(2, len(columns))), TAGS]
    return dict(zip(names, columns, strict=False))  # words alone have no tags
