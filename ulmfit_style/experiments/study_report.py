"""The results of a study: a table for each number of labels, a sentence for each arm, csv files and a figure."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import final

from ulmfit_style.artefacts import predictions
from ulmfit_style.config.experiments import Study
from ulmfit_style.console import say
from ulmfit_style.experiments.study_plan import Choices, Run, StudyPlan
from ulmfit_style.results import csv, figures, scores, terminal
from ulmfit_style.results.figures import Line
from ulmfit_style.results.parts import Difference, Table


@final
@dataclass(frozen=True)
class Result:
    """The scores of a run; no numbers where it failed."""

    run: Run
    rows: int
    """Labelled rows that it was trained on."""
    directory: Path
    score: float = math.nan
    """The task's metric on the test rows."""
    validation: float = math.nan
    """That of an arm on the validation rows."""
    error: str = ""


def write(plan: StudyPlan, choices: Choices, results: Sequence[Result]) -> None:
    """Print the results of a study, and keep them as csv files and figures in its folder.

    Args:
        choices: What the search chose.
        results: Those of the references first.
    """
    study, task, folder = plan.base.study, plan.base.require_task(), plan.base.runs / plan.folder
    differences = []
    for labels in plan.labels:
        by_name: dict[str, list[Result]] = {}
        for result in results:
            if result.run.labels == labels:
                by_name.setdefault(result.run.arm, []).append(result)
        size = "" if labels is None else f"{labels} labels{' of each class' if study.per_class else ''}: "
        say()
        terminal.show(_table(by_name, study, f"{size}{task.metric} on the test rows"))
        baseline = by_name[study.baseline]
        for arm in study.arms:
            if searched := choices.get((arm, labels)):
                say(f"  searched: {arm}: {' '.join(searched)}")
            if arm == study.baseline or any(result.error for result in by_name[arm] + baseline):
                continue
            arms = (by_name[arm], baseline)
            answered = ([predictions.read(result.directory, "test") for result in of_seeds] for of_seeds in arms)
            difference = Difference(*predictions.difference(task, *answered))
            say(scores.worth(f"'{arm}' differs from '{study.baseline}' by", difference, len(study.seeds)))
            differences.append((arm, labels, *difference))
    for result in results:
        if result.error:
            say(f"Failed: {result.run.title}: {result.error}")
    folder.mkdir(parents=True, exist_ok=True)
    csv.write(folder / "results.csv", _every_run(results, task.metric))
    csv.write(folder / "differences.csv", Table(("arm", "labels", "difference", "low", "high"), differences))
    _draw(folder / "figure", results, study, f"{task.metric} on the test rows")
    say(f"Every run: {folder}/results.csv; the differences: {folder}/differences.csv; the figure: {folder}/figure.png")


def _table(by_name: Mapping[str, Sequence[Result]], study: Study, title: str) -> Table:
    """Return the mean of each reference and arm at one number of labels, and every seed's score."""
    rows: list[tuple[str, float | str, float | None, str]] = []
    for name, results in by_name.items():
        seeds = " ".join("failed" if result.error else f"{result.score:.3f}" for result in results)
        if any(result.error for result in results):  # an average over the others would be another one
            rows.append((name, "failed", None, seeds))
        else:
            values = [result.score for result in results]
            rows.append((name, mean(values), stdev(values) if len(values) > 1 else None, seeds))
    return Table(("", "mean", "sd", f"seeds {' '.join(map(str, study.seeds))}"), rows, title)


def _every_run(results: Sequence[Result], metric: str) -> Table:
    header = ("arm", "labels", "seed", "searched", metric, f"validation {metric}", "artefact", "error")
    rows = []
    for result in results:
        run, scored, made = result.run, (result.score, result.validation), result.directory.name
        rows.append((run.arm, run.labels, run.seed, " ".join(run.searched), *scored, made, result.error))
    return Table(header, rows)


def _draw(path: Path, results: Sequence[Result], study: Study, metric: str) -> None:
    """Draw the mean scores over the number of labels, with their standard deviations; references are dashed."""
    scores_by_name: dict[str, dict[int, list[float]]] = {}
    for result in results:
        if not result.error:
            scores_by_name.setdefault(result.run.arm, {}).setdefault(result.rows, []).append(result.score)
    lines, sizes = {}, sorted({result.rows for result in results})
    for number, (name, by_size) in enumerate(scores_by_name.items()):
        shift = 1.03 ** (number - len(scores_by_name) / 2)  # a little beside one another, or bars would hide each other
        means = [mean(of_seeds) for of_seeds in by_size.values()]
        deviations = [stdev(of_seeds) if len(of_seeds) > 1 else 0 for of_seeds in by_size.values()]
        style = {"linestyle": "-" if name in study.arms else "--"}
        lines[name] = Line([size * shift for size in by_size], means, deviations, style)
    figures.over_labels(path, lines, sizes, metric)
