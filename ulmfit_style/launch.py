"""What each of several processes runs that train together, on one machine or on several: a frozen recipe."""

from __future__ import annotations

import pickle
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

from ulmfit_style import chain, processes
from ulmfit_style.console import muted, say
from ulmfit_style.errors import Interrupted, Pruned, UserError
from ulmfit_style.lineage import Reporter, Resolved, Step
from ulmfit_style.recipe import Config, load
from ulmfit_style.stages import STAGES, resolve

Determinants = dict[tuple[str, str], Any]
"""All that determines the artefacts of a plan, by role and name."""

MAKING = [name for name, stage in STAGES.items() if stage.is_typed and stage.version is not None]
"""The stages that make an artefact, which several processes can do together."""

SPEAKING_SECONDS = 3
"""How long the other processes leave the main one to say what is wrong, before they say it themselves."""

SHARING_SECONDS = 40
"""How long a network file system may take to show a file to another machine; NFS looks every 30 seconds."""

LOST = "another process ended, or the network to it did; the same command goes on from the newest checkpoint"


def main(arguments: Sequence[str]) -> int:
    """Do the stages of a frozen recipe as one of several processes, and return the exit code.

    This is what `chain` starts on this machine, and what `accelerate launch -m ulmfit_style.launch recipe.yaml adapt
    finetune` starts on several.
    """
    try:
        processes.join()
        resolved, stages, steps = _agreed(arguments)
        _require_shared(resolved.config.runs)
        chain.make_here(steps, resolved.config.name)
        processes.leave()
        if processes.is_main() and not processes.is_started():
            chain.conclude(resolved, stages)
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


def _agreed(arguments: Sequence[str]) -> tuple[Resolved, Sequence[str], list[Step]]:
    """Read the recipe and plan it, in every process.

    Raises:
        UserError: in all of them, if something is wrong in one, or they would not make the same.
    """
    problem, determinants = None, Determinants()
    try:
        config, stages = _read(arguments)
        with muted():
            resolved = resolve(config)
            steps = [replace(step, reporter=_reporter(arguments[0])) for step in chain.plan(resolved, stages)]
        determinants["", "stages"] = stages
        for step in steps:
            determinants |= {(step.title, name): value for name, value in step.artefact.determinants.items()}
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
    return resolved, stages, steps


def _reporter(recipe: str) -> Reporter | None:
    """Return who is told the scores of a trial, where the recipe is that of one."""
    path = Path(recipe).with_name(chain.REPORTER)
    reporter: Reporter | None = pickle.loads(path.read_bytes()) if path.exists() else None
    return reporter


def _differing(ours: Determinants, theirs: Determinants) -> str:
    """Name the determinants that are not the same, over all artefacts."""
    keys = [key for key in {**ours, **theirs} if ours.get(key) != theirs.get(key)]
    return ", ".join(dict.fromkeys(name for _, name in keys))


def _read(arguments: Sequence[str]) -> tuple[Config, Sequence[str]]:
    """Read the recipe, and check that the stages and the processes are what it takes."""
    if len(arguments) < 2 or not set(arguments[1:]) <= set(MAKING):
        raise UserError(f"say -m ulmfit_style.launch <recipe> and one or several of {', '.join(MAKING)}")
    recipe, *stages = arguments
    if not Path(recipe).is_file():
        raise UserError(
            f"{recipe}: there is no such file; `ulmfit-style {' '.join(stages)} --cfg job >{recipe}` writes it"
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
