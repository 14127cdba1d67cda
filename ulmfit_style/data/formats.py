"""Every file format that rows are read from: one entry of `FORMATS` each, by the ending of its files."""

import bz2
import csv
import gzip
import json
import lzma
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import IO, Any, NamedTuple

from ulmfit_style.config.training import Document
from ulmfit_style.console import say_once
from ulmfit_style.data import conll, dialects, squad

Record = Mapping[str, Any]
"""The fields of one row, by the names of the file's columns in NFC."""

Numbered = tuple[int, Record | str]
"""The line (csv, tsv, jsonl, conll, txt, md), row (parquet) or question (json), and its fields or what is wrong."""

TAB, JOINED = "\t", "a cell has a tab and a line break; is a quotation mark a part of its text?"

TEXT_COLUMN = "text"
"""What the only column of a txt or md file is called."""

COMPRESSIONS: Mapping[str, Callable[..., IO[Any]]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
"""What opens a compressed file, by its last ending."""


class Format(NamedTuple):
    """A file format."""

    read: Callable[[Path, Document | None], Iterator[Numbered]]
    """Yields the records of a file; it raises what its library does for a broken one."""
    document: Document | None = None
    """What one record is unless the user chooses, where the files are running text."""
    of_documents: bool = True
    """Whether a folder of documents is searched for such files; those of words and of questions hold labelled rows."""


def nfc(name: Any) -> str:
    """Return a column's name in NFC: a header may spell Hangul and umlauts in parts, as macOS does file names."""
    return unicodedata.normalize("NFC", str(name))


def open_file(path: Path, mode: str, **options: Any) -> IO[Any]:
    """Open a file, compressed or not."""
    opened: IO[Any] = COMPRESSIONS.get(path.suffix.lower(), open)(path, mode, **options)
    return opened


def _text_format(
    parse: Callable[[IO[str]], Iterator[Numbered]], document: Document | None = None, *, of_documents: bool = True
) -> Format:
    """Return the format of text files from what parses an open one."""

    def read(path: Path, chosen: Document | None) -> Iterator[Numbered]:
        with open_file(path, "rt", encoding="utf-8-sig", newline="") as file:
            yield from (DOCUMENTS[chosen] if chosen and document else parse)(file)

    return Format(read, document, of_documents)


def _table(rows: Iterator[tuple[int, Sequence[Any] | str]]) -> Iterator[Numbered]:
    """Yield the records of a table whose first row is the header, without the empty cells beyond it."""
    names: list[str] = []
    for number, cells in rows:
        if isinstance(cells, str):
            yield number, cells
            continue
        width = len(cells)
        while width > len(names) and cells[width - 1] in ("", None):
            width -= 1
        row = cells[:width]
        if not names:
            names = [nfc("" if name is None else name).strip() or f"column_{n}" for n, name in enumerate(row, start=1)]
            if repeated := [name for name, count in Counter(names).items() if count > 1]:
                yield number, f"the header has two columns '{repeated[0]}'"
                return
        elif len(row) == len(names):
            yield number, dict(zip(names, row, strict=True))
        elif row:
            remedy = "a text that contains the separator needs quotes"
            yield number, f"has {len(row)} columns, and the header {len(names)}; {remedy}"


def _delimited(file: IO[str], usual: str) -> Iterator[Numbered]:
    dialect = dialects.dialect_of(file.read(dialects.SAMPLE), usual)
    file.seek(0)
    sign, encloses = dialect["delimiter"], dialect["quoting"] == csv.QUOTE_MINIMAL
    if sign != usual or encloses == (sign == TAB):
        said = f"columns are separated by {'tabs' if sign == TAB else repr(sign)}, and quotation marks"
        say_once(f"{getattr(file, 'name', 'a table')}: {said} {'enclose cells' if encloses else 'are parts of texts'}")
    reader, line = csv.reader(file, **dialect), 0

    def rows() -> Iterator[tuple[int, Sequence[str] | str]]:
        nonlocal line
        for cells in reader:
            line = reader.line_num
            is_joined = sign == TAB and any(TAB in cell and "\n" in cell for cell in cells)
            yield line, JOINED if is_joined else cells

    try:
        yield from _table(rows())
    except csv.Error as error:
        # Where the next record starts cannot be known.
        yield line + 1, f"cannot be parsed ({error}); is a quote not closed, or a part of the text?"


def _json_lines(file: IO[str]) -> Iterator[Numbered]:
    for number, line in enumerate(file, start=1):
        if not line.strip():
            continue
        try:
            fields = json.loads(line.strip())
            if "\\ud" in line.lower():
                json.dumps(fields, ensure_ascii=False).encode()  # fails on half of a surrogate pair
        except json.JSONDecodeError as error:
            yield number, f"is not JSON ({error.msg} at column {error.colno})"
        except UnicodeEncodeError:
            yield number, "contains half a character, such as \\ud83d alone; a text was cut within an emoji"
        except (RecursionError, ValueError) as error:
            yield number, f"is nested too deeply, or holds a number of too many digits ({str(error)[:40]})"
        else:
            if isinstance(fields, dict):
                yield number, {nfc(name): value for name, value in fields.items()}
            else:
                yield number, 'is not a JSON object such as {"text": "..."}'


def _parquet(path: Path, document: Document | None) -> Iterator[Numbered]:
    import pyarrow.parquet

    batches = pyarrow.parquet.ParquetFile(path).iter_batches(batch_size=1024)
    rows = (fields for batch in batches for fields in batch.to_pylist())
    for number, fields in enumerate(rows, start=1):
        yield number, {nfc(name): value for name, value in fields.items()}


def _lines(file: IO[str]) -> Iterator[Numbered]:
    for number, line in enumerate(file, start=1):
        yield number, {TEXT_COLUMN: line.rstrip("\r\n")}


def _paragraphs(file: IO[str]) -> Iterator[Numbered]:
    numbered = enumerate((line.rstrip("\r\n") for line in file), start=1)
    for has_text, group in groupby(numbered, key=lambda pair: bool(pair[1].strip())):
        if has_text:
            numbers, lines = zip(*group, strict=True)
            yield numbers[0], {TEXT_COLUMN: "\n".join(lines)}


def _whole(file: IO[str]) -> Iterator[Numbered]:
    yield 1, {TEXT_COLUMN: file.read().replace("\r\n", "\n")}


DOCUMENTS: Mapping[Document, Callable[[IO[str]], Iterator[Numbered]]] = {
    "line": _lines,
    "paragraph": _paragraphs,
    "file": _whole,
}

FORMATS: Mapping[str, Format] = {
    ".csv": _text_format(partial(_delimited, usual=",")),
    ".tsv": _text_format(partial(_delimited, usual=TAB)),
    **dict.fromkeys((".jsonl", ".ndjson"), _text_format(_json_lines)),
    ".parquet": Format(_parquet),
    ".txt": _text_format(_lines, "line"),
    ".md": _text_format(_whole, "file"),
    **dict.fromkeys((".conll", ".bio", ".iob"), _text_format(conll.sentences, of_documents=False)),
    ".json": _text_format(squad.questions, of_documents=False),
}
