"""A server that runs commands in forks of itself, so that each starts at once, and kills them where it is told to.

`Commands` starts one and asks it. A fork is killed by SIGKILL before its n-th file event of a kind, or after some time.
"""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

EVENTS = {"open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.symlink"}
"""Those of Python's audit hooks that change a folder; `open` where it is opened to be written."""


class Ended(NamedTuple):
    """How a command ended."""

    code: int
    """Its exit code, or minus the number of the signal that killed it."""
    said: str
    events: dict[str, int]
    """How often each kind of file event took place; of a command that was killed at one, that one."""
    seconds: float


class Commands:
    """Commands of the program in one folder, which is their working directory; their `runs` is `runs`."""

    def __init__(self) -> None:
        self._server = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        assert self._server.stdin is not None
        self._server.stdin.close()
        self._server.wait(60)

    def run(
        self, folder: Path, command: list[str], at: tuple[str, int] | None = None, after: float | None = None
    ) -> Ended:
        """Run a command.

        Args:
            at: The kind of file event and its number, from 1, before which it is killed.
            after: The seconds after which it is killed, if it was not yet.
        """
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        print(json.dumps([str(folder), command, at, after]), file=self._server.stdin, flush=True)
        return Ended(*json.loads(self._server.stdout.readline()))


def kind_of(event: str, path: str) -> str:
    """Return a file event in words that are the same for all steps and fingerprints."""
    return f"{event} {re.sub(r'[0-9]+', '#', re.sub(r'-[0-9a-f]{8}', '-*', path))}"


def _watch(runs: Path, at: tuple[str, int] | None) -> Counter[str]:
    """Count the file events below a folder, and die before the one that is named."""
    counts: Counter[str] = Counter()

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event not in EVENTS or not arguments or not isinstance(arguments[0], str | os.PathLike):
            return
        if event == "open" and not (isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)):
            return
        path = Path.cwd() / arguments[1 if event in {"os.rename", "os.symlink"} else 0]
        if path.is_relative_to(runs):
            kind = kind_of(event, str(path.relative_to(runs)))
            counts[kind] += 1
            if at is not None and (kind, counts[kind]) == tuple(at):
                counts.clear()  # so that what is written now is not counted
                (runs.parent / "events.json").write_text(json.dumps({kind: 1}))
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    return counts


def _serve() -> None:
    """Answer each line of standard input by how its command ended."""
    import optuna  # noqa: F401
    import pyarrow.parquet  # noqa: F401
    import torch
    from sklearn.feature_extraction.text import TfidfVectorizer  # noqa: F401
    from sklearn.linear_model import LogisticRegression  # noqa: F401
    from transformers import AutoModelForMaskedLM, AutoTokenizer, Trainer  # noqa: F401

    import ulmfit_style.predictor
    import ulmfit_style.training.language_model
    import ulmfit_style.training.phases  # noqa: F401
    from ulmfit_style.__main__ import main

    torch.set_num_threads(1)
    for line in sys.stdin:
        folder, command, at, after = json.loads(line)
        output, events = Path(folder) / "said.txt", Path(folder) / "events.json"
        events.unlink(missing_ok=True)
        started = time.monotonic()
        child = os.fork()
        if child == 0:
            os.setsid()
            os.chdir(folder)
            descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            for number in (1, 2):
                os.dup2(descriptor, number)
            counts = _watch(Path(folder) / "runs", at)
            code = 1
            try:
                code = main(command)
            except BaseException:
                import traceback

                traceback.print_exc()
            sys.stdout.flush()
            sys.stderr.flush()
            events.write_text(json.dumps(counts))
            os._exit(code)
        killer = threading.Timer(after or 10_000, os.kill, (child, signal.SIGKILL))
        killer.start()
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        killer.cancel()
        counts = json.loads(events.read_text()) if events.exists() else {}
        print(json.dumps([code, output.read_text(), counts, time.monotonic() - started]), flush=True)


if __name__ == "__main__":
    _serve()
