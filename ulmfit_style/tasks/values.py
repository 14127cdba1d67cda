"""The plain values that tasks and their callers exchange."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from ulmfit_style.tasks.types import Tensor

Span = tuple[int, int, str]
"""Where a stretch of a text begins and ends, in characters, and what it is."""


class Architecture(NamedTuple):
    """What a task has to know of a model's architecture."""

    model_type: str
    """What a checkpoint's config.json calls it, such as "bert"."""
    kind: Literal["encoder", "decoder", "encoder-decoder"]
    carries_state: bool = False
    """Whether it reads texts of any length, in parts of which each goes on where the last one ended."""


class Pipeline(NamedTuple):
    """How the Hub and transformers run a task's models."""

    tag: str
    """What the Hub calls them."""
    exists: bool = True
    """Whether transformers has a pipeline of this name."""
    options: Mapping[str, Any] = {}
    """What the pipeline has to be given to answer as the task does."""


class Reference(NamedTuple):
    """A linear model that a task's results are compared with."""

    name: str
    fit: Callable[[Any, Sequence[Any]], Callable[[Any], list[dict[str, Any]]]]
    """From features (rows, width) and targets to what answers the features of other rows."""


class ExplainedPart(NamedTuple):
    """A part of an answer that can be explained."""

    name: str
    feature: int
    """The number of the feature that it was read from."""
    read: Callable[[Tensor], Tensor]
    """From the logits of that feature, (batch, ...), to the one number that stands for it, (batch,)."""
