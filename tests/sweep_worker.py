"""A worker of a sweep whose trials take a moment and are written down; `forkserver` imports it once for all."""

import os
import random
import time
from collections.abc import Sequence
from pathlib import Path

import pyarrow.parquet  # noqa: F401
import trial_stub
from transformers import AutoModelForSequenceClassification, AutoTokenizer, Trainer  # noqa: F401

import ulmfit_style.training.phases  # noqa: F401
from ulmfit_style.__main__ import main
from ulmfit_style.experiments import sweep, trials
from ulmfit_style.experiments.trial_queue import TrialReporter
from ulmfit_style.resolved import Resolved

DIARY = "diary.txt"
"""A line for each trial that begins or has ended, in the folder `runs`: which, its number, and that of the process."""


def diary(runs: Path) -> list[tuple[str, int, int]]:
    """Return what is written in the diary, in its order."""
    lines = (runs / DIARY).read_text().splitlines() if (runs / DIARY).exists() else []
    return [(event, int(trial), int(process)) for event, trial, process in map(str.split, lines)]


def work(overrides: Sequence[str], seconds: float, errors: Path) -> None:
    """Run `sweep` without its report, with trials that take up to so many seconds, and end with its exit code.

    Args:
        errors: The file to write standard error to: that of the server is of the test that started it.
    """
    os.dup2(os.open(errors, os.O_WRONLY | os.O_APPEND | os.O_CREAT), 2)

    def train(resolved: Resolved, reporter: TrialReporter) -> None:
        def note(event: str) -> None:
            file = os.open(resolved.config.runs / DIARY, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
            os.write(file, f"{event} {reporter.number} {os.getpid()}\n".encode())
            os.close(file)

        note("begins")
        time.sleep(random.uniform(seconds / 2, seconds))
        trial_stub.train(resolved, reporter)
        note("ended")

    trials.train = train
    sweep.report = lambda _: None  # its forest of trees starts threads, which a fork may wait for in vain
    os._exit(main(["sweep", *overrides]))
