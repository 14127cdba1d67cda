"""Figures for people, each as PNG and SVG. Matplotlib is imported when one is drawn.

The path of a figure is given without its ending.
"""

import itertools
import logging
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from warnings import catch_warnings

from ulmfit_style.console import say_once

MOST_NUMBERS = 20
"""Classes of a confusion matrix whose counts can be read."""

LONGEST_NAME = 40
"""Letters of a name beside an axis."""


class Line(NamedTuple):
    """Points of a figure, joined by a line."""

    x: Sequence[float]
    y: Sequence[float]
    deviations: Any = None
    """The standard deviation of each y, drawn as a bar; or how far the bars go down, and how far up."""
    style: Mapping[str, Any] = {}
    """How it looks, where that is not as usual: arguments of matplotlib's `Axes.errorbar`."""


def lines(path: Path, lines: Mapping[str, Line], **axes_options: Any) -> None:
    """Draw lines.

    Args:
        lines: By their names, which are left out of the legend where they begin with `_`.
        axes_options: Arguments of matplotlib's `Axes.set`, such as `xlabel`.
    """
    with _axes(path, (8, 4)) as axes:
        for name, line in lines.items():
            axes.errorbar(line.x, line.y, line.deviations, label=name, **line.style)
        axes.set(**axes_options)
        axes.minorticks_off()


def over_labels(path: Path, by_name: Mapping[str, Line], counts: Sequence[int], metric: str) -> None:
    """Draw scores over numbers of labelled rows, as `lines` takes them."""
    ticks = {"xticks": counts, "xticklabels": [f"{count:,}" for count in counts]}
    lines(path, by_name, xscale="log", xlabel="labelled training rows", ylabel=metric, **ticks)


def matrix(path: Path, classes: Sequence[str], counts: Sequence[Sequence[int]]) -> None:
    """Draw how often each class (a row) was answered as which (a column), coloured by its share of the row."""
    names = [name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…" for name in classes]
    side = min(12, 2 + 0.45 * len(names) + 0.08 * max(map(len, names)))
    with _axes(path, (side + 0.6, side)) as axes:
        shares = [[count / (sum(row) or 1) for count in row] for row in counts]
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        axes.grid(visible=False)
        if len(classes) <= MOST_NUMBERS:
            for row, column in itertools.product(range(len(classes)), repeat=2):
                colour = "white" if shares[row][column] > 0.5 else "black"
                axes.text(column, row, f"{counts[row][column]:,}", ha="center", va="center", color=colour)
        axes.set_xticks(range(len(names)), names, rotation=90)
        axes.set_yticks(range(len(names)), names)
        axes.set(xlabel="answered", ylabel="right")


@contextmanager
def _axes(path: Path, size: tuple[float, float]) -> Iterator[Any]:
    """Give the axes of a figure, which is written when the block ends."""
    logging.getLogger("matplotlib").setLevel(logging.WARNING)
    # Not pyplot: that keeps figures, and asks for a screen.
    from matplotlib import rcParams, style
    from matplotlib.figure import Figure
    from matplotlib.text import Text

    with style.context(Path(__file__).with_suffix(".mplstyle")):
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots()
        yield axes
        if len(axes.get_legend_handles_labels()[0]) > 1:
            axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
        texts = figure.findobj(Text)
        fonts, missing = _fonts({letter for text in texts for letter in text.get_text() if letter.isprintable()})
        for text in texts:
            text.set_fontfamily(fonts)
        if missing:
            say_once(f"figures: no font is installed that has '{min(missing)}'; a png has boxes for such letters")
            rcParams["svg.fonttype"] = "none"  # words instead of shapes: who looks at it may have the font
        path.parent.mkdir(parents=True, exist_ok=True)
        with catch_warnings(action="ignore", category=UserWarning):
            for ending in ("png", "svg"):
                figure.savefig(path.with_suffix(f".{ending}"))


def _fonts(letters: Set[str]) -> tuple[list[str], Set[str]]:
    """Return matplotlib's own font, and installed ones for letters that it lacks; and the letters that none has."""
    from matplotlib.font_manager import fontManager, get_font

    names = ["DejaVu Sans"]
    for font in sorted(fontManager.ttflist, key=lambda font: font.name not in names):
        left = {letter for letter in letters if not get_font(font.fname).get_char_index(ord(letter))}
        if left < letters and "Last Resort" not in font.name:  # which has a box for any letter
            names, letters = [*names, font.name], left
    return names, letters
