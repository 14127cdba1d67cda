"""Reads csv, tsv, jsonl, parquet and txt files, compressed or not, into rows that know where they stand."""

from __future__ import annotations

import bz2
import csv
import gzip
import json
import lzma
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from ulmfit_style.embedded import locate
from ulmfit_style.errors import UserError, nearest
from ulmfit_style.tasks.base import Row

OPENERS: Mapping[str, Callable[..., IO[str]]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
TEXT_COLUMN = "text"
"""What the one column of a txt file is called."""

csv.field_size_limit(sys.maxsize)  # a clinical note is longer than the module's default of 128 kB


def read(option: str, reference: str, columns: Sequence[str]) -> list[Row]:
    """Read a file's rows.

    Args:
        option: The config field that names the file, for error messages.
        reference: A path, or `package:<file>` of an installed Python package.
        columns: The columns that each row must have; the others are left out.

    Raises:
        UserError: if the file is missing, empty, broken, not UTF-8, or lacks a column; it says where.
    """
    path = locate(reference) if reference.startswith("package:") else Path(reference).expanduser()
    if not path.is_file():
        siblings = [sibling.name for sibling in path.parent.iterdir()] if path.parent.is_dir() else []
        raise UserError(f"{option}={reference}: there is no such file{nearest(path.name, siblings)}")
    suffixes = [suffix.lower() for suffix in path.suffixes]
    opener = OPENERS.get(suffixes[-1], open) if suffixes else open
    kind = next((suffix for suffix in reversed(suffixes) if suffix not in OPENERS), "")
    readers = {".csv": _csv, ".tsv": _tsv, ".jsonl": _jsonl, ".ndjson": _jsonl, ".txt": _txt}
    if kind != ".parquet" and kind not in readers:
        known = ", ".join(["csv", "tsv", "jsonl", "parquet", "txt"])
        raise UserError(f"{option}={reference}: '{kind}' is not a kind of file that is read here (there are: {known})")
    rows = []
    try:
        if kind == ".parquet":
            rows = [_row(option, path, number, fields, columns) for number, fields in _parquet(path)]
        else:
            with opener(path, "rt", encoding="utf-8-sig", newline="") as file:
                rows = [_row(option, path, number, fields, columns) for number, fields in readers[kind](path, file)]
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is not UTF-8 ({error.reason} after row {len(rows)}); convert it first") from error
    except (OSError, EOFError, lzma.LZMAError) as error:
        raise UserError(f"{path}: cannot be read ({error})") from error
    if not rows:
        raise UserError(f"{path}: holds no rows")
    return rows


def _row(option: str, path: Path, number: int, fields: Mapping[str, Any], columns: Sequence[str]) -> Row:
    for column in columns:
        if column not in fields:
            there = ", ".join(str(name) for name in fields)
            hint = nearest(column, [str(name) for name in fields])
            raise UserError(f"{option}={path}: row {number} has no column '{column}'{hint} (there are: {there})")
    return Row(path.name, number, {column: fields[column] for column in columns})


def _csv(path: Path, file: IO[str], delimiter: str = ",") -> Iterator[tuple[int, Mapping[str, Any]]]:
    reader = csv.DictReader(file, delimiter=delimiter, strict=True)
    try:
        for fields in reader:
            if None in fields or None in fields.values():
                raise UserError(f"{path}:{reader.line_num}: has not as many columns as the header")
            yield reader.line_num, fields
    except csv.Error as error:
        # line_num is still that of the record before.
        raise UserError(f"{path}:{reader.line_num + 1}: is broken ({error})") from error


def _tsv(path: Path, file: IO[str]) -> Iterator[tuple[int, Mapping[str, Any]]]:
    return _csv(path, file, delimiter="\t")


def _jsonl(path: Path, file: IO[str]) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for number, line in enumerate(file, start=1):
        if not line.strip():
            continue
        try:
            fields = json.loads(line.strip())
        except json.JSONDecodeError as error:
            raise UserError(f"{path}:{number}: is not JSON ({error.msg} at column {error.colno})") from error
        if not isinstance(fields, dict):
            raise UserError(f"{path}:{number}: is not a JSON object")
        yield number, fields


def _txt(path: Path, file: IO[str]) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for number, line in enumerate(file, start=1):
        yield number, {TEXT_COLUMN: line.rstrip("\r\n")}


def _parquet(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    import pyarrow.parquet

    number = 0
    for batch in pyarrow.parquet.ParquetFile(path).iter_batches():
        for fields in batch.to_pylist():
            number += 1
            yield number, fields
