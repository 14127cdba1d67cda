"""lr_find: a learning-rate range test of a stage, on a model in memory that is thrown away."""

import math
import tempfile
from collections.abc import Sequence
from pathlib import Path

from ulmfit_style import chain
from ulmfit_style.cli.compose import compose
from ulmfit_style.console import logging_to, say
from ulmfit_style.errors import Interrupted, UserError
from ulmfit_style.resolved import require_finished
from ulmfit_style.results import csv, figures
from ulmfit_style.results.figures import Line
from ulmfit_style.results.parts import Table
from ulmfit_style.stages import finetune
from ulmfit_style.stages.table import resolve

FILE = "lr_find"
"""The name of the curve, the figure and the log in `runs/<name>/`, without the ending."""


def run(overrides: Sequence[str]) -> None:
    """Let the rate of a stage rise on a copy of its model, keep the curve, draw it, and suggest a band of rates.

    Raises:
        UserError: if something in the data or the options is wrong, what the stage starts from is not there, or the
            loss is not a number from the start.
    """
    resolved = resolve(compose(overrides))
    config, options = resolved.config, resolved.config.lr_find
    stage, folder, option = resolved.stages[options.stage], config.runs / config.name, f"{options.stage}.learning_rate"
    stage.check(resolved, [stage.name])
    if options.stage == "finetune" and not resolved.finetune.epochs:
        remedy = "take finetune=plain, or give finetune.epochs"
        raise UserError(f"lr_find: finetune.epochs=0 trains nothing at finetune.learning_rate; {remedy}")
    if (before := stage.starts_from(resolved)) is not None:
        require_finished(resolved, before, "lr_find")
    say(f"lr_find: {option} rises from {options.lowest:g} to {options.highest:g}", style="bold")
    chain.quiet_libraries()
    from ulmfit_style.training import language_model
    from ulmfit_style.training.rate_range import range_test, suggest

    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as discarded, logging_to(folder / f"{FILE}.log"):
        if options.stage == "adapt":
            assert config.adapt is not None  # it was checked
            start = resolved.source_of("adapt").directory
            plan = language_model.prepare(config, config.adapt, start, resolved.corpus, resolved.general_text).plan
        else:
            plan = finetune.prepare(resolved)[0]
        rows = len(plan.data.rows)
        epochs = options.steps / math.ceil(rows / plan.options.batch_size)
        say(f"  {options.steps} steps of {plan.options.batch_size} rows are {epochs:.1f} epochs of the {rows:,} rows")
        try:
            points = range_test(plan, options, Path(discarded))
        except Interrupted as stop:
            raise KeyboardInterrupt from stop  # there is nothing to go on from
    if not points:
        raise UserError(f"lr_find: the loss is not a number at step 1, at a rate of {options.lowest:g}")
    suggestion = suggest(points, options.steps)
    csv.write(folder / f"{FILE}.csv", Table(("step", "rate", "loss", "smoothed loss"), points))
    _, rates, losses, smoothed = zip(*points, strict=True)
    of_steps, smooth = Line(rates, losses, style={"alpha": 0.3}), Line(rates, smoothed, style={"marker": ""})
    lines = {"loss of each step": of_steps, "smoothed loss": smooth}
    lowest, fall = min(losses), smoothed[0] - min(losses) or 1
    title = f"{config.name}: range test of {option}"
    # The last losses may be hundreds, and would press the fall into a line.
    scale = {"xscale": "log", "ylim": (lowest - 0.1 * fall, lowest + 2 * fall)}
    figures.lines(folder / FILE, lines, title=title, xlabel="learning rate", ylabel="loss", **scale)
    if len(points) < options.steps:
        end = f"after step {len(points)} of {options.steps}, at a rate of {points[-1].rate:.1e}"
        say(f"  stopped {end}: the loss was far above its lowest, or not a number")
    say(f"The figure: {folder / FILE}.png; the curve: {folder / FILE}.csv")
    if suggestion.band is None:
        say(f"lr_find: no clear answer: {suggestion.reason}.")
    else:
        say(f"lr_find: {option} {suggestion.reason}; here it is {plan.options.learning_rate:g}.")
        low, high = suggestion.band
        values = ",".join(f"{rate:.1e}" for rate in (low, (low * high) ** 0.5, high))
        say(f"One test of one seed is a hint. To try the rates, with the same options: make sweep {option}={values}")
