"""From `conf/` and the command line to a `Config`. Past this module nobody knows Hydra and OmegaConf.

Of overrides, `key=value` in Hydra's grammar, syntax, groups and choices are checked here; values are `recipe`'s.
Hydra's own flags go with every stage: `--multirun`, `--cfg job`, `--info`; and so does `--config-dir`.
"""

import itertools
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, cast

import hydra
import yaml
from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ulmfit_style.cli import CONF
from ulmfit_style.cli.overrides import SEARCH_PATH
from ulmfit_style.errors import ConfigError, UserError, nearest, reworded
from ulmfit_style.recipe import Config, from_recipe, require_few_aliases

PROSE = re.compile(r"(\+*predict\.(?:input|pair)=)(.*)", re.DOTALL)
"""The overrides whose values are texts."""

QUOTED = re.compile(r"""'([^'\\]|\\.)*'|"([^"\\]|\\.)*"|null""", re.DOTALL)
"""What a user has quoted for Hydra already, or does not give."""

PLAIN = re.compile(r"([^\s=]+=)([^\[{'\"$,][^,$]*)")
"""A value that is one text, whatever signs are in it: no list, mapping, choice of a sweep, or interpolation."""

WORDS = re.compile(r"""'([^'\\]|\\.)*'|"([^"\\]|\\.)*"|[^\s,=:\[\](){}'"\\]+( +[^\s,=:\[\](){}'"\\]+)*""")
"""Words of a value, up to a sign of Hydra's grammar; and what is quoted in it."""

VARIABLES = ("HOME", "USER", "TMPDIR", "SCRATCH")
"""The variables of the environment that a YAML may read."""

TRUSTED_VARIABLES = "ULMFIT_STYLE_VARIABLES"
"""An environment variable: further ones, with commas between them."""

SWEEPER = ("hydra/sweeper=ulmfit_style", "hydra.sweep.dir=${runs}/${name}-sweep", "hydra.sweep.subdir=.")
"""The plugin, and one folder for what launchers keep: no empty one for each job."""

PLUGINS = ("hydra/launcher", "hydra/sweeper")
"""The groups whose choices are packages of others."""

Launch = Callable[[Sequence[Sequence[str]], int], Sequence[Any]]
"""Hydra's launcher: from the overrides of each job, and the number of the first, to what each returned."""

Search = Callable[[Sequence[str], Launch], None]
"""What a sweeper does: from the overrides of all jobs, and the launcher of each."""

SEARCH: ContextVar[Search] = ContextVar("search")
"""What the plugin of hydra_plugins/ does. Hydra makes it by itself, out of text, so this is handed past Hydra."""


def compose(overrides: Sequence[str] = ()) -> Config:
    """Compose the configuration from `conf/` and `key=value` overrides.

    Raises:
        ConfigError: for every unknown key or choice, wrong type and value out of range, all at once.
    """
    with initialized():
        accepted, problems = validate(overrides)
        try:
            config = from_omegaconf(hydra.compose("config", overrides=accepted))
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
    return from_recipe(cast(dict[str, Any], OmegaConf.to_container(values, resolve=True)))


def chosen(overrides: Sequence[str]) -> dict[str, str | None]:
    """Return which YAML of each group overrides choose: {"model": "minilm", "experiment": None}."""
    with initialized():
        values = hydra.compose("config", overrides=validate(overrides)[0], return_hydra_config=True)
    return {str(group): choice for group, choice in values.hydra.runtime.choices.items()}


@contextmanager
def initialized() -> Iterator[None]:
    """Initialise Hydra on `conf/`, and turn its errors about YAMLs into a ConfigError."""
    OmegaConf.register_new_resolver("oc.env", _variable, replace=True)
    try:
        with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
            yield
    except (HydraException, OmegaConfBaseException, yaml.YAMLError) as error:
        raise ConfigError([" ".join((str(error).strip() or str(error.__cause__)).split())]) from error


def _variable(name: str, default: str | None = None) -> str | None:
    """Return a variable of the environment for `${oc.env:NAME}`: what a YAML reads stands in recipes and on cards."""
    if name not in (*VARIABLES, *os.environ.get(TRUSTED_VARIABLES, "").split(",")):
        remedy = f"if it is no secret, set {TRUSTED_VARIABLES}={name} in the environment"
        raise UserError(f"{name} of the environment would be written to recipes and model cards; {remedy}")
    return os.environ.get(name, default)


def _as_typed(override: str) -> str:
    """Return an override that is prose in quotes, so that Hydra reads nothing into its characters.

    So are other words with letters beyond ASCII, which Hydra's grammar does not know.
    """
    prose = PROSE.fullmatch(override) or (None if override.isascii() else PLAIN.fullmatch(override))
    if prose is None:
        return WORDS.sub(lambda word: word[0] if word[0].isascii() or word[0][0] in "'\"" else f"'{word[0]}'", override)
    if QUOTED.fullmatch(prose[2]):
        return override
    # A backslash means itself but before what it quotes: an interpolation, a quotation mark, or the end of the text.
    text = re.sub(r"(\\*)\$\{", r"\1\1\\${", prose[2])
    text = re.sub(r"(\\*)'", r"\1\1\\'", f"{text}'").removesuffix(r"\'")
    return f"{prose[1]}'{text}'"


def parse(text: str) -> Override:
    """Parse one override by Hydra's grammar, which must be initialised.

    Raises:
        ConfigError: saying how to quote the value.
    """
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
        for text in map(_as_typed, overrides):
            override = parse(text)
            if override.is_sweep_override():
                values = zip(map(str, override.sweep_iterator()), override.sweep_string_iterator(), strict=True)
                axes.append([f"{override.get_key_element()}={value}" for value in dict(values).values()])
            else:
                axes.append([text])
    return [list(point) for point in itertools.product(*axes)]


def validate(overrides: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the overrides that Hydra can compose, as it takes them, and what is wrong with the others.

    An option may be set whether or not a YAML spells it out, so `++` is put before each. Hydra must be initialised.

    Raises:
        ConfigError: if a folder of further YAMLs is wrong, for then no group and no choice can be checked.
    """
    parsed: list[tuple[str, Override]] = []
    problems: list[str] = []
    for text in map(_as_typed, overrides):
        try:
            parsed.append((text, parse(text)))
        except ConfigError as error:
            problems += error.problems
    folders = {text: override for text, override in parsed if override.key_or_group == SEARCH_PATH}
    if folder_problems := list(_folder_problems(folders.values())):
        raise ConfigError(folder_problems)

    loader = GlobalHydra.instance().config_loader()
    groups = loader.get_group_options("", ObjectType.GROUP, "config", list(folders))
    accepted, options = [], []
    for text, override in parsed:
        key = override.key_or_group
        if key in (*groups, *PLUGINS) and not override.is_sweep_override():
            known = loader.get_group_options(key, ObjectType.CONFIG, "config", list(folders))
            known = [name for name in known if f"{key}={name}" not in SWEEPER]  # which `sweep` chooses by itself
            choice = str(override.value())
            if override.is_delete() or choice in known:
                accepted.append(text)
            else:
                others = "; docs/how-to/sweeps.md tells what others need" if key in PLUGINS else ""
                listed = f"(there are: {', '.join(known)}{others})"
                problems.append(f"{text}: there is no such {key}{nearest(choice, known)} {listed}")
        elif key in groups or key.startswith("hydra"):
            accepted.append(text)
        else:
            options.append((key, text))

    yamls = {each.config_path for each in loader.compute_defaults_list("config", accepted, RunMode.RUN).defaults}
    for key, text in options:
        group = key.partition(".")[0]
        if f"{group}/none" in yamls:
            problems.append(f"{text}: there is no {group} here ({group}=none)")
        else:
            accepted.append(text if text.startswith("~") else f"++{text.lstrip('+')}")
    return accepted, problems


def _folder_problems(search_path: Iterable[Override]) -> Iterator[str]:
    """Yield what is wrong with folders of further YAMLs: a missing folder, or a file that would never be read."""
    values = [override.value() for override in search_path]
    # What is no list of names is for Hydra to refuse.
    names = [str(name) for value in values if isinstance(value, list) for name in value]
    for path in CONF.rglob("*.yaml"):
        require_few_aliases(path)
    for folder in [Path(name.removeprefix("file://")) for name in names if not name.startswith("pkg://")]:
        if not folder.is_dir():
            yield f"{folder}: there is no such folder of configs"
        for path in sorted(folder.rglob("*.yaml")):
            require_few_aliases(path)
            name = path.relative_to(folder)
            if (CONF / name).exists():
                yield f"{path}: the program has a {name} of its own; choose another name"


def run_by_hydra(job: Callable[[Config], Any], arguments: Sequence[str], search: Search | None = None) -> None:
    """Do a job by Hydra's own entry point, as its flags say: show the config, run many jobs, or the one.

    Args:
        search: What chooses the jobs of `--multirun`; None for a grid.

    Raises:
        UserError: from a wrong flag, override or YAML, before the first job; or from a job.
    """

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
    with reworded("", HydraException, OmegaConfBaseException):
        hydra.main(config_path=str(CONF), config_name="config", version_base="1.3")(task)()
