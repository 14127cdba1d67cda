"""While a model is trained on labelled rows, its table of words holds those that occur in them alone.

No other word has a gradient, and an optimizer that treats each number by itself lets all of them decay alike: so the
result is the same. Of a small model with a large vocabulary, most gradients and moments are those of such words.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding

from ulmfit_style.tasks.base import Task

if TYPE_CHECKING:
    from ulmfit_style.training.phases import TrainingPlan

BY_NUMBER = ("adamw_torch_fused", "adamw_torch", "sgd")
"""The optimizers that treat each number by itself, as `TrainingArguments.optim` has them; the first one is usual."""


@contextmanager
def seen_words(plan: TrainingPlan) -> Iterator[None]:
    """Train a smaller table of words while the block runs, where the result is the same."""
    words: Any = plan.model.get_input_embeddings()
    if plan.fast and type(words) is nn.Embedding and _is_exact(plan, words):
        seen = torch.zeros(words.num_embeddings, dtype=torch.bool)
        for row in range(len(plan.data.rows)):
            seen[plan.data.rows[row]["input_ids"]] = True
        with _smaller(words, seen.nonzero().flatten().to(plan.model.device)):
            yield
    else:
        yield


def _is_exact(plan: TrainingPlan, words: nn.Embedding) -> bool:
    """Tell whether words that are not in the rows have no gradient, and what that means for them is known."""
    is_trained = any(weights is words.weight for phase in plan.phases for weights in phase.trainable)
    # An output layer may have the same weights, and all words a gradient by it.
    modules = plan.model.modules()
    users = [module for module in modules for own in module.parameters(recurse=False) if own is words.weight]
    is_by_number = plan.options.trainer.get("optim", BY_NUMBER[0]) in BY_NUMBER and not plan.shard
    # Other objectives put words into the rows, a mask or random ones, and a decoder of its own reads the labels too.
    has_all_words = isinstance(plan.data.objective, Task) and not plan.model.config.is_encoder_decoder
    return is_trained and users == [words] and is_by_number and has_all_words


@contextmanager
def _smaller(words: nn.Embedding, seen: Tensor) -> Iterator[None]:
    """Let a table have the rows of some words (words,) alone, and a row of ones, which tells how much all others decay.

    Words that are not among them can be looked up, as those of rows that are scored on the way, but are not trained.
    """
    whole = words.weight.data
    places = torch.full((len(whole),), len(seen), device=whole.device)
    places[seen] = torch.arange(len(seen), device=whole.device)
    padding = None if words.padding_idx is None else int(places[words.padding_idx])

    def look_up(ids: Tensor) -> Tensor:
        rows = places[ids]
        others = whole[ids] * words.weight[-1].detach()
        return torch.where((rows < len(seen))[..., None], embedding(rows, words.weight, padding), others)

    words.weight.data = torch.cat([whole[seen], torch.ones_like(whole[:1])])
    words.forward = look_up  # type: ignore[assignment]
    try:
        yield
    finally:
        del words.forward
        whole.mul_(words.weight.data[-1])
        whole[seen] = words.weight.data[:-1]
        words.weight.data = whole
