"""Reads files of any supported format into rows that know where they stand; all problems of a file are gathered."""

import glob
import zipfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from ulmfit_style.config.section import AS_FOUND, FileFormat, spelled
from ulmfit_style.config.training import Document
from ulmfit_style.console import say_once
from ulmfit_style.data import formats, hub, remote
from ulmfit_style.data.formats import FORMATS, RUNNING_TEXT, TEXT_COLUMN, How, Numbered, Record, nfc
from ulmfit_style.errors import UserError, listed, nearest, reworded, together
from ulmfit_style.models import embedded
from ulmfit_style.tasks.base import Name, Row, Several

SUPPORTED = f"(supported: {', '.join(ending[1:] for ending in FORMATS)})"

SQLITE = "sqlite:///"
"""How a reference to a database begins: sqlite:///reviews.db?select text, label from reviews."""

FOLDER_COLUMN = "folder"
"""What tells of a text file in a folder in which of its folders it lies: the class, where each has one."""

References = str | Sequence[str]
"""One file, folder or glob, or several of them."""

Choose = Callable[[Sequence[str]], Mapping[str, Name]]
"""Returns the column of each field that is wanted, or its columns, by the columns that a file has."""


def read(
    option: str, reference: References, choose: Choose, document: Document | None = None, form: FileFormat = AS_FOUND
) -> Iterator[tuple[Row, Record]]:
    """Read the rows of files, one after another: the fields that are wanted, and the whole record.

    After a bad row no more are yielded: the rest of the files is only searched for other problems.

    Args:
        option: The config field that names the files, for error messages.
        reference: A path, `package:<file>` of an installed Python package, `hub:<data set>/<file>` of the Hub, or
            `sqlite:///<file>?<query>`; of a folder or a glob all files that hold rows.
        choose: Asked once. `summary.outcome` is `outcome` within the column `summary`, where no column has that name
            itself. The text of a txt or md file goes by the first of these names, whatever it is.
        document: What one row of a txt or md file is; by default a line of txt, and the whole of an md file.
        form: What is known of how the files are written.

    Raises:
        UserError: if a file is missing, broken, or lacks a column; it says where, and what to do.
    """
    names: dict[str, Name] | None = None
    problems: list[str] = []
    for path, name, how in sources(option, reference, document, form):
        is_running_text = kind(path, how.format) in RUNNING_TEXT
        for number, record in _records(option, path, how):
            if isinstance(record, str):
                problems.append(f"{path}:{number}: {record}")
                continue
            is_first = names is None
            if names is None:
                chosen = choose(list(record)).items()
                names = {key: nfc(name) if isinstance(name, str) else tuple(map(nfc, name)) for key, name in chosen}
            wanted = names | dict.fromkeys(list(names)[:1], TEXT_COLUMN) if is_running_text else names
            fields, missing = {}, []
            for field, column in wanted.items():
                try:
                    fields[field] = value(record, column)
                except KeyError as error:
                    lacking = error.args[0]
                    there = f"{nearest(lacking, record)} (columns: {listed([*record])})"
                    missing.append(f"has no column '{lacking}'{there}")
            if missing and is_first:  # so does every row
                raise UserError("\n".join(f"{option}={spelled(reference)}: {problem}" for problem in missing))
            problems += [f"{path}:{number}: {problem}" for problem in missing]
            if not problems:
                yield Row(name, number, fields), record
    if problems:
        raise together(f"{option}={spelled(reference)}", problems)


def rows(option: str, reference: References, columns: Sequence[str], form: FileFormat = AS_FOUND) -> Iterator[Row]:
    """Read columns of files by their own names, as `read` does."""
    return (row for row, _ in read(option, reference, lambda _: {name: name for name in columns}, form=form))


def first(option: str, reference: References, form: FileFormat = AS_FOUND) -> Record:
    """Return the first row of a file.

    Raises:
        UserError: if the file is missing, empty, or broken before its first row.
    """
    for _, record in read(option, reference, lambda _: {}, form=form):
        return record
    raise UserError(f"{option}={spelled(reference)}: holds no rows")


def sources(
    option: str, reference: References, document: Document | None = None, form: FileFormat = AS_FOUND
) -> Iterator[tuple[Path, str, How]]:
    """Yield the files that references mean, each with its name beside the others, and say which are skipped.

    Of a folder with tables the running text is skipped. Of running text in several folders each file is one text.

    Raises:
        UserError: if there is no such file, or none that can be read.
    """
    for given in (reference,) if isinstance(reference, str) else reference:
        part = _on_disk(option, given)
        found = files(option, part, form, of_documents=False)
        root, is_one = Path(part).expanduser(), found == [part]
        members = found if is_one else [file for file in found if kind(file, form) not in RUNNING_TEXT] or found
        folders = {Path(file).parent for file in members if not is_one}
        if len(folders) > 1 and root in folders:  # where there is a folder for each class, these are no texts
            members = [file for file in members if Path(file).parent != root]
        _say_skipped(option, part, set(found) - set(members))
        for file in members:
            path, own = locate(option, file, form)
            name = path.relative_to(root) if root.is_dir() else Path(path.name if is_one else file)
            unit = document or ("file" if len(folders) > 1 else None)
            yield path, str(name), How(own, unit, partial(_say_found, option, file), len(folders) > 1)


def files(option: str, reference: str, form: FileFormat = AS_FOUND, *, of_documents: bool = True) -> list[str]:
    """Return the files that a reference means: itself, all in a folder and those within, or those of a glob, sorted.

    Hidden files are none of these. It is said how many others are not read.

    Args:
        of_documents: Whether only those are meant that may hold documents.

    Raises:
        UserError: if none of the files can be read.
    """
    reference = _on_disk(option, reference)
    path = Path(reference).expanduser()
    if reference.startswith(SQLITE) or path.is_file() or not (path.is_dir() or glob.has_magic(reference)):
        return [reference]
    pattern = f"{glob.escape(str(path))}/**" if path.is_dir() else str(path)
    # Not that of pathlib, which returns hidden files too.
    matches = sorted(match for match in glob.glob(pattern, recursive=True) if Path(match).is_file())  # noqa: PTH207
    return readable(option, reference, matches, form, of_documents=of_documents)


def readable(
    option: str, reference: str, found: Sequence[str], form: FileFormat = AS_FOUND, *, of_documents: bool = True
) -> list[str]:
    """Return those of the files found at a reference that can be read, and say how many others there are.

    Raises:
        UserError: if there is none.
    """
    kinds = {file: kind(file, form) for file in found if Path(file).name != "Thumbs.db"}
    left_out = formats.LABELLED if of_documents else ()
    those = [file for file, ending in kinds.items() if ending in FORMATS and ending not in left_out]
    if not those:
        raise UserError(f"{option}={reference}: there is no file that can be read {SUPPORTED}")
    _say_skipped(option, reference, set(found) - set(those))
    return those


def is_address(reference: str) -> bool:
    """Tell whether a reference is one such as s3://bucket/texts; the query of a database may hold one."""
    return "://" in reference and not reference.startswith(SQLITE)


def _on_disk(option: str, reference: str) -> str:
    """Return the path of a copy of what an address names; all else as it is."""
    return remote.copied(option, reference) if is_address(reference) else reference


def _say_skipped(option: str, reference: str, skipped: Collection[str]) -> None:
    if skipped:
        kinds = ", ".join(sorted({Path(file).suffix for file in skipped}))
        say_once(f"{option}={reference}: {len(skipped):,} files of other types are skipped ({kinds})")


def locate(option: str, reference: str, form: FileFormat = AS_FOUND) -> tuple[Path, FileFormat]:
    """Return the file that a reference means, and what is known of how it is written.

    Raises:
        UserError: if there is none, or its format is not supported.
    """
    name, _, query = reference.removeprefix(SQLITE).partition("?")
    if reference.startswith(SQLITE):
        path, form = Path(name).expanduser(), form.model_copy(update={"kind": "sqlite", "query": query or form.query})
    elif reference.startswith("package:"):
        path = embedded.locate(reference)
    elif reference.startswith(hub.PREFIX):
        path = hub.locate(option, reference)
    else:
        path = Path(reference).expanduser()
    if not path.is_file():
        siblings = [sibling.name for sibling in path.parent.glob("*") if sibling.is_file()]
        raise UserError(f"{option}={reference}: there is no such file{nearest(path.name, siblings)}")
    if (ending := kind(path, form)) not in FORMATS:
        how = f"{_format_of(option)}=<ending> says how to read it {SUPPORTED}"
        raise UserError(f"{option}={reference}: files of type '{ending}' cannot be read; {how}")
    return path, form


def _format_of(option: str) -> str:
    """Return the option that says how the files are written that another one names."""
    return ".".join([*option.split(".")[:-1][:1], "format"])


def _say_found(option: str, reference: str, what: str) -> None:
    say_once(f"{option}={reference}: {what} ({_format_of(option)})")


def kind(path: str | Path, form: FileFormat = AS_FOUND) -> str:
    """Return the ending that tells a file's format, such as ".csv" of reviews.csv.gz, or of what is in reviews.zip."""
    names = [(form.kind and f".{form.kind.lstrip('.')}") or str(path)]
    if names[0].lower().endswith(".zip"):
        with suppress(OSError, zipfile.BadZipFile):  # which is told when it is read
            names += zipfile.ZipFile(path).namelist()
    suffixes = [suffix.lower() for name in names for suffix in reversed(Path(f"_{name}").suffixes)]
    return next((suffix for suffix in suffixes if suffix not in (".gz", ".bz2", ".xz", ".zip")), "")


def value(record: Mapping[str, Any], name: Name) -> Any:
    """Return the value of a column, of one within another, or of several; KeyError where it is not there."""
    if not isinstance(name, str):
        return Several({part: value(record, part) for part in name})
    outer, dot, inner = name.partition(".")
    if name in record or not dot or not isinstance(record.get(outer), dict):
        return record[name]
    return value(record[outer], inner)


def _records(option: str, path: Path, how: How) -> Iterator[Numbered]:
    ending = kind(path, how.format)
    own = {FOLDER_COLUMN: path.parent.name} if how.has_folder and ending in RUNNING_TEXT else {}
    remedy = f"); {_format_of(option)} may help"
    with reworded(f"{option}={path}: cannot be read (", Exception, after=remedy):  # of whatever library reads it
        for number, record in FORMATS[ending](path, how):
            yield number, {**record, **own} if own and not isinstance(record, str) else record
