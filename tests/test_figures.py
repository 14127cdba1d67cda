"""The figures, and the one of losses and rates that is drawn beside metrics.json."""

import json
import os
import re
from pathlib import Path
from types import SimpleNamespace

import pytest

from ulmfit_style import chain
from ulmfit_style.artefacts.directory import METRICS
from ulmfit_style.results import figures
from ulmfit_style.results.figures import Line


def texts(svg: Path) -> list[str]:
    """Return what is written in a figure: matplotlib draws the letters, and has the words as comments."""
    return re.findall("<!-- (.*) -->", svg.read_text(encoding="utf-8"))


def test_the_figure_of_a_training_has_axes_and_phases(tmp_path: Path):
    peaks = {"head alone": 1e-3, "every weight": 1e-4}
    log = [
        {"phase": phase, "step": step, "loss": 1.0, "learning_rate": peak / step}
        for phase, peak in peaks.items()
        for step in range(1, 5)
    ]
    figures.course(tmp_path / "course", log, "finetune-3fa9c1e2", "nats per token")
    words = set(texts(tmp_path / "course.svg"))
    assert {"finetune-3fa9c1e2", "optimizer step", "loss (nats per token)", "learning rate", *peaks} <= words
    assert (tmp_path / "course.png").read_bytes().startswith(b"\x89PNG")
    assert figures.steps_of_all_phases(log) == list(range(1, 9))


def test_lines_have_a_legend_without_those_that_begin_with_an_underscore(tmp_path: Path):
    lines = {"first": Line([1, 2], [3, 4]), "second": Line([1, 2], [5, 6], [0.1, 0.2]), "_third": Line([1], [2])}
    figures.lines(tmp_path / "lines", lines, xlabel="labels", ylabel="f1", xscale="log")
    words = texts(tmp_path / "lines.svg")
    assert {"first", "second", "labels", "f1"} <= set(words)
    assert "_third" not in words


@pytest.mark.parametrize("count", [2, 21])
def test_a_matrix_has_its_counts_where_they_can_be_read(tmp_path: Path, count: int):
    counts = [[1234 if row == column else 0 for column in range(count)] for row in range(count)]
    figures.matrix(tmp_path / "matrix", [f"class {'x' * 50} {number}" for number in range(count)], counts)
    words = texts(tmp_path / "matrix.svg")
    assert ("1,234" in words) == (count == 2)
    assert max(map(len, words)) == figures.LONGEST_NAME


def step_of(directory: Path, logged: int) -> SimpleNamespace:
    """Return a step whose artefact has a log of so many entries."""
    log = [{"phase": "all", "step": step, "loss": 1.0, "learning_rate": 0.1} for step in range(1, logged + 1)]
    (directory / METRICS).write_text(json.dumps({"log": log}))
    return SimpleNamespace(artefact=SimpleNamespace(stage="finetune", directory=directory))


def test_what_was_trained_is_drawn_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    step = step_of(tmp_path, chain.FEWEST_POINTS)
    chain.draw([step])
    assert f"Losses and rates are drawn in {tmp_path}/course.png" in capsys.readouterr().out
    chain.draw([step])
    assert capsys.readouterr().out == ""


def test_a_few_steps_are_not_drawn(tmp_path: Path):
    chain.draw([step_of(tmp_path, chain.FEWEST_POINTS - 1)])
    assert not list(tmp_path.glob("course.*"))


def test_a_figure_that_cannot_be_drawn_stops_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / f".course.{os.getpid()}.png").mkdir()  # what is written first, and then renamed
    chain.draw([step_of(tmp_path, chain.FEWEST_POINTS)])
    assert f"{tmp_path}/course.png: could not be drawn (IsADirectoryError" in capsys.readouterr().out
