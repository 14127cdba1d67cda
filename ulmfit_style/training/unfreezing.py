"""Gradual unfreezing: which layer groups each phase of `finetune` trains, and for how long (ULMFiT, section 3.3)."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from typing import TYPE_CHECKING

from ulmfit_style.config.schema import spelled
from ulmfit_style.config.stages import Finetune
from ulmfit_style.errors import UserError

if TYPE_CHECKING:
    from ulmfit_style.models.layers import LayerGroups
    from ulmfit_style.training.phases import Phase


def highest(options: Finetune) -> int:
    """Return the largest number of layer groups that `unfreeze` names."""
    return max((number for number in options.unfreeze if isinstance(number, int)), default=0)


def thawed(options: Finetune, names: Sequence[str]) -> list[tuple[str, Sequence[str]]]:
    """Return the title of each phase and the layer groups that it trains, of those of a model, the lowest first.

    Raises:
        UserError: if the model has fewer groups, or there are fewer steps than phases.
    """
    from ulmfit_style.models.lora import full_phase_title

    if highest(options) > len(names):
        raise UserError(
            f"finetune.unfreeze={spelled(options.unfreeze)}: the model has {len(names)} layer groups "
            f"({', '.join(names)}); give smaller numbers, or all"
        )
    every = (full_phase_title(options), names)
    if options.unfreeze == "chain_thaw":
        *lower, head = names
        phases = [*((f"{group} alone", [group]) for group in (head, *lower)), every]
    else:
        phases = [
            every if number == "all" else (f"last {number} of {len(names)} layer groups", names[-number:])
            for number in options.unfreeze
        ]
    if options.max_steps is not None and options.max_steps < len(phases):
        raise UserError(
            f"finetune.max_steps={options.max_steps}: finetune.unfreeze={spelled(options.unfreeze)} has "
            f"{len(phases)} phases; give at least as many steps"
        )
    return phases


def _passes(options: Finetune, phases: int, rows: int) -> list[float]:
    """Return how many times each phase goes through the rows: once, and the last one `epochs` times.

    `max_steps` bounds all of them together, so that recipes of one phase and of several compare; none before the last
    takes more than an equal share.
    """
    from ulmfit_style.training.batching import epochs_for

    times = [*[1.0] * (phases - 1), options.epochs]
    if options.max_steps is None:
        return times
    whole = ceil(rows / options.batch_size)
    before = min(whole, options.max_steps // phases)
    bounds = [*[before] * (phases - 1), options.max_steps - before * (phases - 1)]
    return [
        own if own * whole <= steps else epochs_for(steps, rows, options.batch_size)
        for own, steps in zip(times, bounds, strict=True)
    ]


def phases(options: Finetune, layers: LayerGroups, rows: int) -> list[Phase]:
    """Return what is thawed in which order.

    Raises:
        UserError: if the model has fewer layer groups, or there are fewer steps than phases.
    """
    from ulmfit_style.training.phases import Phase

    groups = thawed(options, list(layers))
    return [
        Phase(title, [parameter for name in names for parameter in layers[name]], times, options.learning_rate)
        for (title, names), times in zip(groups, _passes(options, len(groups), rows), strict=True)
    ]
