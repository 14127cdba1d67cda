"""Masked-language modelling: which tokens are masked, and by what."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, final

import numpy as np
from transformers import PreTrainedTokenizerBase

from ulmfit_style.data.tokens import Integers
from ulmfit_style.models import architectures
from ulmfit_style.tasks.base import IGNORED
from ulmfit_style.training.objectives import Batch, LanguageObjective, PhaseEpoch


@final
@dataclass(frozen=True)
class MaskedLM(LanguageObjective):
    """Predicts masked whole words (BERT, section 3.1)."""

    auto_class: ClassVar[str] = architectures.MASKED_LM
    per: ClassVar[str] = "masked token"

    tokenizer: PreTrainedTokenizerBase
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
