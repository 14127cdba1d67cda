"""What a model is trained to do on unlabelled text: predict masked words or the next token, or restore what is gone.

Logits of masked words and of next tokens are computed at the predicted positions only.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Protocol, TypedDict

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ulmfit_style import processes
from ulmfit_style.config.stages import LanguageModelling
from ulmfit_style.models import architectures
from ulmfit_style.models.checkpoints import sentinels
from ulmfit_style.tasks.base import IGNORED
from ulmfit_style.tasks.logits import logits_at
from ulmfit_style.training.batching import Integers, Rows
from ulmfit_style.training.packing import apart

Batch = Mapping[str, torch.Tensor]

SHOWN = 24
"""Tokens of a sample."""

MOST_MEASURED = 1000
"""Rows that are enough to measure a language model."""

PhaseEpoch = tuple[int, int]
"""A phase, counted from 1, and an epoch of it, from 0."""

HELDOUT_EPOCH: PhaseEpoch = (0, 0)
"""The turn whose masks measure a model: no phase trains on them."""


class Sample(TypedDict):
    """What a language model makes of a held-out text."""

    text: str
    right: str
    answer: str


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
    causal: ClassVar[bool | None]
    """Whether a position attends to those before it alone; None where documents cannot share a row."""

    def collate(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """Make a batch: `input_ids`, `attention_mask`, `labels` and `bytes`, each (batch, length).

        Packed rows have `documents` and `positions` too. A decoder's `labels` and `bytes` have a length of their own.
        """

    def sample(self, model: PreTrainedModel, row: Mapping[str, Any]) -> Sample:
        """Let the model complete a row, to be looked at."""


@dataclass(frozen=True)
class MaskedLM:
    """Predicts masked whole words (BERT, section 3.1)."""

    auto_class: ClassVar[str] = "AutoModelForMaskedLM"
    per: ClassVar[str] = "masked token"
    causal: ClassVar[bool | None] = False

    tokenizer: PreTrainedTokenizerBase
    mask_probability: float
    seed: int

    @cached_property
    def _ordinary(self) -> Integers:
        """The tokens that may stand in for others: no padding, which some architectures do not count as a position."""
        return np.setdiff1d(np.arange(len(self.tokenizer), dtype=np.int32), self.tokenizer.all_special_ids)

    def collate(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """Mask rows and pad them to the longest."""
        masked = [self.mask(row["input_ids"], row["words"], row["phase_epoch"], row["index"]) for row in rows]
        return _padded(rows, [inputs for inputs, _ in masked], [labels for _, labels in masked], self.tokenizer)

    def mask(self, ids: Integers, words: Integers, turn: PhaseEpoch, index: int) -> tuple[Integers, Integers]:
        """Mask whole words: of their tokens 80 % become [MASK], 10 % a random token, 10 % stay (BERT, section 3.1).

        A pure function of (seed, turn, index), so that workers, processes and a resumed run see the same masks.
        Words are the tokenizer's own, for offsets tell them wrongly with byte-level BPE and SentencePiece; -1 is none.

        Returns:
            The masked ids and the labels, both (length,); a label is -100 where nothing is predicted.
        """
        random = np.random.default_rng([self.seed, *turn, index])
        inputs, labels = np.array(ids), np.full(len(ids), IGNORED)
        candidates = np.unique(words[words >= 0])
        if not len(candidates):
            return inputs, labels
        count = max(1, round(self.mask_probability * len(candidates)))
        chosen = np.isin(words, random.choice(candidates, size=count, replace=False))
        labels[chosen] = inputs[chosen]
        fate = random.random(len(ids))
        inputs[chosen & (fate < 0.8)] = self.tokenizer.mask_token_id
        swapped = chosen & (fate >= 0.8) & (fate < 0.9)
        inputs[swapped] = random.choice(self._ordinary, size=len(ids))[swapped]
        return inputs, labels

    def loss(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        """Return the cross entropy summed over the masked positions."""
        return _loss(model, batch, causal=False)

    def count(self, batch: Batch) -> torch.Tensor:
        """Return the number of masked positions."""
        return batch["labels"].ne(IGNORED).sum()

    @torch.inference_mode()
    def sample(self, model: PreTrainedModel, row: Mapping[str, Any]) -> Sample:
        """Mask a word of one token, and let the model guess it: the three likeliest tokens."""
        model.eval()
        ids, words = row["input_ids"].copy(), row["words"]
        numbers, sizes = np.unique(words[words >= 0], return_counts=True)
        single = np.flatnonzero(np.isin(words, numbers[sizes == 1]))
        telling = [
            place for place in single if len(word := _decoded(self.tokenizer, ids[place])) > 3 and word.isalpha()
        ]
        random = np.random.default_rng([self.seed, *HELDOUT_EPOCH, row["index"]])
        place = int(random.choice(telling or np.flatnonzero(words >= 0)))
        right = _decoded(self.tokenizer, ids[place])
        ids[place] = self.tokenizer.mask_token_id
        logits = model(torch.tensor(ids, dtype=torch.long, device=model.device)[None]).logits[0, place]
        guesses = [_decoded(self.tokenizer, token) for token in logits.topk(3).indices.tolist()]
        shown = slice(max(0, place - SHOWN // 2), place + SHOWN // 2)
        text = _decoded(self.tokenizer, ids[shown][words[shown] >= 0])
        return Sample(text=text, right=right, answer=", ".join(guesses))


@dataclass(frozen=True)
class CausalLM:
    """Predicts the next token."""

    auto_class: ClassVar[str] = "AutoModelForCausalLM"
    per: ClassVar[str] = "token"
    causal: ClassVar[bool | None] = True

    tokenizer: PreTrainedTokenizerBase

    def collate(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """Pad rows to the longest; a label stands at the position that predicts it, one before its token's own."""
        labels = [self._next(row) for row in rows]
        batch = _padded(rows, [row["input_ids"] for row in rows], labels, self.tokenizer)
        batch["bytes"] = batch["bytes"].roll(-1, dims=1)
        return batch

    def _next(self, row: Mapping[str, Any]) -> Integers:
        """Return the token that follows each, and nothing where a document ends."""
        following = np.append(row["input_ids"][1:], IGNORED)
        if "documents" in row:
            following[:-1][np.diff(row["documents"]) > 0] = IGNORED
        return following

    def loss(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        """Return the cross entropy summed over the predicted tokens."""
        return _loss(model, batch, causal=True)

    def count(self, batch: Batch) -> torch.Tensor:
        """Return the number of predicted tokens."""
        return batch["labels"].ne(IGNORED).sum()

    @torch.inference_mode()
    def sample(self, model: PreTrainedModel, row: Mapping[str, Any]) -> Sample:
        """Let the model go on from the start of a row, with the likeliest token each time."""
        model.eval()
        ids = row["input_ids"][:SHOWN]
        prompt = torch.tensor(ids[: len(ids) // 2], dtype=torch.long, device=model.device)[None]
        whole = model.generate(  # type: ignore[operator]  # a model with a causal head can
            prompt,
            attention_mask=torch.ones_like(prompt),
            max_new_tokens=SHOWN // 2,
            do_sample=False,
            pad_token_id=self.tokenizer.pad_token_id or self.tokenizer.eos_token_id,
        )
        parts = prompt[0], ids[len(ids) // 2 :], whole[0, prompt.shape[1] :]
        text, right, answer = (_decoded(self.tokenizer, part) for part in parts)
        return Sample(text=text, right=right, answer=answer)


@dataclass(frozen=True)
class Denoising:
    """Restores text that spans were taken out of.

    With sentinels, which stand for one span each, the target is the spans, each after its sentinel (span corruption:
    Raffel et al. 2020, section 3.1.4). Without, a mask stands for a span, and the target is the whole text (text
    infilling: Lewis et al. 2020, section 2.2).
    """

    auto_class: ClassVar[str] = architectures.ENCODER_DECODER
    per: ClassVar[str] = "target token"
    causal: ClassVar[bool | None] = None

    tokenizer: PreTrainedTokenizerBase
    mask_probability: float
    seed: int
    sentinels: Sequence[int] = ()

    def collate(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """Take spans out of rows, and pad these and their targets to the longest of each."""
        inputs, labels, sizes = zip(*map(self.corrupt, rows), strict=True)
        return _padded([{"bytes": size} for size in sizes], inputs, labels, self.tokenizer)

    def corrupt(self, row: Mapping[str, Any]) -> tuple[Integers, Integers, Integers]:
        """Take spans of tokens, or of words where there are no sentinels, out of a row.

        A pure function of (seed, turn, index), so that workers, processes and a resumed run see the same spans.

        Returns:
            What is left, at most as long as the row was; the target; and how long each of its tokens is in bytes.
        """
        random = np.random.default_rng([self.seed, *row["phase_epoch"], row["index"]])
        ids, sizes = row["input_ids"], row["bytes"]
        # The places where a token or a word begins, and where the last of them ends.
        places = np.flatnonzero(row["words"] >= 0)
        begins = places if self.sentinels else places[np.unique(row["words"][places], return_index=True)[1]]
        bounds = np.append(begins, places[-1:] + 1)
        spans = _spans if self.sentinels else _poisson_spans
        chosen = [(bounds[first], bounds[last]) for first, last in spans(random, len(begins), self.mask_probability)]
        # What would need more sentinels than there are stays.
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

    def loss(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        """Return the cross entropy summed over the target's tokens."""
        labels = batch["labels"]  # which every architecture shifts in a way of its own, to be what its decoder reads
        inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "labels")}
        logits = model(**inputs, use_cache=False).logits
        return cross_entropy(logits.float().flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="sum")

    def count(self, batch: Batch) -> torch.Tensor:
        """Return the number of target tokens."""
        return batch["labels"].ne(IGNORED).sum()

    @torch.inference_mode()
    def sample(self, model: PreTrainedModel, row: Mapping[str, Any]) -> Sample:
        """Take spans out of the start of a row, and let the model restore them, with the likeliest token each time."""
        model.eval()
        shown = (np.arange(len(row["words"])) < SHOWN) | (row["words"] < 0)
        start = {name: row[name][shown] for name in ("input_ids", "words", "bytes")}
        inputs, target, _ = self.corrupt({**start, "phase_epoch": HELDOUT_EPOCH, "index": row["index"]})
        prompt = torch.tensor(inputs, dtype=torch.long, device=model.device)[None]
        answer = model.generate(  # type: ignore[operator]  # a model with this head can
            prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=2 * SHOWN, do_sample=False, num_beams=1
        )
        kept = {*self.sentinels, self.tokenizer.mask_token_id}
        ends = set(self.tokenizer.all_special_ids) - kept
        parts = ([token for token in part if token not in ends] for part in (inputs, target, answer[0].tolist()))
        text, right, answered = (_decoded(self.tokenizer, part) for part in parts)
        return Sample(text=text, right=right, answer=answered)


MEAN_SPAN = 3
"""The mean length of the spans that are taken out, of T5 in tokens, of BART in words."""

Span = tuple[int, int]
"""Where a span begins, and where it ends."""


def _spans(random: np.random.Generator, length: int, share: float) -> list[Span]:
    """Choose spans as T5's own code does: one at least, never two in a row, none first and one last."""
    masked = min(max(1, round(share * length)), length - 1)
    count = min(max(1, round(masked / MEAN_SPAN)), length - masked)
    if masked < 1:
        return []
    sizes, between = _parts(random, masked, count), _parts(random, length - masked, count)
    ends = np.cumsum(sizes + between)
    return list(zip(ends - sizes, ends, strict=True))


def _parts(random: np.random.Generator, total: int, count: int) -> Integers:
    """Cut a number at random into so many parts, none of which is 0."""
    cuts = np.sort(random.choice(total - 1, size=count - 1, replace=False)) + 1
    return np.diff(cuts, prepend=0, append=total)


def _poisson_spans(random: np.random.Generator, length: int, share: float) -> list[Span]:
    """Choose spans of Poisson lengths; for an empty one the model has to find that nothing is missing (BART)."""
    masked = min(max(1, round(share * length)), length)
    ends = np.append(np.cumsum(random.poisson(MEAN_SPAN, size=masked)), masked).clip(max=masked)
    sizes = np.diff(ends[: np.argmax(ends == masked) + 1], prepend=0)
    # No more empty ones than make up for the words that the others save: a row stays within its length.
    full = np.count_nonzero(sizes)
    sizes = sizes[(sizes > 0) | (np.cumsum(sizes == 0) <= masked - full)]
    starts = np.sort(random.integers(length - masked + 1, size=len(sizes))) + np.cumsum(sizes) - sizes
    return list(zip(starts, starts + sizes, strict=True))


def _loss(model: nn.Module, batch: Batch, *, causal: bool) -> torch.Tensor:
    predicted = batch["labels"].ne(IGNORED)
    inputs = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
    if "documents" in batch:
        inputs["attention_mask"] = apart(batch["documents"], causal=causal)
        inputs["position_ids"] = batch["positions"]
    with logits_at(model, predicted):
        logits = model(**inputs).logits
    return cross_entropy(logits.float(), batch["labels"][predicted], reduction="sum")


def _padded(
    rows: Sequence[Mapping[str, Any]],
    inputs: Sequence[Integers],
    labels: Sequence[Integers],
    tokenizer: PreTrainedTokenizerBase,
) -> dict[str, torch.Tensor]:
    """Pad rows on the right to the longest: all tensors (batch, length)."""
    # A causal model's tokenizer may have no padding token; what is not attended to may be any token.
    columns = {
        "input_ids": (inputs, tokenizer.pad_token_id or 0),
        "attention_mask": ([np.ones_like(ids) for ids in inputs], 0),
        "labels": (labels, IGNORED),
        "bytes": ([row["bytes"] for row in rows], 0),
    }
    if "documents" in rows[0]:
        # Padding is a document of its own: a position that attends to nothing would be no number.
        columns["documents"] = [row["documents"] for row in rows], -1
        columns["positions"] = [row["positions"] for row in rows], 0
    lengths = {name: max(map(len, values)) for name, (values, _) in columns.items()}
    return {
        name: torch.from_numpy(
            np.stack(
                [np.pad(value, (0, lengths[name] - len(value)), constant_values=filling) for value in values]
            ).astype(np.int64)
        )
        for name, (values, filling) in columns.items()
    }


def _decoded(tokenizer: PreTrainedTokenizerBase, ids: Any) -> str:
    return str(tokenizer.decode(ids)).strip()


def choose(
    name: str, model_type: str, tokenizer: PreTrainedTokenizerBase, options: LanguageModelling
) -> LanguageObjective:
    """Return the objective that the config names, or for `auto` that of the architecture.

    Raises:
        UserError: if the architecture has no head for it, or the tokenizer no token for what is taken out.
    """
    chosen = architectures.objective(name, model_type)
    if chosen == "clm":
        return CausalLM(tokenizer)
    if chosen == "denoising":
        return Denoising(tokenizer, options.mask_probability, options.seed, sentinels(tokenizer))
    return MaskedLM(tokenizer, options.mask_probability, options.seed)


@torch.inference_mode()
def heldout(model: PreTrainedModel, objective: LanguageObjective, rows: Rows, tokens: int = 4096) -> dict[str, float]:
    """Measure a language model on held-out documents: on all rows, or a thousand evenly spread, always masked alike.

    Several processes share the rows: every one of them has to call this.

    Args:
        tokens: How many a batch has at most, padding included: each may need logits as wide as the vocabulary.

    Returns:
        `loss`, the mean cross entropy in nats per masked token or per token; `perplexity`, its exponential, comparable
        within one tokenizer; and `bits_per_byte`, the loss in bits per UTF-8 byte of the predicted text, comparable
        between tokenizers, but not between objectives.
    """
    model.eval()
    some = np.unique(np.linspace(0, len(rows) - 1, MOST_MEASURED).round().astype(int))
    order = processes.share(some[np.argsort(-rows.lengths[some], kind="stable")].tolist())
    total, count, size = 0.0, 0, 0
    while order:
        fitting = max(1, tokens // int(rows.lengths[order[0]]))
        batch = objective.collate([{**rows[index], "phase_epoch": HELDOUT_EPOCH} for index in order[:fitting]])
        order = order[fitting:]
        batch = {name: tensor.to(model.device) for name, tensor in batch.items()}
        total += objective.loss(model, batch).item()
        count += int(objective.count(batch))
        size += int(batch["bytes"][batch["labels"].ne(IGNORED)].sum())
    total, count, size = (sum(parts) for parts in zip(*processes.from_all((total, count, size)), strict=True))
    return {"loss": total / count, "perplexity": math.exp(total / count), "bits_per_byte": total / math.log(2) / size}
