"""Where a finished model comes from, and what else was measured of it: as the manifests beside it tell."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ulmfit_style.artefacts.directory import MANIFEST, MEASURED, METRICS, read_json


@dataclass(frozen=True)
class Made:
    """An artefact that is finished, or of which the scores were kept."""

    directory: Path
    manifest: Mapping[str, Any]
    metrics: Mapping[str, Any]

    @property
    def stage(self) -> str:
        """The stage that made it."""
        return str(self.manifest["stage"])

    @property
    def determinants(self) -> Mapping[str, Any]:
        """All that determined it."""
        found: Mapping[str, Any] = self.manifest["determinants"]
        return found

    @property
    def init(self) -> Mapping[str, str]:
        """What it was made from: one stage with a fingerprint, or `checkpoint` with a commit or a digest of files."""
        found: Mapping[str, str] = self.determinants["init"]
        return found


def manifest_of(directory: Path) -> Path | None:
    """Return the manifest of an artefact; None where it is not finished."""
    return next((path for name in (MANIFEST, MEASURED) if (path := directory / name).exists()), None)


def of(directory: Path) -> Made:
    """Read the files of a finished artefact."""
    manifest, metrics = manifest_of(directory), directory / METRICS
    assert manifest is not None  # the caller looked
    return Made(directory, read_json(manifest), read_json(metrics) if metrics.exists() else {})


def sources(model: Made) -> list[Made]:
    """Return the model and what it was made from, as far back as it lies beside it and was trained."""
    ((stage, fingerprint),) = model.init.items()
    directory = model.directory.with_name(f"{stage}-{fingerprint}")
    if stage not in ("adapt", "pretrain") or manifest_of(directory) is None:
        return [model]
    return [model, *sources(of(directory))]


def not_adapted(model: Made) -> Made | None:
    """Return the model that differs from an adapted and fine-tuned one in that its checkpoint was not adapted."""
    chain = sources(model)
    if len(chain) < 2 or chain[1].stage != "adapt":
        return None
    return next(_beside(model, "finetune", {**model.determinants, "init": chain[1].init}), None)


def references(model: Made) -> list[Made]:
    """Return the simple models that were fitted on the rows of a fine-tuned one."""
    adapted = next((made for made in sources(model) if made.stage == "adapt"), model)
    same = {"data": model.determinants["data"], "init": adapted.init}
    return [made for stage in ("references", "setfit") for made in _beside(model, stage, same)]


def of_other_seeds(model: Made) -> dict[int, Made]:
    """Return the models that differ from a fine-tuned one in the seed of `finetune` alone, by that seed."""

    def without_seed(made: Made) -> dict[str, Any]:
        return {**made.determinants, "finetune": {**made.determinants["finetune"], "seed": None}}

    found = [other for other in _beside(model, "finetune") if without_seed(other) == without_seed(model)]
    return {other.determinants["finetune"]["seed"]: other for other in found}


def evaluations(model: Made) -> list[Made]:
    """Return what `evaluate` measured of a fine-tuned model."""
    return list(_beside(model, "evaluate", {"tuned": {"finetune": model.manifest["fingerprint"]}}))


def _beside(model: Made, stage: str, wanted: Mapping[str, Any] | None = None) -> Iterator[Made]:
    """Yield the other finished artefacts of a stage in the folder of a model's, the newest first.

    Args:
        wanted: Some of their determinants.
    """
    wanted = wanted or {}
    others = set(model.directory.parent.glob(f"{stage}-*")) - {model.directory}
    manifests = [path for directory in others if (path := manifest_of(directory)) is not None]
    for path in sorted(manifests, key=lambda path: (-path.stat().st_mtime, path)):
        made = of(path.parent)
        if {name: made.determinants.get(name) for name in wanted} == dict(wanted):
            yield made
