"""Files at addresses that fsspec knows, such as s3:// and gs://: they are copied to this machine, and read there."""

import glob
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from filelock import FileLock

from ulmfit_style.artefacts.fingerprint import digest
from ulmfit_style.console import say
from ulmfit_style.errors import reworded
from ulmfit_style.models import embedded

MARKS = {"ETag", "etag", "md5Hash", "mtime", "created", "LastModified", "last_modified", "Last-Modified"}
"""What file systems tell of a file that changes with its content, in a list of files and of each by itself."""


@cache  # what a command reads stays as it was when it began
def copied(option: str, address: str) -> str:
    """Copy what an address names to the user's cache, but for files that are there as they were, and return its path.

    Args:
        option: The config field that holds the address, for messages.
        address: A file, a folder or a glob.

    Raises:
        UserError: if the package for such addresses is missing, or they cannot be read, or there is nothing.
    """
    folder, copies, new = embedded.cache() / "remote" / digest(address)[:8], set[Path](), 0
    with _told(option, address), FileLock(folder.with_suffix(".lock")):
        system, path, parent, found = _found(address)
        for name, (_, version) in found.items():
            if ".." in Path(name).parts:
                raise ValueError(f"{name} would lie outside of its folder")
            copy = folder / name.removeprefix(parent).lstrip("/")
            note = copy.with_name(f".{copy.name}.version")
            copies |= {copy, note}  # the note is hidden, so it is not read
            if note.exists() and note.read_text() == version:
                continue
            copy.parent.mkdir(parents=True, exist_ok=True)
            system.get_file(name, str(part := copy.with_name(f".{copy.name}.part")))
            part.replace(copy)
            note.write_text(version)
            new += 1
        for gone in set(filter(Path.is_file, folder.rglob("*"))) - copies:
            gone.unlink()
    if new:
        say(f"{option}={address}: new or changed files, copied to {folder}: {new:,}")
    return str(folder / path.rstrip("/").removeprefix(parent).lstrip("/"))


def listed(option: str, address: str) -> dict[str, tuple[int, str]]:
    """Return the addresses of the files that one names, each with its size and what stands for its version.

    Raises:
        UserError: as `copied` does.
    """
    with _told(option, address):
        system, _, _, found = _found(address)
        return {system.unstrip_protocol(name): file for name, file in found.items()}


@contextmanager
def borrowed(option: str, address: str) -> Iterator[str]:
    """Return the path of a copy of a file that is there while the block runs.

    Raises:
        UserError: as `copied` does.
    """
    with TemporaryDirectory() as folder:
        path = Path(folder) / address.rstrip("/").rpartition("/")[2]
        with _told(option, address):
            system, name, _, _ = _found(address)
            system.get_file(name, str(path))
        yield str(path)


def _told(option: str, address: str) -> AbstractContextManager[None]:
    """Say of an error of whatever library that it is about an address."""
    return reworded(f"{option}={address}: cannot be copied to this machine (", Exception, after=")")


def _found(address: str) -> tuple[Any, str, str, dict[str, tuple[int, str]]]:
    """Return a file system, the path of an address there, the folder that it lies in, and its files as `listed` does.

    Raises:
        FileNotFoundError: if there is none.
    """
    import fsspec

    system, path = fsspec.url_to_fs(address)
    system.invalidate_cache()  # what was there before may have changed
    is_glob = glob.has_magic(path) and not system.exists(path)
    parent = path.rstrip("/").rpartition("/")[0]
    while is_glob and glob.has_magic(parent):
        parent = parent.rpartition("/")[0]
    found, files = (system.glob if is_glob else system.find)(path, detail=True), {}
    for name in [name for name, told in found.items() if told.get("type", "file") == "file"]:
        told = found[name] if MARKS & found[name].keys() else system.info(name)
        size = told.get("size") or 0
        files[name] = size, digest([size, *(str(told[mark]) for mark in sorted(MARKS & told.keys()))])
    if not files:
        with suppress(FileNotFoundError):  # over http nothing is found where no server answers, either
            system.cat_file(path, 0, 1)
        raise FileNotFoundError("there is no such file")
    return system, path, parent, files
