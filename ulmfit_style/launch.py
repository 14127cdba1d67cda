"""Runs a chain in one process or in several, on one machine or on several."""

from __future__ import annotations

import logging
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import yaml

from ulmfit_style import chain, lineage, processes
from ulmfit_style.artefacts.directory import LOG, RECIPE
from ulmfit_style.chain import Step, draw, plan, tell
from ulmfit_style.console import logging_to, muted, say
from ulmfit_style.data import pins
from ulmfit_style.errors import Interrupted, Pruned, UserError
from ulmfit_style.recipe import Config, load
from ulmfit_style.stages import predict, push, report

Determinants = dict[tuple[str, str], Any]
"""All that determines the artefacts of a plan, by role and name."""

STAGES = ("pretrain", "adapt", "finetune", "evaluate")
"""What several processes can do together."""

SPEAKING_SECONDS = 3
"""How long the other processes leave the main one to say what is wrong, before they say it themselves."""

SHARING_SECONDS = 40
"""How long a network file system may take to show a file to another machine; NFS looks every 30 seconds."""

LOST = "another process ended, or the network to it did; the same command goes on from the newest checkpoint"


def run(config: Config, stages: Sequence[str]) -> None:
    """Run the stages, in as many processes as the config wants, and say what came of it.

    Raises:
        UserError: if something in the data or the options is wrong.
        Interrupted: if a signal stopped the training.
    """
    config = pins.pinned(config)
    steps = plan(config, stages)
    if "push" in stages:
        push.check(config)
    make(config, steps, stages)
    draw(steps)
    tell(config, stages)
    if "predict" in stages:
        predict.run(config)
    if "report" in stages:
        report.run(config)
    if "push" in stages:
        push.run(config, lineage.finished_model(config).directory)


def preview(config: Config, stages: Sequence[str], write: Path | None = None) -> None:
    """Say which steps of the stages would run, and why, without running them. The data is read and checked.

    Args:
        write: Where to keep the recipe for `ulmfit_style.launch`.

    Raises:
        UserError: if something in the data or the options is wrong, or the recipe cannot be written there.
    """
    config = pins.pinned(config)
    steps = plan(config, stages)
    for number, step in enumerate(steps, start=1):
        if step.artefact.finished:
            state = chain.up_to_date(step)
        else:
            state = f"would run ({lineage.why_missing(step.artefact, config)})"
        say(f"[{number}/{len(steps)}] {step.title}: {state}")
    if "report" in stages:
        say("report: would write a page on it")
    if "push" in stages:
        say(f"push: would upload the model to {config.hub.repo or 'nowhere yet; say hub.repo=<name>'}")
    if write is not None:
        _write(config, [stage for stage in stages if stage in STAGES], write)


def _write(config: Config, stages: Sequence[str], path: Path) -> None:
    """Write the frozen recipe, and say how several machines run it."""
    if path.exists():
        raise UserError(f"write={path}: is there already; remove it, or choose another name")
    if not path.parent.is_dir():
        raise UserError(f"write={path}: there is no folder {path.parent}")
    path.write_text(yaml.safe_dump(config.recipe(), sort_keys=False, allow_unicode=True), encoding="utf-8")
    say(f"wrote {path}. Every machine needs it, the same data, and one shared folder for runs={config.runs}. On each:")
    machines = "--multi_gpu --num_machines 2 --num_processes <GPUs of all> --machine_rank <0 or 1>"
    main = "--main_process_ip <address of 0> --main_process_port 29500"
    say(f"  accelerate launch {machines} {main} -m ulmfit_style.launch {path} {' '.join(stages)}")


def make(config: Config, steps: Sequence[Step], stages: Sequence[str]) -> None:
    """Make what the stages planned, in as many processes as the config wants."""
    if all(step.artefact.finished for step in steps) or (count := _processes(config)) == 1:
        chain.make(steps, config.name)
    else:
        _start(config, [stage for stage in stages if stage in STAGES], count)


def attempt(config: Config, title: str) -> str | None:
    """Make the artefacts of one trial among many, quietly but for what all share; return what went wrong, if anything.

    Raises:
        Pruned: if it was stopped early; no other error, but for what stops all of them.
    """
    try:
        steps = plan(config, chain.TRIAL)
        shared = [step for step in steps if step.role != "finetune"]
        if not all(step.artefact.finished for step in shared):
            # What all share may take hours, and is worth watching.
            make(config, shared, ["adapt"])
        with muted():
            make(config, steps, chain.TRIAL)
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
        chain.make(steps, config.name)
        processes.leave()
        if processes.is_main() and not processes.is_started():
            draw(steps)
            tell(config, stages)
    except (UserError, Interrupted) as error:
        if not processes.is_main():
            time.sleep(SPEAKING_SECONDS)
        print(f"ulmfit-style: {error}", file=sys.stderr, flush=True)
        return 128 + error.signal if isinstance(error, Interrupted) else 2
    except Pruned:
        return 0  # who started it sees that nothing was made
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


if __name__ == "__main__":
    processes.end(main(sys.argv[1:]))
