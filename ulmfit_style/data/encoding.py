"""Opens text files, compressed or not, as UTF-8, and says of others what they look like and how to convert them."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from ulmfit_style.errors import UserError


def _open_zstd(path: Path) -> Any:
    import pyarrow  # the standard library reads zstd from Python 3.14 on

    return pyarrow.CompressedInputStream(str(path), "zstd")


COMPRESSIONS: Mapping[str, Callable[[Path], Any]] = {
    ".gz": gzip.open,
    ".bz2": bz2.open,
    ".xz": lzma.open,
    ".zst": _open_zstd,
}
"""What opens the uncompressed bytes of a file with each ending."""

LOCAL_ENCODINGS = (
    ("CP949", "cp949", "가", "힣"),
    ("SHIFT_JIS", "shift_jis", "ぁ", "ヿ"),
    ("GB18030", "gb2312", "一", "龥"),
)
"""Encodings as iconv names them, what decodes their core, and the range of their letters. GB18030 itself decodes nearly
any bytes; Western letters between plain ones do not pass for its core, GB2312."""


@contextmanager
def open_text(path: Path) -> Iterator[IO[str]]:
    """Open a text file; what reads it may meet bytes that are not UTF-8.

    Raises:
        UserError: naming the encoding that the file seems to have, and the command that converts it.
    """
    with _open_bytes(path) as file:
        start = file.peek(4096)[:4096]
        zeros = max(start[::2].count(0), start[1::2].count(0))
        if start.startswith((b"\xff\xfe", b"\xfe\xff")) or zeros > len(start) / 8:
            raise UserError(f"{path}:1: is not UTF-8, but UTF-16; {_remedy('UTF-16', path)}")
        if zeros:
            raise UserError(f"{path}: contains zero bytes, so it is not a text file; export it as csv in UTF-8")
        try:
            yield io.TextIOWrapper(file, encoding="utf-8-sig", newline="")
        except UnicodeDecodeError as error:
            raise _not_utf8(path) from error


def _open_bytes(path: Path) -> io.BufferedReader:
    compression = COMPRESSIONS.get(path.suffix.lower())
    return io.BufferedReader(path.open("rb", buffering=0) if compression is None else compression(path))


def _not_utf8(path: Path) -> UserError:
    """Return the error that says which lines of a file are not UTF-8, and what they look like."""
    wrong_lines, sample = [], b""
    with _open_bytes(path) as file:
        for number, line in enumerate(file, start=1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError:
                wrong_lines.append(number)
                sample += line if len(sample) < 100_000 else b""
    count = f" ({len(wrong_lines):,} such lines)" if len(wrong_lines) > 1 else ""
    encoding = _guess_encoding(sample)
    problem = f"is not UTF-8{count}; it looks like {encoding}; {_remedy(encoding, path)}"
    return UserError(f"{path}:{wrong_lines[0]}: {problem}")


def _guess_encoding(sample: bytes) -> str:
    """Return the likely encoding of lines that are not UTF-8, as iconv names it."""
    for encoding, core, first, last in LOCAL_ENCODINGS:
        try:
            foreign = [letter for letter in sample.decode(core) if letter > "\x7f"]
        except UnicodeDecodeError:
            continue
        if sum(first <= letter <= last for letter in foreign) > len(foreign) / 2:
            return encoding
    return "CP1252"  # which has the letters of latin-1


def _remedy(encoding: str, path: Path) -> str:
    unpacked = path.with_suffix("") if path.suffix in COMPRESSIONS else path
    unpack = "" if unpacked == path else "unpack it, then "
    return f"{unpack}iconv -f {encoding} -t UTF-8 {unpacked.name} > {unpacked.stem}.utf8{unpacked.suffix}"
