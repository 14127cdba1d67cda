"""The layer groups of a model: which parameters belong together when layers are thawed."""

from __future__ import annotations

from collections.abc import Collection

from torch import nn
from transformers import PreTrainedModel


def head(model: PreTrainedModel, missing: Collection[str]) -> list[nn.Parameter]:
    """Return the head: every parameter outside the body, and those of the body that the checkpoint lacked.

    Args:
        model: A model with a head on `base_model`.
        missing: Names of the parameters that `from_pretrained` did not find, and initialised.

    Tied weights (the decoder of a masked language model) belong to the embeddings, so to the body.
    """
    body = {id(parameter) for name, parameter in model.base_model.named_parameters()}
    return [
        parameter for name, parameter in model.named_parameters() if id(parameter) not in body or name in set(missing)
    ]
