"""Figures for people, each as PNG and SVG. Matplotlib is imported when one is drawn."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#999933", "#000000")
"""Told apart by people with any kind of colour vision (Okabe and Ito 2008), and on black and white paper by markers."""

MARKERS = "osD^vP*X"


@dataclass(frozen=True)
class Curve:
    """The scores of one arm of a study."""

    name: str
    scores: Mapping[int, Sequence[float]]
    """Those of the seeds, by the number of labelled rows."""
    dashed: bool
    """Whether it is drawn in the background."""


def label_curves(path: Path, curves: Sequence[Curve], title: str, metric: str) -> None:
    """Draw scores over the number of labels: means as lines, standard deviations as bars, every seed as a dot.

    Args:
        path: Without its ending.
    """
    with _axes(path, (8, 5)) as axes:
        for number, curve in enumerate(curves):
            style = _style(number, curve)
            # A little beside one another, or bars would hide each other.
            shift = 1.03 ** (number - len(curves) / 2)
            sizes = sorted(curve.scores)
            middle = [mean(curve.scores[size]) for size in sizes]
            bars = [stdev(curve.scores[size]) if len(curve.scores[size]) > 1 else 0 for size in sizes]
            places = [size * shift for size in sizes]
            axes.errorbar(places, middle, bars, label=curve.name, capsize=2, **style)
            for size in sizes:
                some = curve.scores[size]
                axes.plot([size * shift] * len(some), some, ".", color=style["color"], alpha=0.35, markersize=4)
        sizes = sorted({size for curve in curves for size in curve.scores})
        axes.set_xscale("log")
        axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
        axes.minorticks_off()
        axes.set(xlabel="labelled training rows", ylabel=metric, title=title)
        axes.grid(alpha=0.25)
        axes.legend(fontsize="small")


def strips(path: Path, curves: Sequence[Curve], title: str, metric: str) -> None:
    """Draw the scores of arms at one number of labels: every seed as a dot, and the mean as a bar across.

    Args:
        path: Without its ending.
    """
    with _axes(path, (8, 1.2 + 0.45 * len(curves))) as axes:
        for number, curve in enumerate(curves):
            style = _style(number, curve)
            for some in curve.scores.values():
                axes.plot(some, [number] * len(some), "o", color=style["color"], alpha=0.6)
                axes.plot([mean(some)] * 2, [number - 0.3, number + 0.3], color=style["color"], linewidth=2)
        axes.set_yticks(range(len(curves)), [curve.name for curve in curves])
        axes.invert_yaxis()
        axes.set(xlabel=metric, title=title)
        axes.grid(axis="x", alpha=0.25)


def rising_rate(
    path: Path,
    rates: Sequence[float],
    losses: Sequence[float],
    smoothed: Sequence[float],
    band: tuple[float, float] | None,
    title: str,
) -> None:
    """Draw the losses of a range test over its rates: those of the steps faintly, the smoothed ones over them.

    Args:
        path: Without its ending.
        band: The rates between which the figure is shaded; None for nowhere.
    """
    with _axes(path, (8, 5)) as axes:
        axes.plot(rates, losses, color=COLOURS[0], alpha=0.3, label="of each step")
        axes.plot(rates, smoothed, color=COLOURS[0], linewidth=2, label="smoothed")
        if band is not None:
            axes.axvspan(*band, color=COLOURS[2], alpha=0.2, label=f"{band[0]:.1e} to {band[1]:.1e}")
        axes.set_xscale("log")
        # The last losses may be hundreds, and would press the fall into a line.
        low, fall = min(losses), smoothed[0] - min(losses) or 1
        axes.set_ylim(low - 0.1 * fall, low + 2 * fall)
        axes.set(xlabel="learning rate", ylabel="loss", title=title)
        axes.grid(alpha=0.25)
        axes.legend(fontsize="small")


def _style(number: int, curve: Curve) -> dict[str, Any]:
    return {
        "color": COLOURS[number % len(COLOURS)],
        "marker": MARKERS[number % len(MARKERS)],
        "linestyle": "--" if curve.dashed else "-",
        "markersize": 5,
    }


@contextmanager
def _axes(path: Path, size: tuple[float, float]) -> Iterator[Axes]:
    """Give the axes of a figure, which is written when the block ends."""
    logging.getLogger("matplotlib").setLevel(logging.WARNING)
    # Not pyplot: that keeps figures, and asks for a screen.
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    yield figure.subplots()
    path.parent.mkdir(parents=True, exist_ok=True)
    for ending in ("png", "svg"):
        figure.savefig(path.with_suffix(f".{ending}"), dpi=150)
