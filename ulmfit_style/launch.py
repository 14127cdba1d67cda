"""Runs the stages of a config, one after another, in this process."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ulmfit_style import lineage
from ulmfit_style.comparison import conclude, without_adaptation
from ulmfit_style.config import Config
from ulmfit_style.console import say
from ulmfit_style.run import Artefact
from ulmfit_style.stages import adapt, finetune, push, references

TRAINING = ("adapt", "finetune")
"""Stages that make a model, in the order of the chain."""
STAGES = (*TRAINING, "push")


@dataclass(frozen=True)
class Step:
    """One artefact to make."""

    title: str
    artefact: Artefact
    run: Callable[[], Path]
    role: str
    """What the artefact is called in `runs/<name>/`."""


def plan(config: Config, stages: Sequence[str]) -> list[Step]:
    """Return the steps of the stages. All data is read and checked here, before anything is trained."""
    steps = []
    if "finetune" in stages and config.compare:
        title = "references: simple models on the same rows"
        steps.append(Step(title, lineage.references(config), lambda: references.run(config), "references"))
        if config.adapt is not None:
            bare = without_adaptation(config)
            title = "finetune, not adapted: for comparison"
            steps.append(Step(title, lineage.finetune(bare), lambda: finetune.run(bare), "finetune-not-adapted"))
    if "adapt" in stages and (config.adapt is not None or stages == ["adapt"]):
        title = f"adapt: {config.model.checkpoint} learns the corpus"
        steps.append(Step(title, lineage.adapt(config), lambda: adapt.run(config), "adapt"))
    if "finetune" in stages:
        steps.append(Step("finetune: the task", lineage.finetune(config), lambda: finetune.run(config), "finetune"))
    return steps


def run(config: Config, stages: Sequence[str]) -> Path:
    """Run the stages and say what came of it; return the directory of the last artefact.

    Raises:
        UserError: if something in the data or the options is wrong.
    """
    steps = plan(config, stages)
    if not all(step.artefact.finished for step in steps):
        _prepare()
    for number, step in enumerate(steps, start=1):
        if step.artefact.finished:
            say(f"[{number}/{len(steps)}] {step.title}: up to date ({step.artefact.directory})")
        else:
            say(f"[{number}/{len(steps)}] {step.title}", style="bold")
            started = time.monotonic()
            step.run()
            say(f"  done in {time.monotonic() - started:.0f} s: {step.artefact.directory}")
        step.artefact.link(config.name, step.role)
    if "finetune" in stages:
        conclude(config)
    last = lineage.adapt(config) if config.task is None or stages == ["adapt"] else lineage.finetune(config)
    if "push" in stages:
        push.run(config, last.directory)
    return last.directory


def _prepare() -> None:
    """Load the libraries, on one GPU where there are several, and send what they say to the log of the run."""
    # One process trains on one GPU; without this the Trainer would split every batch over all of them.
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "0")
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.disable_default_handler()
    logging.enable_propagation()
