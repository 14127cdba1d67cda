"""What a text file does not say of itself: its encoding, and of a table what separates and encloses its cells."""

import csv
import io
import re
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import IO, Any

SAMPLE, ENOUGH, LITTLE = 2**18, 1000, 0.02
"""Bytes or characters of a file that are looked at, lines that are not UTF-8, and how much likelier is little."""

csv.field_size_limit(sys.maxsize)  # a clinical note is longer than the module's default of 128 kB


@cache
def encoding_of(path: Path, changed: int, open_file: Callable[[Path, str], IO[bytes]]) -> tuple[str, str]:
    """Return the encoding of a file: by its mark, UTF-8 where it can be, else the likeliest one, with a word by it.

    It is that of Windows for Western Europe where none is much likelier.

    Args:
        changed: When the file was last changed, so that other content is looked at anew.

    Raises:
        ValueError: if it is unlikely to be all in one encoding, or none fits.
    """
    import chardet

    with open_file(path, "rb") as file:
        head = file.read(SAMPLE)
        if b"\0" in head:  # so it is in UTF-16 or 32, or no text
            found = chardet.detect(head, compat_names=False)
            if found["encoding"] is None and found["mime_type"] != "application/octet-stream":
                raise ValueError(f"it holds no text, but {found['mime_type']}; give it the ending of what it is")
            if found["encoding"] in ("utf-16", "utf-32") or head.count(0) * 8 > len(head):  # by its mark or its zeros
                return found["encoding"] or "utf-8", ""
        file.seek(0)
        odd = ((number, line) for number, line in enumerate(file, start=1) if not line.isascii())
        right, wrong = 0, list[tuple[int, bytes]]()
        while len(wrong) < ENOUGH and (line := next(odd, None)):
            is_right = line[1].decode(errors="ignore").encode() == line[1]
            right += is_right
            wrong += [] if is_right else [line]
    if not wrong or head.startswith(b"\xef\xbb\xbf"):  # its mark
        return "utf-8", ""
    of_people = ~(chardet.EncodingEra.MAINFRAME | chardet.EncodingEra.LEGACY_REGIONAL)
    sample = b"".join(line for _, line in wrong)[:SAMPLE]
    guesses = chardet.detect_all(sample, encoding_era=of_people, compat_names=False, ignore_threshold=True)
    likely = [guess["encoding"] for guess in guesses if guesses[0]["confidence"] - guess["confidence"] < LITTLE]
    # The second is a part of the first, but for its controls.
    name = next((name for name in ("cp1252", "iso8859-1") if name in likely), likely[0])
    if name is None or right > len(wrong):
        why = "in no common encoding" if name is None else f"not UTF-8, as {right:,} others are"
        raise ValueError(f"line {wrong[0][0]} is {why}; mend it, or name the encoding")
    return name, re.findall(r"\w*[^\x00-\x7f]\w*", wrong[0][1].decode(name, errors="replace"))[0]


def dialect_of(sample: str, usual: str, delimiter: str | None, quotes: bool | None) -> dict[str, Any]:
    """Return how the cells of a table are written, for `csv.reader`: as most rows have as many as the header.

    Quotation marks enclose cells; but in a table of tabs they are parts of texts, unless the header has them, they are
    doubled within a cell, or else the cells do not add up.

    Args:
        sample: The file, or its beginning.
        usual: The delimiter that the ending of its name stands for.
        delimiter: That of the user, if any.
        quotes: Whether they enclose cells, if the user says so.
    """
    lines, is_whole = list(io.StringIO(sample, newline="")), re.compile(r'"([^"]|"")*"').fullmatch
    header = lines[0].strip("\r\n") if lines else ""
    cells = [cell for line in lines for cell in line.rstrip("\r\n").split("\t") if cell[:1] == '"']
    is_told = all(map(is_whole, cells)) and any('""' in cell[1:-1] for cell in cells)
    is_told = is_told or all(map(is_whole, header.split("\t")))
    ways: list[dict[str, Any]] = [
        {"delimiter": sign, "quoting": csv.QUOTE_MINIMAL if way else csv.QUOTE_NONE, "escapechar": escape}
        for sign in ([delimiter] if delimiter else [usual, *(sign for sign in ",\t;|" if sign in header)])
        for way in ([quotes] if quotes is not None else [True] if sign != "\t" or is_told else [False, True])
        for escape in ([None, "\\"] if way and '\\"' in sample else [None])
    ]
    chosen = max(ways, key=lambda way: _fit(way, lines))
    sign = re.escape(chosen["delimiter"])  # after which a blank may stand before a quoted cell
    has_blanks = re.search(rf'{sign} "([^"]|"")*" *({sign}|\r?$)', sample, re.MULTILINE)
    return {**chosen, "skipinitialspace": has_blanks is not None, "strict": True}


def _fit(way: dict[str, Any], lines: list[str]) -> float:
    """Return the share of rows that have as many cells as the header; of a single column it says little."""
    try:
        widths = [len(row) for row in csv.reader(lines, **way) if row]
    except csv.Error:
        return 0
    return sum(width == widths[0] for width in widths) / len(widths) if widths and widths[0] > 1 else 0.1
