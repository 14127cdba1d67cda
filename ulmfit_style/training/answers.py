"""How a model answers rows: the one streaming loop of evaluation and prediction."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import TypeVar

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ulmfit_style.tasks.base import Answer, Feature, Row, Task

WINDOW = 2048
"""Rows that are in memory at once, and within which features are sorted by length."""

BATCH = 64
"""Features a forward pass."""

T = TypeVar("T")


def collate(features: Sequence[Feature], tokenizer: PreTrainedTokenizerBase) -> dict[str, torch.Tensor]:
    """Pad features to the longest; `labels` become a tensor (batch,) or (batch, classes), and `weight` one (batch,)."""
    inputs = [{name: feature[name] for name in tokenizer.model_input_names if name in feature} for feature in features]
    batch: dict[str, torch.Tensor] = dict(tokenizer.pad(inputs, return_tensors="pt"))
    for name in ("labels", "weight"):
        if name in features[0]:
            batch[name] = torch.tensor([feature[name] for feature in features])
    return batch


@torch.inference_mode()
def answers(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    task: Task,
    rows: Iterable[Row],
    max_length: int,
    done: Callable[[Sequence[Feature]], None] = lambda features: None,
) -> Iterator[Answer]:
    """Answer rows, in their order.

    Args:
        max_length: Tokens per feature.
        done: Called with the features that were answered, for a progress bar and to count those that were cut.
    """
    model.eval()
    for window in _batched(rows, WINDOW):
        features = [
            {"row": place, **feature}
            for place, row in enumerate(window)
            for feature in task.encode(row, tokenizer, max_length, None)
        ]
        features.sort(key=lambda feature: len(feature["input_ids"]))
        found: Mapping[int, list[Answer]] = defaultdict(list)
        for batch in _batched(features, BATCH):
            tensors = {name: tensor.to(model.device) for name, tensor in collate(batch, tokenizer).items()}
            for feature, answer in zip(batch, task.answer(model, tensors), strict=True):
                found[feature["row"]].append(answer)
            done(batch)
        yield from (task.merge(found[place]) for place in range(len(window)))


def _batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """`itertools.batched`, which Python 3.11 has not."""
    rest = iter(items)
    while batch := list(islice(rest, size)):
        yield batch
