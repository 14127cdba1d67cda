"""One model of many that are compared, in a study or a sweep: made, scored, linked, and its weights kept or not."""

import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import mean
from typing import Literal

from ulmfit_style import chain
from ulmfit_style.artefacts import predictions
from ulmfit_style.artefacts.directory import METRICS, discard_weights, read_json
from ulmfit_style.errors import Pruned
from ulmfit_style.metrics import intervals
from ulmfit_style.resolved import Reporter, Resolved
from ulmfit_style.results.parts import Difference
from ulmfit_style.tasks.base import Task


def make(resolved: Resolved, link: str, reporter: Reporter | None = None) -> str | None:
    """Make a fine-tuned model, unless its scores are there, and link it; return what went wrong, if anything did.

    Args:
        link: The name of the link in `runs/<name>/`.

    Raises:
        Pruned: if the reporter stopped it.
    """
    model = resolved.artefact("finetune")
    if not model.measured:
        if (error := chain.make_trial(resolved.config, link, reporter)) is not None:
            return error
        if not model.measured:
            raise Pruned  # in processes of its own
    model.link(resolved.config.name, link)
    return None


def difference(task: Task, models: Sequence[Path], baseline: Sequence[Path], split: str) -> Difference:
    """Return by how much two mean scores over the same seeds differ, with its paired interval over seeds and rows.

    Args:
        models: The directory of the one model for each seed.
        baseline: Those of the other.
        split: The rows that are scored: validation or test.
    """
    means, points = [], []
    for directories in (models, baseline):
        measured = [read_json(directory / METRICS)[split] for directory in directories]
        means.append(mean(scored["scores"][task.metric] for scored in measured))
        points.append([predictions.row_scores(task, directory, split) for directory in directories])
    return Difference(means[0] - means[1], *intervals.over_seeds(points[0], points[1], task.of_means))


def command_of_the_best(overrides: Sequence[str]) -> str:
    """Return the sentence with the command that scores the best trial by the validation rows on the test rows."""
    return f"To score the first on the test rows, beside the references: make adapt finetune {shlex.join(overrides)}"


def discard(keep: Literal["best", "all", "none"], made: Iterable[Path], best: Iterable[Path], folder: str) -> None:
    """Discard the weights that are not to be kept, except those that a name outside the folder of links points to.

    Args:
        made: The directories of all models so far.
        best: Those of the best trial.
    """
    kept = {"all": {*made}, "best": {*best}, "none": set[Path]()}[keep]
    for directory in {*made} - kept:
        discard_weights(directory, folder)
