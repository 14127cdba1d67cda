"""Runs the stages of a config, one after another, in one process or in several."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import yaml

from ulmfit_style import architectures, checkpoints, lineage, pins, processes
from ulmfit_style.comparison import conclude, without_adaptation
from ulmfit_style.config import Config, LanguageModelling, load
from ulmfit_style.console import muted, say
from ulmfit_style.errors import Interrupted, UserError
from ulmfit_style.run import RECIPE, Artefact
from ulmfit_style.stages import adapt, evaluate, finetune, predict, pretrain, push, references, scratch

Determinants = dict[tuple[str, str], Any]
"""All that determines the artefacts of a plan, by role and name."""

STAGES = ("pretrain", "adapt", "finetune", "evaluate")
"""What several processes can do together."""

SPEAKING_SECONDS = 3
"""How long the other processes leave the main one to say what is wrong, before they say it themselves."""

SHARING_SECONDS = 40
"""How long a network file system may take to show a file to another machine; NFS looks every 30 seconds."""

LOST = "another process ended, or the network to it did; the same command goes on from the newest checkpoint"


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
        _tell(config, stages)
    else:
        _start(config, [stage for stage in stages if stage in STAGES], count)
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


def _tell(config: Config, stages: Sequence[str]) -> None:
    """Say what came of the stages, and what to type next."""
    if "finetune" in stages:
        conclude(config)
    elif {"pretrain", "adapt"} & set(stages) and config.task is not None:
        say(f"Next: make {'finetune' if 'adapt' in stages else 'adapt finetune'}, with the same options")
    if "evaluate" in stages:
        evaluate.tell(config)


def _start(config: Config, stages: Sequence[str], count: int) -> None:
    """Let processes on this machine do the stages, from a frozen recipe: Hydra never runs in them."""
    with tempfile.TemporaryDirectory() as folder:
        recipe = Path(folder) / RECIPE
        frozen = config.model_copy(update={"processes": count}).recipe()
        recipe.write_text(yaml.safe_dump(frozen), encoding="utf-8")
        processes.start(count, "ulmfit_style.launch", [str(recipe), *stages])


def main(arguments: Sequence[str]) -> int:
    """Do the stages of a frozen recipe as one of several processes, and return the exit code.

    This is what `_start` starts on this machine, and what `accelerate launch -m ulmfit_style.launch recipe.yaml adapt
    finetune` starts on several.
    """
    try:
        processes.join()
        config, stages, steps = _agreed(arguments)
        _require_shared(config.runs)
        make(steps, config.name)
        processes.leave()
        if processes.is_main():
            _tell(config, stages)
    except (UserError, Interrupted) as error:
        if not processes.is_main():
            time.sleep(SPEAKING_SECONDS)
        print(f"ulmfit-style: {error}", file=sys.stderr, flush=True)
        return 128 + error.signal if isinstance(error, Interrupted) else 2
    except RuntimeError as error:
        if not processes.is_loss(error):
            raise
        print(f"ulmfit-style: {LOST}", file=sys.stderr, flush=True)
        return 1
    return 0


def _agreed(arguments: Sequence[str]) -> tuple[Config, Sequence[str], list[Step]]:
    """Read the recipe and plan it, in every process.

    Raises:
        UserError: in all of them, if something is wrong in one, or they would not make the same.
    """
    problem, determinants = None, Determinants()
    try:
        config, stages = _read(arguments)
        with muted():
            config = pins.pinned(config)
            steps = plan(config, stages)
        determinants["", "stages"] = stages
        for step in steps:
            determinants |= {(step.role, name): value for name, value in step.artefact.determinants.items()}
    except UserError as error:
        problem = str(error)
    found = processes.from_all((processes.machine(), problem, determinants))
    if problem is not None and all(other == problem for _, other, _ in found):
        raise UserError(problem)
    problems = [f"{machine}: {problem}" for machine, problem, _ in found if problem is not None]
    problems = problems or [
        f"{machine}: differs from {found[0][0]} in {names}; give them the same files, stages and version of the program"
        for machine, _, theirs in found
        if (names := _differing(found[0][2], theirs))
    ]
    if problems:
        raise UserError("\n".join(dict.fromkeys(problems)))
    machines = dict.fromkeys(machine for machine, _, _ in found)
    where = f" on {', '.join(machines)}" if len(machines) > 1 else ""
    say(f"{len(found)} processes train together{where}" if len(found) > 1 else "one process trains by itself")
    return config, stages, steps


def _differing(ours: Determinants, theirs: Determinants) -> str:
    """Name the determinants that are not the same, over all artefacts."""
    keys = [key for key in {**ours, **theirs} if ours.get(key) != theirs.get(key)]
    return ", ".join(dict.fromkeys(name for _, name in keys))


def _read(arguments: Sequence[str]) -> tuple[Config, Sequence[str]]:
    """Read the recipe, and check that the stages and the processes are what it takes."""
    if len(arguments) < 2 or not set(arguments[1:]) <= set(STAGES):
        raise UserError(f"say -m ulmfit_style.launch <recipe> and one or several of {', '.join(STAGES)}")
    recipe, *stages = arguments
    if not Path(recipe).is_file():
        raise UserError(
            f"{recipe}: there is no such file; `ulmfit-style plan {' '.join(stages)} write={recipe}` writes it"
        )
    config = load(Path(recipe))
    if config.processes not in (None, processes.count()):
        raise UserError(
            f"processes={config.processes}: there are {processes.count()}; start as many, or put null in {recipe}"
        )
    return config, stages


def _require_shared(runs: Path) -> None:
    """Check that every process sees in `runs` what the main one writes: each reads the artefacts of the step before.

    Raises:
        UserError: in all of them, naming the machines that do not.
    """
    mark = runs / f".seen-{processes.from_main(uuid4().hex)}"
    if processes.is_main():
        runs.mkdir(parents=True, exist_ok=True)
        mark.touch()
    found = processes.from_all((processes.machine(), _appears(mark)))
    if processes.is_main():
        mark.unlink()
    blind = dict.fromkeys(machine for machine, seen in found if not seen)
    if blind:
        raise UserError(
            f"runs={runs}: {', '.join(blind)} does not see there what {found[0][0]} writes; all machines need one "
            "shared folder, by the same path"
        )


def _appears(path: Path) -> bool:
    """Wait for a file that another machine wrote."""
    end = time.monotonic() + SHARING_SECONDS
    while not path.exists():
        if time.monotonic() > end:
            return False
        time.sleep(0.5)
    return True


def _prepare() -> None:
    """Load the libraries, on one GPU where there are several, and send what they say to the log of the run."""
    processes.see_one_gpu()
    from transformers.utils import logging as library_logging

    library_logging.disable_progress_bar()
    library_logging.disable_default_handler()
    library_logging.enable_propagation()


if __name__ == "__main__":
    processes.end(main(sys.argv[1:]))
