"""Truncated backpropagation through time: a language model that carries its state reads documents part by part.

Each row of the batch is a stream of documents. The state that a part leaves is detached, and the next part of the
stream begins with it; a document begins with none. So each token is predicted as in one long pass over its document.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, final

import numpy as np
import torch
from accelerate import PartialState
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ulmfit_style.data.tokens import Chunks, Integers
from ulmfit_style.tasks.base import IGNORED
from ulmfit_style.tasks.base_generation import logits_at
from ulmfit_style.training.objectives import Batch, CausalLM, PhaseEpoch

HALVED, SPREAD = 0.05, 5
"""The share of the parts that are half as long as the others, and how many tokens all vary by (Merity et al. 2018)."""


@final
@dataclass(frozen=True, eq=False)
class StreamedLM(CausalLM):
    """Predicts the next token from all before it in its document, however many parts that takes."""

    can_be_packed: ClassVar[bool] = False

    max_length: int
    backward: bool = False
    """Whether the model reads from right to left. Here tokens are in the order in which they are read."""
    states: dict[int, Tensor] = field(default_factory=dict)
    """What the last part of each stream that this process reads has left, (numbers,), by the number of the stream."""

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the summed loss of parts, which go on from the states of their streams, or of whole documents."""
        if "streams" in batch:
            streams = batch["streams"].tolist()
            before = torch.stack([self.states[stream] for stream in streams]) if streams[0] in self.states else None
            loss, after = self._read(model, batch, before)
            self.states.update(zip(streams, after.detach().float(), strict=True))
            return loss
        losses, state = [], None
        for start in range(0, batch["input_ids"].shape[1], self.max_length):
            part = {name: column[:, start : start + self.max_length] for name, column in batch.items()}
            loss, state = self._read(model, part, state)
            losses.append(loss)
        return torch.stack(losses).sum()

    def _read(self, model: nn.Module, batch: Batch, state: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the summed loss of a part, with what the model adds to it in training, and the state that is left."""
        if self.backward:  # a model takes tokens as they stand in the text
            batch = {name: column.flip(1) for name, column in batch.items() if name != "streams"}
        predicted = batch["labels"].ne(IGNORED)
        with logits_at(model, predicted):
            outputs = model(**self.inputs(batch), starts=batch.get("starts"), state=state)
        loss = cross_entropy(outputs.logits.float(), batch["labels"][predicted], reduction="sum")
        return loss + outputs.penalty * model.training, outputs.state

    def collate(self, rows: Sequence[Mapping[str, Any]]) -> Batch:
        """Make a batch of whole documents."""
        return super().collate(list(map(self.as_read, rows)))

    def as_read(self, document: Mapping[str, Any]) -> dict[str, Any]:
        """Return the tokens of a document, and the bytes of each, in the order in which they are read."""
        return {name: document[name][:: -1 if self.backward else 1] for name in ("input_ids", "bytes")}

    def save(self, checkpoint: Path) -> None:
        """Save the states of this process."""
        # They share their memory.
        save_file({str(stream): state.clone() for stream, state in self.states.items()}, self._file(checkpoint))

    def load(self, checkpoint: Path) -> None:
        """Go on with the states that this process saved."""
        states = load_file(self._file(checkpoint), str(PartialState().device))
        self.states.update({int(stream): state for stream, state in states.items()})

    def _file(self, checkpoint: Path) -> Path:
        return checkpoint / f"states-{PartialState().process_index}.safetensors"


@final
@dataclass(frozen=True, eq=False)
class Streams:
    """The documents of an epoch in a new order, one after another, divided into as many streams as a batch has rows.

    A row is the next part of a stream, for which `collate` looks up the epoch. The parts are `max_length` tokens long
    on average; where they end is drawn: a pure function of (seed, phase and epoch, optimizer step), as the order is.
    """

    in_order: ClassVar[bool] = True

    documents: Chunks
    """One row each."""
    objective: StreamedLM
    batch_size: int
    seed: int

    @property
    def lengths(self) -> Integers:
        """The tokens of each row, on average."""
        return np.full(len(self), self.objective.max_length, dtype=np.int32)

    def __len__(self) -> int:
        return self.batch_size * math.ceil(self.documents.tokens / (self.batch_size * self.objective.max_length))

    def __getitem__(self, index: int, /) -> Mapping[str, Any]:
        return {"index": index}

    def collate(self, rows: Sequence[Mapping[str, Any]]) -> Batch:
        """Make a batch of parts, and `streams`, (batch,), the numbers of their streams."""
        parts = [self.part(row["phase_epoch"], row["index"]) for row in rows]
        batch = self.objective.pad(parts, [part["input_ids"] for part in parts], [part["labels"] for part in parts])
        return {**batch, "streams": torch.tensor([row["index"] % self.batch_size for row in rows])}

    def part(self, phase_epoch: PhaseEpoch, index: int) -> dict[str, Any]:
        """Return a part of a stream: the end of one document, whole ones, the beginning of another.

        A label is the token that follows in the document, of whatever part that is.
        """
        order, ends, borders = _epoch(self, phase_epoch)
        step, stream = divmod(index, self.batch_size)
        first, last = (int(ends[-1]) * number // self.batch_size for number in (stream, stream + 1))
        at, end = (first + int((last - first) * borders[number]) for number in (step, step + 1))
        pieces = []
        while at < end:
            number = int(np.searchsorted(ends, at, side="right"))
            document = self.objective.as_read(self.documents[int(order[number])])
            ids, sizes = document["input_ids"], document["bytes"]
            following = {"labels": np.append(ids[1:], IGNORED), "bytes": np.append(sizes[1:], 0)}
            columns = {"input_ids": ids, **following, "starts": np.arange(len(ids)) == 0}
            start = len(ids) - (int(ends[number]) - at)
            pieces.append({name: column[start : start + end - at] for name, column in columns.items()})
            at += len(pieces[-1]["input_ids"])
        part = {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}
        part["starts"][0] |= step == 0  # what stands before belongs to another stream
        return part


@lru_cache(maxsize=1)
def _epoch(streams: Streams, phase_epoch: PhaseEpoch) -> tuple[Integers, Any, Any]:
    """Return the order of the documents in an epoch, where each ends, and the shares of a stream between its parts."""
    random = np.random.default_rng([streams.seed, *phase_epoch])
    order = random.permutation(len(streams.documents)).astype(np.int32)
    steps, length = len(streams) // streams.batch_size, streams.objective.max_length
    means = np.where(random.random(steps) < HALVED, length / 2, length)
    borders = random.normal(means, SPREAD).clip(min=SPREAD).cumsum()
    ends = streams.documents.lengths[order].cumsum(dtype=np.int64)
    return order, ends, np.append(0, borders / borders[-1])
