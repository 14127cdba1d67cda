"""Gradual unfreezing: what each phase of `finetune` thaws, for how long, and what is refused."""

import math
import re
from typing import Any

import pytest
import torch
from tiny_run import GROUPS, finetune_options

from ulmfit_style.cli.compose import compose
from ulmfit_style.errors import ConfigError, UserError
from ulmfit_style.training.unfreezing import phases

LAYERS = {name: [torch.nn.Parameter(torch.zeros(1))] for name in GROUPS}


def planned(rows: int = 20, **options) -> dict[str, tuple[list[str], int]]:
    """Return the layer groups and the optimizer steps of each phase, of rows in batches of 5, by its title."""
    titles = {id(parameter): name for name, (parameter,) in LAYERS.items()}
    epoch = -(-rows // 5)
    return {
        phase.title: (
            [titles[id(parameter)] for parameter in phase.trainable],
            math.ceil(min(phase.epochs * epoch, phase.max_steps)),
        )
        for phase in phases(finetune_options(batch_size=5, epochs=3, **options), LAYERS, rows)
    }


def test_each_phase_before_the_last_is_one_pass_and_the_last_has_the_epochs():
    assert planned(unfreeze=[1, 2, "all"]) == {
        "last 1 of 4 layer groups": (["head"], 4),
        "last 2 of 4 layer groups": (["layer 2", "head"], 4),
        "every weight": (list(GROUPS), 12),
    }


def test_chain_thaw_trains_the_head_then_each_group_alone_and_then_all():
    assert planned(rows=10, unfreeze="chain_thaw", max_steps=10) == {
        "head alone": (["head"], 2),
        "embeddings alone": (["embeddings"], 2),
        "layer 1 alone": (["layer 1"], 2),
        "layer 2 alone": (["layer 2"], 2),
        "every weight": (list(GROUPS), 2),
    }


@pytest.mark.parametrize(
    ("unfreeze", "bound", "steps"),
    [
        ("all", 7, [7]),
        ("all", 100, [12]),
        *(([1, 2, "all"], bound, steps) for bound, steps in ((3, [1, 1, 1]), (11, [3, 3, 5]), (100, [4, 4, 12]))),
    ],
)
def test_max_steps_bounds_all_phases_together(unfreeze, bound: int | None, steps: list[int]):
    assert [count for _, count in planned(unfreeze=unfreeze, max_steps=bound).values()] == steps


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"unfreeze": "chain_thaw", "max_steps": 4}, "finetune.max_steps=4: finetune.unfreeze=chain_thaw has 5 phases"),
        ({"unfreeze": [1, 2, "all"], "max_steps": 2}, 'finetune.unfreeze=[1, 2, "all"] has 3 phases; give at least as'),
        ({"unfreeze": [1, 5, "all"]}, "the model has 4 layer groups (embeddings, layer 1, layer 2, head); give"),
    ],
)
def test_what_does_not_fit_the_model_or_the_steps_is_refused(options: dict[str, Any], message: str):
    with pytest.raises(UserError, match=re.escape(message)):
        planned(**options)


@pytest.mark.parametrize("value", ["[]", "0", "[2,1]", "[1,1]", "[all,2]", "some"])
def test_phases_that_thaw_nothing_more_are_refused(value: str):
    with pytest.raises(ConfigError, match=r"finetune\.unfreeze=.* should be rising numbers of layer groups from 1 on"):
        compose([f"finetune.unfreeze={value}"])
