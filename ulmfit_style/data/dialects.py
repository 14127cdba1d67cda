"""What a table does not say of itself: what separates and encloses its cells."""

import csv
import io
import re
import sys
from typing import Any

SAMPLE = 2**18
"""Characters of a file that are looked at."""

csv.field_size_limit(sys.maxsize)  # a clinical note is longer than the module's default of 128 kB


def dialect_of(sample: str, usual: str) -> dict[str, Any]:
    """Return how the cells of a table are written, for `csv.reader`: as most rows have as many as the header.

    Quotation marks enclose cells; but in a table of tabs they are parts of texts, unless the header has them, they are
    doubled within a cell, or else the cells do not add up.

    Args:
        sample: The file, or its beginning.
        usual: The delimiter that the ending of its name stands for.
    """
    lines, is_whole = list(io.StringIO(sample, newline="")), re.compile(r'"([^"]|"")*"').fullmatch
    header = lines[0].strip("\r\n") if lines else ""
    cells = [cell for line in lines for cell in line.rstrip("\r\n").split("\t") if cell[:1] == '"']
    is_told = all(map(is_whole, cells)) and any('""' in cell[1:-1] for cell in cells)
    is_told = is_told or all(map(is_whole, header.split("\t")))
    ways: list[dict[str, Any]] = [
        {"delimiter": sign, "quoting": csv.QUOTE_MINIMAL if way else csv.QUOTE_NONE, "escapechar": escape}
        for sign in [usual, *(sign for sign in ",\t;|" if sign in header)]
        for way in ([True] if sign != "\t" or is_told else [False, True])
        for escape in ([None, "\\"] if way and '\\"' in sample else [None])
    ]
    return max(ways, key=lambda way: _fit(way, lines)) | {"strict": True}


def _fit(way: dict[str, Any], lines: list[str]) -> float:
    """Return the share of rows that have as many cells as the header; of a single column it says little."""
    try:
        widths = [len(row) for row in csv.reader(lines, **way) if row]
    except csv.Error:
        return 0
    return sum(width == widths[0] for width in widths) / len(widths) if widths and widths[0] > 1 else 0.1
