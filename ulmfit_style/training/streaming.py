"""Truncated backpropagation through time: a language model that carries its state reads documents part by part.

Each row of the batch is a stream of documents. The state that a part leaves is detached, and the next part of the
stream begins with it; a document begins with none. So each token is predicted as in one long pass over its document.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, final

import numpy as np
import torch
from accelerate import PartialState
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn.functional import cross_entropy
from transformers import PreTrainedTokenizerBase

from ulmfit_style.data.tokens import Chunks, Integers
from ulmfit_style.models import architectures
from ulmfit_style.tasks.base import IGNORED
from ulmfit_style.tasks.base_generation import logits_at
from ulmfit_style.training.objectives import Batch, LanguageObjective, PhaseEpoch

HALVED, SPREAD = 0.05, 5
"""The share of the parts that are half as long as the others, and how many tokens all vary by (Merity et al. 2018)."""


@final
class StreamedLM(LanguageObjective):
    """Predicts the next token from all before it in its document, however many parts that takes."""

    auto_class: ClassVar[str] = architectures.CAUSAL_LM
    per: ClassVar[str] = "token"
    causal: ClassVar[bool] = True
    can_be_packed: ClassVar[bool] = False

    def __init__(self, tokenizer: PreTrainedTokenizerBase, max_length: int, batch_size: int) -> None:
        self.tokenizer, self.max_length, self.batch_size = tokenizer, max_length, batch_size
        self.states: torch.Tensor | None = None
        """What the last part of each stream has left, (streams, numbers); of those that this process reads."""

    def collate(self, rows: Sequence[Mapping[str, Any]]) -> Batch:
        """Pad whole documents, or parts of streams, which have the number of their stream in `streams`, (batch,)."""
        parts = [row if "stream" in row else _part(row, 0, len(row["input_ids"])) for row in rows]
        batch = self.pad(parts, [part["input_ids"] for part in parts], [part["labels"] for part in parts])
        streams = [part["stream"] for part in parts if "stream" in part]
        return {**batch, "streams": torch.tensor(streams)} if streams else batch

    def loss(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        """Return the summed loss of parts, which go on from the states of their streams, or of whole documents."""
        if (streams := batch.get("streams")) is not None:
            loss, after = self._read(model, batch, None if self.states is None else self.states[streams])
            if self.states is None:
                self.states = torch.zeros(self.batch_size, after.shape[1], device=after.device)
            self.states[streams] = after.detach().float()
            return loss
        loss, state = torch.zeros((), device=batch["input_ids"].device), None
        for start in range(0, batch["input_ids"].shape[1], self.max_length):
            part = {name: column[:, start : start + self.max_length] for name, column in batch.items()}
            loss_of_part, state = self._read(model, part, state)
            loss = loss + loss_of_part
        return loss

    def _read(self, model: nn.Module, batch: Batch, state: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the summed loss of a part, with what the model adds to it in training, and the state that is left."""
        predicted = batch["labels"].ne(IGNORED)
        with logits_at(model, predicted):
            outputs = model(**self.inputs(batch), starts=batch["starts"], state=state)
        loss = cross_entropy(outputs.logits.float(), batch["labels"][predicted], reduction="sum")
        return loss if outputs.penalty is None else loss + outputs.penalty, outputs.state

    def save(self, checkpoint: Path) -> None:
        """Save the states of the streams that this process reads."""
        assert self.states is not None  # some were read before
        save_file({"states": self.states}, checkpoint / f"states-{PartialState().process_index}.safetensors")

    def load(self, checkpoint: Path) -> None:
        """Go on with the states that were saved."""
        file = checkpoint / f"states-{PartialState().process_index}.safetensors"
        self.states = load_file(file, str(PartialState().device))["states"]


@final
@dataclass(frozen=True)
class Streams:
    """The documents of an epoch in a new order, one after another, divided into as many streams as a batch has rows.

    A row is the next part of a stream, for which `collate` looks up the epoch. The parts are `max_length` tokens long
    on average; where they end is drawn: a pure function of (seed, phase and epoch, optimizer step), as the order is.
    """

    in_order: ClassVar[bool] = True

    documents: Chunks
    """One row each."""
    objective: StreamedLM
    seed: int

    @property
    def lengths(self) -> Integers:
        """The tokens of each row, on average."""
        return np.full(len(self), self.objective.max_length, dtype=np.int32)

    def __len__(self) -> int:
        batch_size, length = self.objective.batch_size, self.objective.max_length
        return batch_size * math.ceil(self.documents.tokens / (batch_size * length))

    def __getitem__(self, index: int, /) -> Mapping[str, Any]:
        return {"index": index}

    def collate(self, rows: Sequence[Mapping[str, Any]]) -> Batch:
        """Make a batch of parts."""
        return self.objective.collate([self.part(row["phase_epoch"], row["index"]) for row in rows])

    def part(self, phase_epoch: PhaseEpoch, index: int) -> dict[str, Any]:
        """Return a part of a stream: the end of one document, whole ones, the beginning of another."""
        order, ends, borders = _epoch(self, phase_epoch)
        step, stream = divmod(index, self.objective.batch_size)
        first, last = (int(ends[-1]) * number // self.objective.batch_size for number in (stream, stream + 1))
        at, end = (first + int((last - first) * borders[number]) for number in (step, step + 1))
        pieces = []
        while at < end:
            number = int(np.searchsorted(ends, at, side="right"))
            document = self.documents[int(order[number])]
            start = len(document["input_ids"]) - (int(ends[number]) - at)
            pieces.append(_part(document, start, start + end - at))
            at += len(pieces[-1]["input_ids"])
        part: dict[str, Any] = {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}
        part["starts"][0] |= step == 0  # what stands before belongs to another stream
        return {**part, "stream": stream}


@lru_cache(maxsize=1)
def _epoch(streams: Streams, phase_epoch: PhaseEpoch) -> tuple[Integers, Any, Any]:
    """Return the order of the documents in an epoch, where each ends, and the shares of a stream between its parts."""
    random = np.random.default_rng([streams.seed, *phase_epoch])
    order = random.permutation(len(streams.documents)).astype(np.int32)
    steps, length = len(streams) // streams.objective.batch_size, streams.objective.max_length
    borders = (
        random.normal(np.where(random.random(steps) < HALVED, length / 2, length), SPREAD).clip(min=SPREAD).cumsum()
    )
    ends = streams.documents.lengths[order].cumsum(dtype=np.int64)
    return order, ends, np.append(0, borders / borders[-1])


def _part(document: Mapping[str, Any], start: int, end: int) -> dict[str, Any]:
    """Return tokens of a document, each with the one that follows it in the document, which is predicted."""
    following = {"labels": np.append(document["input_ids"][1:], IGNORED), "bytes": np.append(document["bytes"][1:], 0)}
    starts = np.arange(len(document["input_ids"])) == 0
    columns = {"input_ids": document["input_ids"], **following, "starts": starts}
    return {name: column[start:end] for name, column in columns.items()}
