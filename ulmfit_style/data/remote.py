"""Files at addresses that fsspec knows, such as s3:// and gs://: they are copied to this machine, and read there."""

import glob
import os
from functools import cache
from pathlib import Path

from ulmfit_style.artefacts.fingerprint import digest
from ulmfit_style.console import say
from ulmfit_style.errors import UserError
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
    import fsspec

    folder, copies, new = embedded.cache() / "remote" / digest(address)[:8], set[Path](), 0
    try:
        system, path = fsspec.url_to_fs(address)
        parent = path.rstrip("/").rpartition("/")[0]
        while glob.has_magic(parent):
            parent = parent.rpartition("/")[0]
        for name in system.glob(path) if glob.has_magic(path) else system.find(path):
            copy = folder / name.removeprefix(parent).lstrip("/")
            version = copy.with_name(f".{copy.name}.version")  # hidden, so it is not read
            copies |= {copy, version}
            if version.exists() and version.read_text() == str(system.ukey(name)):
                continue
            version.unlink(missing_ok=True)
            copy.parent.mkdir(parents=True, exist_ok=True)
            system.get_file(name, str(part := copy.with_name(f".{copy.name}.{os.getpid()}")))
            part.replace(copy)
            version.write_text(str(system.ukey(name)))
            new += 1
    except Exception as error:  # of whatever library reads it
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{option}={address}: cannot be copied to this machine ({reason})") from error
    if not copies:
        raise UserError(f"{option}={address}: there is no such file")
    for gone in set(filter(Path.is_file, folder.rglob("*"))) - copies:
        gone.unlink()
    if new:
        say(f"{option}={address}: new or changed are {new:,} of {len(copies) // 2:,} files, copied to {folder}")
    return str(folder / path.rstrip("/").removeprefix(parent).lstrip("/"))
