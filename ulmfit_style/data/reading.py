"""Reads files of any supported format into rows that know where they stand; all problems of a file are gathered."""

import glob
import lzma
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ulmfit_style.config.training import Document
from ulmfit_style.data import hub
from ulmfit_style.data.formats import COMPRESSIONS, FORMATS, TEXT_COLUMN, Numbered, Record, nfc, open_file
from ulmfit_style.errors import UserError, nearest, together
from ulmfit_style.models import embedded
from ulmfit_style.tasks.base import Row

SUPPORTED = f"(supported: {', '.join(ending[1:] for ending in FORMATS)})"

ENCODINGS = ["utf_16", "cp1252", "cp949", "cp932", "gb18030", "big5", "cp1251"]
"""What text that is not UTF-8 may be in: the encodings of Windows, which hold those that are older."""

Choose = Callable[[Sequence[str]], Mapping[str, str]]
"""Returns the column of each field that is wanted, by the columns that a file has."""


def read(option: str, reference: str, choose: Choose, document: Document | None = None) -> Iterator[tuple[Row, Record]]:
    """Read a file's rows, one after another: the fields that are wanted, and the whole record.

    After a bad row no more are yielded: the rest of the file is only searched for other problems.

    Args:
        option: The config field that names the file, for error messages.
        reference: A path, `package:<file>` of an installed Python package, or `hub:<data set>/<file>` of the Hub.
        choose: Asked once. `summary.outcome` is `outcome` within the column `summary`, where no column has that name
            itself. The text of a txt or md file goes by the first of these names, whatever it is.
        document: What one row of a txt or md file is; by default a line of txt, and the whole of an md file.

    Raises:
        UserError: if the file is missing, broken, not UTF-8, or lacks a column; it says where, and what to do.
    """
    path = locate(option, reference)
    is_running_text = FORMATS[kind(path)].document is not None
    names: dict[str, str] | None = None
    problems: list[str] = []
    for number, record in _records(option, path, document):
        if isinstance(record, str):
            problems.append(f"{path}:{number}: {record}")
            continue
        is_first = names is None
        if names is None:
            names = {field: nfc(name) for field, name in choose(list(record)).items()}
            if is_running_text:
                names |= dict.fromkeys(list(names)[:1], TEXT_COLUMN)
        fields, missing = {}, []
        for field, name in names.items():
            try:
                fields[field] = value(record, name)
            except KeyError:
                missing.append(f"has no column '{name}'{nearest(name, record)} (columns: {', '.join(record)})")
        if missing and is_first:  # so does every row
            raise UserError("\n".join(f"{option}={reference}: {problem}" for problem in missing))
        problems += [f"{path}:{number}: {problem}" for problem in missing]
        if not problems:
            yield Row(path.name, number, fields), record
    if problems:
        raise together(f"{option}={reference}", problems)


def rows(option: str, reference: str, columns: Sequence[str], document: Document | None = None) -> Iterator[Row]:
    """Read columns of a file by their own names, as `read` does."""
    names = {name: name for name in columns}
    return (row for row, _ in read(option, reference, lambda _: names, document))


def first(option: str, reference: str) -> Record:
    """Return the first row of a file.

    Raises:
        UserError: if the file is missing, empty, broken before its first row, or not UTF-8.
    """
    for _, record in read(option, reference, lambda _: {}):
        return record
    raise UserError(f"{option}={reference}: holds no rows")


def files(option: str, reference: str) -> tuple[list[str], Counter[str]]:
    """Return the files that a reference means: itself, all in a folder and those within, or those of a glob, sorted.

    Hidden files are none of these.

    Returns:
        The files, and the endings of those that are not read.

    Raises:
        UserError: if none of the files can be read.
    """
    path = Path(reference).expanduser()
    if path.is_file() or not (path.is_dir() or glob.has_magic(reference)):
        return [reference], Counter()
    pattern = f"{glob.escape(str(path))}/**" if path.is_dir() else str(path)
    # Not that of pathlib, which returns hidden files too.
    matches = sorted(match for match in glob.glob(pattern, recursive=True) if Path(match).is_file())  # noqa: PTH207
    readable = [match for match in matches if kind(match) in FORMATS and FORMATS[kind(match)].of_documents]
    if not readable:
        raise UserError(f"{option}={reference}: there is no file that can be read {SUPPORTED}")
    return readable, Counter(Path(match).suffix for match in matches if match not in readable)


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


def kind(path: str | Path) -> str:
    """Return the ending that tells a file's format, such as ".csv" of reviews.csv.gz."""
    suffixes = [suffix.lower() for suffix in Path(path).suffixes]
    return next((suffix for suffix in reversed(suffixes) if suffix not in COMPRESSIONS), "")


def value(record: Mapping[str, Any], name: str) -> Any:
    """Return the value of a column, or of one within another; KeyError where it is not there."""
    outer, dot, inner = name.partition(".")
    if name in record or not dot or not isinstance(record.get(outer), dict):
        return record[name]
    return value(record[outer], inner)


def _records(option: str, path: Path, document: Document | None) -> Iterator[Numbered]:
    try:
        yield from FORMATS[kind(path)].read(path, document)
    except UnicodeDecodeError as error:
        raise _not_utf8(path) from error
    except (
        OSError,
        EOFError,
        ValueError,
        RecursionError,
        lzma.LZMAError,
        zlib.error,
    ) as error:  # of whatever library reads it
        raise UserError(f"{option}={path}: cannot be read ({error})") from error


def _not_utf8(path: Path) -> UserError:
    """Return the error that says where a file is not UTF-8, what it seems to be, and how to convert it."""
    import charset_normalizer

    with open_file(path, "rb") as file:
        lines: list[bytes] = file.readlines()
    wrong = next(index for index, line in enumerate(lines) if line.decode(errors="ignore").encode() != line)
    guess = charset_normalizer.from_bytes(b"".join(lines[wrong:])[:100_000], cp_isolation=ENCODINGS).best()
    encoding = guess.encoding.replace("_", "-") if guess else "<its encoding>"
    looks = f"; it looks like {encoding}" if guess else ""
    return UserError(f"{path}:{wrong + 1}: is not UTF-8{looks}; convert it with `iconv -f {encoding} -t UTF-8`")
