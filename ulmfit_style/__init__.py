"""The ULMFiT recipe for today's transformers: adapt to your text, fine-tune on your labels, measure, publish."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from os import PathLike, fspath
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ulmfit_style.predictor import Predictor

__version__ = version("ulmfit-style")
__all__ = ["load"]


def load(source: str | PathLike[str], device: str | None = None, task: Mapping[str, Any] | None = None) -> Predictor:
    """Load a fine-tuned model, which answers one text, a list of them, or the rows of a pandas DataFrame.

    `load("runs/default/finetune")("A film to remember.")` returns one answer, `load(...)([text, text])` and
    `load(...)(frame)` a list of them; of the frame, the task's column of texts is read.

    Args:
        source: The directory that `finetune` made, or the Hub id that `push` uploaded to.
        device: Where the model runs, as torch spells it: "cpu", "cuda:1", "mps"; None for the first GPU there is.
        task: Other values for options of the model's task that say how it answers: {"aggregation": "simple"}.

    Raises:
        UserError: if there is no such model, device or option, or the model was not made by `finetune`.
    """
    from ulmfit_style.predictor import Predictor

    return Predictor(fspath(source), device, task)
