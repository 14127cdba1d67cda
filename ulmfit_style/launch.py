"""Runs the stages of a config, one after another, in one process or in several."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from ulmfit_style import lineage, processes
from ulmfit_style.comparison import conclude, without_adaptation
from ulmfit_style.config import Config, load
from ulmfit_style.console import muted, say
from ulmfit_style.errors import Interrupted, UserError
from ulmfit_style.run import RECIPE, Artefact
from ulmfit_style.stages import adapt, evaluate, finetune, predict, push, references

SPEAKING_SECONDS = 3
"""How long the other processes leave the main one to say what is wrong, before all are ended."""


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
    """Return the steps of the stages. All data is read and checked here, before anything is trained.

    Raises:
        UserError: if something in the data or the options is wrong, or the adapted model that `finetune` needs is not
            there.
    """
    steps = []
    if "finetune" in stages and "adapt" not in stages and not lineage.finetune(config).finished:
        lineage.require_adapted(config)
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
    if "evaluate" in stages:
        title = f"evaluate: {config.evaluate.path or f'the {config.evaluate.split} rows'}"
        steps.append(Step(title, "evaluate", lineage.evaluate(config), evaluate.run, config))
    if "predict" in stages:
        predict.check(config)
    return steps


def run(config: Config, stages: Sequence[str]) -> None:
    """Run the stages, in as many processes as the config wants, and say what came of it.

    Raises:
        UserError: if something in the data or the options is wrong.
        Interrupted: if a signal stopped the training.
    """
    steps = plan(config, stages)
    if all(step.artefact.finished for step in steps) or (count := _processes(config)) == 1:
        make(steps, config.name)
    else:
        _start(config, stages, count)
    if "finetune" in stages:
        conclude(config)
    elif "adapt" in stages and config.task is not None:
        say("Next: make finetune, with the same options")
    if "evaluate" in stages:
        evaluate.tell(config)
    if "predict" in stages:
        predict.run(config)
    if "push" in stages:
        push.run(config, lineage.finished_model(config).directory)


def make(steps: Sequence[Step], name: str) -> None:
    """Make the artefacts of the steps, but for those that are up to date, and link them in `runs/<name>/`."""
    if not all(step.artefact.finished for step in steps):
        _prepare()
    for number, step in enumerate(steps, start=1):
        if processes.from_main(step.artefact.finished):
            say(f"[{number}/{len(steps)}] {step.title}: up to date ({step.artefact.directory})")
        else:
            say(f"[{number}/{len(steps)}] {step.title}", style="bold")
            started = time.monotonic()
            step.stage(step.config)
            say(f"  done in {time.monotonic() - started:.0f} s: {step.artefact.directory}")
        if processes.is_main():
            step.artefact.link(name, step.role)


def _processes(config: Config) -> int:
    """Return how many processes train: as many as the config wants, or one on each visible GPU."""
    if config.processes is not None:
        return config.processes
    import torch

    return max(1, torch.cuda.device_count())


def _start(config: Config, stages: Sequence[str], count: int) -> None:
    """Let processes make the artefacts together, from a frozen recipe: Hydra never runs in them."""
    say(f"{count} processes train together")
    with tempfile.TemporaryDirectory() as folder:
        recipe = Path(folder) / RECIPE
        frozen = config.model_copy(update={"processes": count}).recipe()
        recipe.write_text(yaml.safe_dump(frozen), encoding="utf-8")
        processes.start(count, "ulmfit_style.launch", [str(recipe), *stages])


def main(arguments: Sequence[str]) -> int:
    """Make the artefacts of a frozen recipe as one of several processes, and return the exit code.

    This is what `_start` starts on this machine, and what `accelerate launch -m ulmfit_style.launch recipe.yaml adapt
    finetune` starts on several.
    """
    recipe, *stages = arguments
    config = load(Path(recipe))
    try:
        if config.processes not in (None, processes.count()):
            raise UserError(f"processes={config.processes}: there are {processes.count()}")
        processes.join()
        with muted():
            steps = plan(config, stages)
        make(steps, config.name)
    except (UserError, Interrupted) as error:
        if processes.is_main():
            print(f"ulmfit-style: {error}", file=sys.stderr, flush=True)
        else:
            time.sleep(SPEAKING_SECONDS)
        return 128 + error.signal if isinstance(error, Interrupted) else 2
    processes.leave()
    return 0


def _prepare() -> None:
    """Load the libraries, on one GPU where there are several, and send what they say to the log of the run."""
    processes.see_one_gpu()
    from transformers.utils import logging as library_logging

    library_logging.disable_progress_bar()
    library_logging.disable_default_handler()
    library_logging.enable_propagation()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
