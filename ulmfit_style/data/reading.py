"""Reads files of any supported format into rows that know where they stand; all problems of a file are gathered."""

from __future__ import annotations

import glob
import lzma
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ulmfit_style.config.stages import Document
from ulmfit_style.data import hub
from ulmfit_style.data.encoding import COMPRESSIONS
from ulmfit_style.data.formats import FORMATS, Record, Selection, nfc
from ulmfit_style.errors import UserError, nearest, together
from ulmfit_style.models import embedded
from ulmfit_style.tasks.base import Row

KINDS = tuple(FORMATS)
SUPPORTED = f"(supported: {', '.join(ending[1:] for ending in FORMATS)})"


def rows(
    option: str, reference: str, columns: Sequence[str], document: Document | None = None, *, others: bool = False
) -> Iterator[Row]:
    """Read a file's rows, one after another.

    After a bad row no more are yielded: the rest of the file is only searched for other problems.

    Args:
        option: The config field that names the file, for error messages.
        reference: A path, `package:<file>` of an installed Python package, or `hub:<data set>/<file>` of the Hub.
        columns: The columns that each row must have; `summary.outcome` is `outcome` within the column `summary`, where
            no column has that name itself. The text of a txt or md file goes by the first of these names, whatever it
            is.
        document: What one row of a txt or md file is; by default a line of txt, and the whole of an md file.
        others: Whether a row keeps its other columns; else they are left out.

    Raises:
        UserError: if the file is missing, broken, not UTF-8, or lacks a column; it says where, and what to do.
    """
    path = locate(option, reference)
    wanted = [nfc(column) for column in columns]
    problems: list[str] = []
    file_has_columns = False
    for number, record in _records(option, path, Selection(wanted, others, document)):
        if isinstance(record, str):
            problems.append(f"{path}:{number}: {record}")
            continue
        fields = _with_inner(record, wanted)
        missing = [_no_column(column, fields) for column in wanted if column not in fields]
        if missing and not file_has_columns:  # so does every row
            raise UserError("\n".join(f"{option}={reference}: {problem}" for problem in missing))
        file_has_columns = True
        problems += [f"{path}:{number}: {problem}" for problem in missing]
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
    for number, record in _records(option, path, Selection()):
        if not isinstance(record, str):
            return list(_with_inner(record, [nfc(column) for column in inner]))
        problems.append(f"{path}:{number}: {record}")
    raise together(f"{option}={reference}", problems or [f"{option}={reference}: holds no rows"])


def files(option: str, reference: str) -> tuple[list[str], Counter[str]]:
    """Return the files that a reference means: itself, all of a folder and those within, or those of a glob, sorted.

    Returns:
        The files, and the endings of those in the folder that are not read: hidden ones, and formats not known here.

    Raises:
        UserError: if there is no such file or folder, or no file in it that can be read.
    """
    path = Path(reference).expanduser()
    if reference.startswith(("package:", hub.PREFIX)) or path.is_file():
        return [reference], Counter()
    if path.is_dir():
        inside = sorted(file for file in path.rglob("*") if file.is_file())
        readable = [file for file in inside if _holds_documents(file.relative_to(path))]
        if not readable:
            raise UserError(f"{option}={reference}: the folder has no file that can be read {SUPPORTED}")
        skipped = Counter(file.suffix or file.name for file in inside if file not in set(readable))
        return list(map(str, readable)), skipped
    if glob.has_magic(reference):
        pattern = str(path.relative_to(path.anchor))
        matches = sorted(str(match) for match in Path(path.anchor).glob(pattern) if match.is_file())
        if not matches:
            raise UserError(f"{option}={reference}: no file matches")
        return matches, Counter()
    return [str(locate(option, reference))], Counter()  # which raises, for nothing is there


def locate(option: str, reference: str) -> Path:
    """Return the file that a reference means.

    Raises:
        UserError: if there is none, or its format is not supported.
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
    if kind(path) not in FORMATS:
        raise UserError(f"{option}={reference}: files of type '{kind(path)}' cannot be read {SUPPORTED}")
    return path


def unit(path: str | Path, document: Document | None = None) -> Document | None:
    """Return what one row of a txt or md file is, where `document` is what the user chose; None for other files."""
    default = FORMATS[kind(path)].document
    return default and (document or default)


def kind(path: str | Path) -> str:
    """Return the ending that tells a file's format, such as ".csv" of reviews.csv.gz."""
    suffixes = [suffix.lower() for suffix in Path(path).suffixes]
    return next((suffix for suffix in reversed(suffixes) if suffix not in COMPRESSIONS), "")


def _holds_documents(path: Path) -> bool:
    hidden = any(part.startswith(".") for part in path.parts)
    return not hidden and kind(path) in FORMATS and FORMATS[kind(path)].of_documents


def _with_inner(fields: Mapping[str, Any], columns: Sequence[str]) -> Mapping[str, Any]:
    """Return the fields, and those within them that columns ask for, or all within them where one is missing."""
    dotted = [column for column in columns if "." in column and column not in fields]
    inner, level = dict[str, Any](), fields
    while dotted and level:
        parts = [(name, part) for name, part in level.items() if isinstance(part, dict)]
        level = {nfc(f"{name}.{key}"): value for name, part in parts for key, value in part.items()}
        inner |= level
    wanted = {column: inner[column] for column in dotted if column in inner}
    return {**fields, **(wanted if len(wanted) == len(dotted) else inner)}


def _no_column(column: str, fields: Iterable[str]) -> str:
    names = list(fields)
    return f"has no column '{column}'{nearest(column, names)} (columns: {', '.join(names)})"


def _records(option: str, path: Path, selection: Selection) -> Iterator[Record]:
    try:
        yield from FORMATS[kind(path)].read(path, selection)
    except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
        raise UserError(f"{option}={path}: cannot be read ({error})") from error
