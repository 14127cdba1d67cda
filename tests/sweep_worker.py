"""A worker of a sweep whose trials take a moment and write their numbers down; `forkserver` imports it once for all."""

import os
import random
import time
from collections.abc import Sequence

import pyarrow.parquet  # noqa: F401
import trial_stub
from transformers import AutoModelForSequenceClassification, AutoTokenizer, Trainer  # noqa: F401

import ulmfit_style.training.phases  # noqa: F401
from ulmfit_style.__main__ import main
from ulmfit_style.experiments import sweep, trials
from ulmfit_style.experiments.trial_queue import TrialReporter
from ulmfit_style.resolved import Resolved

STARTED = "started.txt"
"""The numbers of the trials that were started, in the folder `runs`."""


def work(overrides: Sequence[str], seconds: float) -> None:
    """Run `sweep` without its report, with trials that take up to so many seconds, and end with its exit code."""

    def train(resolved: Resolved, reporter: TrialReporter) -> None:
        started = os.open(resolved.config.runs / STARTED, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(started, f"{reporter.number}\n".encode())
        os.close(started)
        time.sleep(random.uniform(seconds / 3, seconds))
        trial_stub.train(resolved, reporter)

    trials.train = train
    sweep.report = lambda _: None  # its forest of trees starts threads, which a fork may wait for in vain
    os._exit(main(["sweep", *overrides]))
