"""Run a frozen recipe in one of several processes that train together, on one machine or on several.

Those that `predict` starts answer a file together, on one machine.
"""

import pickle
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

from ulmfit_style import chain
from ulmfit_style.compute import processes
from ulmfit_style.console import muted, say
from ulmfit_style.errors import Pruned, UserError, ending
from ulmfit_style.recipe import from_recipe, read
from ulmfit_style.resolved import Resolved, Step
from ulmfit_style.stages.table import STAGES, resolve

MAKING = [name for name, stage in STAGES.items() if stage.is_command and stage.makes_artefact]
"""The stages that make an artefact, which several processes can do together."""

SPEAKING_SECONDS = 3
"""How long the other processes leave the main one to say what is wrong, before they say it themselves."""

SHARING_SECONDS = 40
"""How long a network file system may take to show a file to another machine; NFS looks every 30 seconds."""

LOST = "another process ended, or the network to it did{}; the same command resumes from the newest checkpoint"
"""What is said when a process is gone, with its address, where it is known."""


def main(arguments: Sequence[str]) -> int:
    """Do the stages of a frozen recipe as one of several processes, and return the exit code.

    This is what `chain` starts on this machine, and what `accelerate launch -m ulmfit_style.launch recipe.yaml adapt
    finetune` starts on several.
    """
    processes.end_with_launcher()
    answers = arguments[:1] == ["predict"] and processes.is_started()
    try:
        with suppress(Pruned), processes.stoppable([]):  # who started a trial sees that nothing was made
            processes.join()
            if answers:
                STAGES["predict"].module.answer_share(*arguments[1:])
                return 0
            resolved, steps = _agreed(arguments)
            _require_shared(resolved.config.runs)
            chain.make_in_this_process(steps, resolved.config.name)
            processes.leave()
            if processes.is_main() and not processes.is_started():
                chain.summarise(resolved, arguments[1:])
    except BaseException as error:
        ended = (1, LOST.format(processes.address_in(error))) if processes.is_loss(error) else ending(error)
        if ended is None:
            raise
        code, line = ended
        if code >= 128 and (answers or not processes.is_main()):
            return code  # all of them were stopped, and another tells it
        if not processes.is_main():
            time.sleep(SPEAKING_SECONDS)
        print(f"ulmfit-style: {line}", file=sys.stderr, flush=True)
        return code
    return 0


def _agreed(arguments: Sequence[str]) -> tuple[Resolved, list[Step]]:
    """Plan the recipe, in every process.

    Raises:
        UserError: in all of them, if something is wrong in one, or they would not make the same.
    """
    machine, problem, determinants = processes.machine(), None, dict[tuple[str, str], Any]()  # by step and name
    try:
        resolved, steps = _plan(arguments)
        determinants = {(step.title, key): value for step in steps for key, value in step.artefact.determinants.items()}
        determinants["", "stages"] = arguments[1:]
    except UserError as error:
        problem = f"{machine}: {error}"
    plans = processes.from_all((machine, problem, determinants))
    problems = [problem for _, problem, _ in plans if problem is not None]
    if not problems:
        first_machine, _, expected = plans[0]
        for machine, _, found in plans:
            if differing := [key[1] for key in {**expected, **found} if expected.get(key) != found.get(key)]:
                names = ", ".join(dict.fromkeys(differing))
                remedy = "give them the same files, stages and version of the program"
                problems.append(f"{machine}: differs from {first_machine} in {names}; {remedy}")
    if problems:
        raise UserError("\n".join(dict.fromkeys(problems)))
    machines = dict.fromkeys(machine for machine, _, _ in plans)
    where = f" on {', '.join(machines)}" if len(machines) > 1 else ""
    say(f"{len(plans)} processes train together{where}" if len(plans) > 1 else "one process trains by itself")
    return resolved, steps


def _plan(arguments: Sequence[str]) -> tuple[Resolved, list[Step]]:
    """Read the recipe, check that the stages and the processes are what it takes, and plan it."""
    recipe_file, *stages = arguments or [""]
    if not stages or not set(stages) <= set(MAKING):
        raise UserError(f"usage: -m ulmfit_style.launch <recipe> and one or several of {', '.join(MAKING)}")
    path = Path(recipe_file)
    if not path.is_file():
        raise UserError(f"{path}: there is no such file; `ulmfit-style {' '.join(stages)} --cfg job >{path}` writes it")
    config = from_recipe(read(path))
    if config.processes not in (None, count := processes.count()):
        raise UserError(f"processes={config.processes}: there are {count}; start as many, or put null in {path}")
    with muted():
        resolved = resolve(config)
        steps = chain.plan(resolved, stages)
    if (reporter := path.with_name(chain.REPORTER)).exists():  # the recipe is that of a trial
        steps = [replace(step, reporter=pickle.loads(reporter.read_bytes())) for step in steps]
    return resolved, steps


def _require_shared(runs: Path) -> None:
    """Check that every process sees in `runs` what the main one writes: each reads the artefacts of the step before.

    Raises:
        UserError: in all of them, naming the machines that do not.
    """
    mark = runs / f".seen-{processes.from_main(uuid4().hex)}"
    if processes.is_main():
        runs.mkdir(parents=True, exist_ok=True)
        mark.touch()
    end = time.monotonic() + SHARING_SECONDS
    while not mark.exists() and time.monotonic() < end:
        time.sleep(0.5)
    seen_by = processes.from_all((processes.machine(), mark.exists()))
    mark.unlink(missing_ok=True)
    if blind := dict.fromkeys(machine for machine, sees in seen_by if not sees):
        problem = f"{', '.join(blind)} does not see there what {seen_by[0][0]} writes"
        raise UserError(f"runs={runs}: {problem}; all machines need one shared folder, by the same path")


if __name__ == "__main__":
    processes.end(main(sys.argv[1:]))
