"""How a model is scored on a split: the measuring that `finetune` and `evaluate` share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ulmfit_style import predictions
from ulmfit_style.console import progress, say
from ulmfit_style.predictions import Prediction
from ulmfit_style.tasks.base import Row, Task
from ulmfit_style.training.answers import answers


def metric(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, task: Task, rows: Sequence[Row], max_length: int
) -> float:
    """Return the score of the task's metric alone.

    Args:
        max_length: Tokens per feature.
    """
    found = list(answers(model, tokenizer, task, rows, max_length))
    return task.score(found, [task.target(row) for row in rows])[task.metric]


def score(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    task: Task,
    rows: Sequence[Row],
    max_length: int,
    split: str,
) -> tuple[dict[str, Any], list[Prediction]]:
    """Return what metrics.json tells of a split, and every prediction.

    Args:
        max_length: Tokens per feature.
    """
    longer = 0

    def done(rows: int, long: int) -> None:
        nonlocal longer
        longer += long
        steps.advance(rows)

    with progress(f"scoring {split}", len(rows)) as steps:
        found = list(answers(model, tokenizer, task, rows, max_length, done))
    if longer:
        told = f"longer than {max_length} tokens, and were {task.long_texts}"
        say(f"  {split}: {longer:,} of {len(rows):,} rows are {told}")
    return task.measure(found, [task.target(row) for row in rows]), predictions.of(split, task, rows, found)
