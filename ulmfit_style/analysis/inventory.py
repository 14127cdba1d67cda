"""The artefacts that there are: `runs` and `clean-runs`."""

from __future__ import annotations

import shutil
import time
from calendar import timegm
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import Timeout

from ulmfit_style.artefacts.directory import MANIFEST, MEASURED, RECIPE, lock_of, read_json
from ulmfit_style.cli.compose import compose
from ulmfit_style.console import say
from ulmfit_style.results import terminal
from ulmfit_style.results.model import Size, Table


@dataclass(frozen=True)
class Entry:
    """An artefact's directory as it stands on the disk."""

    directory: Path
    finished: str | None
    """When, in UTC, as the manifest has it; None for one that is not finished."""
    has_weights: bool
    """Whether a study kept all of it, and not its scores alone."""
    being_made: bool
    """Whether a process holds its lock."""
    size: int
    """Bytes."""
    names: tuple[str, ...]
    """The links to it, such as `default/finetune`."""
    sources: tuple[Path, ...]
    """The artefacts that it was made from."""

    @property
    def when(self) -> str:
        """When it was finished, by the clock of this machine."""
        if self.finished is None:
            return "being made" if self.being_made else "unfinished"
        seconds = timegm(time.strptime(self.finished, "%Y-%m-%dT%H:%M:%SZ"))
        scores = "" if self.has_weights else " (scores)"
        return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds)) + scores


def runs(overrides: Sequence[str]) -> None:
    """Print a table of the artefacts in the folder `runs`, the newest last."""
    folder = compose(overrides).runs
    entries = _entries(folder)
    if not entries:
        say(f"There is nothing in {folder} yet; make adapt finetune makes something.")
        return
    terminal.show(
        _table(f"{len(entries)} artefacts in {folder}, {Size(sum(entry.size for entry in entries))}", entries)
    )


def clean(arguments: Sequence[str]) -> None:
    """List the artefacts that no name needs, and remove them if `yes=true` is among the arguments.

    Needed is what a link in `runs/<name>/` points to, and what that was made from. A name points to its last artefact
    alone, so what goes may be the hours of an earlier one: that is why the list comes first, and `yes=true` is a second
    command. An unfinished artefact goes, unless a run is making it; a run that was stopped could have gone on from it.
    """
    folder = compose([argument for argument in arguments if argument != "yes=true"]).runs
    entries = _entries(folder)
    unneeded = _unneeded(entries)
    busy = [entry for entry in entries if entry.being_made]
    if busy:
        say(f"{', '.join(str(entry.directory) for entry in busy)}: being made, so whatever it may need stays")
    if not unneeded:
        say(f"There is nothing to remove in {folder}: every artefact has a name, or is needed by one that has.")
        return
    size = Size(sum(entry.size for entry in unneeded))
    terminal.show(_table(f"{len(unneeded)} of {len(entries)} artefacts in {folder} have no name: {size}", unneeded))
    if "yes=true" not in arguments:
        say("Nothing was removed. To remove these: make clean-runs yes=true")
        return
    for entry in unneeded:
        try:
            with lock_of(entry.directory).acquire(blocking=False):
                # Without its manifest, what is left of it is not taken for a whole one.
                for name in (MANIFEST, MEASURED):
                    (entry.directory / name).unlink(missing_ok=True)
                shutil.rmtree(entry.directory)
        except Timeout:
            say(f"{entry.directory}: a run has begun to make it; it stays")
        else:
            say(f"removed {entry.directory}")


def _unneeded(entries: Sequence[Entry]) -> list[Entry]:
    """Return the entries that no link points to, directly or through what was made from them."""
    sources = {entry.directory: entry.sources for entry in entries}
    needed: set[Path] = set()
    reached = [entry.directory for entry in entries if entry.names or entry.being_made]
    while reached:
        directory = reached.pop()
        if directory not in needed:
            needed.add(directory)
            reached += sources.get(directory, ())
    # What is being made has no manifest yet that tells what it is made from.
    busy = any(entry.being_made for entry in entries)
    return [entry for entry in entries if entry.directory not in needed and not (busy and entry.finished)]


def _entries(folder: Path) -> list[Entry]:
    """Return all artefacts of a folder, in the order in which they were begun."""
    directories = [recipe.parent for recipe in folder.glob(f"*-*/{RECIPE}") if not recipe.parent.is_symlink()]
    names: dict[Path, list[str]] = {}
    for link in sorted(folder.glob("*/*")):
        if link.is_symlink():
            names.setdefault(link.resolve(), []).append(str(link.relative_to(folder)))
    entries = []
    for directory in sorted(directories, key=lambda directory: (directory / RECIPE).stat().st_mtime):
        found = [directory / name for name in (MANIFEST, MEASURED) if (directory / name).exists()]
        whole = bool(found)
        manifest: dict[str, Any] = read_json(found[0]) if whole else {}
        entries.append(
            Entry(
                directory,
                manifest.get("finished"),
                (directory / MANIFEST).exists(),
                not whole and _is_locked(directory),
                sum(path.lstat().st_size for path in directory.rglob("*")),
                tuple(names.get(directory.resolve(), ())),
                tuple(_sources(folder, manifest.get("determinants", {}))),
            )
        )
    return entries


def _sources(folder: Path, determinants: dict[str, Any]) -> Iterator[Path]:
    """Return the artefacts that determinants name: `{"adapt": "3fa9c1e2"}`, on whichever level."""
    for key, value in determinants.items():
        if isinstance(value, dict):
            yield from _sources(folder, value)
        elif isinstance(value, str) and (folder / f"{key}-{value}").is_dir():
            yield folder / f"{key}-{value}"


def _is_locked(directory: Path) -> bool:
    try:
        with lock_of(directory).acquire(blocking=False):
            return False
    except Timeout:
        return True


def _table(title: str, entries: Sequence[Entry]) -> Table:
    rows = [
        (*entry.directory.name.rsplit("-", 1), entry.when, Size(entry.size), ", ".join(entry.names))
        for entry in entries
    ]
    return Table(("stage", "fingerprint", "finished", "size", "names"), rows, title)
