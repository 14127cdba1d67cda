"""Plan the stages of a config, make the artefacts that are missing, and report the outcome."""

import pickle
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import yaml

from ulmfit_style.analysis import estimate
from ulmfit_style.artefacts.differences import environment_changes, why_missing
from ulmfit_style.artefacts.directory import CHECKPOINTS, RECIPE, damage, discard_weights, sources
from ulmfit_style.compute import devices, processes
from ulmfit_style.console import duration, say
from ulmfit_style.recipe import Config
from ulmfit_style.resolved import Resolved, Step, require_finished
from ulmfit_style.stages.table import STAGES, resolve

REPORTER = "reporter.pickle"
"""The file beside the recipe of several processes that holds the reporter of a trial."""


def run(config: Config, stages: Sequence[str]) -> None:
    """Run the stages, in as many processes as the config wants, and print the results.

    Raises:
        UserError: if something in the data or the options is wrong.
        Interrupted: if a signal stopped the training.
    """
    resolved = resolve(config)
    steps = plan(resolved, stages)
    _say_needs(steps)
    make(steps, resolved.config, stages)
    summarise(resolved, stages)
    for name in stages:
        if not STAGES[name].makes_artefact:
            STAGES[name].module.run(resolved)


def plan(resolved: Resolved, stages: Sequence[str]) -> list[Step]:
    """Return the steps of the stages. The model and all data are checked here, before anything is trained.

    Raises:
        UserError: if something in the data or the options is wrong, or what a stage starts from is not there.
    """
    # Skip the checks, and their imports, for stages whose linked artefact was made with these options.
    unchanged = {name for name in stages if resolved.unchanged(name) is not None}
    for name in stages:
        if name not in unchanged:
            resolved.stages[name].check(resolved, stages)
    steps = [step for stage in resolved.stages.values() for step in stage.steps(resolved, stages)]
    # The whole content of what will be loaded is compared: what is damaged is not finished from then on.
    for step in reversed(steps):
        if {"predict", "push"}.intersection(stages) and step.stage.name == "finetune":
            damage(step.artefact.directory, "*")
        if not step.artefact.finished:
            for source in sources(step.artefact.runs, step.artefact.determinants):
                damage(source, "*")
    planned = {step.artefact.directory for step in steps}
    for step in steps:
        if step.stage.name in unchanged and not step.artefact.finished:
            step.stage.check(step.resolved, stages)
        parent = step.stage.starts_from(step.resolved)
        if not (step.artefact.finished or parent is None or step.resolved.artefact(parent).directory in planned):
            require_finished(step.resolved, parent, step.stage.name)
    return steps


def preview(config: Config, stages: Sequence[str]) -> None:
    """Print which steps of the stages would run, and why, without running them. The data is read and checked.

    Raises:
        UserError: if something in the data or the options is wrong.
    """
    making = [name for name in stages if STAGES[name].makes_artefact]
    steps = plan(resolve(config), making)
    for number, step in enumerate(steps, start=1):
        state = up_to_date(step) if step.artefact.finished else f"would run ({why_missing(step.artefact, step.recipe)})"
        say(f"[{number}/{len(steps)}] {step.title}: {state}")
    _say_needs(steps)
    for name in stages:
        if name not in making:
            say(f"{name}: would {STAGES[name].help.partition(':')[0]}")


def _say_needs(steps: Sequence[Step]) -> None:
    if missing := [step for step in steps if not step.artefact.finished]:
        say(f"It takes {estimate.needs(missing)}")


def make(steps: Sequence[Step], config: Config, stages: Sequence[str]) -> None:
    """Make the artefacts of the steps, but for those that are up to date, in as many processes as the config wants."""
    count = 1 if all(step.artefact.finished for step in steps) else processes.wanted(config.processes)
    if count == 1:
        make_in_this_process(steps, config.name)
        return
    # Each from a frozen recipe: Hydra never runs in them.
    with tempfile.TemporaryDirectory() as folder:
        recipe_file = Path(folder) / RECIPE
        frozen = config.model_copy(update={"processes": count}).recipe()
        recipe_file.write_text(yaml.safe_dump(frozen, allow_unicode=True), encoding="utf-8")
        if (reporter := next((step.reporter for step in steps if step.reporter is not None), None)) is not None:
            (Path(folder) / REPORTER).write_bytes(pickle.dumps(reporter))
        making = [name for name in stages if STAGES[name].makes_artefact]
        processes.start(count, "ulmfit_style.launch", [str(recipe_file), *making])


def make_in_this_process(steps: Sequence[Step], name: str) -> None:
    """Make and link the artefacts of the steps in this process, or in all that train together."""
    missing = [step for step in steps if not step.artefact.finished]
    expected, began = estimate.seconds(missing), time.monotonic()
    if missing:
        config = missing[0].config
        quiet_libraries(keep_memory=config.fast and not config.shard)
    for number, step in enumerate(steps, start=1):
        if processes.from_main(step.artefact.finished):
            say(f"[{number}/{len(steps)}] {step.title}: {up_to_date(step)}")
        else:
            say(f"[{number}/{len(steps)}] {step.title}", style="bold")
            started, goes_on = time.monotonic(), (step.artefact.directory / CHECKPOINTS).exists()
            step.artefact.make(partial(_run_step, step), step.recipe)
            say(f"  done in {time.monotonic() - started:.0f} s: {step.artefact.directory}")
            if processes.is_main() and not goes_on:
                estimate.record(step)
        if processes.is_main() and step.is_kept:
            step.artefact.link(name, step.link_name or step.stage.name)
        elif processes.is_main():
            discard_weights(step.artefact.directory, folder="")
    if missing and expected is not None:
        say(f"It took {duration(time.monotonic() - began)}; the estimate was {duration(expected)}")


def _run_step(step: Step, directory: Path) -> None:
    """Run a stage: in every process if they share its work, else in the main one."""
    if step.stage.is_command or processes.is_main():
        step.stage.module.run(step, directory)


def up_to_date(step: Step) -> str:
    """Return where a finished artefact is, and what has changed since it was made (versions, device, processes)."""
    differently = environment_changes(step.artefact, step.recipe)
    return f"up to date ({step.artefact.directory})" + (f"\n  {differently}" if differently else "")


def summarise(resolved: Resolved, stages: Sequence[str]) -> None:
    """Print the results of the stages, and the next command."""
    for name in stages:
        if hasattr(STAGES[name].module, "summarise"):
            STAGES[name].module.summarise(resolved, name)


def quiet_libraries(*, keep_memory: bool = True) -> None:
    """Import the libraries, on one GPU if there are several, and send their messages to the log of the run."""
    devices.see_one_gpu()
    devices.set_memory(keep=keep_memory)
    from transformers.utils import logging as library_logging

    library_logging.disable_progress_bar()
    library_logging.disable_default_handler()
    library_logging.enable_propagation()
