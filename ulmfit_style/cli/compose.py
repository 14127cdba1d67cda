"""From `conf/` and the command line to a `Config`, and back. Past this room nobody knows Hydra and OmegaConf.

Every key, group and choice that is typed is checked against the schema first, so that all mistakes are shown at once.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from pydantic_core import to_jsonable_python

from ulmfit_style.cli import CONF
from ulmfit_style.cli.overrides import initialized, origin, parse, validate
from ulmfit_style.config.schema import spelled
from ulmfit_style.errors import ConfigError
from ulmfit_style.recipe import Config, from_recipe, section_of
from ulmfit_style.tasks.base import Task

if TYPE_CHECKING:
    from omegaconf import DictConfig

TRAINED = ("model", "corpus", "pretrain", "adapt", "task", "finetune")
"""The groups that determine a model."""

PLAIN = re.compile(r"[A-Za-z./][\w./:@-]*")
"""Strings that need no quotes in an override."""


def compose(overrides: Sequence[str] = ()) -> Config:
    """Compose the configuration from `conf/` and `key=value` overrides.

    Raises:
        ConfigError: for every unknown key or choice, wrong type and value out of range, all at once; for what stands
            in a YAML, with the name of the file.
    """
    from hydra import compose as hydra_compose

    with initialized():
        valid, problems = validate(overrides)
        try:
            config = from_omegaconf(hydra_compose("config", overrides=valid), origin(valid))
        except ConfigError as error:
            problems += error.problems
    if problems:
        raise ConfigError(list(dict.fromkeys(problems)))
    return config


def from_omegaconf(values: DictConfig, origin: Callable[[str], str] = lambda key: "") -> Config:
    """Make the typed config from what Hydra composed.

    Args:
        origin: Names the YAML in which a dotted key stands, as the end of an error message.

    Raises:
        ConfigError: for every wrong value, all at once.
    """
    from omegaconf import OmegaConf

    return from_recipe(cast(dict[str, Any], OmegaConf.to_container(values, resolve=True)), origin)


def chosen(overrides: Sequence[str]) -> dict[str, str | None]:
    """Return which YAML of each group overrides choose: {"model": "minilm", "experiment": None}."""
    from hydra import compose as hydra_compose

    with initialized():
        values = hydra_compose("config", overrides=validate(overrides)[0], return_hydra_config=True)
    return {str(group): choice for group, choice in values.hydra.runtime.choices.items()}


def preset(group: str, name: str) -> dict[str, Any] | None:
    """Return the values of a YAML, laid over those of its group that it names; None for `none`."""
    if name == "none":
        return None
    values = _read(CONF / group / f"{name}.yaml")
    layers = [*((preset(group, base) or {}) for base in values.pop("defaults", [])), values]
    return {key: value for layer in layers for key, value in layer.items()}


def experiment(overrides: Sequence[str]) -> dict[str, Any]:
    """Return overrides as a YAML of `conf/experiment/` has them: choices in its defaults list, and values."""
    from omegaconf import OmegaConf

    groups, values = chosen(overrides), OmegaConf.create()
    defaults: list[Any] = []
    with initialized():
        for text in overrides:
            override = parse(text)
            key = override.key_or_group
            if key == "experiment":
                defaults.insert(0, override.value())
            elif key in groups:
                defaults.append({f"override /{key}": override.value()})
            else:
                OmegaConf.update(values, key, override.value(), force_add=True)
    return {"defaults": [*defaults, "_self_"], **cast(dict[str, Any], OmegaConf.to_container(values))}


def overrides_of(config: Config) -> list[str] | None:
    """Return the overrides that make a config's model and data out of the shipped recipe: presets, then single options.

    None where no overrides do: what a preset sets cannot always be taken out again.
    """
    recipe, shipped = config.recipe(), _read(CONF / "config.yaml")
    default = {group: name for entry in shipped["defaults"] if isinstance(entry, dict) for group, name in entry.items()}
    overrides = [
        f"{key}={_typed(recipe[key])}" for key in ("compare", "micro_batch_size") if recipe[key] != shipped[key]
    ]
    for group in TRAINED:
        names = sorted((path.stem for path in CONF.glob(f"{group}/*.yaml")), key=lambda name: name != default[group])
        changes = [(name, _changes(config, group, preset(group, name))) for name in names]
        possible = [(name, options) for name, options in changes if options is not None]
        if not possible:
            return None
        name, options = min(possible, key=lambda choice: _distance(preset(group, choice[0]), choice[1]))
        overrides += [f"{group}={name}"] if name != default[group] else []
        overrides += [f"{group}.{key}={_typed(value)}" for key, value in options.items()]
    try:
        composed = compose(overrides).recipe()
    except ConfigError:
        return None
    return overrides if all(composed[group] == recipe[group] for group in TRAINED) else None


def _changes(config: Config, group: str, values: dict[str, Any] | None) -> dict[str, Any] | None:
    """Return the options of a group that differ from a preset's; None where the preset is of another kind."""
    wanted = config.recipe()[group]
    if wanted is None or values is None:
        return {} if wanted is values else None
    if wanted.get("_target_") != values.get("_target_"):
        return None
    section = section_of(group, type(config.task) if config.task is not None else Task)
    fields = {} if section is None else section.model_fields
    defaults = {name: field.get_default(call_default_factory=True) for name, field in fields.items()}
    preset_values = {**to_jsonable_python(defaults, fallback=str), **values}
    return {key: value for key, value in wanted.items() if value != preset_values[key]}


def _distance(values: dict[str, Any] | None, changes: dict[str, Any]) -> int:
    """Return how far a preset is off; an option that it leaves open is nearer than one that it sets otherwise."""
    return sum(1 if (values or {}).get(key, "???") == "???" else 2 for key in changes)


def _typed(value: Any) -> str:
    """Return a plain value as Hydra's grammar takes it after `key=`."""
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key}: {_typed(item)}' for key, item in value.items())}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(_typed, value))}]"
    if not isinstance(value, str) or (PLAIN.fullmatch(value) and value.lower() not in ("null", "true", "false", "nan")):
        return spelled(value)
    return "'" + value.replace("'", "\\'") + "'"


def _read(path: Path) -> dict[str, Any]:
    from omegaconf import OmegaConf

    return cast(dict[str, Any], OmegaConf.to_container(OmegaConf.load(path)))
