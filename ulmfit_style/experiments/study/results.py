"""What the trials of a study showed, and what the arms differ in."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import mean

from ulmfit_style import lineage, metrics
from ulmfit_style.artefacts import predictions
from ulmfit_style.artefacts.directory import MANIFEST, MEASURED, METRICS, Artefact, read_json
from ulmfit_style.experiments.study.trials import Labels, Trial


@dataclass(frozen=True)
class Result:
    """What a trial showed."""

    trial: Trial
    score: float
    """The task's metric on the test rows; no number where the trial failed."""
    validation: float
    points: metrics.Points
    """Each test row's part of the score."""
    seconds: float
    error: str | None


@dataclass(frozen=True)
class Reference:
    """What a reference model showed on the rows of one seed."""

    name: str
    labels: Labels
    seed: int
    score: float


@dataclass(frozen=True)
class Difference:
    """What an arm differs in from the baseline at a number of labels."""

    arm: str
    labels: Labels
    baseline: float
    """The baseline's mean score over the seeds."""
    score: float
    """The arm's."""
    low: float
    high: float
    """The 95 % interval of the difference of the two."""
    seeds: int


def read(trial: Trial, error: str | None) -> Result:
    """Read what a trial showed; `error` is what went wrong, if anything."""
    if error is not None:
        return Result(trial, math.nan, math.nan, (), math.nan, error)
    task, directory = lineage.required_task(trial.config), trial.artefact.directory
    scores = read_json(directory / METRICS)
    manifest = read_json(directory / (MANIFEST if trial.artefact.finished else MEASURED))
    points = predictions.points(task, directory, "test")
    test, validation = (scores[split]["scores"][task.metric] for split in ("test", "validation"))
    return Result(trial, test, validation, points, manifest["seconds"], None)


def of_references(trial: Trial, artefact: Artefact) -> Iterator[Reference]:
    """Return what the reference models showed on the rows of a trial."""
    found = read_json(artefact.directory / METRICS)
    for name, result in found["test"].items():
        yield Reference(name, trial.labels, trial.seed, result["scores"][found["metric"]])


def differences(found: Sequence[Result], baseline: str, labels: Labels) -> Iterator[Difference]:
    """Return what each arm differs in from the baseline at a number of labels; nothing of an arm that failed once."""
    arms: dict[str, list[Result]] = {}
    for result in found:
        if result.trial.labels == labels:
            arms.setdefault(result.trial.arm, []).append(result)
    whole = {arm: own for arm, own in arms.items() if all(result.error is None for result in own)}
    if baseline not in whole:
        return
    theirs = whole.pop(baseline)
    for arm, own in whole.items():
        points, theirs_points = ([result.points for result in results] for results in (own, theirs))
        task = lineage.required_task(own[0].trial.config)
        low, high = metrics.over_seeds(points, theirs_points, task.of_means)
        before, after = (mean(result.score for result in results) for results in (theirs, own))
        yield Difference(arm, labels, before, after, low, high, len(own))


def labels_saved(curves: Mapping[int, float], baseline: Mapping[int, float]) -> Iterator[tuple[int, float, str]]:
    """Tell how many times the labels of an arm the baseline needs to score as high.

    Between two numbers of labels the baseline's score is taken to grow with the logarithm of their number.

    Args:
        curves: The arm's mean score at each number of labels, and so `baseline`.

    Yields:
        The number of labels, the factor, and "", or "more than" or "less than" where it lies outside the curve.
    """
    known = sorted(baseline)
    for labels, score in curves.items():
        if score <= baseline[known[0]]:
            yield labels, known[0] / labels, "" if score == baseline[known[0]] else "less than"
            continue
        for low, high in pairwise(known):
            if baseline[low] < score <= baseline[high]:
                share = (score - baseline[low]) / (baseline[high] - baseline[low])
                yield labels, math.exp(math.log(low) + share * math.log(high / low)) / labels, ""
                break
        else:
            yield labels, known[-1] / labels, "more than"


def slug(trial: Trial, *, arm: bool = True) -> str:
    """Return the name of the link to a trial's artefact."""
    parts = [*([trial.arm, *trial.point] if arm else []), "" if trial.labels is None else str(trial.labels)]
    parts.append(f"seed-{trial.seed}")
    return "-".join(re.sub(r"[^A-Za-z0-9.]+", "-", part).strip("-") for part in parts if part)
