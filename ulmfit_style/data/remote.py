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
from ulmfit_style.errors import UserError, reworded
from ulmfit_style.models import embedded


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
        for name, told in found.items():
            if ".." in Path(name).parts:
                raise ValueError(f"{name} would lie outside of its folder")
            copy = folder / name.removeprefix(parent).lstrip("/")
            version = copy.with_name(f".{copy.name}.version")
            copies |= {copy, version}  # the version is hidden, so it is not read
            if version.exists() and version.read_text() == str(told):
                continue
            copy.parent.mkdir(parents=True, exist_ok=True)
            system.get_file(name, str(part := copy.with_name(f".{copy.name}.part")))
            part.replace(copy)
            version.write_text(str(told))
            new += 1
        for gone in set(filter(Path.is_file, folder.rglob("*"))) - copies:
            gone.unlink()
    if not copies:
        raise UserError(f"{option}={address}: there is no such file")
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
    if not found:
        raise UserError(f"{option}={address}: there is no such file")
    return {system.unstrip_protocol(name): (told.get("size") or 0, digest(str(told))) for name, told in found.items()}


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


def _found(address: str) -> tuple[Any, str, str, dict[str, Any]]:
    """Return a file system, the path of an address there, the folder that it lies in, and what is told of its files."""
    import fsspec

    system, path = fsspec.url_to_fs(address)
    is_glob = glob.has_magic(path) and not system.exists(path)
    parent = path.rstrip("/").rpartition("/")[0]
    while is_glob and glob.has_magic(parent):
        parent = parent.rpartition("/")[0]
    found = (system.glob if is_glob else system.find)(path, detail=True)
    files = {name: told or system.info(name) for name, told in found.items() if told.get("type", "file") == "file"}
    if not files:
        with suppress(FileNotFoundError):  # over http nothing is found where no server answers, either
            system.cat_file(path, 0, 1)
    return system, path, parent, files
