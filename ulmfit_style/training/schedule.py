"""How the learning rate rises and falls: pure functions of the position in a phase.

Positions are fractions, so that no rounding tells the position of a step from the step itself.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

from ulmfit_style.config.stages import Schedule

RATIO = 32
"""How much smaller the lowest rate of the slanted schedule is than its peak (ULMFiT, section 3.2)."""

BEFORE, AFTER = 1 / 25, 1e-5
"""What a cycle begins and ends at, as shares of its peak: fastai's div and div_final (Smith 2018)."""


@dataclass(frozen=True)
class ExponentialSchedule:
    """What a range test has for a schedule: the rate is multiplied by the same factor in every step, up to its peak."""

    lowest: float
    """The rate before the first step, as a share of the peak."""


def share(schedule: Schedule | ExponentialSchedule, position: Fraction, warmup: Fraction) -> float:
    """Return the rate at a position of a phase, as a share of its peak.

    Args:
        position: From 0, before the first step, to 1, after the last.
        warmup: The position of the peak, from 0 to 1.
    """
    if isinstance(schedule, ExponentialSchedule):
        return float(schedule.lowest ** float(1 - position))
    rising = position < warmup or warmup == 1
    height = position / warmup if rising else (1 - position) / (1 - warmup)
    if schedule == "slanted":
        return float((1 + height * (RATIO - 1)) / RATIO)
    wave = (1 - math.cos(math.pi * height)) / 2
    if schedule == "one_cycle":
        lowest = BEFORE if rising else AFTER
        return lowest + (1 - lowest) * wave
    if schedule == "cosine" and not rising:
        return wave
    if schedule == "constant" and not rising:
        return 1.0
    return float(height)


def peak(schedule: Schedule | ExponentialSchedule, warmup_ratio: float, steps: int) -> Fraction:
    """Return the position of the peak, as `share` takes it: for a linear schedule it is at a whole step, as in BERT.

    Args:
        steps: Those of the phase.
    """
    if schedule == "linear":
        return Fraction(math.ceil(steps * warmup_ratio), steps)
    return Fraction(str(warmup_ratio))


def shares(schedule: Schedule | ExponentialSchedule, warmup_ratio: float, steps: int) -> list[float]:
    """Return the rate of each step of a phase, as a share of its peak: that in the middle of the step.

    So no step has a rate of 0, neither the first nor the last, also where there is but one.
    """
    top = peak(schedule, warmup_ratio, steps)
    return [share(schedule, Fraction(2 * step + 1, 2 * steps), top) for step in range(steps)]
