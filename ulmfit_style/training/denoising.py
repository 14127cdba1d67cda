"""What an encoder-decoder learns on unlabelled text: to restore spans that were taken out of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, final

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from ulmfit_style.data.tokens import Integers
from ulmfit_style.models import architectures
from ulmfit_style.tasks.base import IGNORED
from ulmfit_style.training.objectives import Batch, LanguageObjective


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

    tokenizer: PreTrainedTokenizerBase
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
