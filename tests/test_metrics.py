import numpy as np
import pytest

from ulmfit_style.metrics import difference, interval


def test_the_interval_of_a_mean_is_that_of_the_normal_approximation_where_that_holds():
    points = [1.0] * 700 + [0.0] * 300
    low, high = interval(points)
    half = 1.96 * np.sqrt(0.7 * 0.3 / 1000)
    assert (low, high) == pytest.approx((0.7 - half, 0.7 + half), abs=0.003)


def test_an_interval_is_the_same_whenever_it_is_asked_for():
    points = list(np.random.default_rng(1).random(50))
    assert interval(points) == interval(points)


def test_pairs_give_a_narrower_interval_than_two_models_by_themselves():
    chance = np.random.default_rng(0)
    baseline = (chance.random(400) < 0.7).astype(float)
    ours = baseline.copy()
    ours[:12] = 1.0
    gain, low, high = difference(ours, baseline)
    assert gain == pytest.approx((ours - baseline).mean())
    assert low <= gain <= high
    assert high - low < 0.5 * (interval(ours)[1] - interval(ours)[0])


def test_models_with_different_rows_cannot_be_compared():
    with pytest.raises(ValueError, match="longer"):
        difference([1.0], [1.0, 0.0])
