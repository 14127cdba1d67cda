"""Hydra's door to the sweeps of ulmfit_style: hydra/sweeper=ulmfit_style. Hydra looks for plugins in this namespace.

No `from __future__ import annotations` here: the scan executes the module before it is known by its name, and a
dataclass looks its annotations up there.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


@dataclass
class StudySweeperConf:
    """Its options are the config's own, in `sweep`."""

    _target_: str = "hydra_plugins.ulmfit_style_sweeper.StudySweeper"


class StudySweeper(Sweeper):
    """Lets a launcher of Hydra's, whichever is chosen, run the trials that Optuna asks for."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Take the launcher."""
        self.launcher = Plugins.instance().instantiate_launcher(hydra_context, task_function, config)

    def sweep(self, arguments: list[str]) -> None:
        """Run the trials."""
        from ulmfit_style.cli.compose import SEARCH

        SEARCH.get()(arguments, self.launch)

    def launch(self, jobs: Sequence[Sequence[str]], first: int) -> Sequence[Any]:
        """Run jobs by the launcher, and return what each returned."""
        return self.launcher.launch(jobs, initial_job_idx=first)


ConfigStore.instance().store("ulmfit_style", StudySweeperConf, "hydra/sweeper", provider="ulmfit_style")
