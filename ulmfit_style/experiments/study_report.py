"""What a study found: a table for each number of labels, plain sentences, csv files and a figure."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import mean, stdev
from typing import final

from ulmfit_style.console import say
from ulmfit_style.data import labelled
from ulmfit_style.experiments.study_plan import ArmTrial, Choices, Labels, Sample, Searched, StudyPlan
from ulmfit_style.lineage import required_task
from ulmfit_style.metrics import intervals
from ulmfit_style.results import csv, figures, scores, terminal
from ulmfit_style.results.figures import Line
from ulmfit_style.results.model import Cell, Difference, Table


@final
@dataclass(frozen=True)
class Result:
    """What an arm or a reference model scored on one sample; no numbers where it failed."""

    arm: str
    sample: Sample
    searched: Searched = ()
    score: float = math.nan
    """The task's metric on the test rows."""
    validation: float = math.nan
    """That of an arm on the validation rows."""
    seconds: float = math.nan
    artefact: str = ""
    error: str = ""
    points: intervals.Points = ()
    """Each test row's part of the score."""


Results = Mapping[str, Mapping[Labels, Sequence[Result]]]
"""Those of all seeds, by the reference or arm and the number of labels."""

Curves = Mapping[str, Mapping[int, Sequence[float]]]
"""The scores of the seeds, by the reference or arm and the number of labelled rows."""


def read(trial: ArmTrial, error: str | None = None) -> Result:
    """Read what a trial scored; `error` is what went wrong, if anything."""
    made = trial.trial
    which = (trial.arm, trial.sample, trial.searched)
    if error is not None:
        return Result(*which, artefact=made.artefact.directory.name, error=error)
    metric = made.resolved.task.metric
    test, validation = (made.measured(split)["scores"][metric] for split in ("test", "validation"))
    return Result(*which, test, validation, made.seconds, made.artefact.directory.name, points=made.points("test"))


def write(plan: StudyPlan, choices: Choices, every: Sequence[Result]) -> None:
    """Print what a study found, and keep it as csv files and figures in its folder.

    Args:
        choices: What the search chose, or the empty combinations.
        every: The results, those of the references first.
    """
    study, metric, folder = plan.base.study, required_task(plan.base).metric, plan.base.runs / plan.folder
    results: dict[str, dict[Labels, list[Result]]] = {}
    for result in every:
        results.setdefault(result.arm, {}).setdefault(result.sample.labels, []).append(result)
    for labels in plan.labels:
        say()
        terminal.show(_table(plan, labels, results))
        for arm in study.arms:
            if searched := choices[arm, labels]:
                say(f"  searched: {arm}: {' '.join(searched)}")
    say()
    differences = _differences(plan, results)
    for arm, labels, before, after, difference, seeds in differences:
        at = "" if labels is None else f"{labels} labels: "
        compared = f"{at}{metric} {after:.3f} of '{arm}', {before:.3f} of '{study.baseline}':"
        say(scores.worth(compared, difference, seeds))
    for result in every:
        if result.error:
            say(f"Failed: {', '.join([result.arm, *result.searched, result.sample.title])}: {result.error}")
    rows = {labels: _labelled_rows(plan, labels) for labels in plan.labels}
    curves = {
        name: {rows[labels]: found for labels, of_seeds in by_labels.items() if (found := _scores(of_seeds))}
        for name, by_labels in results.items()
    }
    _say_labels_saved(plan, curves)
    folder.mkdir(parents=True, exist_ok=True)
    csv.write(folder / "results.csv", _every_run(metric, every))
    header = ("arm", "labels", "baseline", "score", "difference", "low", "high", "seeds")
    csv.write(
        folder / "differences.csv",
        Table(header, [(*scored, *difference, seeds) for *scored, difference, seeds in differences]),
    )
    _draw(folder / "figure", curves, study.arms, f"{metric} on the test rows")
    say(f"Every run: {folder}/results.csv; the differences: {folder}/differences.csv; the figure: {folder}/figure.png")


def _scores(results: Sequence[Result]) -> list[float]:
    return [result.score for result in results if not result.error]


def _table(plan: StudyPlan, labels: Labels, results: Results) -> Table:
    """Return the scores of each reference and arm at one number of labels: the mean, and every seed's."""
    study, rows = plan.base.study, list[Sequence[Cell]]()
    for name, by_labels in results.items():
        found, every = _scores(by_labels[labels]), by_labels[labels]
        # An average over what did not fail would be another one.
        middle, spread = (mean(found), intervals.spread(found)) if len(found) == len(every) else ("failed", None)
        seeds = " ".join("failed" if result.error else f"{result.score:.3f}" for result in every)
        rows.append((name, middle, spread if len(found) > 1 else None, seeds))
    test_rows = max(len(result.points) for by_labels in results.values() for result in by_labels[labels])
    each = " of each class" if study.per_class and labels is not None else ""
    size = "" if labels is None else f"{labels} labels{each}, "
    metric = required_task(plan.base).metric
    header = ("", "mean", "sd", f"seeds {' '.join(map(str, study.seeds))}")
    return Table(header, rows, f"{size}{test_rows:,} test rows: {metric}")


def _differences(plan: StudyPlan, results: Results) -> list[tuple[str, Labels, float, float, Difference, int]]:
    """Return by how much each arm differs from the baseline at each number of labels, but for arms that failed once.

    Each has the arm, the number of labels, the baseline's mean score, the arm's, their difference, and the seeds.
    """
    baseline, task = plan.base.study.baseline, required_task(plan.base)
    differences = []
    for labels in plan.labels:
        for arm in plan.base.study.arms:
            pair = (results[arm][labels], results[baseline][labels])
            if arm == baseline or any(result.error for group in pair for result in group):
                continue
            after, before = (mean(_scores(group)) for group in pair)
            arm_points, baseline_points = ([result.points for result in group] for group in pair)
            difference = Difference(after - before, *intervals.over_seeds(arm_points, baseline_points, task.of_means))
            differences.append((arm, labels, before, after, difference, len(pair[0])))
    return differences


def _every_run(metric: str, results: Sequence[Result]) -> Table:
    header = ("arm", "labels", "seed", "searched", metric, f"validation {metric}", "seconds", "artefact", "error")
    rows = []
    for result in results:
        of_arm = (result.validation, result.seconds) if result.artefact else (None, None)
        which = (result.arm, result.sample.labels, result.sample.seed, " ".join(result.searched))
        rows.append((*which, result.score, *of_arm, result.artefact, result.error))
    return Table(header, rows)


def _labelled_rows(plan: StudyPlan, labels: Labels) -> int:
    """Return how many labelled rows a number of labels means: of each class, or all."""
    config = plan.at(plan.base, Sample(labels, plan.base.study.seeds[0]))
    return len(labelled.load(required_task(config)).train)


def _draw(path: Path, curves: Curves, arms: Collection[str], metric: str) -> None:
    """Draw the mean scores over the number of labels, with their standard deviations; references are dashed."""
    lines = {}
    for number, (name, by_size) in enumerate(curves.items()):
        shift = 1.03 ** (number - len(curves) / 2)  # a little beside one another, or bars would hide each other
        means = [mean(of_seeds) for of_seeds in by_size.values()]
        deviations = [stdev(of_seeds) if len(of_seeds) > 1 else 0 for of_seeds in by_size.values()]
        style = {"linestyle": "-" if name in arms else "--"}
        lines[name] = Line([size * shift for size in by_size], means, deviations, style)
    sizes = sorted({size for by_size in curves.values() for size in by_size})
    ticks = {"xticks": sizes, "xticklabels": [f"{size:,}" for size in sizes]}
    figures.lines(path, lines, xscale="log", xlabel="labelled training rows", ylabel=metric, **ticks)


def _say_labels_saved(plan: StudyPlan, curves: Curves) -> None:
    """Say how many times the labels the baseline needs to match each arm."""
    means = {name: {size: mean(of_seeds) for size, of_seeds in of_arm.items()} for name, of_arm in curves.items()}
    baseline = means[plan.base.study.baseline]
    if len(baseline) < 2:
        return
    for arm in plan.base.study.arms:
        factors = [
            f"{bound + ' ' if bound else ''}{factor:.2g} times at {labels:,}"
            for labels, factor, bound in labels_saved(means[arm], baseline)
            if bound != "more than" or labels < max(baseline)  # past the end of the curve nothing is known
        ]
        if factors and arm != plan.base.study.baseline:
            say(f"Labels that '{plan.base.study.baseline}' needs to score like '{arm}': {', '.join(factors)}.")


def labels_saved(curve: Mapping[int, float], baseline: Mapping[int, float]) -> Iterator[tuple[int, float, str]]:
    """Tell how many times the labels of an arm the baseline needs to score as high.

    Between two numbers of labels the baseline's score is taken to grow with the logarithm of their number.

    Args:
        curve: The arm's mean score at each number of labels, and so `baseline`.

    Yields:
        The number of labels, the factor, and "", or "more than" or "less than" where it lies outside the curve.
    """
    sizes = sorted(baseline)
    for labels, score in curve.items():
        if score <= baseline[sizes[0]]:
            yield labels, sizes[0] / labels, "" if score == baseline[sizes[0]] else "less than"
            continue
        for low, high in pairwise(sizes):
            if baseline[low] < score <= baseline[high]:
                share = (score - baseline[low]) / (baseline[high] - baseline[low])
                yield labels, low * (high / low) ** share / labels, ""
                break
        else:
            yield labels, sizes[-1] / labels, "more than"
