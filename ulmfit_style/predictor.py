"""A finished model that answers texts, with the task object that trained it."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import tee
from typing import Any, final

import numpy as np
import transformers
from accelerate import PartialState
from pandas import DataFrame, isna
from transformers.utils import logging

from ulmfit_style.artefacts import predictions
from ulmfit_style.artefacts.directory import RECIPE
from ulmfit_style.data import columns, reading
from ulmfit_style.errors import UserError, listed
from ulmfit_style.models import architectures, attributions, checkpoints, tokenizer_pair
from ulmfit_style.recipe import load
from ulmfit_style.tasks.base import Answer, Row, Task
from ulmfit_style.tasks.base_generation import GenerationTask
from ulmfit_style.training.scoring import UNITS, UNLIKE, Advance, Scorer, ignore

Asked = str | tuple[str, str] | Mapping[str, Any]
"""What is asked: a text, a pair of texts for a model of pairs, or the fields of a row by their names."""


@final
class Predictor:
    """Answers one text or several, by one model or by the mean of several.

    Args:
        task: Other values for options of the task that say how it answers.
        option: What the user names the model by, for error messages.
    """

    def __init__(
        self, source: str, device: str | None = None, task: Mapping[str, Any] | None = None, option: str = "source"
    ) -> None:
        logging.disable_progress_bar()
        directory = checkpoints.find_finetuned(source, option)
        config, self.name = load(directory / RECIPE), str(directory)
        own, asked = config.require_task(), task or {}
        self.task = own.with_answer_options(asked)
        # Each member keeps the options of its own task, but for those that are asked to be others.
        changed = {name: asked[name] for name in asked if getattr(self.task, name) != getattr(own, name)}
        directory, *others = checkpoints.members(directory) or [directory]
        self.others = [Predictor(str(other), device, changed, option) for other in others]
        self.max_length = config.finetune.max_length
        self.tokenizer = tokenizer_pair.read(directory)
        auto_class = self.task.auto_class(architectures.architecture(checkpoints.body_config(directory)["model_type"]))
        self.model, missing, _ = checkpoints.load_model(getattr(transformers, auto_class), directory, whole=True)
        if missing:
            kind = f"lacks the head of {type(self.task).__name__} ({listed(sorted(missing))})"
            raise UserError(f"{option}={source}: {kind}; name a model that `finetune` made, not `adapt`")
        self._learnt, self._least_near = None, 0.0
        if (directory / UNITS).exists():
            answered = predictions.read(directory, "validation") or predictions.read(directory, "test")  # of folds
            self._learnt = np.load(directory / UNITS).astype(np.float32)
            self._least_near = float(np.quantile([answer["near"] for answer in answered], UNLIKE))
        self.model.to(PartialState().device if device is None else device)

    def __call__(self, asked: Asked | Iterable[Asked] | DataFrame) -> Any:
        """Return the answer to what is asked, or one answer for each of several, or for each row of a DataFrame.

        A model of pairs takes tuples of two texts. A row of named fields is a dict, such as those of a
        `datasets.Dataset`. For text classification an answer is `{"label": ..., "score": ...}`, the score being the
        label's probability, with `"unlike": True` where the text may belong to no class; for token classification a
        list of entities, `{"entity_group", "score", "word", "start", "end"}` each; for question answering `{"answer",
        "score", "start", "end"}`; for generation `{"summary_text": ...}`, `{"translation_text": ...}` or
        `{"generated_text": ...}`.

        Raises:
            UserError: if something is no text, or a row lacks the task's column of texts, or a text in it.
        """
        is_pair = isinstance(asked, tuple) and len(asked) == len(self.task.inputs()) == 2
        if isinstance(asked, (str, Mapping)) or is_pair:
            return self([asked])[0]
        if isinstance(asked, DataFrame):
            rows = _rows(self.task, asked)
        elif isinstance(asked, Iterable) and not isinstance(asked, (bytes, bytearray)):
            rows = (row_of(self.task, f"entry {number}", entry) for number, entry in enumerate(asked, start=1))
        else:
            raise UserError(f"{asked!r} is no text; give a text, a dict of named fields, or several, or a DataFrame")
        return list(map(self.task.returned, self.stream(rows)))

    def stream(self, rows: Iterable[Row], advance: Advance = ignore) -> Iterator[Answer]:
        """Answer rows in their order, with no more than a window of them in memory.

        Args:
            advance: Called now and then with how many further rows were read, and how many of them are long.
        """
        for answer in replace(self.scorer(self.task), learnt=self._learnt).answers(rows, advance):
            far = answer.pop("near", self._least_near) < self._least_near
            yield {**answer, "unlike": True} if far else answer

    def scorer(self, task: Task) -> Scorer:
        """Return what scores the answers on rows of a task of the model's kind.

        Raises:
            UserError: if windows are to be pooled by a model that was not trained so.
        """
        if task.pools_windows and getattr(self.model.config, "window", None) is None:
            raise UserError(f"{self.name}: was not trained with task.long_documents=pooled; take windows")
        others = [other.scorer(other.task) for other in self.others]
        return Scorer(self.model, self.tokenizer, task, self.max_length, others=others)

    def explained(self, rows: Iterable[Row], advance: Advance = ignore) -> Iterator[Answer]:
        """Answer rows as `stream` does, each answer with its `explanations` (ulmfit_style/models/attributions.py).

        Raises:
            UserError: if answers of this model cannot be explained, such as those of an ensemble.
        """
        if self.others:
            problem = "is an ensemble, whose answers rest on several models"
            raise UserError(f"{self.name}: {problem}; explain those of one: predict.model={self.name}/member-1")
        model, tokenizer, task = self.model, self.tokenizer, self.task
        attributions.check(task, model.config.to_dict())
        if isinstance(task, GenerationTask):
            for row in rows:
                (feature,) = task.encode(row, tokenizer, self.max_length, None)
                advance(1, feature["long"])
                yield attributions.aligned(model, tokenizer, task, feature)
            return
        asked, again = tee(rows)
        for row, answer in zip(again, self.stream(asked, advance), strict=True):
            texts, features = task.texts(row), task.encode(row, tokenizer, self.max_length, None)
            parts = task.explained_parts(features, answer, model.config.label2id or {})
            told = [attributions.explain(model, tokenizer, texts, features[part.feature], part) for part in parts]
            yield {**answer, "explanations": told}


def _rows(task: Task, frame: DataFrame) -> Iterator[Row]:
    if not frame.columns.is_unique:
        double = frame.columns[frame.columns.duplicated()][0]
        raise UserError(f"DataFrame: there are two columns '{double}'; rename one")
    for index, record in zip(frame.index, frame.to_dict("records"), strict=True):
        yield row_of(task, f"DataFrame: row {index}", record)


def row_of(task: Task, place: str, asked: Any) -> Row:
    """Return what is asked as a row.

    Args:
        place: Where it stands, for error messages.

    Raises:
        UserError: if it cannot be answered.
    """
    if not isinstance(asked, Mapping):
        texts = [asked] if isinstance(asked, str) else asked
        if not isinstance(texts, (list, tuple)) or not all(isinstance(text, str) for text in texts):
            raise UserError(f"{place}: {asked!r} is no text; a row of named fields is a dict")
        return task.row(*texts)
    names = columns.find_inputs(task, [name for name in asked if isinstance(name, str)], place)
    values = {field: reading.value(asked, name) for field, name in names.items()}
    if any(isna(value) is True for value in values.values()):
        raise UserError(f"{place} has no text; leave it out")
    plain = {field: value.tolist() if isinstance(value, np.ndarray) else value for field, value in values.items()}
    return task.answerable(Row(place, 1, plain), f"{place}: ")
