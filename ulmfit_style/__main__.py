"""The command line: `ulmfit-style adapt finetune key=value ...`.

Only Hydra is imported to answer a wrong option, `--help` and `--cfg job`; torch comes when there is work to do.
"""

from __future__ import annotations

import itertools
import os
import re
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path

from ulmfit_style.errors import Interrupted, UserError, nearest

ALONE = {
    "lr_find": "look for a learning rate: let that of finetune, or with lr_find.stage=adapt of adapt, rise on a copy",
    "sweep": "try many options over one shared adapt: sweep=finetune, or a grid finetune.learning_rate=2e-5,5e-5",
    "sweep-report": "tell what a sweep has found so far, also while it runs: name=default",
    "study": "compare arms over seeds and numbers of labels: study=label_curve, or a YAML of your own",
    "runs": "list the artefacts: when they were made, their size, which names link to them",
    "clean-runs": "list the artefacts that no name needs; yes=true removes them",
    "new-task": "look at a file of labelled texts, and write its YAML: path=reviews.csv name=reviews",
    "doctor": "print versions, devices and what is reachable, for an issue; two_processes=true tries two of them",
    "setup": "install the embedded model and data",
}
"""The commands that are no stages, and go alone."""

PLAN = "before other commands: say what they would run, and why, and run nothing; write=recipe.yaml freezes it"

CHAIN = ("adapt", "finetune")
"""What `plan` alone plans."""

WRITE = "write="
"""The option of `plan` that keeps the recipe."""

HELP = {"-h", "--help"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit code: 0, 2 for what the user can mend, 130 after Ctrl-C."""
    try:
        return _main(list(sys.argv[1:] if arguments is None else arguments))
    except UserError as error:
        print(f"ulmfit-style: {error}", file=sys.stderr)
        return 2
    except Interrupted as stop:
        print(f"ulmfit-style: {stop}", file=sys.stderr)
        return 128 + stop.signal
    except KeyboardInterrupt:
        print("ulmfit-style: interrupted; what was finished is kept", file=sys.stderr)
        return 130


def _main(arguments: list[str]) -> int:
    from ulmfit_style.cli import flags, help

    if "--from-make" in arguments:
        from ulmfit_style.cli.makeflags import overrides_from_make

        arguments.remove("--from-make")
        arguments += overrides_from_make(os.environ.pop("MAKEFLAGS", ""))
    commands = all_commands()
    if flags.COMPLETION & set(arguments):
        flags.complete(commands, arguments)
        return 0
    words = list(itertools.takewhile(re.compile("[a-z][a-z_-]*$").match, arguments))
    rest = flags.without_config_dir(arguments[len(words) :])
    for word in words:
        if word not in commands:
            there = ", ".join(commands)
            raise UserError(f"{word}: there is no such command{nearest(word, commands)} (there are: {there})")
        if word in ALONE and len(words) > 1:
            raise UserError(f"{word}: goes alone, without {' '.join(other for other in words if other != word)}")

    if not words and "--hydra-help" not in rest:
        help.overview(commands)
    elif HELP & set(rest):
        help.options(commands, words, [argument for argument in rest if argument not in HELP])
    elif words and words[0] in ALONE:
        RUN_ALONE[words[0]](rest)
    else:
        _run_stages(words, rest)
    return 0


def all_commands() -> dict[str, str]:
    """Return the line of help of each command, by its name: the stages, `plan`, and those that go alone."""
    from ulmfit_style.stages import STAGES

    return {name: stage.help for name, stage in STAGES.items() if stage.is_typed} | {"plan": PLAN} | ALONE


def _run_stages(words: Sequence[str], rest: Sequence[str]) -> None:
    """Run stages, or plan them; by Hydra's own entry point where one of its flags is given."""
    from ulmfit_style import chain
    from ulmfit_style.cli import flags
    from ulmfit_style.cli.compose import compose
    from ulmfit_style.console import lines_on_stderr

    if "plan" in words:
        paths = [Path(argument.removeprefix(WRITE)) for argument in rest if argument.startswith(WRITE)]
        rest = [argument for argument in rest if not argument.startswith(WRITE)]
        stages = [word for word in words if word != "plan"] or CHAIN
        job = partial(chain.preview, stages=stages, write=paths[-1] if paths else None)
    else:
        job = partial(chain.run, stages=words)
    # What `predict` prints is for programs to read.
    with lines_on_stderr() if "predict" in words else nullcontext():
        if any(argument.startswith("-") for argument in rest):
            flags.run(job, rest)
        else:
            job(compose(rest))


def _lr_find(rest: Sequence[str]) -> None:
    from ulmfit_style.cli.compose import compose
    from ulmfit_style.experiments import lr_find

    lr_find.run(compose(rest))


def _sweep(rest: Sequence[str]) -> None:
    from ulmfit_style.experiments import sweep

    sweep.run(rest)


def _sweep_report(rest: Sequence[str]) -> None:
    from ulmfit_style.experiments import sweep_report

    sweep_report.run(rest)


def _study(rest: Sequence[str]) -> None:
    from ulmfit_style.experiments import study

    study.run(rest)


def _runs(rest: Sequence[str]) -> None:
    from ulmfit_style.analysis import inventory
    from ulmfit_style.cli.compose import compose

    inventory.runs(compose(rest).runs)


def _clean_runs(rest: Sequence[str]) -> None:
    from ulmfit_style.analysis import inventory
    from ulmfit_style.cli.compose import compose

    overrides = [argument for argument in rest if argument != "yes=true"]
    inventory.clean(compose(overrides).runs, yes="yes=true" in rest)


def _new_task(rest: Sequence[str]) -> None:
    from ulmfit_style.data import new_task

    new_task.run(rest)


def _doctor(rest: Sequence[str]) -> None:
    from ulmfit_style.analysis import doctor

    doctor.run(rest)


def _setup(rest: Sequence[str]) -> None:
    from ulmfit_style.models import embedded

    embedded.install()


RUN_ALONE: dict[str, Callable[[Sequence[str]], None]] = {
    "lr_find": _lr_find,
    "sweep": _sweep,
    "sweep-report": _sweep_report,
    "study": _study,
    "runs": _runs,
    "clean-runs": _clean_runs,
    "new-task": _new_task,
    "doctor": _doctor,
    "setup": _setup,
}
"""What runs each of them; it imports what it needs then."""


if __name__ == "__main__":
    sys.exit(main())
