"""A finished model that answers texts, with the task object that trained it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import tee
from typing import TYPE_CHECKING, Any, final

import transformers
from accelerate import PartialState
from transformers.utils import logging

from ulmfit_style.artefacts.directory import RECIPE
from ulmfit_style.data import columns
from ulmfit_style.errors import UserError, listed
from ulmfit_style.models import architectures, attributions, checkpoints, tokenizer_pair
from ulmfit_style.recipe import load
from ulmfit_style.tasks.base import Answer, Row, Task
from ulmfit_style.training.scoring import Advance, Scorer, ignore

if TYPE_CHECKING:
    from pandas import DataFrame

Text = str | tuple[str, str]
"""What is asked: a text, or a pair of texts for a model of pairs."""


@final
class Predictor:
    """Answers one text or several.

    Args:
        task: Other values for options of the task that say how it answers.
        option: What the user names the model by, for error messages.
    """

    def __init__(
        self,
        source: str,
        device: str | None = None,
        task: Mapping[str, Any] | None = None,
        option: str = "source",
    ) -> None:
        logging.disable_progress_bar()
        directory = checkpoints.find_finetuned(source, option)
        config = load(directory / RECIPE)
        self.task = config.require_task().with_answer_options(task or {})
        self.max_length = config.finetune.max_length
        self.tokenizer = tokenizer_pair.read(directory)
        model_type = checkpoints.body_config(directory)["model_type"]
        auto_class = self.task.auto_class(architectures.architecture(model_type))
        self.model, missing, _ = checkpoints.load_model(getattr(transformers, auto_class), directory, whole=True)
        if missing:
            kind = f"lacks the head of {type(self.task).__name__} ({listed(sorted(missing))})"
            raise UserError(f"{option}={source}: {kind}; name a model that `finetune` made, not `adapt`")
        self.model.to(PartialState().device if device is None else device)

    def __call__(self, texts: Text | Sequence[Text] | DataFrame) -> Any:
        """Return the answer to a text, or one answer for each of several texts, or for each row of a DataFrame.

        A model of pairs takes tuples of two texts. For text classification an answer is `{"label": ..., "score": ...}`,
        the score being the label's probability; for token classification a list of entities, `{"entity_group", "score",
        "word", "start", "end"}` each; for question answering `{"answer", "score", "start", "end"}`; for generation
        `{"summary_text": ...}`, `{"translation_text": ...}` or `{"generated_text": ...}`.

        Raises:
            UserError: if the DataFrame lacks the task's column of texts, or a text in it.
        """
        from pandas import DataFrame

        if isinstance(texts, str) or (isinstance(texts, tuple) and len(self.task.inputs()) == 2):
            return self([texts])[0]
        if isinstance(texts, DataFrame):
            rows = _rows(self.task, texts)
        else:
            rows = (self.task.row(*([text] if isinstance(text, str) else text)) for text in texts)
        return list(map(self.task.returned, self.stream(rows)))

    def stream(self, rows: Iterable[Row], advance: Advance = ignore) -> Iterator[Answer]:
        """Answer rows in their order, with no more than a window of them in memory.

        Args:
            advance: Called now and then with how many further rows were read, and how many of them are long.
        """
        return Scorer(self.model, self.tokenizer, self.task, self.max_length).answers(rows, advance)

    def explained(self, rows: Iterable[Row], advance: Advance = ignore) -> Iterator[Answer]:
        """Answer rows as `stream` does, each answer with its `explanations` (ulmfit_style/models/attributions.py)."""
        asked, again = tee(rows)
        for row, answer in zip(again, self.stream(asked, advance), strict=True):
            parts = attributions.explanations(self.model, self.tokenizer, self.task, row, answer, self.max_length)
            yield {**answer, "explanations": parts}


def _rows(task: Task, frame: DataFrame) -> Iterator[Row]:
    names = columns.find_inputs(task, [name for name in frame.columns if isinstance(name, str)], "DataFrame")
    texts = frame[list(names.values())]
    missing = texts.isna().any(axis=1)
    if missing.any():
        raise UserError(f"DataFrame: row {missing.idxmax()} has no text; leave out such rows with dropna()")
    for number, values in enumerate(texts.itertuples(index=False), start=1):
        yield Row("DataFrame", number, dict(zip(names, values, strict=True)))
