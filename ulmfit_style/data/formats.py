"""Every file format that rows are read from: one entry of `FORMATS` each, by the ending of its files."""

import bz2
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

from ulmfit_style.config.files import AS_FOUND, FileFormat
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
    found: Callable[..., None] = lambda what, can_change=True: None
    """Takes what was found out of the file, in words, and whether `format` can say otherwise."""
    has_folder: bool = False
    """Whether it was found beside others in several folders."""


class Format(NamedTuple):
    """A file format."""

    read: Callable[[Path, How], Iterator[Numbered]]
    """Yields the records of a file; it raises what its library does for a broken one."""
    document: Document | None = None
    """What one record is unless the user chooses, where the files are running text."""
    of_documents: bool = True
    """Whether a folder of documents is searched for such files; those of words and of questions hold labelled rows."""


def nfc(name: Any) -> str:
    """Return a column's name in NFC: a header may spell Hangul and umlauts in parts, as macOS does file names."""
    return unicodedata.normalize("NFC", str(name))


def _open_zip(path: Path, mode: str, **options: Any) -> IO[Any]:
    """Open the only file of a zip archive, but for those that macOS adds."""
    archive = zipfile.ZipFile(path)
    names = [name for name in archive.namelist() if not name.endswith("/") and not name.startswith("__MACOSX/")]
    if len(names) != 1:
        raise ValueError(f"it holds {len(names)} files, and one is read; unpack it")
    return io.TextIOWrapper(archive.open(names[0]), **options) if "t" in mode else archive.open(names[0])


COMPRESSIONS = (".gz", ".bz2", ".xz", ".zip")
"""The last endings of compressed files."""

OPENERS: Mapping[bytes, Any] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\0": lzma.open}
"""What opens a compressed file, by how it begins: a browser unpacks what keeps the name of what was packed."""


def open_file(path: Path, mode: str, **options: Any) -> IO[Any]:
    """Open a file, compressed or not."""
    with path.open("rb") as file:
        head = file.read(6)
    usual = _open_zip if path.suffix.lower() == ".zip" else open
    opened: IO[Any] = next((opener for mark, opener in OPENERS.items() if head.startswith(mark)), usual)(
        path, mode, **options
    )
    return opened


def _text_format(
    parse: Callable[[IO[str], How], Iterator[Numbered]], document: Document | None = None, *, of_documents: bool = True
) -> Format:
    """Return the format of text files from what parses an open one."""

    def read(path: Path, how: How) -> Iterator[Numbered]:
        encoding, example = how.format.encoding or "", ""
        if not encoding:
            encoding, example = dialects.encoding_of(path, path.stat().st_mtime_ns, open_file)
        if example:
            how.found(f"is not UTF-8; it is read as {encoding}, with words such as '{example}'")
        with open_file(path, "rt", encoding="utf-8-sig" if encoding == "utf-8" else encoding, newline="") as file:
            yield from (DOCUMENTS[how.document] if how.document and document else parse)(file, how)

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
            remedy = "a text that contains the separator needs quotes" + ", or row 1 is no header" * (len(names) < 2)
            yield number, f"has {len(row)} columns, and the header {len(names)}; {remedy}"


def _delimited(file: IO[str], how: How, usual: str) -> Iterator[Numbered]:
    dialect = dialects.dialect_of(file.read(dialects.SAMPLE), usual, how.format.delimiter, how.format.quotes)
    file.seek(0)
    sign, encloses = dialect["delimiter"], dialect["quoting"] == csv.QUOTE_MINIMAL
    if sign != usual or encloses == (sign == TAB):
        quotes = "enclose cells" if encloses else "are parts of texts"
        how.found(f"columns are separated by {'tabs' if sign == TAB else repr(sign)}, and quotation marks {quotes}")
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


def _json(file: IO[str], how: How, *, is_one: bool) -> Iterator[Numbered]:
    rejected = 0
    for number, row in nested.rows(file, how.format.field, is_one=is_one):
        if row is None:
            rejected += 1
        elif isinstance(row, dict):
            yield number, {nfc(name): value for name, value in row.items()}
        else:
            yield number, row if isinstance(row, str) else nested.NO_ROW
    if rejected:
        how.found(f"{rejected:,} rows whose answer in Prodigy is reject or ignore are left out", can_change=False)


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
        tables = [
            name for (name,) in database.execute("select name from sqlite_master where type in ('table', 'view')")
        ]
        if how.format.query is None and len(tables) != 1:
            raise ValueError(f"name one of its tables, or give a query, after a ?: {', '.join(tables)}")
        query = how.format.query or tables[0]
        cursor = database.execute(f'select * from "{query}"' if query in tables else query)
        yield from _table(enumerate(chain([[name for name, *_ in cursor.description or ()]], cursor)))


def _lines(file: IO[str], how: How) -> Iterator[Numbered]:
    for number, line in enumerate(file, start=1):
        yield number, {TEXT_COLUMN: line.rstrip("\r\n")}


def _paragraphs(file: IO[str], how: How) -> Iterator[Numbered]:
    numbered = enumerate((line.rstrip("\r\n") for line in file), start=1)
    for has_text, group in groupby(numbered, key=lambda pair: bool(pair[1].strip())):
        if has_text:
            numbers, lines = zip(*group, strict=True)
            yield numbers[0], {TEXT_COLUMN: "\n".join(lines)}


def _whole(file: IO[str], how: How) -> Iterator[Numbered]:
    yield 1, {TEXT_COLUMN: file.read().replace("\r\n", "\n")}


DOCUMENTS: Mapping[Document, Callable[[IO[str], How], Iterator[Numbered]]] = {
    "line": _lines,
    "paragraph": _paragraphs,
    "file": _whole,
}

SHEETS, DATABASES = (".xlsx", ".xls", ".xlsm", ".xlsb", ".ods"), (".sqlite", ".sqlite3", ".db")

FORMATS: Mapping[str, Format] = {
    ".csv": _text_format(partial(_delimited, usual=",")),
    ".tsv": _text_format(partial(_delimited, usual="\t")),
    **dict.fromkeys((".jsonl", ".ndjson"), _text_format(partial(_json, is_one=True))),
    ".parquet": Format(_parquet),
    **dict.fromkeys(SHEETS, Format(_sheet)),
    ".txt": _text_format(_lines, "line"),
    ".md": _text_format(_whole, "file"),
    **dict.fromkeys(
        (".conll", ".bio", ".iob"), _text_format(lambda file, how: conll.sentences(file), of_documents=False)
    ),
    ".json": _text_format(partial(_json, is_one=False), of_documents=False),
    **dict.fromkeys(DATABASES, Format(_database, of_documents=False)),
}
