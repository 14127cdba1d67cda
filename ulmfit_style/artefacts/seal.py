"""Seals: what a folder held when it was finished, written as its last file, and whether it still holds that."""

import json
import os
from collections.abc import Collection, Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from ulmfit_style.artefacts.fingerprint import digest, file_digest

SMALL = 2**20
"""Bytes up to which a file's content is compared whenever its folder is used; of larger ones it is the size."""

_KNOWN: dict[tuple[Path, int, int, int], str] = {}
"""The SHA-256 of the files that this process has read, each as it was then."""


def sync(path: Path) -> None:
    """Have the disk hold the content of a file, or the names in a folder, before anything relies on it."""
    if os.name != "nt":  # which writes out only what is open for writing
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)


def signed(folder: Path, values: Mapping[str, Any], apart: Collection[str]) -> dict[str, Any]:
    """Return a seal: some values, the size and SHA-256 of each file of a folder, and a digest of all this.

    The disk holds the files when it returns, so that a seal which outlives a loss of power tells the truth.

    Args:
        apart: The names in the folder that are not sealed; names that begin with a dot never are.
    """
    files = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if name.parts[0] in apart or path.name.startswith("."):
            continue
        sync(path)
        if path.is_file():
            files[name.as_posix()] = {"bytes": path.stat().st_size, "sha256": sha256(path)}
    sync(folder)
    sync(folder.parent)
    seal = json.loads(json.dumps({**values, "files": files}))  # as it will be read
    return {**seal, "sha256": digest(seal)}


def damage(folder: Path, name: str, large: str = "", gone: str = "") -> str | None:
    """Return how a sealed folder differs from what it was when it was sealed, in words; None if it does not.

    Args:
        name: The name of its seal.
        large: A pattern of the names whose content is compared even if they are large, which takes a second a gigabyte.
        gone: A pattern of the names that may be missing.
    """
    try:
        seal = json.loads((folder / name).read_bytes())
        is_written = seal.pop("sha256") == digest(seal) and "files" in seal
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        is_written = False
    if not is_written:
        return f"{name} is not what this version of the program wrote"
    for file, written in seal["files"].items():
        try:
            if fnmatch(file, gone):
                continue
            size = (folder / file).stat().st_size
            compares = size <= SMALL or fnmatch(file, large) or _key(folder / file) in _KNOWN
            if size != written["bytes"]:
                return f"{file} has {size:,} bytes, and had {written['bytes']:,}"
            if compares and sha256(folder / file) != written["sha256"]:
                return f"{file} has another content than it had (by its SHA-256)"
        except OSError as error:
            return f"{file} is missing" if isinstance(error, FileNotFoundError) else f"{file} cannot be read"
    return None


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file, which is read once a process, unless it is written again."""
    if (key := _key(path)) not in _KNOWN:
        _KNOWN[key] = file_digest(path)
    return _KNOWN[key]


def _key(path: Path) -> tuple[Path, int, int, int]:
    status = path.stat()
    return path.absolute(), status.st_ino, status.st_mtime_ns, status.st_ctime_ns
