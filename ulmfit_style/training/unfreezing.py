"""The phases of `finetune`: a contrast, a solved head, and gradual unfreezing of the layers (ULMFiT, section 3.3)."""

import math
import sys
from functools import partial

from ulmfit_style.config.section import spelled
from ulmfit_style.config.training import CONTRAST_GROUP_SIZE, Finetune
from ulmfit_style.errors import UserError
from ulmfit_style.models.layers import HEAD, LayerGroups, full_phase_title
from ulmfit_style.tasks.types import Tokenizer
from ulmfit_style.training import solving
from ulmfit_style.training.contrast import ContrastiveDataset, ContrastiveObjective
from ulmfit_style.training.phases import Phase, TrainingData


def of_finetune(
    options: Finetune, layers: LayerGroups, data: TrainingData, tokenizer: Tokenizer, *, has_rows: bool, fast: bool
) -> list[Phase]:
    """Return what is done in which order: the contrast, the head, and what `unfreeze` thaws.

    Args:
        has_rows: Whether the features are those of labelled rows, and not of the names of classes alone.
        fast: Whether a contrast may run in parts.

    Raises:
        UserError: as `phases`.
    """
    before = []
    if options.contrast_steps:
        rows = ContrastiveDataset([dict(data.rows[row]) for row in range(len(data.rows))], tokenizer, options.seed)
        body = [parameter for title, parameters in layers.items() if title != HEAD for parameter in parameters]
        objective = ContrastiveObjective() if fast else ContrastiveObjective(parts=1)
        contrast = TrainingData(objective, rows, rows.collate, CONTRAST_GROUP_SIZE)
        steps, rate = options.contrast_steps, options.contrast_learning_rate
        before.append(Phase("contrast", body, math.inf, rate, steps, data=contrast))
    if options.head == "solved":
        penalty = solving.AFTER_CONTRAST if options.contrast_steps else solving.WEAK if options.epochs else None
        fit = partial(solving.regression, penalty=penalty) if has_rows else solving.nearest_example
        before.append(Phase("head, solved", [], 0, 0, solve=partial(solving.solve, data=data, fit=fit)))
    return [*before, *phases(options, layers, len(data.rows))]


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
