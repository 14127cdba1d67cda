"""lr_find: a learning-rate range test of a stage, on a model in memory that is thrown away."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from dataclasses import astuple
from pathlib import Path
from typing import TYPE_CHECKING

from ulmfit_style import chain
from ulmfit_style.cli.compose import compose
from ulmfit_style.console import logging_to, say
from ulmfit_style.errors import Interrupted, UserError
from ulmfit_style.lineage import Resolved, require_finished
from ulmfit_style.results import csv, figures
from ulmfit_style.results.figures import Line
from ulmfit_style.results.model import Table
from ulmfit_style.stages import finetune, resolve

if TYPE_CHECKING:
    from ulmfit_style.training.phases import TrainingPlan

FILE = "lr_find"
"""What the curve, the figure and the log in `runs/<name>/` are called, each with its ending."""


def run(overrides: Sequence[str]) -> None:
    """Let the rate of a stage rise on a copy of its model, keep the curve, draw it, and suggest a band of rates.

    Raises:
        UserError: if something in the data or the options is wrong, what the stage starts from is not there, or the
            loss is not a number from the start.
    """
    resolved = resolve(compose(overrides))
    config = resolved.config
    options, folder = config.lr_find, config.runs / config.name
    _check(resolved)
    stage = config.finetune if options.stage == "finetune" else config.adapt
    assert stage is not None  # it was checked
    say(f"lr_find: the rate of {options.stage} rises from {options.lowest:g} to {options.highest:g}", style="bold")
    if (config.processes or 1) > 1:
        say(f"  processes={config.processes}: one is enough here; where memory is short, lower micro_batch_size")
    chain.prepare()
    from ulmfit_style.training.rate_range import range_test, suggest

    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as discarded, logging_to(folder / f"{FILE}.log"):
        plan = _training_plan(resolved)
        rows = len(plan.data.rows)
        times = options.steps / math.ceil(rows / stage.batch_size)
        say(f"  {options.steps} steps of {stage.batch_size} rows are {times:.1f} passes over the {rows:,} rows")
        try:
            points = range_test(plan, options, Path(discarded))
        except Interrupted as stop:
            raise KeyboardInterrupt from stop  # there is nothing to go on from
    if not points:
        raise UserError(f"lr_find: the loss is not a number at step 1, at a rate of {options.lowest:g}")
    suggestion, option = suggest(points, options.steps), f"{options.stage}.learning_rate"
    curve = [astuple(point) for point in points]
    csv.write(folder / f"{FILE}.csv", Table(("step", "rate", "loss", "smoothed loss"), curve))
    _, rates, losses, smoothed = zip(*curve, strict=True)
    lines = {
        "loss of each step": Line(rates, losses, style={"alpha": 0.3}),
        "smoothed loss": Line(rates, smoothed, style={"marker": ""}),
    }
    # The last losses may be hundreds, and would press the fall into a line.
    lowest, fall = min(losses), smoothed[0] - min(losses) or 1
    if suggestion.band is not None:
        band = Line(suggestion.band, [lowest, lowest], style={"linewidth": 6, "alpha": 0.6})
        lines[f"{suggestion.band[0]:.1e} to {suggestion.band[1]:.1e}"] = band
    figures.lines(
        folder / FILE,
        lines,
        title=f"{config.name}: range test of {option}",
        xlabel="learning rate",
        ylabel="loss",
        xscale="log",
        ylim=(lowest - 0.1 * fall, lowest + 2 * fall),
    )
    if len(points) < options.steps:
        end = f"after step {len(points)} of {options.steps}, at a rate of {points[-1].rate:.1e}"
        say(f"  stopped {end}: the loss was far above its lowest, or not a number")
    if suggestion.band is None:
        say(f"lr_find: no clear answer: {suggestion.reason}.")
    else:
        say(f"lr_find: {option} {suggestion.reason}; here it is {stage.learning_rate:g}.")
    say(f"The figure: {folder / FILE}.png; the curve: {folder / FILE}.csv")
    if suggestion.band is not None:
        low, high = suggestion.band
        values = ",".join(f"{rate:.1e}" for rate in (low, (low * high) ** 0.5, high))
        say(f"One test of one seed is a hint. To try the rates, with the same options: make sweep {option}={values}")


def _check(resolved: Resolved) -> None:
    """Check the model and the data as the stage would, and that what it starts from is there.

    Raises:
        UserError: naming what is wrong, or the command that makes what is missing.
    """
    stage = resolved.stages[resolved.config.lr_find.stage]
    stage.check(resolved, [stage.name])
    before = stage.starts_from(resolved)
    if before is not None:
        require_finished(resolved, before, "lr_find")


def _training_plan(resolved: Resolved) -> TrainingPlan:
    """Return what the stage would train."""
    config = resolved.config
    if config.lr_find.stage == "finetune":
        return finetune.prepare(resolved)[0]
    from ulmfit_style.training.language_model import prepare

    assert config.adapt is not None  # it was checked
    return prepare(config, config.adapt, resolved.start.directory, resolved.corpus, resolved.general_text).plan
