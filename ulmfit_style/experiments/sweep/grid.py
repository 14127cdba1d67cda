"""Hydra's own multirun over the chain: one trial per point of a grid, over shared artefacts."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from rich.table import Table

from ulmfit_style import chain, lineage
from ulmfit_style.artefacts.directory import METRICS, read_json
from ulmfit_style.cli import flags
from ulmfit_style.cli.compose import compose
from ulmfit_style.cli.overrides import grid
from ulmfit_style.console import say, show
from ulmfit_style.data import pins
from ulmfit_style.errors import UserError
from ulmfit_style.stages import resolve


def run(overrides: Sequence[str]) -> None:
    """Run `adapt finetune` at every point of the grid that comma-separated overrides span, and print a table.

    Trials share every artefact that their overrides leave alone, so a sweep of `finetune.*` adapts once. They are
    ranked by the validation rows; the test rows stay out of the choice.

    Raises:
        UserError: if nothing is swept, or any point of the grid is wrong: before the first trial starts.
    """
    overrides = ["compare=false", *overrides]
    points = grid(overrides)
    if len(points) < 2:
        raise UserError("sweep: give an option several values, for example finetune.learning_rate=2e-5,5e-5,1e-4")
    flags.run(partial(chain.run, stages=chain.TRIAL), ["--multirun", *overrides])

    # Content-addressed artefacts need no record of what a trial made, whichever launcher ran it.
    configs = [pins.pinned(compose(point)) for point in points]
    directories = [resolve(config).artefact("finetune").directory for config in configs]
    results = [read_json(directory / METRICS)["validation"] for directory in directories]
    metric = lineage.required_task(configs[0]).metric
    ranking = sorted(range(len(points)), key=lambda trial: -results[trial]["scores"][metric])
    table = Table(title=f"{len(points)} trials, best first by the validation rows", title_justify="left")
    for heading in ("trial", f"validation {metric}", "95 % interval", "artefact"):
        table.add_column(heading, overflow="fold")
    for trial in ranking:
        swept = " ".join(override for override in points[trial] if override not in overrides)
        low, high = results[trial]["interval"]
        score = f"{results[trial]['scores'][metric]:.3f}"
        table.add_row(swept, score, f"{low:.3f} to {high:.3f}", str(directories[trial]))
    say()
    show(table)
    winner = " ".join(override for override in points[ranking[0]] if override != overrides[0])
    say(f"The best one on the test rows, beside the references: make adapt finetune {winner}")
