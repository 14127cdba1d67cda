"""The figures."""

import re
from pathlib import Path

import pytest

from ulmfit_style.results import figures
from ulmfit_style.results.figures import Line


def texts(svg: Path) -> list[str]:
    """Return what is written in a figure: matplotlib draws the letters, and has the words as comments."""
    return re.findall("<!-- (.*) -->", svg.read_text(encoding="utf-8"))


def test_lines_have_a_legend_without_those_that_begin_with_an_underscore(tmp_path: Path):
    lines = {"first": Line([1, 2], [3, 4]), "second": Line([1, 2], [5, 6], [0.1, 0.2]), "_third": Line([1], [2])}
    figures.lines(tmp_path / "lines", lines, xlabel="labels", ylabel="f1", xscale="log")
    words = texts(tmp_path / "lines.svg")
    assert {"first", "second", "labels", "f1"} <= set(words)
    assert "_third" not in words
    assert (tmp_path / "lines.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("count", [2, 21])
def test_a_matrix_has_its_counts_where_they_can_be_read(tmp_path: Path, count: int):
    counts = [[1234 if row == column else 0 for column in range(count)] for row in range(count)]
    figures.matrix(tmp_path / "matrix", [f"class {'x' * 50} {number}" for number in range(count)], counts)
    words = texts(tmp_path / "matrix.svg")
    assert ("1,234" in words) == (count == 2)
    assert max(map(len, words)) == figures.LONGEST_NAME
