"""Hydra's own flags on every stage: `--multirun`, `--cfg job`, `--info`, `--config-dir`, shell completion."""

from __future__ import annotations

import itertools
import os
import re
import sys
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from contextvars import ContextVar
from typing import Any

from ulmfit_style.cli import CONF
from ulmfit_style.cli.compose import compose, from_omegaconf
from ulmfit_style.cli.overrides import SEARCH_PATH, checked, grid
from ulmfit_style.errors import UserError
from ulmfit_style.recipe import Config

COMPLETION = {"--shell-completion", "-sc"}
SWEEPER = ("hydra/sweeper=ulmfit_style", "hydra.sweep.dir=${runs}/${name}-sweep", "hydra.sweep.subdir=.")
"""The plugin, and one folder for what launchers keep: no empty one for each job."""

Launch = Callable[[Sequence[Sequence[str]], int], Sequence[Any]]
"""Hydra's launcher: from the overrides of each job, and the number of the first, to what each returned."""

Search = Callable[[Sequence[str], Launch], None]
"""What a sweeper does: from the overrides of all jobs, and the launcher of each."""

SEARCH: ContextVar[Search] = ContextVar("search")
"""What the plugin of hydra_plugins/ does. Hydra makes it by itself, out of text, so this is handed past Hydra."""

MODES = {"--run", "-r", "--multirun", "-m", "--cfg", "-c", "--info", "-i"}


def without_config_dir(arguments: Sequence[str]) -> list[str]:
    """Return the arguments with `--config-dir DIR` written as the override that it is short for.

    So the folder is known wherever overrides go: to our own checks, to a trial of a sweep, and through make.

    Raises:
        UserError: if the folder is not named.
    """
    rest, folders = [], []
    remaining = iter(arguments)
    for argument in remaining:
        flag, equals, folder = argument.partition("=")
        if flag not in ("--config-dir", "-cd"):
            rest.append(argument)
            continue
        folder = folder if equals else next(remaining, "")
        if not folder:
            raise UserError(f"{flag}: which folder? For example {flag} my_conf")
        folders.append(folder)
    quoted = ",".join("'" + folder.replace("'", r"\'") + "'" for folder in folders)
    return [f"{SEARCH_PATH}=[{quoted}]", *rest] if folders else rest


def run(job: Callable[[Config], Any], arguments: Sequence[str], search: Search | None = None) -> None:
    """Do a job by Hydra's own entry point, as its flags say: show the config, run many jobs, or the one.

    Args:
        search: What chooses the jobs of `--multirun`; None for a grid.

    Raises:
        UserError: from a wrong override or YAML, or from a job. Every point of a grid is checked before the first one.
    """
    from omegaconf import DictConfig

    def task(values: DictConfig) -> Any:
        return job(from_omegaconf(values))  # which a sweeper is told

    is_override = [not argument.startswith("-") and ("=" in argument or "~" in argument) for argument in arguments]
    flags = [argument for argument, override in zip(arguments, is_override, strict=True) if not override]
    overrides = [argument for argument, override in zip(arguments, is_override, strict=True) if override]
    modes = [flag for flag in flags if flag.partition("=")[0] in MODES]
    if len(modes) > 1:
        raise UserError(f"{' '.join(modes)}: one of them at a time")
    if {"-m", "--multirun"} & set(flags):
        for point in grid(overrides):
            compose(point)
    if search is not None:
        SEARCH.set(search)
        overrides += SWEEPER
    _hydra_main(task, [*flags, *checked(overrides)])


def complete(commands: Collection[str], arguments: Sequence[str]) -> None:
    """Answer a shell that completes a command line, or print the script that makes it ask.

    The line so far is in COMP_LINE. Our commands are completed here; the rest is Hydra's, which must not see them.
    """
    if "COMP_LINE" in os.environ:
        program, *words = os.environ["COMP_LINE"].split(" ")
        *before, last = words or [""]
        typed = list(itertools.takewhile(lambda word: word in commands, before))
        if typed == before:
            print("\n".join(command for command in commands if command.startswith(last) and command not in typed))
        options = without_config_dir(before[len(typed) :])
        # Hydra would give up at an option that no YAML spells out; with `++` it takes it.
        options = [f"++{option}" if re.match(r"(?!hydra)\w+\.", option) else option for option in options]
        os.environ["COMP_LINE"] = " ".join([program, *options, last])
    # A shell would print what is said about a line that is wrong so far over the prompt.
    with suppress(UserError):
        _hydra_main(lambda values: None, arguments)


def _hydra_main(task: Callable[..., None], arguments: Sequence[str]) -> None:
    import hydra
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    # Errors come out as they are, for `main` to word, instead of being printed by Hydra.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    sys.argv = [sys.argv[0], *arguments]
    try:
        hydra.main(config_path=str(CONF), config_name="config", version_base="1.3")(task)()
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(" ".join(str(error).split())) from error
