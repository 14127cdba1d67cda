"""One model of many that are compared, in a study or a sweep: made, scored, linked, and its weights kept or not."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, final

from ulmfit_style import chain
from ulmfit_style.artefacts import predictions
from ulmfit_style.artefacts.directory import MANIFEST, MEASURED, METRICS, Artefact, discard_weights, read_json
from ulmfit_style.errors import Pruned
from ulmfit_style.lineage import Reporter, Resolved
from ulmfit_style.metrics.intervals import Points


@final
@dataclass(frozen=True)
class Trial:
    """One fine-tuned model of many."""

    resolved: Resolved
    """Its recipe; `name` is that of the folder of links."""
    title: str
    link: str
    """The name of the link to the model."""

    @property
    def artefact(self) -> Artefact:
        """The model, made or not."""
        return self.resolved.artefact("finetune")

    def make(self, reporter: Reporter | None = None) -> str | None:
        """Make the model, unless its scores are there, and link it; return what went wrong, if anything did.

        Raises:
            Pruned: if the reporter stopped it.
        """
        if not self.artefact.measured:
            if (error := chain.attempt(self.resolved.config, self.title, reporter)) is not None:
                return error
            if not self.artefact.measured:
                raise Pruned  # in processes of its own
        self.artefact.link(self.resolved.config.name, self.link)
        return None

    def measured(self, split: str) -> dict[str, Any]:
        """Return what was measured on the validation or the test rows."""
        measured: dict[str, Any] = read_json(self.artefact.directory / METRICS)[split]
        return measured

    def points(self, split: str) -> Points:
        """Return each row's part of the score."""
        return predictions.points(self.resolved.task, self.artefact.directory, split)

    @property
    def seconds(self) -> float:
        """How long it took to make the model."""
        manifest = read_json(self.artefact.directory / (MANIFEST if self.artefact.finished else MEASURED))
        return float(manifest["seconds"])


def discard(keep: Literal["best", "all", "none"], made: Iterable[Path], best: Iterable[Path], folder: str) -> None:
    """Discard the weights that are not to be kept, except those that a name outside the folder of links points to.

    Args:
        made: The directories of all models so far.
        best: Those of the best trial.
    """
    kept = {"all": {*made}, "best": {*best}, "none": set[Path]()}[keep]
    for directory in {*made} - kept:
        if (directory / MANIFEST).exists():
            discard_weights(directory, folder)
