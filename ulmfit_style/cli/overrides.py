"""Overrides, `key=value`: each is parsed by Hydra's grammar and checked against the schema."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from ulmfit_style.cli import CONF
from ulmfit_style.config.schema import Section, classes_of
from ulmfit_style.errors import ConfigError, nearest
from ulmfit_style.recipe import options, section_of, task_class_of
from ulmfit_style.tasks.base import Task

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override

SEARCH_PATH = "hydra.searchpath"
"""Hydra's list of further folders of YAMLs, which `--config-dir` adds to."""


@contextmanager
def initialized() -> Iterator[None]:
    """Initialise Hydra on `conf/`, and turn its errors about YAMLs into a ConfigError."""
    from hydra import initialize_config_dir
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    try:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            yield
    except (HydraException, OmegaConfBaseException, yaml.YAMLError) as error:
        reason = str(error) if str(error).strip() else str(error.__cause__)
        raise ConfigError([" ".join(reason.split())]) from error


def parse(text: str) -> Override:
    """Parse one override by Hydra's grammar, which must be initialised.

    Raises:
        ConfigError: saying how to quote the value.
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


def grid(overrides: Sequence[str]) -> list[list[str]]:
    """Return the overrides of each point of the grid that `key=a,b` and Hydra's other simple sweeps span.

    Raises:
        ConfigError: if an override cannot be parsed, or its values cannot be counted, as those of `interval(0,1)`.
    """
    axes = []
    with initialized():
        for text in overrides:
            override = parse(text)
            if override.is_sweep_override():
                axes.append([f"{override.get_key_element()}={value}" for value in override.sweep_string_iterator()])
            else:
                axes.append([text])
    return [list(point) for point in itertools.product(*axes)]


def checked(overrides: Sequence[str]) -> list[str]:
    """Check the keys, groups and choices of overrides, and return them as Hydra takes them.

    Raises:
        ConfigError: naming each override that cannot be parsed, and each unknown key, group or choice.
    """
    with initialized():
        valid, problems = validate(overrides)
    if problems:
        raise ConfigError(problems)
    return valid


def validate(overrides: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the overrides that fit the schema, as Hydra takes them, and what is wrong with the others.

    A key of the schema may be overridden whether or not a YAML spells it out, so `++` is put before each. Hydra must
    be initialised.

    Raises:
        ConfigError: if a folder of further YAMLs is wrong, for then no group and no choice can be checked.
    """
    from hydra import compose as hydra_compose
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.object_type import ObjectType

    parsed: list[tuple[str, Override]] = []
    problems: list[str] = []
    for text in overrides:
        try:
            parsed.append((text, parse(text)))
        except ConfigError as error:
            problems += error.problems
    search_path = [text for text, override in parsed if override.key_or_group == SEARCH_PATH]
    if folder_problems := _folder_problems(_search_folders(search_path)):
        raise ConfigError(folder_problems)

    loader = GlobalHydra.instance().config_loader()
    groups = loader.get_group_options("", ObjectType.GROUP, "config", search_path)
    valid, choices, values = [], [*search_path], []
    for text, override in parsed:
        key = override.key_or_group
        if key == "hydra" or key.startswith(("hydra.", "hydra/")):
            valid.append(text)
        elif key in groups:
            known = loader.get_group_options(key, ObjectType.CONFIG, "config", search_path)
            chosen = list(override.sweep_iterator()) if override.is_sweep_override() else [override.value()]
            unknown = [str(name) for name in chosen if name is not None and str(name) not in known]
            listed = f"(there are: {', '.join(known)})"
            problems += [f"{key}={name}: there is no such {key}{nearest(name, known)} {listed}" for name in unknown]
            if not unknown:
                valid.append(text)
                choices.append(f"{key}={chosen[0]}")
        else:
            values.append((key, text))

    # The keys of `task` depend on which task is chosen, so the choices are composed first.
    composed = hydra_compose("config", overrides=choices)
    task_class: type[Section] = Task
    try:
        if composed.task is not None:
            task_class = task_class_of(composed.task.get("_target_"))
    except ConfigError as error:
        problems += [problem + origin(choices)("task._target_") for problem in error.problems]
    for key, text in values:
        group, dot, _ = key.partition(".")
        if dot and group in composed and composed[group] is None:
            problems.append(f"{text}: there is no {group} here ({group}=none)")
        elif problem := _key_problem(key, text, task_class):
            problems.append(problem)
        else:
            valid.append(text if text.startswith("~") else f"++{text.lstrip('+')}")
    return valid, problems


def origin(overrides: Sequence[str]) -> Callable[[str], str]:
    """Return a function that names the YAML in which a dotted key stands, as the end of an error message.

    It returns the empty string for a key that was typed. Hydra must be initialised.
    """
    from hydra.core.global_hydra import GlobalHydra
    from hydra.types import RunMode
    from omegaconf import OmegaConf

    typed = [parse(text).key_or_group for text in overrides if text.startswith("++")]
    folders = [CONF, *_search_folders(overrides)]
    loader = GlobalHydra.instance().config_loader()

    def file_of(key: str) -> str:
        if any(f"{key}.".startswith(f"{other}.") for other in typed):
            return ""
        # What comes later in the list is laid over what comes before.
        for default in reversed(loader.compute_defaults_list("config", list(overrides), RunMode.RUN).defaults):
            package = f"{default.package}." if default.package else ""
            paths = [path for folder in folders if (path := folder / f"{default.config_path}.yaml").exists()]
            if not paths or not key.startswith(package):
                continue
            if OmegaConf.select(OmegaConf.load(paths[0]), key.removeprefix(package)) is not None:
                return f" (in {os.path.relpath(paths[0])})"
        return ""

    return file_of


def _search_folders(overrides: Sequence[str]) -> list[Path]:
    """Return the folders of further YAMLs that overrides name."""
    values = [parse(text).value() for text in overrides if text.startswith(f"{SEARCH_PATH}=")]
    # What is no list of names is for Hydra to refuse.
    names = [str(name) for value in values if isinstance(value, list) for name in value]
    return [Path(name.removeprefix("file://")) for name in names if not name.startswith("pkg://")]


def _folder_problems(folders: Sequence[Path]) -> list[str]:
    """Return what is wrong with folders of further YAMLs: a missing folder, or a file that would never be read."""
    missing = [f"{folder}: there is no such folder of configs" for folder in folders if not folder.is_dir()]
    files = [(path, path.relative_to(folder)) for folder in folders for path in sorted(folder.rglob("*.yaml"))]
    hidden = [
        f"{path}: the program has a {name} of its own; choose another name"
        for path, name in files
        if (CONF / name).exists()
    ]
    return missing + hidden


def _key_problem(key: str, text: str, task_class: type[Section]) -> str | None:
    """Return what is wrong with an override's key, if anything."""
    known = options(task_class)
    group, _, name = key.partition(".")
    if key in known:
        return f"{text}: '{key}' is a group of options" if section_of(key, task_class) is not None else None
    option = known.get(f"{group}.{name.partition('.')[0]}")
    if option is not None and any(issubclass(kind, dict | Section) for kind in classes_of(option.annotation)):
        return None  # its own keys are checked with its values
    if key.endswith("token"):
        return f"{key}=...: a token is never an option; set HF_TOKEN in the environment"
    siblings = [other for other in known if other.startswith(f"{group}.")]
    return f"{text}: there is no option '{key}'{nearest(key, siblings) or nearest(key, known)}"
