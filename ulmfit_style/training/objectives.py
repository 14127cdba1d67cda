"""What a model is trained to do on unlabelled text: predict masked words, or the next token.

Logits are computed at the predicted positions only.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from accelerate.utils import extract_model_from_parallel
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ulmfit_style import architectures
from ulmfit_style.config import Adapt

Batch = Mapping[str, torch.Tensor]

IGNORED = -100
"""The label of a position that is not predicted."""

Turn = tuple[int, int]
"""A phase, counted from 1, and an epoch of it, from 0."""

MEASURING: Turn = (0, 0)
"""The turn whose masks measure a model: no phase trains on them."""


class Objective(Protocol):
    """What the trainer minimises: the sum of losses, divided by the count over all batches of an optimizer step."""

    def loss(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        """Return the loss summed over the batch, a scalar."""

    def count(self, batch: Batch) -> torch.Tensor:
        """Return how many losses are summed, a scalar."""


class LanguageObjective(Objective, Protocol):
    """An objective on unlabelled text."""

    auto_class: ClassVar[str]
    """The transformers auto class that loads a model with the head for it."""
    per: ClassVar[str]
    """What a loss is counted by."""

    def collate(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """Make a batch: `input_ids`, `attention_mask`, `labels` and `bytes`, each (batch, length)."""


class Chunks(Dataset[dict[str, Any]]):
    """Documents as token ids: one row per document, or several where it is longer than `max_length`.

    Nothing is dropped and no row holds two documents, so that documents do not see each other.
    """

    def __init__(self, documents: Sequence[str], tokenizer: PreTrainedTokenizerBase, max_length: int) -> None:
        encoded = tokenizer(
            list(documents), truncation=True, max_length=max_length, return_overflowing_tokens=True, stride=0
        )
        self.ids: list[list[int]] = encoded["input_ids"]
        self.words = [encoding.word_ids for encoding in encoded.encodings]
        self.bytes = [
            [len(documents[document][start:end].encode()) for start, end in encoding.offsets]
            for document, encoding in zip(encoded["overflow_to_sample_mapping"], encoded.encodings, strict=True)
        ]

    @property
    def tokens(self) -> int:
        """The number of tokens of all rows, special tokens included."""
        return sum(map(len, self.ids))

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {
            "input_ids": self.ids[index],
            "words": self.words[index],
            "bytes": self.bytes[index],
            "index": index,
        }


@dataclass(frozen=True)
class MaskedLM:
    """Predicts masked whole words (BERT, section 3.1)."""

    auto_class: ClassVar[str] = "AutoModelForMaskedLM"
    per: ClassVar[str] = "masked token"

    tokenizer: PreTrainedTokenizerBase
    mask_probability: float
    seed: int

    def collate(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """Mask rows and pad them to the longest."""
        masked = [self.mask(row["input_ids"], row["words"], row["turn"], row["index"]) for row in rows]
        return _padded(rows, [inputs for inputs, _ in masked], [labels for _, labels in masked], self.tokenizer)

    def mask(
        self, ids: Sequence[int], words: Sequence[int | None], turn: Turn, index: int
    ) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """Mask whole words: of their tokens 80 % become [MASK], 10 % a random token, 10 % stay (BERT, section 3.1).

        A pure function of (seed, turn, index), so that workers, processes and a resumed run see the same masks.
        Words are the tokenizer's own, for offsets tell them wrongly with byte-level BPE and SentencePiece.

        Returns:
            The masked ids and the labels, both (length,); a label is -100 where nothing is predicted.
        """
        random = np.random.default_rng([self.seed, *turn, index])
        inputs, labels = np.array(ids), np.full(len(ids), IGNORED)
        word_of = np.array([-1 if word is None else word for word in words])
        candidates = np.unique(word_of[word_of >= 0])
        if not len(candidates):
            return inputs, labels
        count = max(1, round(self.mask_probability * len(candidates)))
        chosen = np.isin(word_of, random.choice(candidates, size=count, replace=False))
        labels[chosen] = inputs[chosen]
        fate = random.random(len(ids))
        inputs[chosen & (fate < 0.8)] = self.tokenizer.mask_token_id
        swapped = chosen & (fate >= 0.8) & (fate < 0.9)
        inputs[swapped] = random.integers(len(self.tokenizer), size=len(ids))[swapped]
        return inputs, labels

    def loss(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        """Return the cross entropy summed over the masked positions."""
        return _loss(model, batch)

    def count(self, batch: Batch) -> torch.Tensor:
        """Return the number of masked positions."""
        return batch["labels"].ne(IGNORED).sum()


@dataclass(frozen=True)
class CausalLM:
    """Predicts the next token."""

    auto_class: ClassVar[str] = "AutoModelForCausalLM"
    per: ClassVar[str] = "token"

    tokenizer: PreTrainedTokenizerBase

    def collate(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """Pad rows to the longest; a label stands at the position that predicts it, one before its token's own."""
        labels = [np.array([*row["input_ids"][1:], IGNORED]) for row in rows]
        batch = _padded(rows, [np.array(row["input_ids"]) for row in rows], labels, self.tokenizer)
        batch["bytes"] = batch["bytes"].roll(-1, dims=1)
        return batch

    def loss(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        """Return the cross entropy summed over the predicted tokens."""
        return _loss(model, batch)

    def count(self, batch: Batch) -> torch.Tensor:
        """Return the number of predicted tokens."""
        return batch["labels"].ne(IGNORED).sum()


@contextmanager
def logits_at(model: nn.Module, positions: torch.Tensor) -> Iterator[None]:
    """Let a language model compute logits at the chosen positions only: (chosen, vocabulary).

    The vocabulary is by far the widest layer of a small model; masked language modelling needs one position in seven,
    and padding needs none. The head works on each position by itself, so that the logits are those of the whole head.
    `positions` is (batch, length), boolean.
    """
    inner = extract_model_from_parallel(model)

    def select(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        whole = isinstance(args[0], torch.Tensor) and args[0].shape[:2] == positions.shape and args[0].dim() == 3
        return (args[0][positions], *args[1:]) if whole else None

    heads = [child for child in inner.children() if child is not inner.base_model]
    hooks = [head.register_forward_pre_hook(select) for head in heads]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _loss(model: nn.Module, batch: Batch) -> torch.Tensor:
    predicted = batch["labels"].ne(IGNORED)
    with logits_at(model, predicted):
        logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    return cross_entropy(logits.float(), batch["labels"][predicted], reduction="sum")


def _padded(
    rows: Sequence[Mapping[str, Any]],
    inputs: Sequence[np.ndarray[Any, Any]],
    labels: Sequence[np.ndarray[Any, Any]],
    tokenizer: PreTrainedTokenizerBase,
) -> dict[str, torch.Tensor]:
    """Pad rows on the right to the longest: all tensors (batch, length)."""
    shape = len(rows), max(map(len, inputs))
    # A causal model's tokenizer may have no padding token; what is not attended to may be any token.
    batch = {
        "input_ids": torch.full(shape, tokenizer.pad_token_id or 0),
        "attention_mask": torch.zeros(shape, dtype=torch.long),
        "labels": torch.full(shape, IGNORED),
        "bytes": torch.zeros(shape, dtype=torch.long),
    }
    for place, row in enumerate(rows):
        size = len(inputs[place])
        batch["input_ids"][place, :size] = torch.from_numpy(inputs[place])
        batch["attention_mask"][place, :size] = 1
        batch["labels"][place, :size] = torch.from_numpy(labels[place])
        batch["bytes"][place, :size] = torch.tensor(row["bytes"])
    return batch


def choose(name: str, model_type: str, tokenizer: PreTrainedTokenizerBase, options: Adapt) -> LanguageObjective:
    """Return the objective that the config names, or for `auto` that of the architecture.

    Raises:
        UserError: if the architecture has no head for it.
    """
    if architectures.objective(name, model_type) == "clm":
        return CausalLM(tokenizer)
    return MaskedLM(tokenizer, options.mask_probability, options.seed)


@torch.inference_mode()
def heldout(
    model: PreTrainedModel, objective: LanguageObjective, rows: Chunks, batch_size: int = 64
) -> dict[str, float]:
    """Measure a language model on held-out documents, masks being always the same.

    Returns:
        `loss`, the mean cross entropy in nats per masked token or per token, and `bits_per_byte`, the same in bits per
        UTF-8 byte of the predicted text: comparable between tokenizers, but not between masked and causal models.
    """
    model.eval()
    order = sorted(range(len(rows)), key=lambda index: len(rows.ids[index]))
    total, count, size = 0.0, 0, 0
    for start in range(0, len(order), batch_size):
        batch = objective.collate([{**rows[index], "turn": MEASURING} for index in order[start : start + batch_size]])
        batch = {name: tensor.to(model.device) for name, tensor in batch.items()}
        total += objective.loss(model, batch).item()
        count += int(objective.count(batch))
        size += int(batch["bytes"][batch["labels"].ne(IGNORED)].sum())
    return {"loss": total / count, "bits_per_byte": total / math.log(2) / size}
