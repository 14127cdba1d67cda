"""Every file format that rows are read from: one entry of `FORMATS` each, by the ending of its files."""

import bz2
import codecs
import csv
import gzip
import io
import lzma
import sqlite3
import unicodedata
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from functools import partial
from itertools import chain, groupby
from pathlib import Path
from typing import IO, Any, NamedTuple
from urllib.parse import quote

from ulmfit_style.config.section import AS_FOUND, FileFormat
from ulmfit_style.config.training import Document
from ulmfit_style.data import conll, dialects, nested

Record = Mapping[str, Any]
"""The fields of one row, by the names of the file's columns in NFC."""

Numbered = tuple[int, Record | str]
"""The line (csv, tsv, jsonl, conll, txt, md) or row (all else), and its fields or what is wrong."""

TAB, JOINED = "\t", "a cell has a tab and a line break; is a quotation mark a part of its text?"

TEXT_COLUMN = "text"
"""What the only column of a txt or md file is called."""


class How(NamedTuple):
    """How a file is to be read."""

    format: FileFormat = AS_FOUND
    document: Document | None = None
    found: Callable[[str], None] = lambda what: None
    """Takes what was found out of the file, in words."""
    has_folder: bool = False
    """Whether it was found beside others in several folders."""


Read = Callable[[Path, How], Iterator[Numbered]]
"""Yields the records of a file; it raises what its library does for a broken one."""


def nfc(value: Any) -> str:
    """Return a text, or a column's name, in NFC: it may spell Hangul and umlauts in parts, as macOS does file names."""
    return unicodedata.normalize("NFC", str(value))


def _open_zip(path: Path, mode: str, **options: Any) -> IO[Any]:
    """Open the only file of a zip archive, but for those that macOS adds."""
    archive = zipfile.ZipFile(path)
    names = [name for name in archive.namelist() if not name.endswith("/") and not name.startswith("__MACOSX/")]
    if len(names) != 1:
        raise ValueError(f"it holds {len(names)} files, and one is read; unpack it")
    return io.TextIOWrapper(archive.open(names[0]), **options) if "t" in mode else archive.open(names[0])


OPENERS: Mapping[bytes, Any] = {b"\x1f\x8b\x08": gzip.open, b"BZh": bz2.open, b"\xfd7z": lzma.open}
"""What opens a compressed file, by how it begins: a browser unpacks what keeps the name of what was packed."""


def open_file(path: Path, mode: str, **options: Any) -> IO[Any]:
    """Open a file, compressed or not."""
    with path.open("rb") as file:
        opener = OPENERS.get(file.read(3), _open_zip if path.suffix.lower() == ".zip" else open)
    return opener(path, mode, **options)


def _text_format(parse: Callable[[IO[str], How], Iterator[Numbered]]) -> Read:
    """Return what reads text files from what parses an open one."""

    def read(path: Path, how: How) -> Iterator[Numbered]:
        known = how.format.encoding and codecs.lookup(how.format.encoding).name
        encoding, example = (known, "") if known else dialects.encoding_of(path, path.stat().st_mtime_ns, open_file)
        if example:
            how.found(f"is not UTF-8; it is read as {encoding}, with words such as '{example}'")
        with open_file(path, "rt", encoding="utf-8-sig" if encoding == "utf-8" else encoding, newline="") as file:
            yield from parse(file, how)

    return read


def _table(rows: Iterator[tuple[int, Sequence[Any] | str]]) -> Iterator[Numbered]:
    """Yield the records of a table whose first row is the header, without the empty cells beyond it."""
    names, number = list[str](), 0
    try:
        for number, cells in rows:
            width = len(cells)
            while width > len(names) and cells[width - 1] in ("", None):
                width -= 1
            row = cells[:width]
            if isinstance(row, str):
                yield number, row
            elif not names:
                names = [nfc("" if name is None else name).strip() or f"column_{n}" for n, name in enumerate(row, 1)]
                if repeated := [name for name, count in Counter(names).items() if count > 1]:
                    yield number, f"the header has two columns '{repeated[0]}'"
                    return
            elif len(row) == len(names):
                yield number, dict(zip(names, row, strict=True))
            elif row:
                remedy = "a text that contains the separator needs quotes"
                doubt = ", or row 1 is no header" if len(names) < 2 else ""
                yield number, f"has {len(row)} columns, and the header {len(names)}; {remedy}{doubt}"
    except csv.Error as error:  # where the next record starts cannot be known
        yield number + 1, f"cannot be parsed ({error}); is a quote not closed, or a part of the text?"


def _delimited(file: IO[str], how: How, usual: str) -> Iterator[Numbered]:
    dialect = dialects.dialect_of(file.read(dialects.SAMPLE), usual, how.format.delimiter, how.format.quotes)
    file.seek(0)
    sign, encloses = dialect["delimiter"], dialect["quoting"] == csv.QUOTE_MINIMAL
    if sign != usual or encloses == (sign == TAB):
        quotes = "enclose cells" if encloses else "are parts of texts"
        how.found(f"columns are separated by {'tabs' if sign == TAB else repr(sign)}, and quotation marks {quotes}")
    reader, is_tsv = csv.reader(file, **dialect), sign == TAB
    yield from _table(
        (reader.line_num, JOINED if is_tsv and any(TAB in cell and "\n" in cell for cell in cells) else cells)
        for cells in reader
    )


def _json(file: IO[str], how: How, *, is_one: bool) -> Iterator[Numbered]:
    for number, row in nested.rows(file, how.format.field, is_one=is_one):
        if isinstance(row, dict):
            named = {nfc(name): value for name, value in row.items()}
            yield number, nested.OF_PRODIGY if "_task_hash" in row else named
        else:
            yield number, row if isinstance(row, str) else nested.NO_ROW


def _parquet(path: Path, how: How) -> Iterator[Numbered]:
    import pyarrow.parquet

    batches = pyarrow.parquet.ParquetFile(path).iter_batches(batch_size=1024)
    rows = (fields for batch in batches for fields in batch.to_pylist())
    for number, fields in enumerate(rows, start=1):
        yield number, {nfc(name): value for name, value in fields.items()}


def _sheet(path: Path, how: How) -> Iterator[Numbered]:
    import python_calamine

    try:
        with open_file(path, "rb") as file:
            book = python_calamine.CalamineWorkbook.from_filelike(io.BytesIO(file.read()))
        tables = {name: book.get_sheet_by_name(name).to_python(skip_empty_area=False) for name in book.sheet_names}
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # what Rust raises, which is no Exception
            raise
        raise ValueError("the spreadsheet is damaged or incomplete") from error
    names = [name for name, rows in tables.items() if rows] if how.format.sheet is None else [how.format.sheet]
    if not tables.keys() >= set(names):
        raise ValueError(f"there is no sheet {names[0]} (sheets: {', '.join(tables)})")
    if names[1:]:
        how.found(f"has the sheets {', '.join(names)}, of which the first is read")
    numbered = enumerate(tables[names[0]] if names else (), start=1)
    yield from _table((number, list(map(_cell, cells))) for number, cells in numbered if any(cells))


def _cell(value: Any) -> Any:
    """Return a cell of a sheet, whose numbers are all floats, as it is shown."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _database(path: Path, how: How) -> Iterator[Numbered]:
    with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True)) as database:
        named = database.execute("select name from sqlite_master where type in ('table', 'view')")
        tables = [name for (name,) in named]
        if how.format.query is None and len(tables) != 1:
            raise ValueError(f"name one of its tables, or give a query, after a ?: {', '.join(tables)}")
        query = how.format.query or tables[0]
        cursor = database.execute(f'select * from "{query}"' if query in tables else query)
        yield from _table(enumerate(chain([[name for name, *_ in cursor.description or ()]], cursor)))


def _documents(file: IO[str], how: How, usual: Document) -> Iterator[Numbered]:
    unit, lines = how.document or usual, enumerate((line.rstrip("\r\n") for line in file), start=1)
    if unit == "file":
        yield 1, {TEXT_COLUMN: file.read().replace("\r\n", "\n")}
    elif unit == "line":
        yield from ((number, {TEXT_COLUMN: line}) for number, line in lines)
    else:
        for has_text, paragraph in groupby(lines, key=lambda pair: bool(pair[1].strip())):
            if has_text:
                (number, first), *others = paragraph
                yield number, {TEXT_COLUMN: "\n".join([first, *(line for _, line in others)])}


RUNNING_TEXT: Mapping[str, Document] = {".txt": "line", ".md": "file"}
"""The files that are no tables, by their endings, and what one record of them is unless the user chooses."""

SHEETS, DATABASES = (".xlsx", ".xls", ".xlsm", ".xlsb", ".ods"), (".sqlite", ".sqlite3", ".db")

LABELLED = (".conll", ".bio", ".iob", ".json", *DATABASES)
"""Files of labelled rows, which a folder of documents is not searched for."""

FORMATS: Mapping[str, Read] = {
    ".csv": _text_format(partial(_delimited, usual=",")),
    ".tsv": _text_format(partial(_delimited, usual="\t")),
    **dict.fromkeys((".jsonl", ".ndjson"), _text_format(partial(_json, is_one=True))),
    ".parquet": _parquet,
    **dict.fromkeys(SHEETS, _sheet),
    **{ending: _text_format(partial(_documents, usual=usual)) for ending, usual in RUNNING_TEXT.items()},
    **dict.fromkeys((".conll", ".bio", ".iob"), _text_format(lambda file, how: conll.sentences(file))),
    ".json": _text_format(partial(_json, is_one=False)),
    **dict.fromkeys(DATABASES, _database),
}
"""What reads a file, by its ending."""
