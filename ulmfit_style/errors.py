"""What went wrong, in words for the person at the keyboard."""

import difflib
import importlib.util
import os
import shutil
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from errno import EACCES, EDQUOT, EEXIST, EIO, EISDIR, EMFILE, ENAMETOOLONG, ENOSPC, ENOTDIR, EPERM, EROFS
from pathlib import Path


class UserError(Exception):
    """Something the user can fix: shown without a traceback, exit code 2.

    The message says what is wrong in the user's own spelling, where, and what to do next.
    """


class Interrupted(BaseException):
    """A command was stopped by a signal, and saved what it had: exit code 128 + the signal's number.

    Like KeyboardInterrupt, it is not an Exception: a loop over several jobs must not go on with the next one.
    """

    def __init__(self, signal: int, message: str) -> None:
        self.signal = signal
        super().__init__(f"{message}; the same command goes on from there")


class Pruned(Exception):
    """A trial of a sweep was stopped because others were better at that point; what it made is removed."""


class ConfigError(UserError):
    """All the problems of one configuration, gathered so that they are fixed in one go."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = list(problems)
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        super().__init__("\n".join([f"the configuration has {count}:", *(f"  - {p}" for p in problems)]))


@contextmanager
def reworded(before: str, *errors: type[Exception], after: str = "") -> Iterator[None]:
    """Put words of ours around those of an error, which becomes a UserError; what a library says becomes one line.

    Args:
        errors: What to catch.
    """
    try:
        yield
    except errors as error:
        told = str(error) if isinstance(error, UserError) else " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{before}{told}{after}") from error


def require_packages(asked: str, *packages: str) -> None:
    """Check that packages are installed which what was asked for needs.

    Raises:
        UserError: telling how to get them.
    """
    if missing := [name for name in packages if importlib.util.find_spec(name) is None]:
        raise UserError(f"{asked}: needs {' and '.join(missing)}; install it: pip install {' '.join(missing)}")


SHOWN_PROBLEMS = 10
"""How many problems of a file are listed before the rest is counted."""


def together(head: str, problems: Sequence[str]) -> UserError:
    """Return one error for all problems of `head`, an option with its value: the first ones and their number.

    A problem is a place and what is wrong there; what is wrong in several places is told once.
    """
    if len(problems) == 1:
        return UserError(problems[0])
    places = defaultdict[str, list[str]](list)
    for place, colon, what in (problem.partition(": ") for problem in problems):
        places[colon + what].append(place)
    lines = [listed(where, 3) + what for what, where in places.items()]
    more = [f"... and {len(lines) - SHOWN_PROBLEMS:,} more"] if len(lines) > SHOWN_PROBLEMS else []
    return UserError("\n  - ".join([f"{head} has {len(problems):,} problems:", *lines[:SHOWN_PROBLEMS], *more]))


def ending(error: BaseException) -> tuple[int, str] | None:
    """Return the exit code and the line of what may end a command, or None for what needs its traceback."""
    if isinstance(error, Interrupted):
        return 128 + error.signal, str(error)
    if isinstance(error, KeyboardInterrupt):
        return 130, "interrupted; what was finished is kept"
    line = str(error) if isinstance(error, UserError) else trouble(error)
    return None if line is None else (2, line)


TROUBLE = (ENOSPC, EDQUOT, EROFS, EACCES, EPERM, ENOTDIR, EISDIR, EEXIST, ENAMETOOLONG, EMFILE, EIO)
"""What may be wrong with a disk, or a place on it, and is no fault of the program."""


NESTED = "is nested too deeply, or holds a number of too many digits"


def trouble(error: BaseException, folder: Path | None = None) -> str | None:
    """Return a line on trouble of the machine, a full disk or memory; None for all else, which needs its traceback.

    Libraries raise errors of their own for it, which have its name in their text; torch's for a full disk has not.

    Args:
        folder: Where was written, if the error does not say.
    """
    text, notes = str(error), "".join(f"; {note}" for note in getattr(error, "__notes__", ()))
    if isinstance(error, MemoryError) or "out of memory" in text or "can't allocate memory" in text:
        return f"the memory is too small{notes or '; take a smaller batch, max_length or model'}"
    if isinstance(error, RecursionError) or "Exceeds the limit (" in text:
        return f"what was read {NESTED} ({text[:80]}); mend or leave it"
    # What the driver of a database says is `orig` of SQLAlchemy's error, which Optuna's may wrap.
    if driver := getattr(error, "orig", None) or getattr(error.__cause__, "orig", None):
        return f"the database failed: {' '.join(str(driver).split())}; once it answers again, the same command goes on"
    is_torch = "inline_container.cc" in text or "iostream error" in text
    known = [os.strerror(number) for number in TROUBLE if os.strerror(number) in text]
    if not (known or is_torch):
        return None
    problem, place = known[0] if known else os.strerror(ENOSPC), getattr(error, "filename", None) or folder
    if place and problem in (os.strerror(ENOSPC), os.strerror(EDQUOT)):
        disk = next(parent for parent in Path(place).absolute().parents if parent.is_mount())
        notes = f" (the disk {disk} has {shutil.disk_usage(disk).free / 1e6:,.1f} MB left){notes}"
    where = f"{place}: " if place else ""
    return f"{where}{problem.lower().replace('file exists', 'is a file, and no folder')}{notes}"


def listed(names: Iterable[str], shown: int = SHOWN_PROBLEMS) -> str:
    """Return the first of `names`, and how many there are beside: `a, b and 7 more`."""
    names = list(names)
    return ", ".join(names[:shown]) + (f" and {len(names) - shown:,} more" if len(names) > shown else "")


def nearest(name: str, names: Iterable[str]) -> str:
    """Return `; did you mean ...?` for the closest of `names`, or the empty string when none is close.

    Initials are closest: `finetune.lr` may mean `finetune.learning_rate` or `finetune.lora_rank`.
    """
    candidates = sorted(names)
    close = [candidate for candidate in candidates if _initials(candidate) == name]
    close = close or difflib.get_close_matches(name, candidates, n=1, cutoff=0.5)
    return f"; did you mean {' or '.join(map(repr, close))}?" if close else ""


def _initials(key: str) -> str:
    group, dot, last = key.rpartition(".")
    return group + dot + "".join(word[:1] for word in last.split("_"))
