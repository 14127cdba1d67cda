"""Gradual unfreezing: which layer groups each phase of `finetune` trains, and for how long (ULMFiT, section 3.3)."""

import math
import sys

from ulmfit_style.config.section import spelled
from ulmfit_style.config.training import Finetune
from ulmfit_style.errors import UserError
from ulmfit_style.models.layers import LayerGroups
from ulmfit_style.models.lora import full_phase_title
from ulmfit_style.training.phases import Phase


def phases(options: Finetune, layers: LayerGroups, rows: int) -> list[Phase]:
    """Return what is trainable in which order: one pass over the rows each, and the last one `epochs` passes.

    There is nothing with 0 epochs.

    `max_steps` bounds all of them together, so that recipes of one phase and of several compare; none before the last
    takes more than an equal share.

    Raises:
        UserError: if the model has fewer layer groups, or there are fewer steps than phases.
    """
    if not options.epochs:
        return []
    names, unfreeze = list(layers), f"finetune.unfreeze={spelled(options.unfreeze)}"
    every_group = (full_phase_title(options), names)
    if options.unfreeze == "chain_thaw":
        *lower, head = names
        trainable = [*((f"{name} alone", [name]) for name in (head, *lower)), every_group]
    else:
        trainable = [
            every_group if number == "all" else (f"last {number} of {len(names)} layer groups", names[-number:])
            for number in options.unfreeze
        ]
        if any(number != "all" and number > len(names) for number in options.unfreeze):
            groups = f"the model has {len(names)} layer groups ({', '.join(names)})"
            raise UserError(f"{unfreeze}: {groups}; give smaller numbers, or all")
    if options.max_steps is not None and options.max_steps < len(trainable):
        remedy = f"{unfreeze} has {len(trainable)} phases; give at least as many steps"
        raise UserError(f"finetune.max_steps={options.max_steps}: {remedy}")
    most_steps, before_last = options.max_steps or sys.maxsize, len(trainable) - 1
    share = min(math.ceil(rows / options.batch_size), most_steps // len(trainable))
    epochs = [*[1.0] * before_last, options.epochs]
    bounds = [*[share] * before_last, most_steps - share * before_last]
    return [
        Phase(title, [weights for name in group for weights in layers[name]], passes, options.learning_rate, bound)
        for (title, group), passes, bound in zip(trainable, epochs, bounds, strict=True)
    ]
