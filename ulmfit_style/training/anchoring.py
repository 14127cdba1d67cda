"""Masked language modelling that leaves the embeddings of texts near those of the checkpoint.

A checkpoint without a language-model head was trained for something else since its pretraining, such as to embed
sentences, and masked language modelling alone undoes that (docs/measured.md).
"""

from dataclasses import dataclass
from typing import Any, final

import torch
from accelerate.utils import extract_model_from_parallel
from torch import nn
from torch.nn.functional import cosine_similarity
from transformers import PreTrainedModel

from ulmfit_style.tasks.base import IGNORED
from ulmfit_style.training.objectives import Batch, LanguageObjective


@final
@dataclass(frozen=True)
class Anchored:
    """An objective whose loss of a predicted token grows with how far the embedding of its document has moved.

    An embedding is the mean of a document's last hidden states. How far it has moved is one minus the cosine between
    that of the masked document and that of the whole one in the checkpoint, its teacher (Hinton et al. 2015).
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
        kept: list[torch.Tensor] = []

        def keep(module: nn.Module, arguments: Any, output: Any) -> None:
            kept.append(output[0])  # the last hidden states, (batch, length, width)

        with extract_model_from_parallel(model).base_model.register_forward_hook(keep):
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
