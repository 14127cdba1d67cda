"""How a model is scored on a split: the measuring that `finetune` and `evaluate` share.

Several processes share the rows, and each gets all that was found: every one of them has to call these functions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ulmfit_style import processes
from ulmfit_style.artefacts import predictions
from ulmfit_style.artefacts.predictions import Prediction
from ulmfit_style.console import progress, say
from ulmfit_style.tasks.base import Answer, Row, Task
from ulmfit_style.training.answers import answers, likelihoods


def metric(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    task: Task,
    rows: Sequence[Row],
    max_length: int,
    name: str | None = None,
) -> float:
    """Return one score alone.

    Args:
        max_length: Tokens per feature.
        name: Which one; None for that of the task.
    """
    found = scorable(model, tokenizer, task, rows, max_length)
    return task.score(found, [task.target(row) for row in rows])[name or task.metric]


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

    with progress(f"scoring {split}", len(processes.share(rows)) * len(task.scored_by())) as steps:
        found = scorable(model, tokenizer, task, rows, max_length, done)
    longer = sum(processes.from_all(longer)) // len(task.scored_by())
    if longer:
        told = f"longer than {max_length} tokens, and were {task.long_texts}"
        say(f"  {split}: {longer:,} of {len(rows):,} rows are {told}")
    return task.measure(found, [task.target(row) for row in rows]), predictions.of(split, task, rows, found)


def scorable(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    task: Task,
    rows: Sequence[Row],
    max_length: int,
    done: Callable[[int, int], None] = lambda rows, long: None,
) -> list[Answer]:
    """Return what scoring needs of each row: the model's answer, what it makes of the right one, or both.

    Args:
        done: As for `answers`, of the rows of this process.
    """
    kinds = {"answers": answers, "likelihoods": likelihoods}
    own = processes.share(rows)
    found = [kinds[kind](model, tokenizer, task, own, max_length, done) for kind in task.scored_by()]
    return processes.joined(
        [{name: value for part in parts for name, value in part.items()} for parts in zip(*found, strict=True)]
    )
