"""The one composer: from `conf/` and the command line to a `Config`. Hydra and OmegaConf stop here.

Every key, group and choice that is typed is checked against the schema first, so that all mistakes are told at once.
"""

from __future__ import annotations

import itertools
import math
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, get_args, get_origin

import yaml
from pydantic_core import to_jsonable_python

from ulmfit_style.config import trainer_options
from ulmfit_style.config.schema import Section, spelled
from ulmfit_style.config.stages import Training
from ulmfit_style.errors import ConfigError, nearest
from ulmfit_style.recipe import Config, all_keys, from_recipe, section_of, task_class_of
from ulmfit_style.tasks.base import Task

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override
    from omegaconf import DictConfig

PACKAGE = Path(__file__).parents[1]
CONF = next(folder for folder in (PACKAGE / "conf", PACKAGE.parent / "conf") if folder.is_dir())
"""The config folder: inside an installed wheel, or beside the package in a checkout."""


SEARCH_PATH = "hydra.searchpath"
"""Hydra's list of further folders of YAMLs, which `--config-dir` adds to."""

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

    with _hydra():
        fitting, problems = _sorted(overrides)
        try:
            config = from_omegaconf(hydra_compose("config", overrides=fitting), _origin(fitting))
        except ConfigError as error:
            problems += error.problems
    if problems:
        raise ConfigError(list(dict.fromkeys(problems)))
    return config


def checked(overrides: Sequence[str]) -> list[str]:
    """Check the keys, groups and choices of overrides, and return them as Hydra takes them.

    Raises:
        ConfigError: naming each override that cannot be parsed, and each unknown key, group or choice.
    """
    with _hydra():
        fitting, problems = _sorted(overrides)
    if problems:
        raise ConfigError(problems)
    return fitting


def chosen(overrides: Sequence[str]) -> dict[str, str | None]:
    """Return which YAML of each group overrides choose: {"model": "minilm", "experiment": None}."""
    from hydra import compose as hydra_compose

    with _hydra():
        values = hydra_compose("config", overrides=_sorted(overrides)[0], return_hydra_config=True)
    return {str(group): choice for group, choice in values.hydra.runtime.choices.items()}


def experiment(overrides: Sequence[str]) -> dict[str, Any]:
    """Return overrides as a YAML of `conf/experiment/` has them: choices in its defaults list, and values."""
    from omegaconf import OmegaConf

    groups, values = chosen(overrides), OmegaConf.create()
    defaults: list[Any] = []
    with _hydra():
        for text in overrides:
            override = _parse(text)
            key = override.key_or_group
            if key == "experiment":
                defaults.insert(0, override.value())
            elif key in groups:
                defaults.append({f"override /{key}": override.value()})
            else:
                OmegaConf.update(values, key, override.value(), force_add=True)
    return {"defaults": [*defaults, "_self_"], **cast(dict[str, Any], OmegaConf.to_container(values))}


def from_omegaconf(values: DictConfig, origin: Callable[[str], str] = lambda key: "") -> Config:
    """Make the typed config from what Hydra composed.

    Args:
        origin: Tells which YAML a dotted key stands in, as the end of an error message.

    Raises:
        ConfigError: for every wrong value, all at once.
    """
    from omegaconf import OmegaConf

    return from_recipe(cast(dict[str, Any], OmegaConf.to_container(values, resolve=True)), origin)


def grid(overrides: Sequence[str]) -> list[list[str]]:
    """Return the overrides of each point of the grid that `key=a,b` and Hydra's other simple sweeps span.

    Raises:
        ConfigError: if an override cannot be parsed, or its values cannot be counted, as those of `interval(0,1)`.
    """
    axes = []
    with _hydra():
        for text in overrides:
            override = _parse(text)
            if override.is_sweep_override():
                prefix = override.get_key_element()
                axes.append([f"{prefix}={value}" for value in override.sweep_string_iterator()])
            else:
                axes.append([text])
    return [list(point) for point in itertools.product(*axes)]


def overrides_of(config: Config) -> list[str] | None:
    """Return the overrides that make a config's model and data out of the shipped recipe: presets, then single options.

    None where no overrides do: what a preset sets cannot always be taken out again.
    """
    from omegaconf import OmegaConf

    recipe, shipped = (
        config.recipe(),
        cast(dict[str, Any], OmegaConf.to_container(OmegaConf.load(CONF / "config.yaml"))),
    )
    first = {group: name for entry in shipped["defaults"] if isinstance(entry, dict) for group, name in entry.items()}
    found = [f"{key}={_typed(recipe[key])}" for key in ("compare", "micro_batch_size") if recipe[key] != shipped[key]]
    for group in TRAINED:
        presets = sorted((path.stem for path in CONF.glob(f"{group}/*.yaml")), key=lambda name: name != first[group])
        name = min(presets, key=partial(_distance, config, group))
        found += [f"{group}={name}"] if name != first[group] else []
        found += [f"{group}.{key}={_typed(value)}" for key, value in _other(config, group, preset(group, name)).items()]
    try:
        made = compose(found).recipe()
    except ConfigError:
        return None
    return found if all(made[group] == recipe[group] for group in TRAINED) else None


def preset(group: str, name: str) -> dict[str, Any] | None:
    """Return what a YAML says, laid over those of its group that it names; None for `none`."""
    from omegaconf import OmegaConf

    if name == "none":
        return None
    values = cast(dict[str, Any], OmegaConf.to_container(OmegaConf.load(CONF / group / f"{name}.yaml")))
    layers = [*((preset(group, under) or {}) for under in values.pop("defaults", [])), values]
    return {key: value for layer in layers for key, value in layer.items()}


def _distance(config: Config, group: str, name: str) -> float:
    """Return how far a preset is from what a config has; what it leaves open is nearer than what it says otherwise."""
    wanted, said = config.recipe()[group], preset(group, name)
    if wanted is None or said is None:
        return 0 if wanted is said else math.inf
    if wanted.get("_target_") != said.get("_target_"):
        return math.inf
    return sum(2 if said.get(key, "???") != "???" else 1 for key in _other(config, group, said))


def _other(config: Config, group: str, said: dict[str, Any] | None) -> dict[str, Any]:
    """Return the options of a group that a config has otherwise than a preset."""
    wanted = config.recipe()[group]
    if wanted is None or said is None:
        return {}
    section = section_of(group, type(config.task) if config.task is not None else Task)
    assert section is not None  # it is one of TRAINED
    defaults = {name: field.get_default(call_default_factory=True) for name, field in section.model_fields.items()}
    there = {**to_jsonable_python(defaults, fallback=str), **said}
    return {key: value for key, value in wanted.items() if value != there[key]}


def _typed(value: Any) -> str:
    """Return a plain value as Hydra's grammar takes it after `key=`."""
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key}: {_typed(one)}' for key, one in value.items())}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(_typed, value))}]"
    if not isinstance(value, str) or (PLAIN.fullmatch(value) and value.lower() not in ("null", "true", "false", "nan")):
        return spelled(value)
    return "'" + value.replace("'", "\\'") + "'"


@contextmanager
def _hydra() -> Iterator[None]:
    """Initialise Hydra on `conf/`, and turn what it finds wrong in a YAML into a ConfigError."""
    from hydra import initialize_config_dir
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    try:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            yield
    except (HydraException, OmegaConfBaseException, yaml.YAMLError) as error:
        reason = str(error) if str(error).strip() else str(error.__cause__)
        raise ConfigError([" ".join(reason.split())]) from error


def _sorted(overrides: Sequence[str]) -> tuple[list[str], list[str]]:
    """Hold every override against the schema; return those that fit it, as Hydra takes them, and what is wrong.

    Wrong are those that cannot be parsed, and unknown keys, groups and choices. A key that the schema has may be
    overridden whether or not a YAML spells it out, so `++` is put before each.

    Raises:
        ConfigError: if a folder of further YAMLs is wrong.
    """
    from hydra import compose as hydra_compose
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.object_type import ObjectType

    loader = GlobalHydra.instance().config_loader()
    problems: list[str] = []
    parsed: list[tuple[str, Override]] = []
    for text in overrides:
        try:
            parsed.append((text, _parse(text)))
        except ConfigError as error:
            problems += error.problems
    searched = [text for text, override in parsed if override.key_or_group == SEARCH_PATH]
    if folder_problems := _folder_problems(_folders(searched)):
        raise ConfigError(folder_problems)  # which groups and choices there are cannot be told
    groups = loader.get_group_options("", ObjectType.GROUP, "config", searched)
    choices, first_choices, values = [], [*searched], []
    for text, override in parsed:
        key = override.key_or_group
        if key == "hydra" or key.startswith(("hydra.", "hydra/")):
            choices.append(text)
        elif key in groups:
            options = loader.get_group_options(key, ObjectType.CONFIG, "config", searched)
            wanted = list(override.sweep_iterator()) if override.is_sweep_override() else [override.value()]
            unknown = [str(choice) for choice in wanted if choice is not None and str(choice) not in options]
            there = f"(there are: {', '.join(options)})"
            problems += [f"{key}={name}: there is no such {key}{nearest(name, options)} {there}" for name in unknown]
            if not unknown:
                choices.append(text)
                first_choices.append(f"{key}={wanted[0]}")
        else:
            values.append((key, text))

    # The keys of `task` depend on which task is chosen, so the choices are composed first.
    chosen = hydra_compose("config", overrides=first_choices)
    task_class: type[Section] = Task
    try:
        if chosen.task is not None:
            task_class = task_class_of(chosen.task.get("_target_"))
    except ConfigError as error:
        problems += [problem + _origin(first_choices)("task._target_") for problem in error.problems]
    for key, text in values:
        group, dot, _ = key.partition(".")
        if dot and group in chosen and chosen[group] is None:
            found = [f"{text}: there is no {group} here ({group}=none)"]
        else:
            found = _unknown_key(key, text, task_class)
        problems += found
        if not found:
            choices.append(text if text.startswith("~") else f"++{text.lstrip('+')}")
    return choices, problems


def _folders(overrides: Sequence[str]) -> list[Path]:
    """Return the folders of further YAMLs that overrides name."""
    values = [_parse(text).value() for text in overrides if text.startswith(f"{SEARCH_PATH}=")]
    # What is no list of names is for Hydra to refuse.
    names = [str(name) for value in values if isinstance(value, list) for name in value]
    return [Path(name.removeprefix("file://")) for name in names if not name.startswith("pkg://")]


def _folder_problems(folders: Sequence[Path]) -> list[str]:
    """Return what is wrong with folders of further YAMLs: one that is not there, or a file that would never be read."""
    problems = []
    for folder in folders:
        if not folder.is_dir():
            problems.append(f"{folder}: there is no such folder of configs")
        for path in sorted(folder.rglob("*.yaml")):
            inside = path.relative_to(folder)
            if (CONF / inside).exists():
                problems.append(f"{path}: the program has a {inside} of its own; choose another name")
    return problems


def _origin(overrides: Sequence[str]) -> Callable[[str], str]:
    """Return a function that tells which YAML a dotted key stands in, as the end of an error message.

    It returns the empty string for a key that was typed. Must be called while Hydra is initialised.
    """
    from hydra.core.global_hydra import GlobalHydra
    from hydra.types import RunMode
    from omegaconf import OmegaConf

    typed = [_parse(text).key_or_group for text in overrides if text.startswith("++")]
    folders = [CONF, *_folders(overrides)]
    loader = GlobalHydra.instance().config_loader()

    def origin(key: str) -> str:
        if any(f"{key}.".startswith(f"{other}.") for other in typed):
            return ""
        # What comes later in the list is laid over what comes before.
        for default in reversed(loader.compute_defaults_list("config", list(overrides), RunMode.RUN).defaults):
            package = f"{default.package}." if default.package else ""
            paths = [path for folder in folders if (path := folder / f"{default.config_path}.yaml").exists()]
            if not paths or not key.startswith(package):
                continue
            values = OmegaConf.load(paths[0])
            if OmegaConf.select(values, key.removeprefix(package)) is not None:
                return f" (in {os.path.relpath(paths[0])})"
        return ""

    return origin


def _parse(text: str) -> Override:
    """Parse one override by Hydra's grammar. Must be called while Hydra is initialised.

    Raises:
        ConfigError: saying how to quote it.
    """
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        return OverridesParser.create(GlobalHydra.instance().config_loader()).parse_overrides([text])[0]
    except HydraException as error:
        key, equals, value = text.partition("=")
        remedy = f"""write {key}="'{value}'\"""" if equals else "an override is key=value"
        raise ConfigError([f"{text}: cannot be read as an override; {remedy}"]) from error


def _unknown_key(key: str, text: str, task_class: type[Section]) -> list[str]:
    """Return what is wrong with an override's key: nothing, or one problem."""
    first, _, rest = key.partition(".")
    section = section_of(first, task_class)
    if first not in Config.model_fields:
        return [f"{text}: there is no option '{key}'{nearest(key, all_keys(task_class))}"]
    if (section is None) != (not rest):
        return [f"{text}: '{first}' is {'one value' if section is None else 'a group of options'}"]
    if section is not None and issubclass(section, Training) and rest.startswith("trainer."):
        problem = trainer_options.name_problem(first, rest.removeprefix("trainer."))
        return [] if problem is None else [problem]
    if section is not None and "." in rest and _holds_options(section, rest.partition(".")[0]):
        return []  # for the schema to say
    if section is not None and rest not in section.model_fields:
        if rest.endswith("token"):
            return [f"{first}.{rest}=...: a token is never an option; set HF_TOKEN in the environment"]
        keys = [f"{first}.{name}" for name in section.model_fields]
        return [f"{text}: there is no option '{key}'{nearest(key, keys) or nearest(key, all_keys(task_class))}"]
    return []


def _holds_options(section: type[Section], name: str) -> bool:
    """Tell whether a field holds options of its own."""
    annotation = section.model_fields[name].annotation if name in section.model_fields else None
    kinds = [get_origin(kind) or kind for kind in (annotation, *get_args(annotation))]
    return any(isinstance(kind, type) and issubclass(kind, (dict, Section)) for kind in kinds)
