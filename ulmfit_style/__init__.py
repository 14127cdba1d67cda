"""The ULMFiT recipe for today's transformers: adapt to your text, fine-tune on your labels, measure, publish."""

from __future__ import annotations

from importlib.metadata import version
from os import PathLike, fspath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ulmfit_style.predictor import Predictor

__version__ = version("ulmfit-style")
__all__ = ["load"]


def load(source: str | PathLike[str]) -> Predictor:
    """Load a fine-tuned model: `load("runs/default/finetune")("A film to remember.")`.

    Args:
        source: The directory that `finetune` made, or the Hub id that `push` uploaded to.

    Raises:
        UserError: if there is no such model, or it was not made by `finetune`.
    """
    from ulmfit_style.predictor import Predictor

    return Predictor(fspath(source))
