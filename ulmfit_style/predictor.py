"""A finished model that answers texts, with the task object that trained it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final, overload

import transformers
from accelerate import PartialState
from transformers import AutoTokenizer
from transformers.utils import logging

from ulmfit_style import checkpoints, config
from ulmfit_style.config import Model
from ulmfit_style.errors import UserError
from ulmfit_style.lineage import required_task
from ulmfit_style.run import RECIPE
from ulmfit_style.tasks.base import Answer
from ulmfit_style.training.answers import answers


@final
class Predictor:
    """Answers one text or several."""

    def __init__(self, source: str) -> None:
        logging.disable_progress_bar()
        directory = checkpoints.resolve(Model(checkpoint=source)).directory
        if not (directory / RECIPE).exists():
            raise UserError(f"{source}: holds no {RECIPE}, so it was not made by `finetune`")
        recipe = config.load(directory / RECIPE)
        self.task = required_task(recipe)
        self.max_length = recipe.finetune.max_length
        self.tokenizer = AutoTokenizer.from_pretrained(directory, trust_remote_code=False)
        auto_class = getattr(transformers, self.task.auto_class)
        self.model = auto_class.from_pretrained(directory, use_safetensors=True, trust_remote_code=False)
        self.model.to(PartialState().device)

    @overload
    def __call__(self, texts: str) -> Answer: ...  # type: ignore[overload-overlap]

    @overload
    def __call__(self, texts: Sequence[str]) -> list[Answer]: ...

    def __call__(self, texts: str | Sequence[str]) -> Answer | list[Answer]:
        """Return the answer to a text, or one answer for each of several.

        For text classification an answer is `{"label": ..., "score": ...}`, the score being the label's probability.
        """
        rows = [self.task.row(text) for text in ([texts] if isinstance(texts, str) else texts)]
        found = list(answers(self.model, self.tokenizer, self.task, rows, self.max_length))
        return found[0] if isinstance(texts, str) else found
