"""The command line: `ulmfit-style adapt finetune key=value ...`.

Only Hydra is imported to answer a wrong option, `--help` and `--cfg job`; torch comes when there is work to do.
"""

import itertools
import os
import re
import sys
from argparse import SUPPRESS, ArgumentParser
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from pkgutil import resolve_name
from typing import NamedTuple, NoReturn

import yaml

from ulmfit_style.compute import processes
from ulmfit_style.errors import Interrupted, UserError, ending, nearest

TABLE = Path(__file__).with_name("commands.yaml")


class Command(NamedTuple):
    """A command that is no stage, and goes alone."""

    function: str
    """What runs it, given the arguments that follow it."""
    help: str
    """What it does, in a line."""


ALONE = {name: Command(**row) for name, row in yaml.safe_load(TABLE.read_text(encoding="utf-8")).items()}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit code: 0, 2 for what the user can mend, 130 after Ctrl-C."""
    signals: list[int] = []
    try:
        with processes.stoppable(signals):
            _main(sys.argv[1:] if arguments is None else arguments)
    except BaseException as error:
        # Whatever a library made of a signal that came while it worked.
        is_signal = signals and not isinstance(error, Interrupted)
        if (ended := ending(KeyboardInterrupt() if is_signal else error)) is None:
            raise
        print(f"ulmfit-style: {ended[1]}", file=sys.stderr)
        return ended[0]
    return 0


def program() -> NoReturn:
    """Run the command line of this process, and end it."""
    processes.end(main())


def _main(arguments: Sequence[str]) -> None:
    from ulmfit_style.cli import help
    from ulmfit_style.cli.overrides import config_dirs, overrides_from_make
    from ulmfit_style.stages.table import STAGES

    parser = ArgumentParser("ulmfit-style", add_help=False, allow_abbrev=False)
    parser.add_argument("-h", "--help", action="store_true")
    parser.add_argument("--config-dir", metavar="DIR", action="append")
    parser.add_argument("--from-make", help=SUPPRESS, action="store_true")
    ours, others = parser.parse_known_args(arguments)
    words = list(itertools.takewhile(re.compile("[a-z][a-z_-]*$").match, others))
    rest = others[len(words) :]
    if ours.from_make:
        rest += overrides_from_make(os.environ.pop("MAKEFLAGS", ""))
    if ours.config_dir:
        rest.append(config_dirs(ours.config_dir))

    commands = all_commands()
    for word in words:
        if word not in commands:
            names = ", ".join(commands)
            raise UserError(f"{word}: there is no such command{nearest(word, commands)} (there are: {names})")
        if word in ALONE and len(words) > 1:
            raise UserError(f"{word}: goes alone, without {' '.join(other for other in words if other != word)}")
    if not words and others and not ours.help:
        raise UserError(f"{others[0]}: the command comes first, and its options after it: finetune task=reviews")
    if not words:
        help.overview(commands)
    elif ours.help:
        further = [name for word in words if word in STAGES for name in STAGES[word].help_sections]
        help.options({word: commands[word] for word in words}, [*words, *further], rest)
    elif words[0] in ALONE:
        resolve_name(f"ulmfit_style.{ALONE[words[0]].function}")(rest)
    else:
        _run_stages(words, rest)


def all_commands() -> dict[str, str]:
    """Return the line of help of each command, by its name: the stages, `plan`, and those that go alone."""
    from ulmfit_style.stages.table import STAGES

    stages = {name: stage.help for name, stage in STAGES.items() if stage.is_command}
    plan = "before stages: say what they would run, and why, and run nothing"
    return {**stages, "plan": plan, **{name: command.help for name, command in ALONE.items()}}


def _run_stages(words: Sequence[str], rest: Sequence[str]) -> None:
    """Run stages, or plan them; by Hydra's own entry point where one of its flags is given."""
    from ulmfit_style.cli.compose import compose, run_by_hydra
    from ulmfit_style.console import lines_on_stderr
    from ulmfit_style.recipe import Config

    stages = [word for word in words if word != "plan"] or ["adapt", "finetune"]
    is_told_by_name = {"pretrain", "adapt", "finetune"}.isdisjoint(stages)

    def job(config: Config) -> None:
        from ulmfit_style import chain
        from ulmfit_style.results.finished import as_made

        run = chain.preview if "plan" in words else chain.run
        run(as_made(config, rest) if is_told_by_name else config, stages)

    # What `predict` prints is for programs to read.
    with lines_on_stderr() if "predict" in words else nullcontext():
        if any(argument.startswith("-") for argument in rest):
            run_by_hydra(job, rest)
        else:
            job(compose(rest))


if __name__ == "__main__":
    program()
