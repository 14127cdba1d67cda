"""Figures for people, each as PNG and SVG. Matplotlib is imported when one is drawn."""

from __future__ import annotations

import itertools
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import TYPE_CHECKING, Any

from ulmfit_style.results.model import Figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as MatplotlibFigure

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#999933", "#000000")
"""Told apart by people with any kind of colour vision (Okabe and Ito 2008), and on black and white paper by markers."""

MARKERS = "osD^vP*X"

_BESIDE: Mapping[str, Any] = {"textcoords": "offset points", "ha": "center", "size": "small"}

MOST_IN_LEGEND = 12
"""Lines that a legend tells apart; with more it would take the place of the figure."""

LONGEST_NAME = 40
"""Letters of a name beside an axis."""


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


def whiskers(path: Path, values: Mapping[str, tuple[float, float, float]], label: str) -> None:
    """Draw a number with its interval for each name, the first one on top.

    Args:
        path: Without its ending.
        values: The number, and the bounds of its interval.
    """
    with _axes(path, (7, 0.9 + 0.36 * len(values))) as axes:
        for place, (value, low, high) in enumerate(values.values()):
            axes.plot([low, high], [place, place], color=COLOURS[0], alpha=0.45, linewidth=5, solid_capstyle="round")
            axes.plot(value, place, "o", color=COLOURS[0], markersize=7)
            axes.annotate(f"{value:.3f}", (value, place), (0, 6), **_BESIDE)
        axes.set_yticks(range(len(values)), [_shortened(name) for name in values])
        axes.set(xlabel=label, ylim=(len(values) - 0.5, -0.7))


def stations(path: Path, names: Sequence[str], lines: Mapping[str, Sequence[float]], label: str) -> None:
    """Draw what was measured before training and after each phase, a line for each measure.

    Args:
        path: Without its ending.
        names: The stations of the lines.
    """
    with _axes(path, (7, 3)) as axes:
        for number, (name, values) in enumerate(lines.items()):
            axes.plot(names, values, marker=MARKERS[number], color=COLOURS[number], label=name)
        for place in range(len(names)):
            for rank, value in enumerate(sorted((values[place] for values in lines.values()), reverse=True)):
                shift = (0, -15 if rank else 7)  # the highest has its number above it
                axes.annotate(f"{value:.2f}", (place, value), shift, **_BESIDE)
        axes.set(ylabel=label, xlim=(-0.4, len(names) - 0.6))
        axes.margins(y=0.2)


def matrix(path: Path, right: Sequence[str], answered: Sequence[str], counts: Sequence[Sequence[int]]) -> None:
    """Draw how often each class (a row) was answered as which (a column), coloured by its share of the row.

    Args:
        path: Without its ending.
    """
    side = min(12, 2.6 + 0.45 * len(right))
    with _axes(path, (side + 0.6, side)) as axes:
        totals = [sum(row) or 1 for row in counts]
        shares = [[count / total for count in row] for row, total in zip(counts, totals, strict=True)]
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        axes.spines[:].set_visible(False)
        if len(right) <= 20:
            for row, (numbers, row_shares) in enumerate(zip(counts, shares, strict=True)):
                for column, (count, share) in enumerate(zip(numbers, row_shares, strict=True)):
                    colour = "white" if share > 0.5 else "#333" if count else "#bbb"
                    axes.text(column, row, f"{count:,}", ha="center", va="center", color=colour)
        turned = 90 if len(answered) > 4 else 0
        axes.set_xticks(range(len(answered)), [_shortened(name) for name in answered], rotation=turned)
        axes.set_yticks(range(len(right)), [_shortened(name) for name in right])
        axes.set(xlabel="answered", ylabel="right")


def reliability(path: Path, bins: Sequence[tuple[float, float, int]]) -> None:
    """Draw how often answers are right by their probability, and below it how many there are of each.

    Args:
        path: Without its ending.
        bins: Of each part of the probabilities their mean, the share that is right, and the number of answers.
    """
    with _axes(path, (5.5, 5), rows=2, heights=(3, 1)) as (above, below):
        confidences, right, counts = zip(*bins, strict=True)
        above.plot([0, 1], [0, 1], "--", color="grey", label="perfectly calibrated")
        above.plot(confidences, right, "o-", color=COLOURS[0])
        above.vlines(confidences, confidences, right, color=COLOURS[1], alpha=0.6, label="the gap")
        above.set(ylabel="share of right answers", xlim=(0, 1), ylim=(0, 1.02))
        below.bar(confidences, counts, width=0.04, color=COLOURS[0], alpha=0.6)
        below.set(xlabel="the model's probability", ylabel="answers")


def scatter(path: Path, right: Sequence[float], answered: Sequence[float]) -> None:
    """Draw numbers that were answered over those that are right, and the line where they are the same.

    Args:
        path: Without its ending.
    """
    with _axes(path, (5.5, 5)) as axes:
        ends = [min(*right, *answered), max(*right, *answered)]
        axes.plot(ends, ends, "--", color="grey")
        axes.plot(right, answered, "o", color=COLOURS[0], alpha=0.35, markersize=5, markeredgewidth=0)
        axes.set(xlabel="right", ylabel="answered")


def overlaid(path: Path, logs: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    """Draw the losses of several runs over their optimizer steps, over all phases.

    Args:
        path: Without its ending.
        logs: The entries of each metrics.json that have a loss.
    """
    with _axes(path, (8, 3.6)) as axes:
        for number, (name, log) in enumerate(logs.items()):
            steps = [start + entry["step"] for start, entries in _phases(log) for entry in entries]
            losses = [entry["loss"] for entry in log]
            colour, dashes = COLOURS[number % len(COLOURS)], ("-", "--", ":", "-.")[number // len(COLOURS) % 4]
            axes.plot(steps, losses, linestyle=dashes, color=colour, label=name)
        axes.set(xlabel="optimizer step", ylabel="loss", xlim=(0, None))


def _phases(log: Sequence[Mapping[str, Any]]) -> Iterator[tuple[int, list[Mapping[str, Any]]]]:
    """Yield the entries of each phase, and the steps of those before it."""
    before = 0
    for _, entries in itertools.groupby(log, lambda entry: entry["phase"]):
        yield before, (phase := list(entries))
        before += phase[-1]["step"]


def _shortened(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…"


def course(path: Path, log: Sequence[Mapping[str, Any]], title: str, unit: str) -> None:
    """Draw the loss, and below it the learning rate, over the optimizer steps of all phases.

    Args:
        path: Without its ending.
        log: The entries of metrics.json that have a loss; each phase counts its own steps.
        unit: That of the loss.
    """
    phases = [entries for _, entries in _phases(log)]
    ends = [0, *itertools.accumulate(entries[-1]["step"] for entries in phases)]
    peaks: list[float] = []
    with _axes(path, (9, 6), rows=2) as (above, below):
        for (start, end), entries in zip(itertools.pairwise(ends), phases, strict=True):
            steps = [start + entry["step"] for entry in entries]
            rates = [entry["learning_rate"] for entry in entries]
            above.plot(steps, [entry["loss"] for entry in entries], ".-", color=COLOURS[0], markersize=4)
            below.plot(steps, rates, ".-", color=COLOURS[0], markersize=4)
            peaks.append(max(rates))
            for axes in (above, below):
                axes.axvline(end, color="grey", linestyle=":", zorder=0)
            _head(above, entries[0]["phase"], (start + end) / 2, (end - start) / ends[-1])
        above.figure.suptitle(title)
        above.set(ylabel=f"loss ({unit})")
        below.set(xlabel="optimizer step", ylabel="learning rate", xlim=(0, ends[-1]), ylim=(0, None))
        below.ticklabel_format(axis="y", scilimits=(0, 0))
        if max(peaks) > 25 * min(peaks):  # the lowest could hardly be seen
            below.set(yscale="log", ylim=(min(peaks) / 10, None))


def plotted(path: Path, plot: Callable[[], object]) -> None:
    """Keep what a library draws by pyplot, without a screen.

    Args:
        path: Without its ending.
    """
    logging.getLogger("matplotlib").setLevel(logging.WARNING)
    from matplotlib import pyplot

    with pyplot.rc_context({"backend": "agg", "figure.constrained_layout.use": True, "figure.figsize": (9, 5)}):
        plot()
        for axes in pyplot.gcf().axes:
            axes.tick_params(axis="x", which="both", labelrotation=90 * bool(axes.get_xscale() == "log"))
            if (legend := axes.get_legend()) is not None and len(legend.get_texts()) > MOST_IN_LEGEND:
                legend.remove()
        _save(pyplot.gcf(), path)
        pyplot.close("all")


def save(figure: Figure, folder: Path) -> Path:
    """Draw a figure of a result into a folder, as PNG and SVG, and return the path of both without the ending."""
    path = folder / figure.name
    figure.draw(path, *figure.arguments)
    return path


def _head(axes: Axes, title: str, middle: float, share: float) -> None:
    """Write the title of a phase over its share of the steps: upright where it is narrow, and none where narrower."""
    if share > 1 / 60:
        above, upright = axes.get_xaxis_transform(), len(title) > 95 * share
        axes.text(middle, 1.03, title, size="small", rotation=90 * upright, ha="center", va="bottom", transform=above)


def _style(number: int, curve: Curve) -> dict[str, Any]:
    return {
        "color": COLOURS[number % len(COLOURS)],
        "marker": MARKERS[number % len(MARKERS)],
        "linestyle": "--" if curve.dashed else "-",
        "markersize": 5,
    }


@contextmanager
def _axes(
    path: Path, size: tuple[float, float], rows: int = 1, heights: tuple[float, ...] | None = None
) -> Iterator[Any]:
    """Give the axes of a figure, or those of each row, which is written when the block ends."""
    logging.getLogger("matplotlib").setLevel(logging.WARNING)
    # Not pyplot: that keeps figures, and asks for a screen.
    from matplotlib.figure import Figure as MatplotlibFigure

    figure = MatplotlibFigure(figsize=size, layout="constrained")
    yield figure.subplots(rows, sharex=True, height_ratios=heights)
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
        if not axes.images:
            axes.grid(alpha=0.25)
        if len(axes.get_legend_handles_labels()[0]) > 1:
            axes.legend(fontsize="small")
    _save(figure, path)


def _save(figure: MatplotlibFigure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    for ending in ("png", "svg"):
        fresh = path.with_name(f".{path.name}.{os.getpid()}.{ending}")
        figure.savefig(fresh, dpi=150)
        fresh.replace(path.with_suffix(f".{ending}"))
