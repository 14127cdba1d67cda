"""The chain: which artefacts the stages of a config make, in which order; it makes them, and says what came of them."""

from __future__ import annotations

import logging
import pickle
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import yaml

from ulmfit_style.artefacts.differences import environment_changes, why_missing
from ulmfit_style.artefacts.directory import LOG, RECIPE
from ulmfit_style.compute import devices, processes
from ulmfit_style.console import logging_to, muted, say
from ulmfit_style.errors import Pruned, UserError
from ulmfit_style.recipe import Config
from ulmfit_style.resolved import Reporter, Resolved, Step, require_finished
from ulmfit_style.stages.table import STAGES, resolve

TRIAL = ("adapt", "finetune")
"""The stages of one of many runs that are compared: a trial of a study or of a sweep."""

REPORTER = "reporter.pickle"
"""Beside the recipe that processes read: who is told the scores of a trial."""


def run(config: Config, stages: Sequence[str]) -> None:
    """Run the stages, in as many processes as the config wants, and say what came of it.

    Raises:
        UserError: if something in the data or the options is wrong.
        Interrupted: if a signal stopped the training.
    """
    resolved = resolve(config)
    steps = plan(resolved, stages)
    make(steps, resolved.config, stages)
    conclude(resolved, stages)
    for name in stages:
        if STAGES[name].version is None:
            STAGES[name].module.run(resolved)


def plan(resolved: Resolved, stages: Sequence[str]) -> list[Step]:
    """Return the steps of the stages. The model and all data are checked here, before anything is trained.

    Raises:
        UserError: if something in the data or the options is wrong, or what a stage starts from is not there.
    """
    # What was made by these options needs no check, nor the libraries for it, unless something else has changed.
    linked = {name for name in stages if resolved.linked(name) is not None}
    for name in stages:
        if name not in linked:
            resolved.stages[name].check(resolved, stages)
    steps = [step for stage in resolved.stages.values() for step in stage.steps(resolved, stages)]
    for step in steps:
        if step.stage.name in linked and not step.artefact.finished:
            step.stage.check(step.resolved, stages)
    planned = {step.artefact.directory for step in steps}
    for step in steps:
        before = step.stage.starts_from(step.resolved)
        if step.artefact.finished or before is None or step.resolved.artefact(before).directory in planned:
            continue
        require_finished(step.resolved, before, step.stage.name)
    return steps


def preview(config: Config, stages: Sequence[str]) -> None:
    """Say which steps of the stages would run, and why, without running them. The data is read and checked.

    Raises:
        UserError: if something in the data or the options is wrong.
    """
    making = [name for name in stages if STAGES[name].version is not None]
    steps = plan(resolve(config), making)
    for number, step in enumerate(steps, start=1):
        if step.artefact.finished:
            state = up_to_date(step)
        else:
            state = f"would run ({why_missing(step.artefact, step.config.recipe())})"
        say(f"[{number}/{len(steps)}] {step.title}: {state}")
    for name in stages:
        if name not in making:
            say(f"{name}: would {STAGES[name].help.partition(':')[0]}")


def make(steps: Sequence[Step], config: Config, stages: Sequence[str]) -> None:
    """Make the artefacts of the steps, but for those that are up to date, in as many processes as the config wants."""
    if all(step.artefact.finished for step in steps) or (count := _processes(config)) == 1:
        make_here(steps, config.name)
    else:
        _start(steps, config, stages, count)


def make_here(steps: Sequence[Step], name: str) -> None:
    """Make and link the artefacts of the steps in this process, or in all that train together."""
    if not all(step.artefact.finished for step in steps):
        prepare()
    for number, step in enumerate(steps, start=1):
        if processes.from_main(step.artefact.finished):
            say(f"[{number}/{len(steps)}] {step.title}: {up_to_date(step)}")
        else:
            say(f"[{number}/{len(steps)}] {step.title}", style="bold")
            started = time.monotonic()
            step.artefact.make(partial(_fill, step), step.config.recipe())
            say(f"  done in {time.monotonic() - started:.0f} s: {step.artefact.directory}")
        if processes.is_main():
            step.artefact.link(name, step.role or step.stage.name)


def _fill(step: Step, directory: Path) -> None:
    """Run a stage; where processes do not share its work, in the main one."""
    if step.stage.uses_ranks or processes.is_main():
        step.stage.module.run(step, directory)


def attempt(config: Config, title: str, reporter: Reporter | None = None) -> str | None:
    """Make the artefacts of one trial among many, quietly but for what all share; return what went wrong, if anything.

    Args:
        reporter: Who is told the scores of the model while it is trained.

    Raises:
        Pruned: if it was stopped early; no other error, but for what stops all of them.
    """
    try:
        resolved = resolve(config)
        steps = plan(resolved, TRIAL)
        shared = [step for step in steps if step.stage.name != "finetune"]
        if not all(step.artefact.finished for step in shared):
            # What all share may take hours, and is worth watching.
            make(shared, resolved.config, ["adapt"])
        with muted():
            make([replace(step, reporter=reporter) for step in steps], resolved.config, TRIAL)
    except Pruned:
        raise
    except Exception as error:  # whatever a library raises: the other trials can still be made
        folder = config.runs / config.name
        folder.mkdir(parents=True, exist_ok=True)
        with logging_to(folder / LOG):
            logging.getLogger(__name__).exception(title)
        kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
        say(f"  failed: {kind}{error}")
        return str(error) or type(error).__name__
    return None


def _processes(config: Config) -> int:
    """Return how many processes train: as many as the config wants, or one on each visible GPU."""
    if config.processes is not None:
        return config.processes
    import torch

    return max(1, torch.cuda.device_count())


def _start(steps: Sequence[Step], config: Config, stages: Sequence[str], count: int) -> None:
    """Let processes on this machine do the stages, from a frozen recipe: Hydra never runs in them."""
    with tempfile.TemporaryDirectory() as folder:
        recipe = Path(folder) / RECIPE
        frozen = config.model_copy(update={"processes": count}).recipe()
        recipe.write_text(yaml.safe_dump(frozen), encoding="utf-8")
        reporter = next((step.reporter for step in steps if step.reporter is not None), None)
        if reporter is not None:
            (Path(folder) / REPORTER).write_bytes(pickle.dumps(reporter))
        making = [name for name in stages if STAGES[name].version is not None]
        processes.start(count, "ulmfit_style.launch", [str(recipe), *making])


def up_to_date(step: Step) -> str:
    """Say where a finished artefact is, and in a second line what it was made with that is other now, if anything."""
    differently = environment_changes(step.artefact, step.config.processes, step.config.micro_batch_size)
    return f"up to date ({step.artefact.directory})" + (f"\n  {differently}" if differently else "")


def conclude(resolved: Resolved, stages: Sequence[str]) -> None:
    """Say what came of the stages, and what to type next."""
    for name in stages:
        if hasattr(STAGES[name].module, "conclude"):
            STAGES[name].module.conclude(resolved, stages)


def prepare() -> None:
    """Load the libraries, on one GPU where there are several, and send what they say to the log of the run."""
    devices.see_one_gpu()
    from transformers.utils import logging as library_logging

    library_logging.disable_progress_bar()
    library_logging.disable_default_handler()
    library_logging.enable_propagation()
