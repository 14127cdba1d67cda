import os

import pytest

from ulmfit_style.console import MUTED, muted, say


def test_a_block_within_a_muted_block_leaves_it_muted(capsys: pytest.CaptureFixture):
    with muted():
        with muted():
            say("inner")
        say("outer")
        assert MUTED in os.environ  # which processes that are started now look at
    assert MUTED not in os.environ
    say("after")
    assert capsys.readouterr().out == "after\n"
