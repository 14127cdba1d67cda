"""The test rows of a fine-tuned model with its answers: which are wrong, how wrong, and how confident they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ulmfit_style.artefacts import predictions
from ulmfit_style.artefacts.predictions import Prediction
from ulmfit_style.config.schema import spelled
from ulmfit_style.console import muted
from ulmfit_style.data import labelled
from ulmfit_style.data.labelled import Labelled
from ulmfit_style.errors import UserError
from ulmfit_style.results.finished import Run
from ulmfit_style.tasks.base import Row, Task


@dataclass(frozen=True)
class Answered:
    """The test rows of a run, with what the model answered."""

    task: Task
    answers: Sequence[Prediction]
    labelled: Labelled | None
    """All labelled rows; None where they are not what they were."""
    problem: str | None
    """Why they are not there."""

    @cached_property
    def rows(self) -> Sequence[Row | None]:
        """The row of each answer; None where the labelled rows are not there."""
        test = [] if self.labelled is None else self.labelled.test
        places = {(row.file, row.number): row for row in test}
        return [places.get((answer["file"], answer["row"])) for answer in self.answers]

    @property
    def targets(self) -> list[Any]:
        """What is right of each row."""
        return [answer["target"] for answer in self.answers]

    @property
    def places(self) -> list[tuple[Any, ...]]:
        """Where each row stands, and what is right of it: equal for runs that can be paired."""
        return [(answer["file"], answer["row"], spelled(answer["target"])) for answer in self.answers]

    @cached_property
    def errors(self) -> Sequence[float]:
        """How wrong each answer is: 0 where it is right."""
        return list(self.task.errors(self.answers, self.targets))

    @cached_property
    def confidences(self) -> Sequence[float | None]:
        """The probability that the model gave each answer; None if it has none."""
        return [self.task.confidence(answer, answer["target"]) for answer in self.answers]

    @cached_property
    def wrong(self) -> Sequence[int]:
        """The numbers of the wrong answers, the most confident first; the worst first where none has a confidence."""
        numbers = [number for number, error in enumerate(self.errors) if error > 0]
        return sorted(numbers, key=lambda number: (self.confidences[number] or 0, self.errors[number]), reverse=True)

    @cached_property
    def has_confidences(self) -> bool:
        """Whether any wrong answer has a confidence."""
        return any(self.confidences[number] is not None for number in self.wrong)


def read(run: Run) -> Answered | None:
    """Return the test rows of a run with the answers; None where there are no predictions."""
    task = run.config.task
    if task is None or run.answers is None:
        return None
    rows, problem = None, None
    try:
        with muted():
            rows = labelled.load(task)
        if rows.digest != run.model.determinants["data"]:
            rows, problem = None, "The labelled rows have changed since this run; their texts are not shown."
    except UserError as error:
        problem = f"The labelled rows cannot be read any more: {error}"
    return Answered(task, predictions.read(run.answers, "test"), rows, problem)
