"""How the learning rate rises and falls: pure functions of the position in a phase.

Positions are fractions, so that no rounding separates the position of a step from the step itself.
"""

import math
from collections.abc import Callable, Mapping
from fractions import Fraction

from ulmfit_style.config.training import Schedule

RATIO = 32
"""How many times smaller the lowest rate of the slanted schedule is than its peak (ULMFiT, section 3.2)."""


def _slanted(height: Fraction) -> float:
    return float((1 + height * (RATIO - 1)) / RATIO)


SHAPES: Mapping[Schedule, tuple[Callable[[Fraction], float], Callable[[Fraction], float]]] = {
    "linear": (float, float),
    "slanted": (_slanted, _slanted),
    "cosine": (float, lambda height: (1 - math.cos(math.pi * height)) / 2),
    "constant": (float, lambda height: 1.0),
}
"""The factor while the rate rises, and while it falls, by the height: 0 at either end of the phase, 1 at the peak."""


def rate_factor(schedule: Schedule, warmup_ratio: float, steps: int, position: Fraction) -> float:
    """Return the rate at a position of a phase, as a factor of its peak.

    The peak of a linear schedule is at a whole step, as in BERT.

    Args:
        steps: The optimizer steps of the phase.
        position: From 0, before the first step, to 1, after the last.
    """
    rise, fall = SHAPES[schedule]
    peak = Fraction(math.ceil(steps * warmup_ratio), steps) if schedule == "linear" else Fraction(str(warmup_ratio))
    if position < peak or peak == 1:
        return rise(position / peak)
    return fall((1 - position) / (1 - peak))


def rate_factors(schedule: Schedule, warmup_ratio: float, steps: int) -> list[float]:
    """Return the rate of each step of a phase, as a factor of its peak: the rate in the middle of the step.

    So no step has a rate of 0, neither the first nor the last, even where there is only one.
    """
    middles = (Fraction(2 * step + 1, 2 * steps) for step in range(steps))
    return [rate_factor(schedule, warmup_ratio, steps, middle) for middle in middles]
