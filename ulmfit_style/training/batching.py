"""Datasets of encoded rows, the order in which they are trained, and how rows become a batch."""

import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import pairwise
from typing import Any, Protocol, final

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerBase

from ulmfit_style.console import progress
from ulmfit_style.data.disk_list import DiskList
from ulmfit_style.data.tokens import Integers
from ulmfit_style.tasks.base import IGNORED, Feature

BATCH = 64
"""Rows or features in a forward pass of a model that does not learn, at most."""

CPU_TOKENS = 512
"""The same in tokens, padding included, on a CPU, whose cache holds what is computed of so many."""

POOL = 50
"""Batches' worth of rows that are sorted by length together."""

Collate = Callable[[Sequence[Any]], dict[str, torch.Tensor]]
"""Makes a batch of rows."""

Forward = Callable[[Sequence[int], dict[str, torch.Tensor]], object]


class Rows(Protocol):
    """Encoded rows, each with its `input_ids`."""

    @property
    def lengths(self) -> Integers:
        """The tokens of each row."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Mapping[str, Any]: ...


def parts(rows: Rows) -> list[slice]:
    """Return the parts of rows that are read one after another: of a corpus that is streamed its shards; else all."""
    ends = [0, *getattr(rows, "ends", [len(rows)])]
    return [slice(int(start), int(end)) for start, end in pairwise(ends) if start < end]


@final
class EncodedDataset(DiskList):
    """Encoded rows on the disk."""

    @cached_property
    def lengths(self) -> Integers:
        """The tokens of each row."""
        return np.array([len(row["input_ids"]) for row in self], dtype=np.int32)


@final
class ShuffledDataset(Dataset[Any]):
    """Rows in a random order that is a pure function of (seed, phase, epoch), rows of similar length together.

    Read from first to last, so that workers, processes and a resumed run need no random state to see the same batches:
    the order of the Trainer's own length-grouped sampler depends on torch's global one, and is lost on resume.

    Args:
        multiple: How many rows several processes take together, or 1. A short last batch is filled with blank rows:
            accelerate would repeat rows instead, and these would count twice.
    """

    def __init__(self, rows: Rows, batch_size: int, seed: int, phase: int, multiple: int = 1) -> None:
        self.rows, self.batch_size, self.seed, self.phase, self.multiple = rows, batch_size, seed, phase, multiple
        self._lengths = rows.lengths
        self.start_epoch(0)

    @property
    def tokens_per_batch(self) -> float:
        """The tokens of a batch, on average."""
        return float(self._lengths.mean()) * self.batch_size

    def start_epoch(self, epoch: int) -> None:
        """Take the order of an epoch, and its masks, where rows have them."""
        self.epoch = epoch
        self._order = self.order(epoch)

    def order(self, epoch: int) -> list[int]:
        """Return the rows' indices in the order of an epoch: shuffled, sorted within pools, batches shuffled.

        Rows of which each goes on where another one ended say that they stay `in_order`.
        """
        if getattr(self.rows, "in_order", False):
            return list(range(len(self.rows)))
        random = np.random.default_rng([self.seed, self.phase, epoch])
        some, size = parts(self.rows), self.batch_size
        if len(some) > 1:
            random.shuffle(some)
        order, short = list[int](), np.zeros(0, dtype=np.int64)
        for part in some:
            shuffled = np.append(short, part.start + random.permutation(part.stop - part.start))
            batches = []
            for start in range(0, len(shuffled), POOL * size):
                members = shuffled[start : start + POOL * size]
                members = members[np.argsort(self._lengths[members], kind="stable")]
                batches += [members[at : at + size] for at in range(0, len(members), size)]
            # A short batch goes on in the next part, and comes last in the end, or all after it would be cut elsewhere.
            short = batches.pop() if len(batches[-1]) < size else short[:0]
            random.shuffle(batches)
            order += [int(index) for batch in batches for index in batch]
        return [*order, *short.tolist()]

    def __len__(self) -> int:
        return math.ceil(len(self.rows) / self.multiple) * self.multiple

    def __getitem__(self, place: int) -> Any:
        blank = {"blank": True} if place >= len(self.rows) else {}
        return {**self.rows[self._order[place % len(self.rows)]], "phase_epoch": (1 + self.phase, self.epoch), **blank}


def without_blanks(collate: Callable[[Sequence[Any]], dict[str, Any]], rows: Sequence[Any]) -> dict[str, Any]:
    """Collate the rows that are not blank; if all are, one of them, in a batch that is marked by `blank`.

    A process that has no row left in an optimizer step still takes part in it, or the others would wait. The places of
    rows in their files go along, if they know them: errors name them.
    """
    real = [row for row in rows if "blank" not in row]
    places = [row["place"] for row in real if "place" in row]
    marks = {"places": places} if places else {} if real else {"blank": True}
    return {**collate(real or rows[:1]), **marks}


def passes(lengths: Sequence[int], device: torch.device, *, writes: bool = False) -> Iterator[slice]:
    """Cut rows into the batches of a model that does not learn.

    Args:
        lengths: The tokens of each row, the shortest first.
        writes: Whether the model writes, and reads all of its weights for each token: then many rows have to share it.
    """
    most, start = CPU_TOKENS if device.type == "cpu" and not writes else sys.maxsize, 0
    for end in range(1, len(lengths) + 1):
        is_full = end - start == BATCH or (end < len(lengths) and (end + 1 - start) * lengths[end] > most)
        if is_full or end == len(lengths):
            yield slice(start, end)
            start = end


@torch.inference_mode()
def run_over(rows: Rows, order: Sequence[int], model: Any, collate: Collate, forward: Forward, title: str) -> None:
    """Run a model over rows that it does not learn from, in this order and without dropout.

    Args:
        order: Their numbers, the shortest row first.
        forward: Calls the model with a batch; it is also given the numbers of the rows in it.
        title: What the progress is called.
    """
    model.eval()
    with progress(title, len(order)) as bar:
        for some in passes(rows.lengths[order].tolist(), model.device):
            numbers = order[some]
            batch = collate([rows[row] for row in numbers])
            forward(numbers, {name: tensor.to(model.device) for name, tensor in batch.items()})
            bar.advance(len(numbers))


def collate(features: Sequence[Feature], tokenizer: PreTrainedTokenizerBase) -> dict[str, torch.Tensor]:
    """Pad features to the longest; `weight` and `bytes` become tensors (batch,).

    So do `labels` of one number each; lists of labels become (batch, labels), padded with `IGNORED`.
    """
    inputs = [{name: feature[name] for name in tokenizer.model_input_names if name in feature} for feature in features]
    batch: dict[str, torch.Tensor] = dict(tokenizer.pad(inputs, return_tensors="pt"))
    for name in [name for name in ("labels", "weight", "bytes") if name in features[0]]:
        values = [torch.tensor(feature[name]) for feature in features]
        if values[0].dim():
            side = tokenizer.padding_side
            batch[name] = pad_sequence(values, batch_first=True, padding_value=IGNORED, padding_side=side)
        else:
            batch[name] = torch.stack(values)
    return batch
