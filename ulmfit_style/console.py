"""Everything that is printed: lines, tables and progress. What libraries print goes to the run's log file."""

from __future__ import annotations

import logging
import os
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from ulmfit_style import processes

MUTED = "ULMFIT_STYLE_MUTED"
"""An environment variable: processes that have it print nothing."""

OUT = Console(highlight=False, soft_wrap=True, quiet=not processes.is_main() or MUTED in os.environ)
"""Where everything is printed, by the main process alone; plain text when it is not a terminal."""

PLAIN_INTERVAL = 20.0
"""Seconds between two progress lines where there is no terminal."""


def say(line: str = "", *, style: str | None = None) -> None:
    """Print one line; `style` is a rich style such as "bold"."""
    OUT.print(line, style=style, markup=False)


def show(table: Table) -> None:
    """Print a table."""
    OUT.print(table)


class ProgressReport:
    """Shows how far a loop has come: by a live bar on a terminal, elsewhere by a line now and then."""

    def __init__(self, title: str, total: int | None, done: int, bar: Progress | None) -> None:
        self.title, self.total, self.done = title, total, done
        self._done_before = done
        self._bar = bar
        self._task = bar.add_task(title, total=total, completed=done, notes="") if bar else None
        self._started = self._last_line = time.monotonic()

    def advance(self, count: int = 1, notes: str = "") -> None:
        """Count `count` more steps as done; `notes` (loss, rate) stands beside the bar."""
        self.done += count
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, advance=count, notes=notes)
            return
        now = time.monotonic()
        if now - self._last_line < PLAIN_INTERVAL:
            return
        self._last_line = now
        if self.total is None:
            say(f"  {self.title}: {self.done:,}")
        elif self.done < self.total:
            left = (now - self._started) / (self.done - self._done_before) * (self.total - self.done)
            say(f"  {self.title}: {self.done}/{self.total}, {_clock(left)} left{', ' + notes if notes else ''}")


@contextmanager
def progress(title: str, total: int | None, done: int = 0) -> Iterator[ProgressReport]:
    """Show the progress of `total` steps, `done` of them before; the bar disappears at the end of the block.

    `total` is None where nobody knows how many steps there will be.
    """
    if not OUT.is_terminal:
        yield ProgressReport(title, total, done, None)
        return
    columns = (
        TextColumn("  {task.description}"),
        BarColumn(bar_width=30),
        TaskProgressColumn("{task.completed:.0f}/{task.total:.0f}", "{task.completed:.0f}"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[notes]}"),
    )
    with Progress(*columns, console=OUT, transient=True) as bar:
        yield ProgressReport(title, total, done, bar)


@contextmanager
def muted() -> Iterator[None]:
    """Print nothing while the block runs, and let processes that it starts print nothing either."""
    before, OUT.quiet = OUT.quiet, True
    outermost = MUTED not in os.environ
    os.environ[MUTED] = "1"
    try:
        yield
    finally:
        OUT.quiet = before
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
    """Send all logging and warnings to a file while the block runs."""
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    before = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    logging.captureWarnings(True)
    try:
        with warnings.catch_warnings():
            yield
    finally:
        logging.captureWarnings(False)
        root.setLevel(before)
        root.removeHandler(handler)
        handler.close()


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def duration(seconds: float) -> str:
    """Return a duration as people say it: 40 seconds, 12 minutes, 3 h 5 min."""
    if seconds < 90:
        return f"{seconds:.0f} seconds"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} minutes"
