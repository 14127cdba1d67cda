"""Texts that belong to no class: what the head reads of them is far from what it reads of every training text.

How near is the cosine with the nearest one (Sun et al. 2022), which of twelve scores told them best over several kinds
of data and of training (docs/measured.md).
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from ulmfit_style.training.solving import Floats, read_by_head

FILE = "learnt.npy"

SHARE = 0.05
"""The share of the rows that were not trained on that counts as unlike those that were."""


def units(inputs: Floats) -> Floats:
    """Return what the head reads of texts, (texts, width), at length 1."""
    return inputs / np.linalg.norm(inputs, axis=1, keepdims=True).clip(1e-12)


def beside_nearness(answer: Callable[[Any], list[Any]], model: Any, learnt: Floats, batch: Any) -> list[Any]:
    """Return what `answer` makes of each text of a batch, with the cosine with the nearest text that was learnt.

    Args:
        learnt: The `units` of these.
    """
    with read_by_head(model) as read:
        answers = answer(batch)
    return list(zip(answers, (units(read[0].numpy()) @ learnt.T).max(axis=1).tolist(), strict=True))
