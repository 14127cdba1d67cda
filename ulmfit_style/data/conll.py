"""Reads CoNLL files: a word a line with its tags beside it, a blank line between sentences."""

import re
from collections import Counter
from collections.abc import Iterator
from typing import IO

from ulmfit_style.tasks.entities import TAG

TOKENS, TAGS = "tokens", "tags"
"""What the first and the last column are called; those between them are column_2, column_3 and so on."""

DOCUMENT = "-DOCSTART-"
"""What CoNLL-2003 has in place of a word between documents."""

TAGGED = re.compile(r"\S+([ \t]+\S+)*[ \t]+(O|[BIESLU]-\S+)")
"""A line of such a file."""

TAB, BLANKS = re.compile("\t"), re.compile("[ \t]+")
"""What stands between columns. Not any white space: a no-break space is a part of its word."""


def sentences(file: IO[str]) -> Iterator[tuple[int, dict[str, list[str]] | str]]:
    """Yield the line where each sentence begins, and its columns; or a line and what is wrong with it."""
    lines = [line.strip(" \t\r\n") for line in file]
    separator = TAB if any("\t" in line and line[0] != "#" for line in lines) else BLANKS
    rows = [[cell.strip(" ") for cell in separator.split(line)] for line in lines]
    widths = Counter(len(row) for row in rows if row[0] and not row[0].startswith(("#", DOCUMENT)))
    width = widths.most_common(1)[0][0] if widths else 1
    start, words = 0, list[list[str]]()
    for number, row in enumerate([*rows, [""]], start=1):  # a blank line ends the last sentence too
        if not row[0] or row[0].startswith(DOCUMENT):
            if words:
                columns = [*map(list, zip(*words, strict=True))]
                names = [TOKENS, *(f"column_{place}" for place in range(2, len(columns))), TAGS]
                yield start, dict(zip(names, columns, strict=False))  # words alone have no tags
            words = []
        elif row[0].startswith("#") and width > 1 and not any(map(TAG.fullmatch, row[1:])):
            continue  # a comment; a word that begins with # has a tag
        elif len(row) != width:
            problem = "is a word without a tag" if len(row) == 1 else f"has {len(row)} columns, and others {width}"
            yield number, f"{problem}; put a blank line between sentences"
        else:
            start = start if words else number
            words.append(row)
