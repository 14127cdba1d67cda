"""sweep without a space: Hydra's own multirun over the chain, one trial for each point of a grid."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from ulmfit_style import chain, launch, lineage
from ulmfit_style.artefacts.directory import METRICS, read_json
from ulmfit_style.cli import hydra_flags
from ulmfit_style.cli.composing import compose, grid
from ulmfit_style.console import say
from ulmfit_style.data import pins
from ulmfit_style.errors import UserError
from ulmfit_style.results import terminal
from ulmfit_style.results.model import Interval, Table

ALONE = "compare=false"
"""An option of each trial: the references and the comparison without adaptation are the winner's."""


def run(overrides: Sequence[str]) -> None:
    """Run `adapt finetune` at every point of the grid that comma-separated overrides span, and print a table.

    Trials share every artefact that their overrides leave alone, so a sweep of `finetune.*` adapts once. They are
    ranked by the validation rows; the test rows stay out of the choice.

    Raises:
        UserError: if nothing is swept, or any point of the grid is wrong: before the first trial starts.
    """
    overrides = [ALONE, *overrides]
    points = grid(overrides)
    if len(points) < 2:
        raise UserError("sweep: give an option several values, for example finetune.learning_rate=2e-5,5e-5,1e-4")
    hydra_flags.run(partial(launch.run, stages=chain.TRIAL), ["--multirun", *overrides])

    # Content-addressed artefacts need no record of what a trial made, whichever launcher ran it.
    ranking = []
    for point in points:
        config = pins.pinned(compose(point))
        directory, metric = lineage.finetune(config).directory, lineage.required_task(config).metric
        measured = read_json(directory / METRICS)["validation"]
        ranking.append((measured["scores"][metric], Interval(*measured["interval"]), str(directory), point))
    ranking.sort(key=lambda trial: -trial[0])
    rows = [
        (" ".join(option for option in point if option not in overrides), score, interval, directory)
        for score, interval, directory, point in ranking
    ]
    header = ("trial", f"validation {metric}", "95 % interval", "artefact")
    say()
    terminal.show(Table(header, rows, f"{len(points)} trials, best first by the validation rows"))
    winner = " ".join(option for option in ranking[0][-1] if option != ALONE)
    say(f"The best one on the test rows, beside the references: make adapt finetune {winner}")
