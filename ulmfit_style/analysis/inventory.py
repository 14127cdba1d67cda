"""What there is: `runs` lists models by their scores, and artefacts; `clean-runs` removes those that no name needs."""

import shutil
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from filelock import Timeout

from ulmfit_style.artefacts.directory import MANIFEST, RECIPE, damage, lock_of, sources
from ulmfit_style.cli.compose import compose
from ulmfit_style.console import say
from ulmfit_style.errors import UserError
from ulmfit_style.results import finished, scores, terminal
from ulmfit_style.results.parts import Interval, Size, Table


class Entry(NamedTuple):
    """An artefact's directory as it stands on the disk."""

    directory: Path
    made: finished.Finished | None
    """None for one that is not finished."""
    being_made: bool
    """Whether a process holds its lock."""
    names: Sequence[str]
    """The links to it, such as `default/finetune`."""

    @property
    def state(self) -> str:
        """When it was finished, by the clock of this machine; else what it is."""
        if self.made is None:
            return "being made" if self.being_made else "damaged" if damage(self.directory, "*") else "unfinished"
        return _when(self.made) + ("" if (self.directory / MANIFEST).exists() else " (scores)")


def runs(overrides: Sequence[str]) -> None:
    """Print the scored models that have a name, a table for each task, and all artefacts, the newest last.

    With `task=reviews` among the overrides, the models of that task alone.
    """
    config = compose(overrides)
    wanted = config.task if any(override.startswith("task=") for override in overrides) else None
    tables = [table for path, table in _by_task(config.runs) if wanted is None or path == str(wanted.path)]
    terminal.show(*tables)
    if wanted is not None:
        if not tables:
            say(f"There is no scored model of {wanted.path} in {config.runs} yet; make adapt finetune makes one.")
        return
    if entries := list(_entries(config.runs)):
        _show(f"{len(entries)} artefacts in {config.runs}", entries)
    else:
        say(f"There is nothing in {config.runs} yet; make adapt finetune makes something.")


def _by_task(folder: Path) -> Iterator[tuple[str, Table]]:
    """Yield a table for the rows of each task: the models by their scores, with what `compare` takes as their names."""
    found: defaultdict[tuple[Any, ...], list[finished.Run]] = defaultdict(list)
    for run in finished.scored(folder):
        task = run.config.require_task()
        classes = tuple(run.model.metrics["train"].get("classes", ()))  # one file may hold two columns of labels
        found[str(task.path), type(task).__name__, task.metric, classes].append(run)
    for (path, kind, metric, _), scored in found.items():
        rows = []
        for run in sorted(scored, key=lambda run: -run.model.metrics["test"]["scores"][metric]):
            measured, labels = run.model.metrics["test"], run.model.metrics["train"]["rows"]
            score, interval = measured["scores"][metric], Interval(*measured["interval"])
            what = run.title.replace("package:", "")
            rows.append((run.name, labels, score, interval, run.worth, _when(run.model)[:10], what))
        header = ("name", "labels", metric, scores.INTERVAL, "adapted", "finished", "model")
        yield path, Table(header, rows, f"{kind}: {path}")


def clean(arguments: Sequence[str]) -> None:
    """List the artefacts that no name needs, and remove them if `yes=true` is among the arguments.

    Needed is what a link in `runs/<name>/` points to, and what that was made from. A name points to its last artefact
    alone, so what goes may be the hours of an earlier one: that is why the list comes first, and `yes=true` is a second
    command. An unfinished artefact goes too; a run that was stopped could have gone on from it.

    Raises:
        UserError: while an artefact is being made: what it is made from stands nowhere yet.
    """
    folder = compose([argument for argument in arguments if argument != "yes=true"]).runs
    entries = list(_entries(folder))
    if busy := [str(entry.directory) for entry in entries if entry.being_made]:
        raise UserError(f"clean-runs: {', '.join(busy)}: a run is making it; try again when it is finished")
    needed = _needed(entries)
    if not (unneeded := [entry for entry in entries if entry.directory not in needed]):
        say(f"There is nothing to remove in {folder}: every artefact has a name, or is needed by one that has.")
        return
    _show(f"{len(unneeded)} of {len(entries)} artefacts in {folder} have no name", unneeded)
    if "yes=true" not in arguments:
        say("Nothing was removed. To remove these: make clean-runs yes=true")
        return
    for entry in unneeded:
        with lock_of(entry.directory):
            shutil.rmtree(entry.directory)
        say(f"removed {entry.directory}")


def _needed(entries: Sequence[Entry]) -> set[Path]:
    """Return the directories that links point to, and those that these were made from."""
    made = {entry.directory: entry.made for entry in entries if entry.made is not None}
    reached = [entry.directory for entry in entries if entry.names]
    for directory in reached:  # which grows: nothing is made from itself, so it ends
        if directory in made:
            reached += sources(directory.parent, made[directory].determinants)
    return set(reached)


def _entries(folder: Path) -> Iterator[Entry]:
    """Yield all artefacts of a folder, in the order in which they were begun."""
    targets = {link: link.resolve() for link in sorted(folder.glob("*/*")) if link.is_symlink()}
    for recipe in sorted(folder.glob(f"*-*/{RECIPE}"), key=lambda recipe: recipe.stat().st_mtime):
        directory, resolved = recipe.parent, recipe.parent.resolve()
        made = None if directory.name.startswith("damaged-") else finished.find(directory)
        names = [str(link.relative_to(folder)) for link, target in targets.items() if target == resolved]
        yield Entry(directory, made, made is None and _is_locked(directory), names)


def _is_locked(directory: Path) -> bool:
    with suppress(Timeout), lock_of(directory).acquire(blocking=False):
        return False
    return True


def _when(made: finished.Finished) -> str:
    return f"{datetime.fromisoformat(made.manifest['finished']).astimezone():%Y-%m-%d %H:%M}"


def _show(title: str, entries: Sequence[Entry]) -> None:
    sizes = [Size(sum(path.lstat().st_size for path in entry.directory.rglob("*"))) for entry in entries]
    sized = zip(entries, sizes, strict=True)
    rows = [(*entry.directory.name.rsplit("-", 1), entry.state, size, ", ".join(entry.names)) for entry, size in sized]
    terminal.show(Table(("stage", "fingerprint", "finished", "size", "names"), rows, f"{title}: {Size(sum(sizes))}"))
