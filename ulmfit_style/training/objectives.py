"""What the trainer minimises, and what a language model learns on unlabelled text.

Logits are computed at the predicted positions only.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ulmfit_style.compute import processes
from ulmfit_style.data.tokens import Integers
from ulmfit_style.models import architectures
from ulmfit_style.tasks.base import IGNORED
from ulmfit_style.tasks.base_generation import logits_at
from ulmfit_style.training.batching import Rows
from ulmfit_style.training.packing import attention_mask

Batch = dict[str, torch.Tensor]

MAX_MEASURED_ROWS = 1000
"""Rows that are enough to measure a language model."""

PhaseEpoch = tuple[int, int]
"""A phase, counted from 1, and an epoch of it, from 0."""

HELDOUT_EPOCH: PhaseEpoch = (0, 0)
"""The phase and epoch whose masks measure a model: none is trained on them."""


class Objective(Protocol):
    """What the trainer minimises: the sum of losses, divided by the count over all batches of an optimizer step."""

    def loss(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        """Return the loss summed over the batch, a scalar."""

    def count(self, batch: Batch) -> torch.Tensor:
        """Return how many losses are summed, a scalar."""


class LanguageObjective(ABC):
    """An objective on unlabelled text."""

    auto_class: ClassVar[str]
    """The transformers auto class that loads a model with the head for it."""
    per: ClassVar[str]
    """What a loss is counted by."""
    causal: ClassVar[bool] = False
    """Whether a position attends only to those before it."""
    can_be_packed: ClassVar[bool] = True
    """Whether documents can share a row."""

    tokenizer: PreTrainedTokenizerBase

    @abstractmethod
    def collate(self, rows: Sequence[Mapping[str, Any]]) -> Batch:
        """Make a batch: `input_ids`, `attention_mask`, `labels` and `bytes`, each (batch, length).

        Packed rows have `documents` and `positions` too, and parts of streams `starts`, where documents begin. A
        decoder's `labels` and `bytes` have a length of their own.
        """

    def inputs(self, batch: Batch) -> Batch:
        """Return what a model is given of a batch."""
        inputs = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
        if "documents" in batch:
            inputs["attention_mask"] = attention_mask(batch["documents"], causal=self.causal)
            inputs["position_ids"] = batch["positions"]
        return inputs

    def logits(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        """Return the logits at the predicted positions, (predicted, vocabulary)."""
        with logits_at(model, batch["labels"].ne(IGNORED)):
            return model(**self.inputs(batch)).logits

    def loss(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        """Return the cross entropy summed over the predicted tokens, a scalar."""
        labels = batch["labels"][batch["labels"].ne(IGNORED)]
        return cross_entropy(self.logits(model, batch).float(), labels, reduction="sum")

    def count(self, batch: Batch) -> torch.Tensor:
        """Return the number of predicted tokens."""
        return batch["labels"].ne(IGNORED).sum()

    def pad(self, rows: Sequence[Any], inputs: Sequence[Integers], labels: Sequence[Integers]) -> Batch:
        """Pad rows on the right to the longest, and return tensors (batch, length)."""
        # A causal model's tokenizer may have no padding token; any will do, because nothing attends to it.
        columns = {
            "input_ids": (inputs, self.tokenizer.pad_token_id or 0),
            "attention_mask": ([np.ones_like(ids) for ids in inputs], 0),
            "labels": (labels, IGNORED),
            "bytes": ([row["bytes"] for row in rows], 0),
        }
        if "documents" in rows[0]:
            # Padding is a document of its own: a position that attends to nothing would become NaN.
            columns["documents"] = [row["documents"] for row in rows], -1
            columns["positions"] = [row["positions"] for row in rows], 0
        if "starts" in rows[0]:
            columns["starts"] = [row["starts"] for row in rows], 0
        tensors = {}
        for name, (values, fill_value) in columns.items():
            unpadded = [torch.from_numpy(np.array(value, np.int64)) for value in values]
            tensors[name] = pad_sequence(unpadded, batch_first=True, padding_value=fill_value)
        return tensors

    @torch.inference_mode()
    def measure(self, model: PreTrainedModel, rows: Rows, tokens: int = 4096) -> dict[str, float]:
        """Measure a language model on held-out rows, or a thousand of them evenly spread, always masked alike.

        Several processes share the rows: every one of them has to call this.

        Args:
            tokens: The most tokens of a batch, padding included: each may need logits as wide as the vocabulary.

        Returns:
            `loss`, the mean cross entropy in nats per masked token or per token; `perplexity`, its exponential,
            comparable within one tokenizer; and `bits_per_byte`, the loss in bits per UTF-8 byte of the predicted text,
            comparable between tokenizers, but not between objectives.
        """
        model.eval()
        measured = np.unique(np.linspace(0, len(rows) - 1, MAX_MEASURED_ROWS).round().astype(int))
        indices = processes.share(measured[np.argsort(-rows.lengths[measured], kind="stable")].tolist())
        sums = np.zeros(3)  # loss, predicted tokens, bytes
        while indices:
            size = max(1, tokens // int(rows.lengths[indices[0]]))
            batch = self.collate([{**rows[index], "phase_epoch": HELDOUT_EPOCH} for index in indices[:size]])
            indices = indices[size:]
            batch = {name: tensor.to(model.device) for name, tensor in batch.items()}
            predicted_bytes = batch["bytes"][batch["labels"].ne(IGNORED)].sum()
            sums += self.loss(model, batch).item(), int(self.count(batch)), int(predicted_bytes)
        total, count, size_in_bytes = np.sum(processes.from_all(sums), axis=0).tolist()
        loss = total / count
        return {"loss": loss, "perplexity": math.exp(loss), "bits_per_byte": total / math.log(2) / size_in_bytes}


@dataclass(frozen=True)
class CausalLM(LanguageObjective):
    """Predicts the next token."""

    auto_class: ClassVar[str] = architectures.CAUSAL_LM
    per: ClassVar[str] = "token"
    causal: ClassVar[bool] = True

    tokenizer: PreTrainedTokenizerBase

    def collate(self, rows: Sequence[Mapping[str, Any]]) -> Batch:
        """Pad rows to the longest; a label stands at the position that predicts it, one before its token's own."""
        batch = self.pad(rows, [row["input_ids"] for row in rows], [self._next(row) for row in rows])
        batch["bytes"] = batch["bytes"].roll(-1, dims=1)
        return batch

    def _next(self, row: Mapping[str, Any]) -> Integers:
        """Return the token that follows each, and nothing where a document ends."""
        following = np.append(row["input_ids"][1:], IGNORED)
        if "documents" in row:
            following[:-1][np.diff(row["documents"]) > 0] = IGNORED
        return following
