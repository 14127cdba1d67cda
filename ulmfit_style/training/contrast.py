"""The contrastive phase: texts of one class are drawn together, and those of others apart."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from accelerate.utils import extract_model_from_parallel
from torch import nn
from torch.nn.functional import normalize
from transformers import PreTrainedTokenizerBase

from ulmfit_style.compute import processes
from ulmfit_style.config.training import CONTRAST_GROUP_SIZE
from ulmfit_style.data.tokens import Integers
from ulmfit_style.tasks.base import Feature, inputs_of
from ulmfit_style.training.batching import collate
from ulmfit_style.training.objectives import Batch, PhaseEpoch

TEMPERATURE = 0.1
"""What similarities are divided by (Khosla et al. 2020, section 4.4)."""

PARTS = 2
"""The parts in which the texts of a batch run on a CPU, the shorter ones first: as they are drawn, half is padding. In
several processes there is one, because each call of the model exchanges its buffers."""


@dataclass(frozen=True)
class ContrastiveDataset:
    """Rows of a contrastive phase: each is a few texts, which `collate` draws when the row is trained.

    A text is compared with those of its own row alone. So the loss of a row does not depend on the rows beside it, and
    is the same however a batch is split into passes or over processes.
    """

    features: Sequence[Feature]
    """The encoded texts, each with its class in `labels`."""
    tokenizer: PreTrainedTokenizerBase
    seed: int

    @cached_property
    def _members(self) -> list[np.ndarray[Any, np.dtype[np.intp]]]:
        """The indices of the texts of each class."""
        labels = np.array([feature["labels"] for feature in self.features])
        return [np.flatnonzero(labels == label) for label in np.unique(labels)]

    @cached_property
    def lengths(self) -> Integers:
        """The tokens of each row: all the same, because the texts are not drawn yet."""
        mean = np.mean([len(feature["input_ids"]) for feature in self.features])
        return np.full(len(self), round(CONTRAST_GROUP_SIZE * mean), dtype=np.int32)

    def __len__(self) -> int:
        return math.ceil(len(self.features) / CONTRAST_GROUP_SIZE)

    def __getitem__(self, index: int, /) -> Mapping[str, Any]:
        return {"index": index}

    def draw(self, phase_epoch: PhaseEpoch, index: int) -> Iterator[Feature]:
        """Yield the texts of a row: a pure function of (seed, phase and epoch, index).

        Every class is equally likely, and has at least two texts. Of a class with one text that is the same text twice,
        which dropout tells apart (Gao et al. 2021, section 3).
        """
        random = np.random.default_rng([self.seed, *phase_epoch, index])
        classes = random.permutation(len(self._members))[: CONTRAST_GROUP_SIZE // 2]
        counts = np.bincount(np.arange(CONTRAST_GROUP_SIZE // 2) % len(classes)) * 2
        for label, count in zip(classes, counts, strict=True):
            members = np.resize(random.permutation(self._members[label]), count)
            yield from (self.features[member] for member in random.permutation(members))

    def collate(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """Draw the texts of rows, and pad them: tensors (rows, texts, length), and `labels` (rows, texts)."""
        drawn = [feature for row in rows for feature in self.draw(row["phase_epoch"], row["index"])]
        batch = collate(drawn, self.tokenizer).items()
        return {name: tensor.unflatten(0, (-1, CONTRAST_GROUP_SIZE)) for name, tensor in batch}


@dataclass(frozen=True)
class ContrastiveObjective:
    """The supervised contrastive loss of what the head reads (Khosla et al. 2020, eq. 2)."""

    parts: int = PARTS

    def loss(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        """Return the loss summed over the rows: of each, the mean over its texts."""
        inputs = {name: tensor.flatten(0, 1) for name, tensor in inputs_of(batch).items()}
        mask, pooled = inputs["attention_mask"].bool(), list[torch.Tensor]()
        by_length = mask.sum(1).argsort(stable=True)
        is_split = mask.device.type == "cpu" and processes.count() == 1
        whole = extract_model_from_parallel(model)
        words = whole.get_input_embeddings()
        getattr(whole, "unshard", int)()  # a sharded model has its weights only when it is called itself
        embedded = words(inputs["input_ids"])  # once, for each gradient of it is as large as the table
        # A head that reads windows asks for the words in another shape, and for some of them twice.
        share = words.register_forward_hook if whole.config.window is None else nullcontext
        with whole.head.register_forward_pre_hook(lambda _, arguments: pooled.append(arguments[0])):
            for part in by_length.chunk(self.parts if is_split else 1):
                used = mask[part].any(0)
                # A wrapped model shares its gradients only when it is called itself.
                with share(lambda *_, part=part, used=used: embedded[part][:, used]):
                    model(**{name: tensor[part][:, used] for name, tensor in inputs.items()})
        read = torch.cat(pooled).float()[by_length.argsort()]
        features = normalize(read, dim=-1).unflatten(0, (-1, CONTRAST_GROUP_SIZE))
        itself = torch.eye(CONTRAST_GROUP_SIZE, dtype=torch.bool, device=features.device)
        similarity = (features @ features.mT / TEMPERATURE).masked_fill(itself, -torch.inf)
        alike = (batch["labels"][:, None] == batch["labels"][..., None]) & ~itself
        losses = -similarity.log_softmax(dim=-1).masked_fill(~alike, 0).sum(-1) / alike.sum(-1)
        return losses.mean(-1).sum()

    def count(self, batch: Batch) -> torch.Tensor:
        """Return the number of rows."""
        return torch.tensor(len(batch["labels"]))
