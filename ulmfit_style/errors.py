"""What went wrong, in words for the person at the keyboard."""

import difflib
from collections.abc import Iterable, Sequence
from typing import Any


class UserError(Exception):
    """Something the user can fix: shown without a traceback, exit code 2.

    The message says what is wrong in the user's own spelling, where, and what to do next.
    """


class Interrupted(BaseException):
    """A training run was stopped by a signal, and saved what it had: exit code 128 + the signal's number.

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


SHOWN_PROBLEMS = 10
"""How many problems of a file are listed before the rest is counted."""


def together(head: str, problems: Sequence[str]) -> UserError:
    """Return one error for all problems of `head`, an option with its value: the first ones and their number."""
    if len(problems) == 1:
        return UserError(problems[0])
    more = [f"... and {len(problems) - SHOWN_PROBLEMS:,} more"] if len(problems) > SHOWN_PROBLEMS else []
    lines = [f"{head} has {len(problems):,} problems:", *problems[:SHOWN_PROBLEMS], *more]
    return UserError("\n  - ".join(lines))


def listed(names: Iterable[Any], shown: int = SHOWN_PROBLEMS) -> str:
    """Return names after one another; of many the first ones and their number."""
    all_names = list(map(str, names))
    more = [f"... ({len(all_names):,} in all)"] if len(all_names) > shown else []
    return ", ".join([*all_names[:shown], *more])


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
