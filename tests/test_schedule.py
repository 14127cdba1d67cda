import math
from fractions import Fraction

import pytest
import torch
from transformers import get_scheduler

from ulmfit_style.training.schedule import peak, share


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


@pytest.mark.parametrize("schedule", ["linear", "slanted", "cosine", "constant"])
@pytest.mark.parametrize("ratio", [0, 0.1, 1])
def test_every_rate_lies_between_nothing_and_its_peak(schedule, ratio: float):
    shares = [share(schedule, Fraction(step, 15), peak(schedule, ratio, 15)) for step in range(16)]
    assert all(0 <= value <= 1 for value in shares)
    assert ratio == 0.1 or max(shares) == 1  # the peak may lie between two steps
    assert shares[-1] == (1 if ratio == 1 or schedule == "constant" else 1 / 32 if schedule == "slanted" else 0)
