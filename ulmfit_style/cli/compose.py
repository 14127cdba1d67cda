"""From `conf/` and the command line to a `Config`. Past this room nobody knows Hydra and OmegaConf."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from ulmfit_style.cli.overrides import initialized, validate
from ulmfit_style.errors import ConfigError
from ulmfit_style.recipe import Config, from_recipe

if TYPE_CHECKING:
    from omegaconf import DictConfig


def compose(overrides: Sequence[str] = ()) -> Config:
    """Compose the configuration from `conf/` and `key=value` overrides.

    Raises:
        ConfigError: for every unknown key or choice, wrong type and value out of range, all at once.
    """
    from hydra import compose as hydra_compose

    with initialized():
        accepted, problems = validate(overrides)
        try:
            config = from_omegaconf(hydra_compose("config", overrides=accepted))
        except ConfigError as error:
            problems += error.problems
    if problems:
        raise ConfigError(problems)
    return config


def from_omegaconf(values: DictConfig) -> Config:
    """Make the typed config from what Hydra composed.

    Raises:
        ConfigError: for every wrong value, all at once.
    """
    from omegaconf import OmegaConf

    return from_recipe(cast(dict[str, Any], OmegaConf.to_container(values, resolve=True)))


def chosen(overrides: Sequence[str]) -> dict[str, str | None]:
    """Return which YAML of each group overrides choose: {"model": "minilm", "experiment": None}."""
    from hydra import compose as hydra_compose

    with initialized():
        values = hydra_compose("config", overrides=validate(overrides)[0], return_hydra_config=True)
    return {str(group): choice for group, choice in values.hydra.runtime.choices.items()}
