"""Logits at chosen positions only, of a model whose head is far wider than its body."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ulmfit_style.tasks.types import Module, Tensor


@contextmanager
def logits_at(model: Module, positions: Tensor) -> Iterator[None]:
    """Let a language model compute logits at the chosen positions only: (chosen, vocabulary).

    The vocabulary is by far the widest layer of a small model; masked language modelling needs one position in seven,
    and padding needs none. The head works on each position by itself, so that the logits are those of the whole head.
    `positions` is (batch, length), boolean.
    """
    import torch
    from accelerate.utils import extract_model_from_parallel

    inner = extract_model_from_parallel(model)

    def select(module: Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        whole = isinstance(args[0], torch.Tensor) and args[0].shape[:2] == positions.shape and args[0].dim() == 3
        return (args[0][positions], *args[1:]) if whole else None

    heads = [child for child in inner.children() if child is not inner.base_model]
    hooks = [head.register_forward_pre_hook(select) for head in heads]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
