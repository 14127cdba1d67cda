"""Texts that belong to no class: what the head reads of them is far from the mean of every class.

How near is the cosine, which of eleven scores told them best over several kinds of data (docs/measured.md).
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from ulmfit_style.training.solving import Floats, HeadInputs, read_by_head

FILE = "class_means.npy"

SHARE = 0.05
"""The share of the rows that were not trained on that is farther from every class than is usual."""


def class_means(learnt: HeadInputs) -> Floats:
    """Return what the head reads of the texts of each class on average, (classes, width)."""
    return np.stack([learnt.inputs[learnt.labels == label].mean(axis=0) for label in np.unique(learnt.labels)])


def nearness(inputs: Floats, means: Floats) -> list[float]:
    """Return the cosine of what the head reads of each text, (texts, width), and the nearest of the means."""
    units, centres = (rows / np.linalg.norm(rows, axis=1, keepdims=True).clip(1e-12) for rows in (inputs, means))
    return (units @ centres.T).max(axis=1).tolist()


def beside_nearness(answer: Callable[[Any], list[Any]], model: Any, means: Floats, batch: Any) -> list[Any]:
    """Return what `answer` makes of each text of a batch, with how near the text is to a class."""
    with read_by_head(model) as read:
        return list(zip(answer(batch), nearness(read[0].numpy(), means), strict=True))
