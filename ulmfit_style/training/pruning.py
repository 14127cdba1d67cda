"""Trials of a sweep that fall behind are stopped on the way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, final

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ulmfit_style import processes
from ulmfit_style.errors import Pruned


@final
class Pruning(TrainerCallback):
    """Scores the model a few times on the way, evenly spread over the steps of all phases, and stops a bad trial.

    The end is not scored here: the stage does so by itself.

    Args:
        report: Takes the number of the measurement, from 1 on, and the score, and tells whether to stop.
        measurements: How many there are with that of the end.
    """

    def __init__(self, score: Callable[[], float], report: Callable[[int, float], bool], measurements: int) -> None:
        self.score, self.report, self.measurements = score, report, measurements
        self.before = 0
        """Steps of the phases that are done."""
        self.total = 0
        """Steps of all phases."""

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Score the model where it is time to; the main process reports it, and the others take its word.

        Raises:
            Pruned: in all of them, if the trial falls behind.
        """
        step = self.before + state.global_step
        number = self.measurements * step // self.total
        if number == self.measurements * (step - 1) // self.total or number == self.measurements:
            return
        score = self.score()
        if processes.from_main(processes.is_main() and self.report(number, score)):
            raise Pruned(f"stopped at measurement {number} of {self.measurements}")
