"""The learning-rate range test: the loss while the rate rises from step to step (Smith 2017, section 3.3)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import stdev
from typing import final

from accelerate import PartialState
from torch import nn
from transformers import TrainerState

from ulmfit_style.config.experiments import LrFind
from ulmfit_style.console import progress
from ulmfit_style.training.batching import epochs_for
from ulmfit_style.training.monitoring import Monitor
from ulmfit_style.training.phases import Phase, TrainingPlan, build_trainer, train
from ulmfit_style.training.schedule import ExponentialSchedule
from ulmfit_style.training.trainer import Progress

SMOOTHING = 0.95
"""The weight of the past in the smoothed loss. fastai's 0.98 averages over 50 steps, half of a whole test."""

DIVERGED = 4
"""How many times its lowest the smoothed loss is when a test stops, as in fastai."""


@dataclass(frozen=True)
class Point:
    """A step of a range test."""

    step: int
    rate: float
    """The rate of the head, where each layer group has its own."""
    loss: float
    """Before the step."""
    smoothed: float


@dataclass(frozen=True)
class Suggestion:
    """The answer of a range test."""

    band: tuple[float, float] | None
    """The lowest and the highest rate; None where the curve gives no clear answer."""
    reason: str
    """How the band was found, or why there is none."""


@final
class LossCurve:
    """The loss of every step, also smoothed, until it is far above its lowest or not a number."""

    def __init__(self) -> None:
        self.points: list[Point] = []
        self._average = 0.0

    def look(self, state: TrainerState, model: nn.Module) -> bool:
        """Add the loss of a step, and return whether to stop.

        The smoothed loss is an exponential moving average with its bias corrected.
        """
        step, loss, rate = (float(state.log_history[-1][name]) for name in ("step", "loss", "learning_rate"))
        if not math.isfinite(loss):
            return True
        self._average = SMOOTHING * self._average + (1 - SMOOTHING) * loss
        self.points.append(Point(int(step), rate, loss, self._average / (1 - SMOOTHING**step)))
        return self.points[-1].smoothed > DIVERGED * min(point.smoothed for point in self.points)


def range_test(plan: TrainingPlan, options: LrFind, folder: Path) -> list[Point]:
    """Train the last phase of a plan with a rising rate, and return a point for each step.

    The phases before it are trained first, as usual. The model is of no use afterwards.

    Args:
        folder: Where the phases write meanwhile.
    """
    *before, last = plan.phases
    plan = replace(plan, save_minutes=math.inf)
    if before:
        train(replace(plan, phases=before), folder)
    plan.model.to(PartialState().device)
    rows = plan.dataset(len(before))
    # A step has the rate of its middle: the phase begins half a step below the first rate, and ends as far above the
    # last one.
    factor = (options.highest / options.lowest) ** (1 / (options.steps - 1))
    highest, epochs = options.highest * factor**0.5, epochs_for(options.steps, len(rows), rows.batch_size)
    phase, schedule = Phase(last.title, last.thawed, epochs, highest), ExponentialSchedule(1 / factor**options.steps)
    curve = LossCurve()
    with progress("range test", options.steps) as steps:
        build_trainer(plan, phase, rows, folder, [Progress(steps, rows), Monitor(curve.look)], schedule).train()
    return curve.points


def suggest(points: Sequence[Point], steps: int) -> Suggestion:
    """Return the band of rates that a range test suggests.

    It lies between the two that fastai's `lr_find` suggested (2020): the rate at which the smoothed loss falls most
    steeply, and a tenth of the rate at which it is lowest. The first tenth of the steps is left out, as in fastai. The
    fall is taken over a tenth of the steps, because from one step to the next it is mostly noise. Which of the two
    rates is lower depends on the curve.

    There is no band when the loss does not fall by more than the first losses scatter (one standard deviation); when
    it is lowest near the start; or when it is lowest at the end, because it might have fallen further.

    Args:
        steps: The steps of the whole test; there are fewer points where it stopped early.
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
    rates = [
        (kept[steepest + tenth // 2].rate, "where the smoothed loss falls most steeply"),
        (lowest.rate / 10, f"a tenth of the rate at which it is lowest, {lowest.rate:.1e}"),
    ]
    (low, low_reason), (high, high_reason) = sorted(rates)
    return Suggestion((low, high), f"from {low:.1e} ({low_reason}) to {high:.1e} ({high_reason})")
