"""The learning-rate range test: the loss while the rate rises from step to step (Smith 2017, section 3.3)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import stdev
from typing import Any, final

from accelerate import PartialState
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ulmfit_style.config.experiments import LrFind
from ulmfit_style.console import progress
from ulmfit_style.training.batching import epochs_for
from ulmfit_style.training.phases import Phase, TrainingPlan, build_trainer, train
from ulmfit_style.training.schedule import ExponentialSchedule
from ulmfit_style.training.trainer import Progress

SMOOTHING = 0.95
"""The weight of what was before in the smoothed loss. fastai's 0.98 averages over 50 steps, half of a whole test."""

DIVERGED = 4
"""How many times its lowest the smoothed loss is when a test stops, as in fastai."""

EVERY_STEP = {"logging_strategy": "steps", "logging_steps": 1, "report_to": "none"}


@dataclass(frozen=True)
class Point:
    """What a step of a range test showed."""

    step: int
    rate: float
    """That of the head, where each layer group has its own."""
    loss: float
    """Before the step."""
    smoothed: float


@dataclass(frozen=True)
class Suggestion:
    """What a range test tells about the rate."""

    band: tuple[float, float] | None
    """From which rate to which; None where the curve gives no clear answer."""
    reason: str
    """How the band was found, or why there is none."""


@final
class Watch(TrainerCallback):
    """Keeps the loss of every step, smoothed too, and stops when it is far above its lowest or not a number."""

    def __init__(self) -> None:
        self.points: list[Point] = []
        self._sum = 0.0

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Look at the loss of a step. The smoothed one is an exponential moving average with its bias corrected."""
        if logs is None or "loss" not in logs:
            return
        step, loss = state.global_step, logs["loss"]
        if not math.isfinite(loss):
            control.should_training_stop = True
            return
        self._sum = SMOOTHING * self._sum + (1 - SMOOTHING) * loss
        self.points.append(Point(step, logs["learning_rate"], loss, self._sum / (1 - SMOOTHING**step)))
        if self.points[-1].smoothed > DIVERGED * min(point.smoothed for point in self.points):
            control.should_training_stop = True


def range_test(plan: TrainingPlan, options: LrFind, folder: Path) -> list[Point]:
    """Train the last phase of a plan while its rate rises, and return what each step showed, in order.

    The phases before it are trained first, as they would be. The model is not what the stage would make of it, and
    good for nothing afterwards.

    Args:
        folder: For what the phases write meanwhile.
    """
    *before, last = plan.phases
    settings = replace(plan.settings, measurements=1, save_minutes=math.inf)
    if before:
        train(replace(plan, phases=before, settings=settings), folder)
    plan.model.to(PartialState().device)
    rows = plan.ordered(len(before))
    # A step has the rate of its middle, so the phase begins half a step below the first rate, and ends as far above
    # the last one.
    factor = (options.highest / options.lowest) ** (1 / (options.steps - 1))
    fold, top = factor**options.steps, options.highest * factor**0.5
    phase = Phase(last.title, last.thawed, epochs_for(options.steps, len(rows), rows.batch_size), top)
    rising = replace(settings, schedule=ExponentialSchedule(1 / fold), extras={**settings.extras, **EVERY_STEP})
    watch = Watch()
    with progress("range test", options.steps) as steps:
        build_trainer(replace(plan, settings=rising), phase, rows, folder, [Progress(steps, rows), watch]).train()
    return watch.points


def suggest(points: Sequence[Point], steps: int) -> Suggestion:
    """Return the band of rates that a range test suggests.

    It lies between the two that fastai's `lr_find` suggested (2020): the rate at which the smoothed loss falls most
    steeply, and a tenth of that at which it is lowest. The first tenth of the steps is left out, as there. The
    steepest fall is that over a tenth of the steps, not from one step to the next, which is mostly noise. Which of the
    two rates is lower depends on the curve.

    There is no band when the loss does not fall, by more than the first losses scatter (one standard deviation); when
    it is lowest at once; or when it is lowest at the end, for then nobody knows how far it would have fallen.

    Args:
        steps: How many were asked for; there are fewer points where the test stopped before.
    """
    tenth = steps // 10
    first, *_ = kept = points[tenth - 1 :] or points[-1:]
    lowest = min(kept, key=lambda point: point.smoothed)
    fall = first.smoothed - lowest.smoothed
    scatter = stdev(point.loss for point in points[:tenth]) if len(points) > tenth else math.inf
    if fall <= scatter:
        return Suggestion(None, "the smoothed loss never falls by more than the single losses scatter")
    if lowest.step == steps:
        return Suggestion(None, "the smoothed loss still falls at the highest rate; raise lr_find.highest")
    if lowest.step < 2 * tenth:
        return Suggestion(None, "the smoothed loss is lowest near the start already; lower lr_find.lowest")
    starts = range(kept.index(lowest) - tenth + 1)
    steepest = max(starts, key=lambda place: kept[place].smoothed - kept[place + tenth].smoothed)
    found = [
        (kept[steepest + tenth // 2].rate, "where the smoothed loss falls most steeply"),
        (lowest.rate / 10, f"a tenth of the rate at which it is lowest, {lowest.rate:.1e}"),
    ]
    (low, low_reason), (high, high_reason) = sorted(found)
    return Suggestion((low, high), f"from {low:.1e} ({low_reason}) to {high:.1e} ({high_reason})")
