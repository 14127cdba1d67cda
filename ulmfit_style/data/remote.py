"""Files at addresses that fsspec knows, such as s3:// and gs://: they are copied to this machine, and read there."""

import glob
from functools import cache
from pathlib import Path

from filelock import FileLock

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
        is_glob = glob.has_magic(path) and not system.exists(path)
        parent = path.rstrip("/").rpartition("/")[0]
        while is_glob and glob.has_magic(parent):
            parent = parent.rpartition("/")[0]
        found = (system.glob if is_glob else system.find)(path, detail=True)
        with FileLock(folder.with_suffix(".lock")):
            for name in [name for name, told in found.items() if told.get("type", "file") == "file"]:
                if ".." in Path(name).parts:
                    raise ValueError(f"{name} would lie outside of its folder")
                copy = folder / name.removeprefix(parent).lstrip("/")
                version, now = copy.with_name(f".{copy.name}.version"), str(found[name] or system.info(name))
                copies |= {copy, version}  # the version is hidden, so it is not read
                if version.exists() and version.read_text() == now:
                    continue
                copy.parent.mkdir(parents=True, exist_ok=True)
                system.get_file(name, str(part := copy.with_name(f".{copy.name}.part")))
                part.replace(copy)
                version.write_text(now)
                new += 1
            for gone in set(filter(Path.is_file, folder.rglob("*"))) - copies:
                gone.unlink()
    except Exception as error:  # of whatever library reads it
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{option}={address}: cannot be copied to this machine ({reason})") from error
    if not copies:
        raise UserError(f"{option}={address}: there is no such file")
    if new:
        say(f"{option}={address}: new or changed files, copied to {folder}: {new:,}")
    return str(folder / path.rstrip("/").removeprefix(parent).lstrip("/"))
