"""What the trainer minimises, and what a language model learns on unlabelled text.

That is to predict the next token, masked words, or spans that were taken out; and to stay near what it was. Logits
are computed at the predicted positions only.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Protocol, final

import numpy as np
import torch
from accelerate.utils import extract_model_from_parallel
from torch import nn
from torch.nn.functional import cosine_similarity, cross_entropy
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


@dataclass(frozen=True)
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
        }
        # Padding is a document of its own: a position that attends to nothing would become NaN.
        others = {"bytes": 0, "documents": -1, "positions": 0, "starts": 0}
        columns |= {name: ([row[name] for row in rows], fill) for name, fill in others.items() if name in rows[0]}
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


@final
@dataclass(frozen=True)
class MaskedLM(LanguageObjective):
    """Predicts masked whole words (BERT, section 3.1)."""

    auto_class: ClassVar[str] = architectures.MASKED_LM
    per: ClassVar[str] = "masked token"

    mask_probability: float
    seed: int

    @cached_property
    def _replacement_ids(self) -> Integers:
        """The tokens that may stand in for others: no padding, which some architectures do not count as a position."""
        return np.setdiff1d(np.arange(len(self.tokenizer), dtype=np.int32), self.tokenizer.all_special_ids)

    def collate(self, rows: Sequence[Mapping[str, Any]]) -> Batch:
        """Mask rows and pad them to the longest."""
        masked = (self.mask(row["input_ids"], row["words"], row["phase_epoch"], row["index"]) for row in rows)
        inputs, labels = zip(*masked, strict=True)
        return self.pad(rows, inputs, labels)

    def mask(self, ids: Integers, words: Integers, phase_epoch: PhaseEpoch, index: int) -> tuple[Integers, Integers]:
        """Mask whole words: of their tokens 80 % become [MASK], 10 % a random token, 10 % stay (BERT, section 3.1).

        A pure function of (seed, phase and epoch, index): workers, processes and a resumed run see the same masks.
        Words are those of `Chunks`: offsets alone give wrong ones with byte-level BPE and SentencePiece. -1 is no word.

        Returns:
            The masked ids and the labels, both (length,); a label is -100 where nothing is predicted.
        """
        random = np.random.default_rng([self.seed, *phase_epoch, index])
        inputs, labels = np.array(ids), np.full(len(ids), IGNORED)
        candidates = np.unique(words[words >= 0])
        if not len(candidates):
            return inputs, labels
        count = max(1, round(self.mask_probability * len(candidates)))
        chosen = np.isin(words, random.choice(candidates, size=count, replace=False))
        labels[chosen] = inputs[chosen]
        draw = random.random(len(ids))
        inputs[chosen & (draw < 0.8)] = self.tokenizer.mask_token_id
        swapped = chosen & (draw >= 0.8) & (draw < 0.9)
        inputs[swapped] = random.choice(self._replacement_ids, size=len(ids))[swapped]
        return inputs, labels


@final
@dataclass(frozen=True)
class Denoising(LanguageObjective):
    """Restores spans that were taken out of a text.

    With sentinels, each standing for one span, the target is the spans, each after its sentinel (span corruption:
    Raffel et al. 2020, section 3.1.4). Without, a mask stands for each span, and the target is the whole text (text
    infilling: Lewis et al. 2020, section 2.2).
    """

    auto_class: ClassVar[str] = architectures.ENCODER_DECODER
    per: ClassVar[str] = "target token"
    can_be_packed: ClassVar[bool] = False

    mask_probability: float
    seed: int
    sentinels: Sequence[int] = ()

    def collate(self, rows: Sequence[Mapping[str, Any]]) -> Batch:
        """Take spans out of rows, and pad these and their targets to the longest of each."""
        inputs, labels, sizes = zip(*map(self.corrupt, rows), strict=True)
        return self.pad([{"bytes": size} for size in sizes], inputs, labels)

    def corrupt(self, row: Mapping[str, Any]) -> tuple[Integers, Integers, Integers]:
        """Take spans of tokens, or of words where there are no sentinels, out of a row.

        A pure function of (seed, phase and epoch, index): workers, processes and a resumed run see the same spans.

        Returns:
            What is left, at most as long as the row was; the target; and how long each of its tokens is in bytes.
        """
        random = np.random.default_rng([self.seed, *row["phase_epoch"], row["index"]])
        ids, sizes = row["input_ids"], row["bytes"]
        # The places where a token or a word begins, and where the last of them ends.
        places = np.flatnonzero(row["words"] >= 0)
        begins = places if self.sentinels else places[np.unique(row["words"][places], return_index=True)[1]]
        bounds = np.append(begins, places[-1:] + 1)
        chosen = [(bounds[first], bounds[last]) for first, last in _spans(random, len(begins), self.mask_probability)]
        # Spans for which there are too few sentinels stay.
        marks = self.sentinels or [self.tokenizer.mask_token_id] * len(chosen)
        left, target, target_sizes, end = [], [], [], 0
        for mark, (start, stop) in zip(marks, chosen, strict=False):
            left += [ids[end:start], [mark]]
            target += [[mark], ids[start:stop]]
            target_sizes += [[0], sizes[start:stop]]
            end = stop
        inputs = np.concatenate([*left, ids[end:]])
        if not self.sentinels:
            return inputs, ids, sizes
        close = slice(bounds[-1] if len(bounds) else 0, None)
        return inputs, np.concatenate([*target, ids[close]]), np.concatenate([*target_sizes, sizes[close]])

    def logits(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        """Return the logits of the tokens of the target, (predicted, vocabulary)."""
        labels = batch["labels"]  # each architecture shifts them in its own way for its decoder to read
        inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "labels")}
        return model(**inputs, use_cache=False).logits[labels.ne(IGNORED)]


MEAN_SPAN = 3
"""The mean length of the spans: in tokens where there are sentinels (T5), else in words (BART)."""


def _spans(random: np.random.Generator, length: int, share: float) -> list[tuple[int, int]]:
    """Choose spans as T5's own code does: at least one, never two in a row, none first and one last.

    Returns:
        Where each begins, and where it ends.
    """
    masked = min(max(1, round(share * length)), length - 1)
    count = min(max(1, round(masked / MEAN_SPAN)), length - masked)
    if masked < 1:
        return []
    sizes, between = _parts(random, masked, count), _parts(random, length - masked, count)
    ends = np.cumsum(sizes + between)
    return list(zip(ends - sizes, ends, strict=True))


def _parts(random: np.random.Generator, total: int, count: int) -> Integers:
    """Cut a number at random into `count` parts, none of which is 0."""
    cuts = np.sort(random.choice(total - 1, size=count - 1, replace=False)) + 1
    return np.diff(cuts, prepend=0, append=total)


@final
@dataclass(frozen=True)
class Anchored:
    """An objective whose loss of a predicted token grows with how far the embedding of its document has moved.

    An embedding is the mean of a document's last hidden states. How far it has moved is one minus the cosine between
    that of the masked document and that of the whole one in the checkpoint, its teacher (Hinton et al. 2015). A
    checkpoint without a language-model head was trained for something else since its pretraining, such as to embed
    sentences, and masked language modelling alone undoes that (docs/measured.md).
    """

    objective: LanguageObjective
    checkpoint: PreTrainedModel
    """The model before training."""
    weight: float

    def count(self, batch: Batch) -> torch.Tensor:
        """Return the number of predicted tokens."""
        return self.objective.count(batch)

    def loss(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        """Return the cross entropy and the anchor's part, summed over the predicted tokens, a scalar."""
        kept: list[torch.Tensor] = []  # the last hidden states, (batch, length, width)
        body = extract_model_from_parallel(model).base_model
        with body.register_forward_hook(lambda _, arguments, output: kept.append(output[0])):
            loss = self.objective.loss(model, batch)
        predicted = batch["labels"].ne(IGNORED)
        whole = {**batch, "input_ids": torch.where(predicted, batch["labels"], batch["input_ids"])}
        with torch.no_grad():
            start = self.checkpoint.base_model.eval()(**self.objective.inputs(whole))[0]
        # A row holds one document, or several, which are numbered; padding is -1.
        documents = batch.get("documents", batch["attention_mask"] - 1)
        numbers = torch.arange(int(documents.max()) + 1, device=documents.device)
        members = (documents[:, None] == numbers[:, None]).to(start.dtype)  # (batch, documents, length)
        moved = 1 - cosine_similarity(members @ kept[0], members @ start, dim=-1)
        counts = (members @ predicted[..., None].to(start.dtype))[..., 0]
        return loss + self.weight * (counts * moved).sum()
