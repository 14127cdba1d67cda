"""Hydra's own flags on every stage: `--multirun`, `--cfg job`, `--info`; and `--config-dir`."""

import os
import sys
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import Any

from ulmfit_style.cli import CONF
from ulmfit_style.cli.compose import SEARCH_PATH, compose, from_omegaconf, grid, initialized, validate
from ulmfit_style.errors import UserError
from ulmfit_style.recipe import Config

SWEEPER = ("hydra/sweeper=ulmfit_style", "hydra.sweep.dir=${runs}/${name}-sweep", "hydra.sweep.subdir=.")
"""The plugin, and one folder for what launchers keep: no empty one for each job."""

Launch = Callable[[Sequence[Sequence[str]], int], Sequence[Any]]
"""Hydra's launcher: from the overrides of each job, and the number of the first, to what each returned."""

Search = Callable[[Sequence[str], Launch], None]
"""What a sweeper does: from the overrides of all jobs, and the launcher of each."""

SEARCH: ContextVar[Search] = ContextVar("search")
"""What the plugin of hydra_plugins/ does. Hydra makes it by itself, out of text, so this is handed past Hydra."""


def search_path(folders: Sequence[str]) -> str:
    """Return the override that `--config-dir` is short for.

    So the folders are known wherever overrides go: to our own checks, to a trial of a sweep, and through make.
    """
    quoted = ["'" + folder.replace("'", r"\'") + "'" for folder in folders]
    return f"{SEARCH_PATH}=[{','.join(quoted)}]"


def run(job: Callable[[Config], Any], arguments: Sequence[str], search: Search | None = None) -> None:
    """Do a job by Hydra's own entry point, as its flags say: show the config, run many jobs, or the one.

    Args:
        search: What chooses the jobs of `--multirun`; None for a grid.

    Raises:
        UserError: from a wrong flag, override or YAML, before the first job; or from a job.
    """
    import hydra
    from hydra.errors import HydraException
    from omegaconf import DictConfig
    from omegaconf.errors import OmegaConfBaseException

    def task(values: DictConfig) -> Any:
        return job(from_omegaconf(values))  # which a sweeper is told

    # A flag may be followed by a word: `--cfg job`.
    overrides = [text for text in arguments if not text.startswith("-") and ("=" in text or "~" in text)]
    flags = [text for text in arguments if text not in overrides]
    for point in grid(overrides):
        compose(point)
    if search is not None:
        SEARCH.set(search)
    # Errors come out as they are, for `main` to word, instead of being printed by Hydra.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    with initialized():
        accepted, _ = validate(overrides)  # `compose` told what is wrong
    sys.argv = [sys.argv[0], *flags, *accepted, *(SWEEPER if search is not None else ())]
    try:
        hydra.main(config_path=str(CONF), config_name="config", version_base="1.3")(task)()
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(" ".join(str(error).split())) from error
