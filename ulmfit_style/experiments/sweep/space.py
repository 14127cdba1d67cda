"""The space of a sweep: whether it fits the options, what a trial draws from it, and where the recipe lies in it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ulmfit_style.cli.compose import chosen, compose
from ulmfit_style.cli.overrides import checked
from ulmfit_style.config.experiments import Dimension
from ulmfit_style.config.schema import spelled
from ulmfit_style.errors import ConfigError, UserError
from ulmfit_style.recipe import Config, from_recipe

if TYPE_CHECKING:
    from optuna import Trial

Values = dict[str, Any]
"""What the dimensions are that count in a trial; a list is spelled out, for Optuna knows no other choices."""

Space = Mapping[str, Dimension]

RESERVED = {"name", "runs", "sweep", "study", "lr_find", "predict", "hub", "evaluate", "compare", "processes"}
"""What changes nothing of a trial, or all of the sweep."""


def overrides(values: Values) -> list[str]:
    """Return values as they are typed."""
    return [f"{key}={spelled(value)}" for key, value in values.items()]


def check(config: Config, typed: Sequence[str], space: Space, plan: Callable[[Config], object]) -> None:
    """Check that each dimension is an option, and that the ends of its range or its choices fit schema, model and data.

    Args:
        typed: The overrides that the config was composed from.
        plan: Checks a trial's model and data.

    Raises:
        ConfigError: naming all that is wrong.
    """
    problems = [
        f"{key}: is not for a sweep to choose" for key in space if key.partition(".")[0] in (*RESERVED, "hydra")
    ]
    if not problems:
        checked([*typed, *(f"{key}={spelled(_tried(dimension)[0])}" for key, dimension in space.items())])
    for key, dimension in space.items():
        before = _before(space, key)
        for value in [] if problems else _tried(dimension):
            try:
                if "." in key:  # which is a hundred times as quick
                    tried = from_recipe(_with(config.recipe(), {**_options(before), key: value}))
                else:
                    tried = compose([*typed, *overrides({**before, key: value})])
                plan(tried)
            except UserError as error:
                problems += error.problems if isinstance(error, ConfigError) else [str(error)]
    if problems:
        raise ConfigError([f"sweep.space: {problem}" for problem in dict.fromkeys(problems)])


def drawn(trial: Trial, space: Space) -> Values:
    """Let Optuna choose the dimensions of a trial, from the top down."""
    values: Values = {}
    for key, dimension in space.items():
        if not _counts(dimension, values):
            continue
        low, high, step = dimension.low, dimension.high, dimension.step
        if dimension.choices is not None:
            values[key] = trial.suggest_categorical(key, _choices(dimension))
        elif dimension.is_whole:
            values[key] = trial.suggest_int(key, int(low or 0), int(high or 0), step=int(step or 1), log=dimension.log)
        else:
            values[key] = trial.suggest_float(key, float(low or 0), float(high or 0), step=step, log=dimension.log)
    return values


def default(config: Config, typed: Sequence[str], space: Space) -> Values:
    """Return where the recipe as it is composed lies in the space: the trial that all others are held against.

    Raises:
        UserError: if it lies outside.
    """
    recipe, groups = config.recipe(), chosen(typed)
    values: Values = {}
    for key, dimension in space.items():
        if not _counts(dimension, values):
            continue
        value = _at(recipe, key) if "." in key else groups.get(key)
        if isinstance(value, list | dict):
            value = spelled(value)
        if dimension.choices is not None:
            inside = [choice for choice in _choices(dimension) if choice == value]
        elif isinstance(value, int | float):
            assert dimension.low is not None  # it is a range
            assert dimension.high is not None
            steps = (value - dimension.low) / (
                dimension.step or (1 if dimension.is_whole else value - dimension.low or 1)
            )
            fits = dimension.low <= value <= dimension.high and abs(steps - round(steps)) < 1e-6
            inside = [int(value) if dimension.is_whole else value] if fits else []
        else:
            inside = []
        if not inside:
            remedy = f"widen it, or type {key}=<a value in it>"
            raise UserError(
                f"sweep.space: {key}: the recipe's {spelled(value)} lies outside, and the recipe is the first trial, "
                f"which the others are held against; {remedy}"
            )
        values[key] = inside[0]
    return values


def _counts(dimension: Dimension, values: Values) -> bool:
    """Tell whether a dimension counts, by those above it."""
    return all(
        key in values and values[key] in (wanted if isinstance(wanted, list | tuple) else [wanted])
        for key, wanted in dimension.when.items()
    )


def _choices(dimension: Dimension) -> list[Any]:
    """Return choices as Optuna takes them."""
    return [spelled(value) if isinstance(value, list | dict) else value for value in dimension.choices or ()]


def _tried(dimension: Dimension) -> list[Any]:
    """Return the values that are tried at the door."""
    return [dimension.low, dimension.high] if dimension.choices is None else list(dimension.choices)


def _before(space: Space, key: str) -> Values:
    """Return values of the dimensions above with which one counts."""
    values: Values = {}
    for other, wanted in space[key].when.items():
        values |= {**_before(space, other), other: wanted[0] if isinstance(wanted, list | tuple) else wanted}
    return values


def _options(values: Values) -> Values:
    return {key: value for key, value in values.items() if "." in key}


def _at(recipe: Mapping[str, Any], key: str) -> Any:
    """Return the value of a dotted key, or None."""
    value: Any = recipe
    for part in key.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def _with(recipe: dict[str, Any], values: Values) -> dict[str, Any]:
    """Set dotted keys of a recipe in place, and return it."""
    for key, value in values.items():
        *parents, last = key.split(".")
        place = recipe
        for part in parents:
            place = place.setdefault(part, {})
        place[last] = value
    return recipe
