"""The learning-rate range test: the loss while the rate rises from step to step (Smith 2017, section 3.3)."""

import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from statistics import stdev
from typing import Any, NamedTuple, final

from transformers import TrainerCallback, TrainerControl, TrainerState

from ulmfit_style.config.experiments import LrFind
from ulmfit_style.training.finite import NotFinite
from ulmfit_style.training.phases import TrainingPlan, train, train_phase

SMOOTHING = 0.95
"""The weight of the past in the smoothed loss. fastai's 0.98 averages over 50 steps, half of a whole test."""

DIVERGED = 4
"""How many times its lowest the smoothed loss is when a test stops, as in fastai."""


class Point(NamedTuple):
    """A step of a range test."""

    step: int
    rate: float
    """The rate of the head, where each layer group has its own."""
    loss: float
    """Before the step."""
    smoothed: float


class Suggestion(NamedTuple):
    """The answer of a range test."""

    band: tuple[float, float] | None
    """The lowest and the highest rate; None where the curve gives no clear answer."""
    reason: str
    """How the band was found, or why there is none."""


@final
class LossCurve(TrainerCallback):
    """The loss of every step, also smoothed; the phase is stopped where that is far above its lowest.

    The smoothed loss is an exponential moving average with its bias corrected.
    """

    def __init__(self) -> None:
        self.points: list[Point] = []
        self._average = 0.0

    def on_log(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Add the loss of a step."""
        entry: Any = state.log_history[-1]
        if "loss" not in entry:
            return
        step, loss = int(entry["step"]), entry["loss"]
        self._average = SMOOTHING * self._average + (1 - SMOOTHING) * loss
        self.points.append(Point(step, entry["learning_rate"], loss, self._average / (1 - SMOOTHING**step)))
        lowest = min(point.smoothed for point in self.points)
        control.should_training_stop |= self.points[-1].smoothed > DIVERGED * lowest


def range_test(plan: TrainingPlan, options: LrFind, folder: Path) -> list[Point]:
    """Train the last phase of a plan with a rising rate, and return a point for each step.

    The phases before it are trained first, as usual. The model is of no use afterwards.

    Args:
        folder: Where the phases write meanwhile.
    """
    *before, last = plan.phases
    factor = (options.lowest / options.highest) ** (1 / (options.steps - 1))
    rising = replace(
        last,
        title="range test",
        epochs=math.inf,
        max_steps=options.steps,
        learning_rate=options.highest,
        rates=lambda steps: [factor ** (steps - 1 - step) for step in range(steps)],
    )
    plan = replace(plan, phases=[*before, rising], save_minutes=math.inf)
    train(replace(plan, phases=before), folder)
    curve = LossCurve()
    with suppress(NotFinite):
        train_phase(plan, len(before), folder / "range", [curve])
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
