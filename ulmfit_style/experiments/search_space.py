"""The space of a sweep: whether it fits the options, what a trial draws from it, and where the recipe lies in it."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import optuna

from ulmfit_style.cli.compose import chosen, compose
from ulmfit_style.config.experiments import Dimension
from ulmfit_style.config.section import MODEL_SECTIONS, spelled
from ulmfit_style.errors import ConfigError, UserError
from ulmfit_style.recipe import Config

Values = dict[str, Any]
"""The values of the dimensions that count in a trial; a list is spelled out, for Optuna knows no other choices."""

Space = Mapping[str, Dimension]


def overrides(values: Values) -> list[str]:
    """Return values as they are typed."""
    return [f"{key}={spelled(value)}" for key, value in values.items()]


def check(typed: Sequence[str], space: Space, check_trial: Callable[[Config], object]) -> None:
    """Check that each dimension is an option, and that the ends of its range or its choices fit schema, model and data.

    Args:
        typed: The overrides of the sweep.
        check_trial: Checks a trial's model and data.

    Raises:
        ConfigError: naming all that is wrong.
    """
    problems = [f"{key}: is not for a sweep to choose" for key in space if key.split(".")[0] not in MODEL_SECTIONS]
    if not problems:
        for key, dimension in space.items():
            for value in dimension.extremes:
                try:
                    check_trial(compose([*typed, *overrides({**_above(space, key), key: value})]))
                except UserError as error:
                    problems += error.problems if isinstance(error, ConfigError) else [str(error)]
    if problems:
        raise ConfigError([f"sweep.space: {problem}" for problem in dict.fromkeys(problems)])


def draw(trial: optuna.Trial, space: Space) -> Values:
    """Let Optuna choose the dimensions of a trial, from the top down."""
    values: Values = {}
    for key, dimension in space.items():
        if dimension.counts(values):
            values[key] = _suggest(trial, key, dimension)
    return values


def of_recipe(config: Config, typed: Sequence[str], space: Space) -> Values:
    """Return where the recipe as it is composed lies in the space: the trial that all others are held against.

    Raises:
        UserError: if it lies outside.
    """
    recipe, groups, values = config.recipe(), chosen(typed), Values()
    for key, dimension in space.items():
        if not dimension.counts(values):
            continue
        value: Any = groups if key in groups else recipe
        for name in key.split("."):
            value = value.get(name)
        if not dimension.contains(value):
            is_open = value is None and key.startswith("finetune.")
            remedy = "add finetune=plain" if is_open else f"widen it, or type {key}=<a value in it>"
            first = "the recipe is the first trial, which the others are held against"
            raise UserError(f"sweep.space: {key}: the recipe's {spelled(value)} lies outside, and {first}; {remedy}")
        values[key] = _choice(value)
    return values


def _suggest(trial: optuna.Trial, key: str, dimension: Dimension) -> Any:
    low, high, step, log = dimension.low, dimension.high, dimension.step, dimension.log
    if low is None or high is None:
        return trial.suggest_categorical(key, [_choice(value) for value in dimension.choices or ()])
    if dimension.is_whole:
        return trial.suggest_int(key, int(low), int(high), step=int(step or 1), log=log)
    return trial.suggest_float(key, low, high, step=step, log=log)


def _choice(value: Any) -> Any:
    """Return a value as Optuna takes it for a choice."""
    return spelled(value) if isinstance(value, list | tuple | dict) else value


def _above(space: Space, key: str) -> Values:
    """Return values of the dimensions above with which one counts."""
    values: Values = {}
    for other, wanted in space[key].when.items():
        values |= {**_above(space, other), other: wanted[0] if isinstance(wanted, list | tuple) else wanted}
    return values
