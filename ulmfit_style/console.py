"""Everything that is printed: lines, tables and progress. What libraries print goes to the run's log file."""

import logging
import os
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeRemainingColumn

from ulmfit_style.compute import processes
from ulmfit_style.errors import UserError, trouble

MUTED = "ULMFIT_STYLE_MUTED"
"""An environment variable: processes that have it print nothing."""

OUT = Console(highlight=False, soft_wrap=True, quiet=not processes.is_main() or MUTED in os.environ)
"""Where everything is printed, by the main process alone; plain text when it is not a terminal."""

PLAIN_INTERVAL = 20.0
"""Seconds between two progress lines where there is no terminal."""


def say(line: str, *, style: str | None = None) -> None:
    """Print one line; `style` is a rich style such as "bold"."""
    OUT.print(line, style=style, markup=False)


_SAID: set[str] = set()


def say_once(line: str) -> None:
    """Print a line, unless it was printed before."""
    if line not in _SAID and not OUT.quiet:
        _SAID.add(line)
        say(line)


class ProgressReport:
    """Shows how far a loop has come: by a live bar on a terminal, elsewhere by a line now and then."""

    def __init__(self, title: str, bar: Progress, task: TaskID) -> None:
        self.title, self._bar, self._task = title, bar, task
        self._last_line = time.monotonic()

    def advance(self, count: int = 1, notes: str = "") -> None:
        """Count `count` more steps as done; `notes` (loss, rate) stands beside the bar."""
        self._bar.update(self._task, advance=count, notes=notes)
        now = time.monotonic()
        if OUT.is_terminal or now - self._last_line < PLAIN_INTERVAL:
            return
        self._last_line = now
        task = self._bar.tasks[self._task]
        parts = [f"{task.completed:,.0f}" if task.total is None else f"{task.completed:.0f}/{task.total:.0f}"]
        if task.time_remaining:
            parts.append(f"{duration(task.time_remaining)} left")
        say(f"  {self.title}: {', '.join([*parts, notes] if notes else parts)}")


@contextmanager
def progress(title: str, total: int | None, done: int = 0) -> Iterator[ProgressReport]:
    """Show the progress of `total` steps, `done` of them before; the bar disappears at the end of the block.

    `total` is None where nobody knows how many steps there will be.
    """
    columns = (
        TextColumn("  {task.description}"),
        BarColumn(bar_width=30),
        TaskProgressColumn("{task.completed:.0f}/{task.total:.0f}", "{task.completed:.0f}"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[notes]}"),
    )
    with Progress(*columns, console=OUT, transient=True, disable=not OUT.is_terminal) as bar:
        yield ProgressReport(title, bar, bar.add_task(title, total=total, completed=done, notes=""))


@contextmanager
def muted() -> Iterator[None]:
    """Print nothing while the block runs, and let processes that it starts print nothing either."""
    was_quiet, outermost = OUT.quiet, MUTED not in os.environ
    OUT.quiet, os.environ[MUTED] = True, "1"
    try:
        yield
    finally:
        OUT.quiet = was_quiet
        if outermost:
            del os.environ[MUTED]


@contextmanager
def lines_on_stderr() -> Iterator[None]:
    """Print on standard error while the block runs, so that standard output holds data alone."""
    before, OUT.stderr = OUT.stderr, True
    try:
        yield
    finally:
        OUT.stderr = before


@contextmanager
def logging_to(path: Path) -> Iterator[None]:
    """Send all logging and warnings to a file while the block runs, and the traceback of what ends it.

    Raises:
        UserError: for trouble of the machine, such as a full disk.
    """
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.handleError = lambda record: None  # type: ignore[method-assign]  # a full disk is told once
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    logging.captureWarnings(True)
    try:
        with warnings.catch_warnings():
            yield
    except Exception as error:
        root.exception("what ended it:")
        if not isinstance(error, UserError) and (line := trouble(error, path.parent)):
            raise UserError(line) from error
        raise
    finally:
        logging.captureWarnings(False)
        root.setLevel(level)
        root.removeHandler(handler)
        with suppress(OSError):
            handler.close()


def from_here(path: Path) -> Path:
    """Return where a path leads, as it is seen from the working folder if that holds it."""
    path = path.resolve()
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def duration(seconds: float) -> str:
    """Return a duration as people say it: 40 seconds, 4 min 10 s, 12 minutes, 3 h 5 min."""
    if seconds < 90:
        return f"{seconds:.0f} second{'s' * (round(seconds) != 1)}"
    if seconds < 600:
        return f"{seconds // 60:.0f} min {seconds % 60:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} minutes"
