"""A finished run as its artefacts tell it: the model, what it was made from, and what it is held against."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ulmfit_style import lineage
from ulmfit_style.artefacts import finished
from ulmfit_style.artefacts.directory import METRICS, RECIPE, Artefact
from ulmfit_style.artefacts.finished import Made
from ulmfit_style.errors import UserError, nearest
from ulmfit_style.lineage import Resolved
from ulmfit_style.recipe import Config, load

MODELS = ("finetune", "adapt", "pretrain")
"""The stages that make a model, the last one of a chain first."""


@dataclass(frozen=True)
class Run:
    """A model, and what there is to tell of it."""

    name: str
    chain: Sequence[Made]
    """What the model was made from, in the order in which it was made, and the model itself."""
    references: Sequence[Made]
    """Simple models on the same rows."""
    bare: Made | None
    """What was fine-tuned likewise, but without adaptation."""
    evaluations: Sequence[Made]
    config: Config
    """That of the model."""

    @property
    def model(self) -> Made:
        """The last of the chain."""
        return self.chain[-1]

    def stage(self, name: str) -> Made | None:
        """Return what a stage of the chain made; None if it took no part."""
        return next((made for made in self.chain if made.stage == name), None)


def own(resolved: Resolved) -> Run:
    """Return the run of a config: its last model that is finished.

    Raises:
        UserError: if none is, naming the command that makes it, and the nearest one that there is.
    """
    config, models = resolved.config, list(_models(resolved))
    for artefact in models:
        if artefact.measured:
            return of(artefact.directory, config.name)
    if not models:
        raise UserError("task=none adapt=none: nothing is trained that could be reported on")
    stages = " ".join(artefact.stage for artefact in reversed(models))
    why = f"there is no finished model for this config ({lineage.why_missing(models[0], config)})"
    raise UserError(f"report: {why}; run `{stages}` with the same options, or name a run: report.runs=<name>")


def _models(resolved: Resolved) -> Iterator[Artefact]:
    """Yield the models of a config, the last one of the chain first."""
    config = resolved.config
    if config.task is not None:
        yield resolved.artefact("finetune")
    if config.adapt is not None:
        yield resolved.artefact("adapt")
    if config.pretrain is not None and config.model.init == "scratch":
        yield resolved.artefact("pretrain")


def named(runs: Path, name: str) -> Run:
    """Return a run by its name in the folder of artefacts, or by the directory of its model.

    Raises:
        UserError: if there is none, or it is not finished.
    """
    folder = next((path for path in (runs / name, Path(name).expanduser()) if path.is_dir()), None)
    if folder is None:
        names = sorted({path.parent.name for stage in MODELS for path in runs.glob(f"*/{stage}") if path.is_symlink()})
        there = f" (there are: {', '.join(names)})" if names else ""
        remedy = f"make it: make adapt finetune name={name}"
        raise UserError(f"report.runs={name}: there is no such run in {runs}{nearest(name, names)}{there}; {remedy}")
    for path in (folder, *(folder / stage for stage in MODELS)):
        if finished.manifest_of(path) is not None and (path / METRICS).exists():
            return of(path, name)
        if (path / RECIPE).exists():
            unfinished = f"{path} was begun, but not finished; the command that began it goes on"
            raise UserError(f"report.runs={name}: {unfinished}")
    raise UserError(f"report.runs={name}: {folder} holds no finished model; make it: make adapt finetune name={name}")


def of(directory: Path, name: str) -> Run:
    """Return the run of a finished model.

    Raises:
        UserError: if its recipe is not one of this version.
    """
    directory = directory.resolve()
    try:
        config = load(directory / RECIPE)
    except UserError as error:
        raise UserError(f"{directory / RECIPE}: another version of the program has written it: {error}") from error
    model = finished.of(directory)
    tuned = model.stage == "finetune"
    return Run(
        name,
        finished.sources(model)[::-1],
        finished.references(model) if tuned else [],
        finished.not_adapted(model) if tuned else None,
        finished.evaluations(model),
        config,
    )
