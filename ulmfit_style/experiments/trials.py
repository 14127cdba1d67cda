"""One model of many that are compared, in a study or a sweep: made, scored, linked, and its weights kept or not."""

import logging
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from ulmfit_style import chain
from ulmfit_style.artefacts.directory import LOG, discard_weights
from ulmfit_style.console import logging_to, muted, say
from ulmfit_style.errors import Pruned, UserError
from ulmfit_style.resolved import Reporter, Resolved

STAGES = ("adapt", "finetune")
"""Those of a trial."""


def make(resolved: Resolved, link: str, reporter: Reporter | None = None) -> str | None:
    """Make a fine-tuned model, unless its scores are there, and link it; return what went wrong, if anything did.

    Interrupts propagate; what a library raises is logged in `runs/<name>/`, and the other trials can still be made.

    Args:
        link: The name of the link in `runs/<name>/`.
        reporter: Who is told the scores of the model while it is trained.

    Raises:
        Pruned: if the reporter stopped it.
    """
    model, folder = resolved.artefact("finetune"), resolved.config.runs / resolved.config.name
    try:
        if not model.measured:
            train(resolved, reporter)
    except Pruned:
        raise
    except Exception as error:
        folder.mkdir(parents=True, exist_ok=True)
        with logging_to(folder / LOG):
            logging.getLogger(__name__).exception(link)
        kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
        say(f"  failed: {kind}{error}")
        return str(error) or type(error).__name__
    if not model.measured:
        raise Pruned  # in processes of its own
    model.link(folder.name, link)
    return None


def train(resolved: Resolved, reporter: Reporter | None) -> None:
    """Make the artefacts of one trial. Only steps that others share print progress, for they may take hours."""
    steps = chain.plan(resolved, STAGES)
    shared = [step for step in steps if step.stage.name != "finetune"]
    if not all(step.artefact.finished for step in shared):
        chain.make(shared, resolved.config, ["adapt"])
    with muted():
        chain.make([replace(step, reporter=reporter) for step in steps], resolved.config, STAGES)


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
