"""The figure of losses and rates."""

import re
from pathlib import Path

import pytest

from ulmfit_style.results import figures


def texts(svg: Path) -> list[str]:
    """Return what is written in a figure: matplotlib draws the letters, and has the words as comments."""
    return re.findall("<!-- (.*) -->", svg.read_text(encoding="utf-8"))


# By a factor of 40, the lower of two peaks could not be seen beside the other.
@pytest.mark.parametrize(("factor", "logarithmic"), [(2, False), (40, True)])
def test_the_figure_has_axes_and_phases(tmp_path: Path, factor: float, logarithmic: bool):
    phases = {"head alone": 1e-4 * factor, "every weight": 1e-4}
    log = [
        {"phase": phase, "step": step, "loss": 1.0, "learning_rate": peak * step / 4}
        for phase, peak in phases.items()
        for step in range(5)
    ]
    figures.course(tmp_path / "course", log, "finetune-3fa9c1e2", "nats a token")
    found = texts(tmp_path / "course.svg")
    assert {"finetune-3fa9c1e2", "optimizer step", "loss (nats a token)", "learning rate", *phases} <= set(found)
    assert any("{10^{" in text for text in found) == logarithmic
    assert (tmp_path / "course.png").read_bytes().startswith(b"\x89PNG")


def test_a_phase_too_short_for_its_title_is_marked_without_one(tmp_path: Path):
    log = [
        {"phase": phase, "step": step, "loss": 1.0, "learning_rate": 0.1}
        for phase, steps in {"short": 1, "long": 99}.items()
        for step in range(1, steps + 1)
    ]
    figures.course(tmp_path / "course", log, "adapt-3fa9c1e2", "mean")
    found = texts(tmp_path / "course.svg")
    assert "long" in found
    assert "short" not in found
