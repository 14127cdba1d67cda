import math
from fractions import Fraction
from typing import get_args

import pytest
import torch
from transformers import get_scheduler

from ulmfit_style.config.training import Schedule
from ulmfit_style.training.schedule import rate_factor, rate_factors


def factors(schedule: Schedule, ratio: float, steps: int) -> list[float]:
    """Return the factor before each step, and after the last."""
    return [rate_factor(schedule, ratio, steps, Fraction(step, steps)) for step in range(steps + 1)]


@pytest.mark.parametrize("steps", [10, 40, 1170])
def test_the_slanted_rate_is_that_of_the_paper_at_every_step(steps: int):
    """Section 3.2: the rate is (1 + 31 p) / 32 of the peak."""
    cut, found = steps // 10, factors("slanted", 0.1, steps)
    for step in range(steps + 1):
        p = step / cut if step < cut else 1 - (step - cut) / (cut * (1 / 0.1 - 1))
        assert found[step] == pytest.approx((1 + p * 31) / 32, abs=1e-12)


# 70 * 0.1 is more than 7 in floats, and the peak is rounded up to a whole step.
@pytest.mark.parametrize("ratio", [0, 0.05, 0.1, 0.37])
@pytest.mark.parametrize("steps", [1, 70, 333])
def test_the_linear_rate_is_that_of_transformers_to_the_bit(ratio: float, steps: int):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=3e-5)
    theirs = get_scheduler("linear", optimizer, math.ceil(steps * ratio), steps)
    for factor in factors("linear", ratio, steps)[:-1]:
        assert theirs.get_last_lr() == [3e-5 * factor]
        optimizer.step()
        theirs.step()


def test_the_rate_of_a_step_is_that_of_its_middle():
    """Step t of T has the rate at (t + 1/2) / T: by hand for T = 4.

    Linear with a peak at 1/4: 1/8 is half of the way up; then 3/8, 5/8 and 7/8 have 5/6, 3/6 and 1/6. Cosine without
    warm-up: (1 + cos(pi p)) / 2 at p = 1/8, 3/8, 5/8, 7/8. Slanted with a peak at 1/2: (1 + 31 h) / 32 at heights of
    1/4, 3/4, 3/4, 1/4.
    """
    assert rate_factors("linear", 0.25, 4) == pytest.approx([1 / 2, 5 / 6, 3 / 6, 1 / 6])
    assert rate_factors("cosine", 0, 4) == pytest.approx([0.961940, 0.691342, 0.308658, 0.038060], abs=1e-6)
    assert rate_factors("slanted", 0.5, 4) == pytest.approx([8.75 / 32, 24.25 / 32, 24.25 / 32, 8.75 / 32])
    assert rate_factors("constant", 0, 4) == [1, 1, 1, 1]


@pytest.mark.parametrize("schedule", get_args(Schedule))
@pytest.mark.parametrize("ratio", [0, 0.1, 1])
def test_every_schedule_lies_between_its_end_and_its_peak_and_no_step_has_a_rate_of_zero(
    schedule: Schedule, ratio: float
):
    rates = factors(schedule, ratio, 15)
    assert all(0 <= factor <= 1 for factor in rates)
    end = {"linear": 0, "cosine": 0, "constant": 1, "slanted": 1 / 32}[schedule]
    assert rates[-1] == (1 if ratio == 1 else end)
    assert all(min(rate_factors(schedule, ratio, steps)) > 0 for steps in (1, 2, 7))
