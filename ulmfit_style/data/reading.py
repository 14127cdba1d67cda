"""Reads csv, tsv, jsonl, parquet, conll, SQuAD, txt and md files, packed or not, into rows that know where they stand.

Text is UTF-8. All that is wrong with a file is gathered and told at once, with its lines.
"""

from __future__ import annotations

import bz2
import csv
import glob
import gzip
import io
import json
import lzma
import sys
import unicodedata
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, cast

from ulmfit_style.config.stages import Document
from ulmfit_style.data import conll, hub, squad
from ulmfit_style.errors import UserError, nearest, together
from ulmfit_style.models import embedded
from ulmfit_style.tasks.base import Row

Record = tuple[int, Mapping[str, Any] | str]
"""The line (csv, tsv, jsonl, conll, txt, md), row (parquet) or question (json); its fields, or what is wrong."""

TEXT_COLUMN = "text"
"""What the one column of a txt or md file is called, where nobody asks for another name."""

COMPRESSED = (".gz", ".bz2", ".xz", ".zst")
WORDS = (".conll", ".bio", ".iob")
"""Files that have a word a line."""
QUESTIONS = ".json"
"""Files of questions, in the form of SQuAD."""
KINDS = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet", ".txt", ".md", *WORDS, QUESTIONS)

csv.field_size_limit(sys.maxsize)  # a clinical note is longer than the module's default of 128 kB


def rows(
    option: str, reference: str, columns: Sequence[str], document: Document | None = None, *, others: bool = False
) -> Iterator[Row]:
    """Read a file's rows, one after another.

    After a bad row no more are given: the rest of the file is only looked through for what else is wrong.

    Args:
        option: The config field that names the file, for error messages.
        reference: A path, `package:<file>` of an installed Python package, or `hub:<data set>/<file>` of the Hub.
        columns: The columns that each row must have; `summary.outcome` is `outcome` within the column `summary`, where
            no column has that name itself. The text of a txt or md file goes by the first of these names, whatever it
            is.
        others: Whether a row keeps its other columns; else they are left out.
        document: What one row of a txt or md file is; by default a line of txt, and the whole of an md file.

    Raises:
        UserError: if the file is missing, broken, not UTF-8, or lacks a column; it says where, and what to do.
    """
    path = locate(option, reference)
    wanted = [composed(column) for column in columns]
    problems, header_seen = [], False
    for number, record in _records(option, path, wanted, document, others=others):
        if isinstance(record, str):
            problems.append(f"{path}:{number}: {record}")
            continue
        fields = _with_inner(record, wanted)
        missing = [column for column in wanted if column not in fields]
        if missing and not header_seen:
            # Every row will lack them: this is about the file.
            raise UserError("\n".join(f"{option}={reference}: {_no_column(column, fields)}" for column in missing))
        problems += [f"{path}:{number}: {_no_column(column, fields)}" for column in missing]
        header_seen = True
        if not problems:
            yield Row(path.name, number, fields if others else {column: fields[column] for column in wanted})
    if problems:
        raise together(f"{option}={reference}", problems)


def header(option: str, reference: str, inner: Sequence[str] = ()) -> list[str]:
    """Return the names of a file's columns; of a jsonl file, those of its first good row.

    Args:
        inner: Columns that may lie within others, to be among them.

    Raises:
        UserError: if the file is missing, empty, broken before its first row, or not UTF-8.
    """
    path = locate(option, reference)
    problems = []
    for number, fields in _records(option, path, [], None):
        if not isinstance(fields, str):
            return list(_with_inner(fields, [composed(column) for column in inner]))
        problems.append(f"{path}:{number}: {fields}")
    raise together(f"{option}={reference}", problems or [f"{option}={reference}: holds no rows"])


def files(option: str, reference: str) -> tuple[list[str], Counter[str]]:
    """Return the files that a reference means: itself, all of a folder and those within, or those of a glob, sorted.

    Returns:
        The files, and the endings of those in the folder that are not read: hidden ones, and kinds not known here.

    Raises:
        UserError: if there is no such file or folder, or no file in it that can be read.
    """
    path = Path(reference).expanduser()
    if reference.startswith(("package:", hub.PREFIX)) or path.is_file():
        return [reference], Counter()
    if path.is_dir():
        found = sorted(inside for inside in path.rglob("*") if inside.is_file())
        read = [str(inside) for inside in found if _is_read(inside.relative_to(path))]
        others = Counter(inside.suffix or inside.name for inside in found if str(inside) not in set(read))
        if not read:
            raise UserError(f"{option}={reference}: the folder holds no file that is read here ({_known()})")
        return read, others
    if glob.has_magic(reference):
        pattern = str(path.relative_to(path.anchor))
        matches = sorted(str(match) for match in Path(path.anchor).glob(pattern) if match.is_file())
        if not matches:
            raise UserError(f"{option}={reference}: no file's name is like this")
        return matches, Counter()
    return [str(locate(option, reference))], Counter()  # which says what is missing


def unit(path: str | Path, document: Document | None = None) -> Document:
    """Return what one row of a txt or md file is, where `document` is what the user chose."""
    return document or ("file" if kind(path) == ".md" else "line")


def kind(path: str | Path) -> str:
    """Return the ending that tells a file's kind, such as ".csv" of reviews.csv.gz."""
    suffixes = [suffix.lower() for suffix in Path(path).suffixes]
    return next((suffix for suffix in reversed(suffixes) if suffix not in COMPRESSED), "")


def composed(name: Any) -> str:
    """Return a column's name in NFC: a header may spell Hangul and umlauts in parts, as macOS does file names."""
    return unicodedata.normalize("NFC", str(name))


def _is_read(path: Path) -> bool:
    labelled = (*WORDS, QUESTIONS)
    return kind(path) in KINDS and kind(path) not in labelled and not any(part.startswith(".") for part in path.parts)


def _known() -> str:
    return "there are: " + ", ".join(kind[1:] for kind in KINDS)


def locate(option: str, reference: str) -> Path:
    """Return the file that a reference means.

    Raises:
        UserError: if there is none, or it is of no kind that is read here.
    """
    if reference.startswith("package:"):
        path = embedded.locate(reference)
    elif reference.startswith(hub.PREFIX):
        path = hub.locate(option, reference)
    else:
        path = Path(reference).expanduser()
    if not path.is_file():
        siblings = [sibling.name for sibling in path.parent.glob("*") if sibling.is_file()]
        raise UserError(f"{option}={reference}: there is no such file{nearest(path.name, siblings)}")
    if kind(path) not in KINDS:
        raise UserError(f"{option}={reference}: '{kind(path)}' is not a kind of file that is read here ({_known()})")
    return path


def _with_inner(fields: Mapping[str, Any], columns: Sequence[str]) -> Mapping[str, Any]:
    """Return the fields, and those within them that columns ask for, or all within them where one is not there."""
    dotted = [column for column in columns if "." in column and column not in fields]
    inner, level = dict[str, Any](), fields
    while dotted and level:
        parts = [(name, part) for name, part in level.items() if isinstance(part, dict)]
        level = {composed(f"{name}.{key}"): value for name, part in parts for key, value in part.items()}
        inner |= level
    found = {column: inner[column] for column in dotted if column in inner}
    return {**fields, **(found if len(found) == len(dotted) else inner)}


def _no_column(column: str, fields: Iterable[str]) -> str:
    there = list(fields)
    return f"has no column '{column}'{nearest(column, there)} (there are: {', '.join(there)})"


def _records(
    option: str, path: Path, columns: Sequence[str], document: Document | None, *, others: bool = False
) -> Iterator[Record]:
    """Read the records of a file of any kind, with all their fields or those of `columns` at least."""
    ending = kind(path)
    try:
        if ending == ".parquet":
            yield from _parquet(path, [] if others else columns)
            return
        _refuse_other_encodings(path)
        with io.TextIOWrapper(_open(path), encoding="utf-8-sig", newline="") as file:
            if ending in (".csv", ".tsv"):
                yield from _csv(file, "," if ending == ".csv" else "\t")
            elif ending in (".jsonl", ".ndjson"):
                yield from _jsonl(file)
            elif ending in WORDS:
                yield from conll.sentences(file)
            elif ending == QUESTIONS:
                yield from squad.questions(file)
            else:
                split = _DOCUMENTS[unit(path, document)]
                name = columns[0] if columns else TEXT_COLUMN
                yield from ((number, {name: text}) for number, text in split(file))
    except UnicodeDecodeError as error:
        raise _not_utf8(path) from error
    except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
        raise UserError(f"{option}={path}: cannot be read ({error})") from error


def _csv(file: IO[str], delimiter: str) -> Iterator[Record]:
    reader = csv.DictReader(file, delimiter=delimiter, strict=True)
    try:
        reader.fieldnames = [composed(name) for name in reader.fieldnames or []]
        twice = [name for name, count in Counter(reader.fieldnames).items() if count > 1]
        if twice:
            yield 1, f"the header has two columns '{twice[0]}'"
            return
        for fields in reader:
            if None in fields or None in fields.values():
                yield reader.line_num, _other_width(fields, len(reader.fieldnames))
            else:
                yield reader.line_num, fields
    except csv.Error as error:
        # line_num is still that of the record before. Where the next record starts cannot be told.
        yield reader.line_num + 1, f"is broken ({error}); is a quote not closed?"


def _other_width(fields: Mapping[Any, Any], width: int) -> str:
    # What is too much stands under None, and what is missing is None.
    count = sum(value is not None for name, value in fields.items() if name is not None) + len(fields.get(None, []))
    return f"has {count} columns, and the header {width}; a text that holds the separator needs quotes"


def _jsonl(file: IO[str]) -> Iterator[Record]:
    for number, line in enumerate(file, start=1):
        if not line.strip():
            continue
        try:
            fields = json.loads(line.strip())
        except json.JSONDecodeError as error:
            yield number, f"is not JSON ({error.msg} at column {error.colno})"
            continue
        if "\\ud" in line.lower() and not _is_whole(fields):
            yield number, "holds half a character, such as \\ud83d alone; a text was cut within an emoji"
        elif isinstance(fields, dict):
            yield number, {composed(name): value for name, value in fields.items()}
        else:
            yield number, 'is not a JSON object, as {"text": "..."} is'


def _is_whole(fields: Any) -> bool:
    """Tell whether what JSON held can be written as UTF-8."""
    try:
        json.dumps(fields, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def _parquet(path: Path, columns: Sequence[str]) -> Iterator[Record]:
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(path)
        names = {composed(name): name for name in file.schema_arrow.names}
        # Other columns may hold pictures; but all are read to name them when one is missing.
        needed = [names[column] for column in columns] if set(columns) <= set(names) else None
        number = 0
        for batch in file.iter_batches(batch_size=1024, columns=needed or None):
            for fields in batch.to_pylist():
                number += 1
                yield number, {composed(name): value for name, value in fields.items()}
    except pyarrow.ArrowException as error:
        raise UserError(f"{path}: cannot be read ({error})") from error


def _lines(file: IO[str]) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(file, start=1):
        yield number, line.rstrip("\r\n")


def _paragraphs(file: IO[str]) -> Iterator[tuple[int, str]]:
    start, lines = 1, list[str]()
    for number, line in _lines(file):
        if line.strip():
            lines.append(line)
            continue
        if lines:
            yield start, "\n".join(lines)
        start, lines = number + 1, []
    if lines:
        yield start, "\n".join(lines)


def _whole(file: IO[str]) -> Iterator[tuple[int, str]]:
    yield 1, file.read().replace("\r\n", "\n")


_DOCUMENTS: Mapping[Document, Callable[[IO[str]], Iterator[tuple[int, str]]]] = {
    "line": _lines,
    "paragraph": _paragraphs,
    "file": _whole,
}


def _open(path: Path) -> IO[bytes]:
    """Open a file's bytes, unpacked."""
    match path.suffix.lower():
        case ".gz":
            return cast(IO[bytes], gzip.open(path))
        case ".bz2":
            return bz2.open(path)
        case ".xz":
            return lzma.open(path)
        case ".zst":
            import pyarrow  # for the parquet files it is there; the standard library unpacks zstd from 3.14 on

            return cast(IO[bytes], pyarrow.CompressedInputStream(str(path), "zstd"))
    return path.open("rb")


def _refuse_other_encodings(path: Path) -> None:
    """Raise for a file that shows in its first bytes that it is no UTF-8, though it may decode as such."""
    with _open(path) as file:
        start = file.read(4096)
    if start.startswith((b"\xff\xfe", b"\xfe\xff")) or max(start[::2].count(0), start[1::2].count(0)) > len(start) / 8:
        raise UserError(f"{path}:1: is not UTF-8, but UTF-16; {_remedy('UTF-16', path)}")
    if b"\0" in start:
        raise UserError(
            f"{path}: holds zero bytes, so it is no text file, whatever its name; export it as csv in UTF-8"
        )


def _not_utf8(path: Path) -> UserError:
    """Return the error that tells which lines of a file are not UTF-8, and what they look like."""
    wrong, sample = [], b""
    with _open(path) as file:
        for number, line in enumerate(file, start=1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError:
                wrong.append(number)
                sample += line if len(sample) < 100_000 else b""
    such = f" ({len(wrong):,} such lines)" if len(wrong) > 1 else ""
    encoding = _guessed(sample)
    return UserError(f"{path}:{wrong[0]}: is not UTF-8{such}; it looks like {encoding}; {_remedy(encoding, path)}")


def _guessed(sample: bytes) -> str:
    """Return the likely encoding of lines that are not UTF-8, as iconv names it."""
    # GB18030 itself takes nearly any bytes; Western letters between plain ones do not pass for its core, GB2312.
    for encoding, core, first, last in (
        ("CP949", "cp949", "가", "힣"),
        ("SHIFT_JIS", "shift_jis", "ぁ", "ヿ"),
        ("GB18030", "gb2312", "一", "龥"),
    ):
        try:
            foreign = [letter for letter in sample.decode(core) if letter > "\x7f"]
        except UnicodeDecodeError:
            continue
        if sum(first <= letter <= last for letter in foreign) > len(foreign) / 2:
            return encoding
    return "CP1252"  # which holds latin-1's letters


def _remedy(encoding: str, path: Path) -> str:
    unpacked = path.with_suffix("") if path.suffix in COMPRESSED else path
    name = f"{unpacked.stem}.utf8{unpacked.suffix}"
    unpack = "unpack it, then " if unpacked != path else ""
    return f"{unpack}iconv -f {encoding} -t UTF-8 {unpacked.name} > {name}"
