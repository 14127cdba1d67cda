"""How a model answers rows: the one streaming loop of evaluation and prediction."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import Any, TypeVar

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ulmfit_style.models.architectures import architecture
from ulmfit_style.tasks.base import IGNORED, Answer, Feature, Row, Task

WINDOW = 2048
"""Rows that are in memory at once, and within which features are sorted by length."""

BATCH = 64
"""Features a forward pass."""

T = TypeVar("T")


def collate(features: Sequence[Feature], tokenizer: PreTrainedTokenizerBase) -> dict[str, torch.Tensor]:
    """Pad features to the longest; `weight` and `bytes` become tensors (batch,).

    So do `labels`, where each is one; where each is a list, they become (batch, labels), padded to the longest with
    what is not learnt.
    """
    inputs = [{name: feature[name] for name in tokenizer.model_input_names if name in feature} for feature in features]
    batch: dict[str, torch.Tensor] = dict(tokenizer.pad(inputs, return_tensors="pt"))
    for name in ("labels", "weight", "bytes"):
        if name in features[0]:
            values = [feature[name] for feature in features]
            if isinstance(values[0], list) and len(set(map(len, values))) > 1:
                values = _padded(values, max(map(len, values)), left=tokenizer.padding_side == "left")
            batch[name] = torch.tensor(values)
    return batch


@torch.inference_mode()
def answers(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    task: Task,
    rows: Iterable[Row],
    max_length: int,
    done: Callable[[int, int], None] = lambda rows, long: None,
) -> Iterator[Answer]:
    """Answer rows, in their order.

    Args:
        max_length: Tokens per feature.
        done: Called for each batch with how many further rows it brought, and how many of them are longer.
    """
    task = task.for_architecture(architecture(model.config.model_type))
    for window in _batched(rows, WINDOW):
        encoded = [task.encode(row, tokenizer, max_length, None) for row in window]
        yield from map(
            task.merge, window, encoded, _said(partial(task.answer, model, tokenizer), model, tokenizer, encoded, done)
        )


@torch.inference_mode()
def likelihoods(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    task: Task,
    rows: Iterable[Row],
    max_length: int,
    done: Callable[[int, int], None] = lambda rows, long: None,
) -> Iterator[dict[str, float]]:
    """Return what the model makes of the right answers to rows, in their order: `Task.likelihoods`, summed over a row.

    Args:
        max_length: Tokens per feature.
        done: As for `answers`.
    """
    task = task.for_architecture(architecture(model.config.model_type))
    label2id: Any = model.config.label2id
    for window in _batched(rows, WINDOW):
        encoded = [task.encode(row, tokenizer, max_length, label2id) for row in window]
        for parts in _said(partial(task.likelihoods, model), model, tokenizer, encoded, done):
            yield {name: sum(part[name] for part in parts) for name in parts[0]}


def _said(
    say: Callable[[dict[str, torch.Tensor]], list[Any]],
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    encoded: Sequence[Sequence[Feature]],
    done: Callable[[int, int], None],
) -> list[list[Any]]:
    """Return what is said of each feature of each row, from batches of features of like length."""
    model.eval()
    said: list[list[Any]] = [[None] * len(parts) for parts in encoded]
    places = [(row, part) for row, parts in enumerate(encoded) for part in range(len(parts))]
    places.sort(key=lambda place: len(encoded[place[0]][place[1]]["input_ids"]))
    for batch in _batched(places, BATCH):
        features = [encoded[row][part] for row, part in batch]
        tensors = {name: tensor.to(model.device) for name, tensor in collate(features, tokenizer).items()}
        for (row, part), own in zip(batch, say(tensors), strict=True):
            said[row][part] = own
        firsts = [feature for feature, (_, part) in zip(features, batch, strict=True) if part == 0]
        done(len(firsts), sum(feature["long"] for feature in firsts))
    return said


def _padded(values: Sequence[list[int]], length: int, *, left: bool) -> list[list[int]]:
    """Pad labels, on the side on which tokens are padded."""
    paddings = [[IGNORED] * (length - len(value)) for value in values]
    return [[*padding, *value] if left else [*value, *padding] for value, padding in zip(values, paddings, strict=True)]


def _batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """`itertools.batched`, which Python 3.11 has not."""
    rest = iter(items)
    while batch := list(islice(rest, size)):
        yield batch
