"""Where a finished model comes from, and what else was measured of it: as the manifests beside it tell."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ulmfit_style.run import MANIFEST, MEASURED, METRICS, read_json


@dataclass(frozen=True)
class Told:
    """What an artefact's files tell of it."""

    directory: Path
    manifest: Mapping[str, Any]
    metrics: Mapping[str, Any]

    @property
    def stage(self) -> str:
        """Which stage made it."""
        return str(self.manifest["stage"])

    @property
    def init(self) -> Mapping[str, str]:
        """What it was made from: one stage with a fingerprint, or `checkpoint` with a commit or a digest of files."""
        found: Mapping[str, str] = self.manifest["determinants"]["init"]
        return found


def of(directory: Path) -> Told:
    """Read the files of an artefact that is finished, or of which the scores were kept."""
    found = next(path for name in (MANIFEST, MEASURED) if (path := directory / name).exists())
    return Told(directory, read_json(found), read_json(directory / METRICS))


def sources(model: Told) -> list[Told]:
    """Return the model and what it was made from, as far back as it lies beside it and was trained."""
    ((stage, fingerprint),) = model.init.items()
    directory = model.directory.with_name(f"{stage}-{fingerprint}")
    if stage not in ("adapt", "pretrain") or not directory.is_dir():
        return [model]
    return [model, *sources(of(directory))]


def not_adapted(model: Told) -> Told | None:
    """Return the model that differs from an adapted and fine-tuned one in that its checkpoint was not adapted."""
    chain = sources(model)
    if len(chain) < 2 or chain[1].stage != "adapt":
        return None
    wanted = {**model.manifest["determinants"], "init": chain[1].init}
    return next((other for other in _beside(model, "finetune") if other.manifest["determinants"] == wanted), None)


def of_other_seeds(model: Told) -> dict[int, Told]:
    """Return the models that differ from a fine-tuned one in the seed of `finetune` alone, by that seed."""

    def without_seed(told: Told) -> dict[str, Any]:
        found = told.manifest["determinants"]
        return {**found, "finetune": {**found["finetune"], "seed": None}}

    found = [other for other in _beside(model, "finetune") if without_seed(other) == without_seed(model)]
    return {other.manifest["determinants"]["finetune"]["seed"]: other for other in found}


def evaluations(model: Told) -> list[Told]:
    """Return what `evaluate` measured of a fine-tuned model."""
    own = {"finetune": model.manifest["fingerprint"]}
    return [other for other in _beside(model, "evaluate") if other.manifest["determinants"]["tuned"] == own]


def _beside(model: Told, stage: str) -> Iterator[Told]:
    """Yield the other artefacts of a stage in the folder of a model's, in the order of their names."""
    for directory in sorted(model.directory.parent.glob(f"{stage}-*")):
        whole = (directory / MANIFEST).exists() or (directory / MEASURED).exists()
        if whole and directory.name != model.directory.name:
            yield of(directory)
