"""Names of the types that a task is given, so that it imports neither torch nor transformers to name them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

Tensor: TypeAlias = "torch.Tensor"
Module: TypeAlias = "nn.Module"
Model: TypeAlias = "PreTrainedModel"
Tokenizer: TypeAlias = "PreTrainedTokenizerBase"
Batch: TypeAlias = "Mapping[str, torch.Tensor]"
Generation: TypeAlias = "GenerationConfig"

Label2id = Mapping[str, int]
"""The number of each of a model's outputs, by its name."""
