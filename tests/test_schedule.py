import math
from fractions import Fraction
from typing import get_args

import pytest
import torch
from transformers import get_scheduler

from ulmfit_style.config.stages import Schedule
from ulmfit_style.training.schedule import peak, share, shares


def test_the_slanted_rate_is_that_of_the_paper():
    """Section 3.2 for T = 40 and cut_frac = 1/10, so cut = 4.

    Before it p = t / 4, after it p = 1 - (t - 4) / (4 (10 - 1)), and the rate is (1 + 31 p) / 32 of the peak.
    """
    by_hand = {0: 1 / 32, 1: 8.75 / 32, 2: 16.5 / 32, 4: 1, 13: 24.25 / 32, 22: 16.5 / 32, 31: 8.75 / 32, 40: 1 / 32}
    top = peak("slanted", 0.1, 40)
    assert {step: share("slanted", Fraction(step, 40), top) for step in by_hand} == by_hand


@pytest.mark.parametrize("steps", [10, 30, 70, 100, 1170])
def test_the_slanted_rate_follows_the_formula_of_the_paper_at_every_step(steps: int):
    top, cut = peak("slanted", 0.1, steps), steps // 10
    for step in range(steps + 1):
        p = step / cut if step < cut else 1 - (step - cut) / (cut * (1 / 0.1 - 1))
        assert share("slanted", Fraction(step, steps), top) == pytest.approx((1 + p * 31) / 32, abs=1e-12)


# 70 * 0.1 is more than 7 in floats, and the peak is rounded up to a whole step.
@pytest.mark.parametrize("ratio", [0, 0.05, 0.1, 0.37])
@pytest.mark.parametrize("steps", [1, 7, 40, 70, 333])
def test_the_linear_rate_is_that_of_transformers_to_the_bit(ratio: float, steps: int):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=3e-5)
    theirs = get_scheduler("linear", optimizer, math.ceil(steps * ratio), steps)
    for step in range(steps):
        ours = 3e-5 * share("linear", Fraction(step, steps), peak("linear", ratio, steps))
        assert theirs.get_last_lr() == [ours]
        optimizer.step()
        theirs.step()


def test_cosine_and_constant_rates():
    half = Fraction(1, 2)
    told = {
        schedule: [share(schedule, Fraction(eighth, 8), half) for eighth in (0, 2, 4, 6, 8)]
        for schedule in ("cosine", "constant")
    }
    assert told == {"cosine": [0, 0.5, 1, pytest.approx(0.5), 0], "constant": [0, 0.5, 1, 1, 1]}
    assert share("cosine", Fraction(5, 8), half) == pytest.approx((1 + math.cos(math.pi / 4)) / 2)


def test_the_one_cycle_is_that_of_fastai():
    """For a peak of 1 at a quarter of 16 steps, with fastai's div of 25 and div_final of 1e5.

    It rises from 0.04 by 0.96 (1 - cos(pi t / 4)) / 2, which at t = 1 is 0.96 * 0.146447, at t = 2 0.96 / 2; and falls
    to 0.00001 by 0.99999 (1 + cos(pi (t - 4) / 12)) / 2, which at t = 6 is 0.99999 * 0.933013, at t = 10 0.99999 / 2.
    """
    by_hand = {0: 0.04, 1: 0.180589, 2: 0.52, 4: 1, 6: 0.933013, 8: 0.750002, 10: 0.500005, 14: 0.066997, 16: 0.00001}
    top = peak("one_cycle", 0.25, 16)
    assert {step: share("one_cycle", Fraction(step, 16), top) for step in by_hand} == pytest.approx(by_hand, abs=1e-6)


def test_the_one_cycle_is_that_of_torch_at_every_step():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1)
    # Theirs ends with the last step, ours after it; their divisor of the end is of the beginning.
    theirs = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 3e-5, 41, pct_start=11 / 41, div_factor=25, final_div_factor=4000, cycle_momentum=False
    )
    for step in range(40):
        ours = 3e-5 * share("one_cycle", Fraction(step, 40), peak("one_cycle", 0.25, 40))
        assert theirs.get_last_lr() == [pytest.approx(ours, rel=1e-9)]
        optimizer.step()
        theirs.step()


@pytest.mark.parametrize("schedule", get_args(Schedule))
@pytest.mark.parametrize("ratio", [0, 0.1, 1])
def test_every_rate_lies_between_nothing_and_its_peak(schedule, ratio: float):
    shares = [share(schedule, Fraction(step, 15), peak(schedule, ratio, 15)) for step in range(16)]
    assert all(0 <= value <= 1 for value in shares)
    assert ratio == 0.1 or max(shares) == 1  # the peak may lie between two steps
    last = {"constant": 1, "slanted": 1 / 32, "one_cycle": 1e-5}.get(schedule, 0)
    assert shares[-1] == (1 if ratio == 1 else last)


def test_the_rate_of_a_step_is_that_of_its_middle():
    """Step t of T has the rate at (t + 1/2) / T: by hand for T = 4.

    Linear with a peak at 1/4: 1/8 is half of the way up; then 3/8, 5/8 and 7/8 have 5/6, 3/6 and 1/6. Cosine without
    warm-up: (1 + cos(pi p)) / 2 at p = 1/8, 3/8, 5/8, 7/8. Slanted with a peak at 1/2: (1 + 31 h) / 32 at heights of
    1/4, 3/4, 3/4, 1/4.
    """
    assert shares("linear", 0.25, 4) == pytest.approx([1 / 2, 5 / 6, 3 / 6, 1 / 6])
    assert shares("cosine", 0, 4) == pytest.approx([0.961940, 0.691342, 0.308658, 0.038060], abs=1e-6)
    assert shares("slanted", 0.5, 4) == pytest.approx([8.75 / 32, 24.25 / 32, 24.25 / 32, 8.75 / 32])
    assert shares("constant", 0, 4) == [1, 1, 1, 1]


@pytest.mark.parametrize("schedule", get_args(Schedule))
@pytest.mark.parametrize("ratio", [0, 0.1, 1])
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_no_step_has_a_rate_of_zero(schedule, ratio: float, steps: int):
    assert min(shares(schedule, ratio, steps)) > 0
