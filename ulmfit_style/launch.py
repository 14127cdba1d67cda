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


@dataclass(frozen=True)
class Step:
    """One artefact to make."""

    title: str
    role: str
    """What the artefact is called in `runs/<name>/`."""
    artefact: Artefact
    stage: Callable[[Config], Path]
    config: Config


def plan(config: Config, stages: Sequence[str]) -> list[Step]:
    """Return the steps of the stages. All data is read and checked here, before anything is trained."""
    steps = []
    if "finetune" in stages and config.compare:
        title = "references: simple models on the same rows"
        steps.append(Step(title, "references", lineage.references(config), references.run, config))
        if config.adapt is not None:
            bare = without_adaptation(config)
            title = "finetune, not adapted: for comparison"
            steps.append(Step(title, "finetune-not-adapted", lineage.finetune(bare), finetune.run, bare))
    if "adapt" in stages and (config.adapt is not None or "finetune" not in stages):
        title = f"adapt: {config.model.checkpoint} learns the corpus"
        steps.append(Step(title, "adapt", lineage.adapt(config), adapt.run, config))
    if "finetune" in stages:
        steps.append(Step("finetune: the task", "finetune", lineage.finetune(config), finetune.run, config))
    return steps


def run(config: Config, stages: Sequence[str]) -> None:
    """Run the stages and say what came of it.

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
            step.stage(step.config)
            say(f"  done in {time.monotonic() - started:.0f} s: {step.artefact.directory}")
        step.artefact.link(config.name, step.role)
    if "finetune" in stages:
        conclude(config)
    elif "adapt" in stages and config.task is not None:
        say("Next: make finetune, with the same options")
    if "push" in stages:
        pushed = lineage.adapt(config) if config.task is None else lineage.finetune(config)
        push.run(config, pushed.directory)


def _prepare() -> None:
    """Load the libraries, on one GPU where there are several, and send what they say to the log of the run."""
    # One process trains on one GPU; without this the Trainer would split every batch over all of them.
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "0")
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.disable_default_handler()
    logging.enable_propagation()
