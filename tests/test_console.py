import os

import pytest

from ulmfit_style.console import MUTED, duration, muted, say


def test_a_block_within_a_muted_block_leaves_it_muted(capsys: pytest.CaptureFixture):
    with muted():
        with muted():
            say("inner")
        say("outer")
        assert MUTED in os.environ  # which processes that are started now look at
    assert MUTED not in os.environ
    say("after")
    assert capsys.readouterr().out == "after\n"


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(40, "40 seconds"), (250, "4 min 10 s"), (12 * 60, "12 minutes"), (3 * 3600 + 290, "3 h 5 min")],
)
def test_a_duration_is_told_in_the_units_that_one_would_take(seconds: float, told: str):
    assert duration(seconds) == told
