"""Every file format that rows are read from: one entry of `FORMATS` each, by the ending of its files."""

from __future__ import annotations

import csv
import json
import sys
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import IO, Any, NamedTuple

from ulmfit_style.config.stages import Document
from ulmfit_style.data import conll, squad
from ulmfit_style.data.encoding import open_text
from ulmfit_style.errors import UserError

Record = tuple[int, Mapping[str, Any] | str]
"""The line (csv, tsv, jsonl, conll, txt, md), row (parquet) or question (json); its fields, or what is wrong."""

TEXT_COLUMN = "text"
"""What the only column of a txt or md file is called where no other name is wanted."""

csv.field_size_limit(sys.maxsize)  # a clinical note is longer than the module's default of 128 kB


class Selection(NamedTuple):
    """What is wanted of a file's records."""

    columns: Sequence[str] = ()
    """The columns that each must have, their names in NFC; the text of a file without columns goes by the first."""
    others: bool = True
    """Whether the other columns are wanted too; a reader may give them anyway."""
    document: Document | None = None
    """What one record of running text is; None for the format's default."""


class Format(NamedTuple):
    """A file format."""

    read: Callable[[Path, Selection], Iterator[Record]]
    """Yields the records of a file. It raises what its library does for a broken file, and UserError for other text
    than UTF-8."""
    document: Document | None = None
    """What one record is unless the user chooses, where the files are running text."""
    of_documents: bool = True
    """Whether a folder of documents is searched for such files; those of words and of questions hold labelled rows."""


def nfc(name: Any) -> str:
    """Return a column's name in NFC: a header may spell Hangul and umlauts in parts, as macOS does file names."""
    return unicodedata.normalize("NFC", str(name))


def _text_format(parse: Callable[[IO[str]], Iterator[Record]], *, of_documents: bool = True) -> Format:
    """Return the format of text files from what parses an open one."""

    def read(path: Path, selection: Selection) -> Iterator[Record]:
        with open_text(path) as file:
            yield from parse(file)

    return Format(read, of_documents=of_documents)


def _delimited(file: IO[str], delimiter: str) -> Iterator[Record]:
    reader, line = csv.reader(file, delimiter=delimiter, strict=True), 0
    try:
        header = [nfc(name) for name in next(reader, [])]
        repeated = [name for name, count in Counter(header).items() if count > 1]
        if repeated:
            yield 1, f"the header has two columns '{repeated[0]}'"
            return
        line = reader.line_num
        for values in reader:
            line = reader.line_num
            if len(values) == len(header):
                yield line, dict(zip(header, values, strict=True))
            elif values:
                remedy = "a text that contains the separator needs quotes"
                yield line, f"has {len(values)} columns, and the header {len(header)}; {remedy}"
    except csv.Error as error:
        # Where the next record starts cannot be known.
        yield line + 1, f"cannot be parsed ({error}); is a quote not closed?"


def _json_lines(file: IO[str]) -> Iterator[Record]:
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
        else:
            if isinstance(fields, dict):
                yield number, {nfc(name): value for name, value in fields.items()}
            else:
                yield number, 'is not a JSON object such as {"text": "..."}'


def _parquet(path: Path, selection: Selection) -> Iterator[Record]:
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(path)
        names = {nfc(name): name for name in file.schema_arrow.names}
        # Other columns may hold pictures; but all are read to name them when one is missing.
        every = selection.others or not names.keys() >= set(selection.columns)
        needed = None if every else [names[column] for column in selection.columns]
        batches = (batch.to_pylist() for batch in file.iter_batches(batch_size=1024, columns=needed))
        rows = (fields for batch in batches for fields in batch)
        for number, fields in enumerate(rows, start=1):
            yield number, {nfc(name): value for name, value in fields.items()}
    except pyarrow.ArrowException as error:
        raise UserError(f"{path}: cannot be read ({error})") from error


def _lines(file: IO[str]) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(file, start=1):
        yield number, line.rstrip("\r\n")


def _paragraphs(file: IO[str]) -> Iterator[tuple[int, str]]:
    for has_text, group in groupby(_lines(file), key=lambda numbered: bool(numbered[1].strip())):
        if has_text:
            numbers, lines = zip(*group, strict=True)
            yield numbers[0], "\n".join(lines)


def _whole(file: IO[str]) -> Iterator[tuple[int, str]]:
    yield 1, file.read().replace("\r\n", "\n")


DOCUMENTS: Mapping[Document, Callable[[IO[str]], Iterator[tuple[int, str]]]] = {
    "line": _lines,
    "paragraph": _paragraphs,
    "file": _whole,
}


def _running_text(default: Document) -> Format:
    """Return the format of files of text without columns, each document of which is `default` unless chosen."""

    def read(path: Path, selection: Selection) -> Iterator[Record]:
        name = selection.columns[0] if selection.columns else TEXT_COLUMN
        split = DOCUMENTS[selection.document or default]
        with open_text(path) as file:
            yield from ((number, {name: text}) for number, text in split(file))

    return Format(read, default)


FORMATS: Mapping[str, Format] = {
    ".csv": _text_format(partial(_delimited, delimiter=",")),
    ".tsv": _text_format(partial(_delimited, delimiter="\t")),
    **dict.fromkeys((".jsonl", ".ndjson"), _text_format(_json_lines)),
    ".parquet": Format(_parquet),
    ".txt": _running_text("line"),
    ".md": _running_text("file"),
    **dict.fromkeys((".conll", ".bio", ".iob"), _text_format(conll.sentences, of_documents=False)),
    ".json": _text_format(squad.questions, of_documents=False),
}
