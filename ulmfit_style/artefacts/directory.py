"""Artefact directories: what they are called, when they are whole, and how one is made.

A finished directory is named by the fingerprint of all that determined it, and holds a manifest that was written last.
"""

import glob
import json
import os
import platform
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import IO, Any

import yaml
from filelock import FileLock, Timeout

from ulmfit_style.artefacts import seal
from ulmfit_style.artefacts.fingerprint import digest
from ulmfit_style.compute import devices, processes
from ulmfit_style.console import from_here, logging_to, say
from ulmfit_style.errors import Pruned, UserError, nearest

MANIFEST = "manifest.json"
MEASURED = "measured.json"
"""The manifest of an artefact of which the scores were kept, and not the weights."""
METRICS = "metrics.json"
RECIPE = "recipe.yaml"
LOG = "log.txt"
CHECKPOINTS = "checkpoints"
"""Within an artefact in the making: what a stopped stage goes on from."""

WEIGHTS = "*.safetensors*"
"""The files of a model that are not kept where only its scores are."""

NOT_SEALED = (MANIFEST, MEASURED, LOG, CHECKPOINTS)
"""What may change in a finished directory: a log is for people, and a later attempt adds to it."""

LIBRARIES = ("torch", "transformers", "accelerate", "tokenizers", "scikit-learn")
"""What a result may depend on though it is in no fingerprint."""


@dataclass(frozen=True)
class Artefact:
    """One stage's directory, finished or still to be made."""

    stage: str
    determinants: Mapping[str, Any]
    """All that determines the result, as JSON values: hashed into the fingerprint, kept in the manifest."""
    runs: Path

    @property
    def fingerprint(self) -> str:
        """The first 8 hex digits of the SHA-256 of all that determines the result."""
        return digest({"stage": self.stage, **self.determinants})[:8]

    @property
    def directory(self) -> Path:
        """Where the artefact lies, or will lie."""
        return self.runs / f"{self.stage}-{self.fingerprint}"

    @property
    def finished(self) -> bool:
        """Whether the directory is whole: its manifest is written last, and tells what it holds."""
        return is_finished(self.directory)

    @property
    def measured(self) -> bool:
        """Whether its scores and predictions are there, with or without the weights."""
        return self.finished or ((self.directory / MEASURED).exists() and damage(self.directory) is None)

    def make(self, build: Callable[[Path], None], recipe: Mapping[str, Any], *, alone: bool = False) -> Path:
        """Let `build` fill the directory, unless it is finished, and return it.

        The directory is locked meanwhile: another run that wants the same artefact waits, and finds it finished. One
        that is damaged is set aside. What a stopped run left in `CHECKPOINTS` is there for `build` to go on from, and
        removed in the end. The manifest is written last, when `build` returned.

        Args:
            alone: Whether this process makes it by itself; else several come here together, and the main one writes.
        """
        is_writer = alone or processes.is_main()
        wait: Callable[[], None] = (lambda: None) if alone else processes.wait
        with self._lock() if is_writer else nullcontext():
            if is_writer and (reason := damage(self.directory, "*")):
                aside = _set_aside(self.directory, "damaged")
                say(f"{self.stage}: {self.directory} is damaged: {reason}; it is now {aside}, and is made again")
            if self.finished if alone else processes.from_main(self.finished):
                return self.directory
            if is_writer:
                self.directory.mkdir(exist_ok=True)
                text = yaml.safe_dump(dict(recipe), allow_unicode=True, sort_keys=False)
                (self.directory / RECIPE).write_text(text, encoding="utf-8")
            wait()
            started = time.monotonic()
            with logging_to(self.directory / LOG), self._removed_if_refused() if is_writer else nullcontext():
                build(self.directory)
            wait()
            if is_writer:
                self._finish(time.monotonic() - started)
            wait()
        return self.directory

    def _finish(self, seconds: float) -> None:
        """Write the manifest, and remove what a stopped run would go on from."""
        manifest = {
            "stage": self.stage,
            "fingerprint": self.fingerprint,
            "determinants": self.determinants,
            "seconds": round(seconds, 1),
            "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "processes": processes.count(),
            "device": devices.device(),
            "versions": versions(),
            "machine": machine(),
        }
        write_json(self.directory / MANIFEST, seal.signed(self.directory, manifest, NOT_SEALED))
        (self.directory / MEASURED).unlink(missing_ok=True)
        shutil.rmtree(self.directory / CHECKPOINTS, ignore_errors=True)

    @contextmanager
    def _removed_if_refused(self) -> Iterator[None]:
        """Remove the directory when the user's input turns out wrong and there is nothing in it to go on from.

        So is that of a trial that was stopped early: its curve is kept by the sweep.
        """
        try:
            yield
        except (Pruned, UserError) as error:
            if isinstance(error, Pruned) or not (self.directory / CHECKPOINTS).exists():
                shutil.rmtree(self.directory, ignore_errors=True)
            raise

    def _lock(self) -> AbstractContextManager[Any]:
        try:
            return lock_of(self.directory).acquire(blocking=False)
        except Timeout:
            say(f"{self.stage}: another process is making {self.directory}; waiting for it")
            return lock_of(self.directory).acquire()

    def link(self, name: str, role: str) -> None:
        """Point `runs/<name>/<role>` at this artefact."""
        if (left := self.directory / CHECKPOINTS).exists():  # by a run that ended when it had finished
            shutil.rmtree(left)
        folder = self.runs / name
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / role).is_dir() and not (folder / role).is_symlink():  # `runs` was copied, and links followed
            say(f"{folder / role}: was a folder in place of a link; it is now {_set_aside(folder / role, 'copied')}")
        new = fresh(folder / role)
        new.unlink(missing_ok=True)
        new.symlink_to(Path("..") / self.directory.name, target_is_directory=True)
        new.replace(folder / role)


def _set_aside(directory: Path, word: str) -> Path:
    """Put a word and the time before the name of a directory, and return its new path."""
    return directory.rename(directory.with_name(f"{word}-{time.strftime('%Y%m%d-%H%M%S')}-{directory.name}"))


def is_finished(directory: Path) -> bool:
    """Tell whether a directory is a whole artefact, with its weights."""
    return (directory / MANIFEST).exists() and damage(directory) is None


def damage(directory: Path, large: str = "") -> str | None:
    """Return how a directory differs from what it was when it was finished; None if it does not, or never was.

    Args:
        large: As `seal.damage` takes it.
    """
    if (directory / MANIFEST).exists():
        return seal.damage(directory, MANIFEST, large)
    return seal.damage(directory, MEASURED, large, gone=WEIGHTS) if (directory / MEASURED).exists() else None


def require_intact(directory: Path, large: str = "*") -> None:
    """Check that a directory, if it is a finished artefact, holds what it held when it was finished.

    Args:
        large: As `seal.damage` takes it; by default, all is compared.

    Raises:
        UserError: naming the file, and what to do.
    """
    if (reason := damage(directory, large)) is not None:
        folder, stage = from_here(directory), directory.resolve().name.rpartition("-")[0]
        again = f"run `{stage}` with the same options, or" if stage in ("pretrain", "adapt", "finetune") else "then"
        raise UserError(f"{folder} is damaged: {reason}; remove this folder, and {again} take a whole copy of it")


def sources(runs: Path, determinants: Mapping[str, Any]) -> Iterator[Path]:
    """Yield the directories of the artefacts that determinants name, `{"adapt": "3fa9c1e2"}`, on whichever level."""
    for key, value in determinants.items():
        if isinstance(value, Mapping):
            yield from sources(runs, value)
        elif isinstance(value, str):
            yield runs / f"{key}-{value}"


def no_run(runs: Path, name: str, stages: Sequence[str]) -> str:
    """Say that no run has a name, and which there are.

    Args:
        stages: Those of which one has to be finished.
    """
    names = sorted({link.parent.name for stage in stages for link in runs.glob(f"*/{stage}") if link.is_symlink()})
    there = f" (there are: {', '.join(names)})" if names else ""
    return f"there is no finished run of that name in {runs}{nearest(name, names)}{there}; make runs lists the names"


def discard_weights(directory: Path, folder: str) -> None:
    """Keep all of a finished artefact but the weights, unless a name outside a folder of `runs` links to it.

    Who wants the model then has it made again.
    """
    links = (link for link in directory.parent.glob("*/*") if link.is_symlink() and link.parent.name != folder)
    if is_finished(directory) and not any(link.resolve() == directory.resolve() for link in links):
        shutil.rmtree(directory / CHECKPOINTS, ignore_errors=True)  # of a run that ended when it had finished
        (directory / MANIFEST).replace(directory / MEASURED)
        for path in directory.glob(WEIGHTS):
            path.unlink()


def lock_of(directory: Path) -> FileLock:
    """Return the lock that is held while an artefact's directory is being made; it makes the folder around that."""
    return FileLock(directory.with_name(f".{directory.name}.lock"))


def write_json(path: Path, value: Any, indent: int | None = 2) -> None:
    """Write a JSON file so that it is there whole or not at all."""
    with whole(path) as file:
        file.write(json.dumps(value, indent=indent, ensure_ascii=False))


@contextmanager
def whole(path: Path) -> Iterator[IO[str]]:
    """Open a text file to be written, in whatever folder, that is there whole in the end, or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = fresh(path)
    try:
        with part.open("w", encoding="utf-8", newline="") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
        seal.sync(path.parent)
    except OSError as error:
        error.filename = error.filename or str(path)  # Python names it only when it opens a file
        raise
    finally:
        part.unlink(missing_ok=True)


def fresh(path: Path) -> Path:
    """Return a name beside a path that takes its place in the end; what ended runs left under such names is removed.

    The name has that of the machine in it: a process of another one does not look as if it had ended.
    """
    import psutil

    own = f".{path.name}.{platform.node()}"
    for left in path.parent.glob(f"{glob.escape(own)}.[0-9]*"):
        if not psutil.pid_exists(int(left.suffix[1:])):
            left.unlink(missing_ok=True)
    return path.with_name(f"{own}.{os.getpid()}")


def read_json(path: Path) -> Any:
    """Read a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


def versions(libraries: Sequence[str] = LIBRARIES) -> dict[str, str]:
    """Return the versions of Python, the program and libraries."""
    return {"python": platform.python_version(), **{name: installed(name) for name in ("ulmfit-style", *libraries)}}


def machine() -> str:
    """Return what kind of machine this is."""
    return f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"


def installed(package: str) -> str:
    """Return the version of a package, or that it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
