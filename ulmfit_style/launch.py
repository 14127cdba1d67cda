"""Runs the stages of a config, one after another, in one process or in several."""

from __future__ import annotations

import logging
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from ulmfit_style import architectures, checkpoints, lineage, pins, processes
from ulmfit_style.comparison import conclude, without_adaptation
from ulmfit_style.config import Config, LanguageModelling, load
from ulmfit_style.console import muted, say
from ulmfit_style.errors import Interrupted, UserError
from ulmfit_style.run import RECIPE, Artefact
from ulmfit_style.stages import adapt, evaluate, finetune, predict, pretrain, push, references, scratch

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
    """Return the steps of the stages. The model and all data are checked here, before anything is trained.

    Raises:
        UserError: if something in the data or the options is wrong, or the adapted model that `finetune` needs is not
            there.
    """
    _check_model(config, stages)
    steps = []
    if "pretrain" not in stages and {"adapt", "finetune"} & set(stages):
        lineage.require_pretrained(config)
    if "finetune" in stages and "adapt" not in stages and not lineage.finetune(config).finished:
        lineage.require_adapted(config)
    if config.model.init == "scratch" and (config.pretrain is None or "pretrain" in stages):
        title = f"scratch: {config.model.title()} with random weights"
        steps.append(Step(title, "scratch", lineage.scratch(config), scratch.run, config))
    if "pretrain" in stages:
        title = f"pretrain: {config.model.title()} learns the general text"
        steps.append(Step(title, "pretrain", lineage.pretrain(config), pretrain.run, config))
    if "finetune" in stages and config.compare:
        title = "references: simple models on the same rows"
        steps.append(Step(title, "references", lineage.references(config), references.run, config))
        if config.adapt is not None:
            bare = without_adaptation(config)
            title = "finetune, not adapted: for comparison"
            steps.append(Step(title, "finetune-not-adapted", lineage.finetune(bare), finetune.run, bare))
    if "adapt" in stages and (config.adapt is not None or "finetune" not in stages):
        title = f"adapt: {config.model.title()} learns the corpus"
        steps.append(Step(title, "adapt", lineage.adapt(config), adapt.run, config))
    if "finetune" in stages:
        steps.append(Step("finetune: the task", "finetune", lineage.finetune(config), finetune.run, config))
    if "evaluate" in stages:
        title = f"evaluate: {config.evaluate.path or f'the {config.evaluate.split} rows'}"
        steps.append(Step(title, "evaluate", lineage.evaluate(config), evaluate.run, config))
    if "predict" in stages:
        predict.check(config)
    return steps


def _check_model(config: Config, stages: Sequence[str]) -> None:
    """Check that the architecture has a head for each stage, and positions for its texts, before the data is read."""
    trained = {"pretrain": config.pretrain, "adapt": config.adapt, "finetune": config.finetune}
    for stage, options in trained.items():
        if stage not in stages or options is None:
            continue
        model_type, positions = checkpoints.model_type(config.model), checkpoints.positions(config.model)
        if isinstance(options, LanguageModelling):
            architectures.objective(options.objective, model_type, f"{stage}.objective")
        elif config.task is not None and not architectures.has_head(config.task.auto_class, model_type):
            needed = f"{type(config.task).__name__} needs one that {config.task.auto_class} knows"
            raise UserError(f"model.checkpoint={config.model.title()}: is of type '{model_type}', and {needed}")
        if options.max_length > positions:
            raise UserError(
                f"{stage}.max_length={options.max_length}: {config.model.title()} reads {positions:,} tokens at most"
            )


def run(config: Config, stages: Sequence[str]) -> None:
    """Run the stages, in as many processes as the config wants, and say what came of it.

    Raises:
        UserError: if something in the data or the options is wrong.
        Interrupted: if a signal stopped the training.
    """
    config = pins.pinned(config)
    steps = plan(config, stages)
    if all(step.artefact.finished for step in steps) or (count := _processes(config)) == 1:
        make(steps, config.name)
    else:
        _start(config, stages, count)
    if "finetune" in stages:
        conclude(config)
    elif {"pretrain", "adapt"} & set(stages) and config.task is not None:
        say(f"Next: make {'finetune' if 'adapt' in stages else 'adapt finetune'}, with the same options")
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
            say(f"[{number}/{len(steps)}] {step.title}: {up_to_date(step)}")
        else:
            say(f"[{number}/{len(steps)}] {step.title}", style="bold")
            started = time.monotonic()
            step.stage(step.config)
            say(f"  done in {time.monotonic() - started:.0f} s: {step.artefact.directory}")
        if processes.is_main():
            step.artefact.link(name, step.role)


def up_to_date(step: Step) -> str:
    """Tell where a finished artefact is, and in a second line what it was made with that is other now, if anything."""
    differently = lineage.made_with(step.artefact, step.config)
    return f"up to date ({step.artefact.directory})" + (f"\n  {differently}" if differently else "")


def _processes(config: Config) -> int:
    """Return how many processes train: as many as the config wants, or one on each visible GPU."""
    if config.processes is not None:
        return config.processes
    import torch

    return max(1, torch.cuda.device_count())


def _start(config: Config, stages: Sequence[str], count: int) -> None:
    """Start processes that make the artefacts together, from a frozen recipe: Hydra never runs in them."""
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    say(f"{count} processes train together")
    # Without this each process would take every core, and they would wait for each other.
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // count)))
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    logging.getLogger("torch.distributed").setLevel(logging.CRITICAL)
    options = LaunchConfig(
        1, 1, count, rdzv_backend="c10d", rdzv_endpoint="localhost:0", run_id="ulmfit-style", max_restarts=0
    )
    with tempfile.TemporaryDirectory() as folder:
        recipe = Path(folder) / RECIPE
        frozen = config.model_copy(update={"processes": count}).recipe()
        recipe.write_text(yaml.safe_dump(frozen), encoding="utf-8")
        try:
            elastic_launch(options, sys.executable)("-m", "ulmfit_style.launch", str(recipe), *stages)
        except ChildFailedError as error:
            code = error.get_first_failure()[1].exitcode
            raise UserError(f"a process ended with exit code {code}; what it said stands above") from None
        except SignalException as error:
            raise Interrupted(error.sigval, "stopped") from None


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
            config = pins.pinned(config)
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
    if processes.count() == 1:
        # Without this the Trainer would split every batch over all visible GPUs, in this one process.
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", "0")
        os.environ["CUDA_VISIBLE_DEVICES"] = visible.partition(",")[0]
    from transformers.utils import logging as library_logging

    library_logging.disable_progress_bar()
    library_logging.disable_default_handler()
    library_logging.enable_propagation()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
