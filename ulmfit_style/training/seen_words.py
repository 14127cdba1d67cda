"""While a model is trained on labelled rows, its table of words holds only those that occur in them.

No other word has a gradient, and an optimizer that treats each number by itself lets all of them decay alike: so the
result is the same. Of a small model with a large vocabulary, most gradients and moments are those of absent words.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding

from ulmfit_style.tasks.base import Task

if TYPE_CHECKING:
    from ulmfit_style.training.phases import TrainingPlan

BY_NUMBER = ("adamw_torch_fused", "adamw_torch", "sgd")
"""The optimizers that treat each number by itself, as `TrainingArguments.optim` has them; the first one is usual."""

MOST = 0.75
"""The share of the words that may occur: the whole table stays in memory beside the smaller one, so that more of them
would take more memory with their gradients and moments, and not less."""


def seen_words(plan: TrainingPlan) -> AbstractContextManager[None]:
    """Return the context in which a smaller table of words is trained, where the result is the same."""
    words: Any = plan.model.get_input_embeddings() if plan.fast else None
    if type(words) is not nn.Embedding or not _is_exact(plan, words):
        return nullcontext()
    seen = torch.arange(words.num_embeddings) == 0  # which windows are padded with
    for row in range(len(plan.data.rows)):
        seen[plan.data.rows[row]["input_ids"]] = True
    ends = [plan.data.rows[row] for row in plan.data.by_length[:: max(1, len(plan.data.rows) - 1)]]
    seen[plan.data.collate(ends)["input_ids"]] = True  # with padding, which XLNet may read
    is_smaller = seen.float().mean() <= MOST
    return _smaller(words, seen.nonzero().flatten().to(plan.model.device)) if is_smaller else nullcontext()


def _is_exact(plan: TrainingPlan, words: nn.Embedding) -> bool:
    """Tell whether words that are not in the rows have no gradient, and the optimizer only lets them decay."""
    is_trained = any(weights is words.weight for phase in plan.phases for weights in phase.trainable)
    # An output layer may have the same weights, and all words a gradient by it.
    users = [part for part in plan.model.modules() for own in part.parameters(recurse=False) if own is words.weight]
    is_by_number = plan.options.trainer.get("optim", BY_NUMBER[0]) in BY_NUMBER
    stays = not plan.shard and not plan.options.trainer.get("use_cpu")  # or weights move when training begins
    # Other objectives put words into the rows, a mask or random ones, and a decoder of its own reads the labels too.
    has_all_words = isinstance(plan.data.objective, Task) and not plan.model.config.is_encoder_decoder
    return is_trained and users == [words] and is_by_number and stays and has_all_words


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
