"""What is told of a study: a table for each number of labels, plain sentences, csv files and a figure."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean

from rich.table import Table

from ulmfit_style import lineage, metrics
from ulmfit_style.console import say, show
from ulmfit_style.data import labelled
from ulmfit_style.experiments.study.results import Difference, Reference, Result, differences, labels_saved
from ulmfit_style.experiments.study.trials import Labels, Plan, Point
from ulmfit_style.results import figures
from ulmfit_style.results.figures import Curve


def tell(
    plan: Plan, chosen: Mapping[tuple[str, Labels], Point], found: Sequence[Result], simple: Sequence[Reference]
) -> None:
    """Print what a study found, and keep it as csv files and figures in its folder."""
    study = plan.base.study
    task = lineage.required_task(plan.base)
    compared = [difference for labels in plan.labels for difference in differences(found, study.baseline, labels)]
    for labels in plan.labels:
        own = [result for result in found if result.trial.labels == labels]
        say()
        show(_table(plan, labels, own, [one for one in simple if one.labels == labels]))
        for (arm, size), point in chosen.items():
            if size == labels and point:
                say(f"  searched: {arm}: {' '.join(point)}")
    say()
    for difference in compared:
        say(_sentence(difference, study.baseline, task.metric))
    for result in found:
        if result.error is not None:
            say(f"Failed: {result.trial.title}: {result.error}")
    curves = _curves(plan, found, simple)
    _tell_labels_saved(plan, curves)
    folder = plan.base.runs / plan.folder
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder, task.metric, found, simple, compared)
    title = f"{study.name}: {task.metric} on the test rows"
    if any(len(curve.scores) > 1 for curve in curves):
        figures.label_curves(folder / "figure", curves, title, task.metric)
    else:
        figures.strips(folder / "figure", curves, title, task.metric)
    say(f"Every run: {folder}/results.csv; the differences: {folder}/differences.csv; the figure: {folder}/figure.png")


def _table(plan: Plan, labels: Labels, found: Sequence[Result], simple: Sequence[Reference]) -> Table:
    """Return the scores of each arm at one number of labels, every seed's among them."""
    study, metric = plan.base.study, lineage.required_task(plan.base).metric
    rows = next((len(result.points) for result in found if result.points), 0)
    each = " of each class" * (study.per_class and labels is not None)
    size = "" if labels is None else f"{labels} labels{each}, "
    table = Table(title=f"{size}{rows:,} test rows: {metric}", title_justify="left")
    table.add_column("")
    table.add_column("mean", justify="right")
    table.add_column("sd", justify="right")
    table.add_column(f"seeds {' '.join(map(str, study.seeds))}")
    for name in dict.fromkeys(one.name for one in simple):
        _add(table, name, [one.score for one in simple if one.name == name])
    for arm in study.arms:
        _add(table, arm, [result.score for result in found if result.trial.arm == arm])
    return table


def _add(table: Table, name: str, scores: Sequence[float]) -> None:
    failed = any(math.isnan(score) for score in scores)
    told = "failed" if failed else f"{mean(scores):.3f}"
    sd = "" if failed or len(scores) < 2 else f"{metrics.spread(scores):.3f}"
    table.add_row(name, told, sd, " ".join("failed" if math.isnan(score) else f"{score:.3f}" for score in scores))


def _points(difference: Difference) -> str:
    """Return a difference in points of a hundred, with its interval."""
    gain, low, high = (100 * x for x in (difference.score - difference.baseline, difference.low, difference.high))
    return f"{gain:+.1f} ({low:+.1f} to {high:+.1f})"


def _sentence(difference: Difference, baseline: str, metric: str) -> str:
    """Say in plain words what an arm is worth."""
    at = "" if difference.labels is None else f"{difference.labels} labels: "
    scores = f"{at}{metric} {difference.score:.3f} of '{difference.arm}', {difference.baseline:.3f} of '{baseline}'"
    over = f"95 % interval, over {difference.seeds} seed{'s' * (difference.seeds > 1)} and the test rows"
    verdict = metrics.verdict(difference.low, difference.high, difference.seeds)
    return f"{scores}: {_points(difference)} points ({over}): {verdict}."


def _curves(plan: Plan, found: Sequence[Result], simple: Sequence[Reference]) -> list[Curve]:
    """Return the scores of every arm and reference model by the number of labels."""
    sizes = {labels: _number(plan, labels) for labels in plan.labels}
    names = [*dict.fromkeys(one.name for one in simple), *plan.base.study.arms]
    scored = [(one.name, one.labels, one.score) for one in simple]
    scored += [(result.trial.arm, result.trial.labels, result.score) for result in found if result.error is None]
    curves = []
    for name in names:
        own: dict[int, list[float]] = {}
        for other, labels, score in scored:
            if other == name:
                own.setdefault(sizes[labels], []).append(score)
        curves.append(Curve(name, own, dashed=name not in plan.base.study.arms))
    return curves


def _number(plan: Plan, labels: Labels) -> int:
    """Return how many labelled rows a number of labels means."""
    config = plan.at(plan.base, labels, plan.base.study.seeds[0])
    return len(labelled.load(lineage.required_task(config)).train)


def _tell_labels_saved(plan: Plan, curves: Sequence[Curve]) -> None:
    """Say how many times the labels the baseline needs to match each arm."""
    means = {curve.name: {size: mean(scores) for size, scores in curve.scores.items()} for curve in curves}
    study = plan.base.study
    baseline = means[study.baseline]
    if len(baseline) < 2:
        return
    for arm in study.arms:
        if arm == study.baseline:
            continue
        told = [
            f"{bound + ' ' if bound else ''}{factor:.2g} times at {labels:,}"
            for labels, factor, bound in labels_saved(means[arm], baseline)
            if bound != "more than" or labels < max(baseline)  # past the end of the curve nothing is known
        ]
        if told:
            say(f"Labels that '{study.baseline}' needs to score like '{arm}': {', '.join(told)}.")


def _write(
    folder: Path,
    metric: str,
    found: Sequence[Result],
    simple: Sequence[Reference],
    compared: Sequence[Difference],
) -> None:
    """Write every run, and every difference, as csv."""
    with (folder / "results.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(
            ["arm", "labels", "seed", "searched", metric, f"validation {metric}", "seconds", "artefact", "error"]
        )
        for reference in simple:
            writer.writerow([reference.name, reference.labels, reference.seed, "", reference.score, "", "", "", ""])
        for result in found:
            trial = result.trial
            writer.writerow(
                [
                    *(trial.arm, trial.labels, trial.seed, " ".join(trial.point)),
                    *(result.score, result.validation, result.seconds),
                    *(trial.artefact.directory.name, result.error or ""),
                ]
            )
    with (folder / "differences.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["arm", "labels", "baseline", "score", "difference", "low", "high", "seeds"])
        for one in compared:
            gain = one.score - one.baseline
            writer.writerow([one.arm, one.labels, one.baseline, one.score, gain, one.low, one.high, one.seeds])
