"""study: named arms, each over the same seeds and numbers of labels, and by how much they differ.

Trials run one after another in this process; what is there already is not made again. The results are a table for each
number of labels, a sentence for each arm, csv files and a figure.
"""

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from itertools import product
from pathlib import Path
from statistics import mean, stdev
from typing import NamedTuple, final

import pandas as pd

from ulmfit_style import chain
from ulmfit_style.artefacts import predictions
from ulmfit_style.artefacts.directory import METRICS, read_json
from ulmfit_style.cli.compose import compose
from ulmfit_style.config.experiments import Study
from ulmfit_style.config.section import spelled
from ulmfit_style.console import muted, say
from ulmfit_style.data import labelled
from ulmfit_style.errors import UserError, reworded
from ulmfit_style.experiments import trials
from ulmfit_style.recipe import Config
from ulmfit_style.resolved import Step
from ulmfit_style.results import csv, figures, scores, terminal
from ulmfit_style.results.parts import Difference, Prose, Table
from ulmfit_style.stages.table import STAGES, resolve

Labels = int | str | None
"""A number of labelled rows, `all` of them, or None for what the task says."""

Searched = tuple[str, ...]
"""One combination of the overrides that `study.search` tries; empty where nothing is searched."""

Choices = Mapping[tuple[str, Labels], Searched]
"""What the search chose for each arm at each number of labels; nothing without a search."""


@final
class Run(NamedTuple):
    """One run of a study: an arm, or reference models, on the labelled rows that a seed draws."""

    arm: str
    labels: Labels
    seed: int
    searched: Searched = ()

    @property
    def title(self) -> str:
        """The run in messages: `adapted, 100 labels, seed 0`."""
        labels = [] if self.labels is None else [f"{self.labels} labels"]
        return ", ".join([self.arm, *self.searched, *labels, f"seed {self.seed}"])

    @property
    def link(self) -> str:
        """The name of the link to what it made: `adapted-100-seed-0`."""
        return re.sub(r"[^\w.]+", "-", self.title.replace(" labels", "")).strip("-")


@final
class StudyPlan(NamedTuple):
    """A study, composed and checked."""

    base: Config
    arms: Mapping[tuple[str, Searched], Config]
    """The recipe of each arm, with each combination of its search."""
    labels: Sequence[Labels]
    combinations: Sequence[Searched]

    @property
    def folder(self) -> str:
        """The name of the folder of links, tables and figures under `runs`."""
        return f"{self.base.name}-{self.base.study.name}"

    def search(self) -> list[Run]:
        """Return the runs by which each arm's combination is chosen; none where there is no choice."""
        if len(self.combinations) < 2:
            return []
        study = self.base.study
        axes = product(study.search_seeds, self.labels, study.arms, self.combinations)
        return [Run(arm, labels, seed, searched) for seed, labels, arm, searched in axes]

    def reported(self, choices: Choices) -> list[Run]:
        """Return the runs that are reported: whole rounds over all arms, for a stopped study to compare them all."""
        axes = product(self.base.study.seeds, self.labels, self.base.study.arms)
        return [Run(arm, labels, seed, choices.get((arm, labels), self.combinations[0])) for seed, labels, arm in axes]

    def at(self, recipe: Config, labels: Labels, seed: int) -> Config:
        """Return a recipe with a number of labels and a seed."""
        size: dict[str, Labels] = {}
        if labels is not None:
            kind = "shots" if self.base.study.per_class else "train_samples"
            size = {"train_samples": None, "shots": None, kind: None if labels == "all" else labels}
        task = recipe.require_task().model_copy(update=size)
        return recipe.model_copy(update={"task": task, "compare": False, "name": self.folder}).seeded(seed)


@final
class Result(NamedTuple):
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


def run(overrides: Sequence[str]) -> None:
    """Run a study, or go on with it, and print its results.

    Raises:
        UserError: if an arm is wrong, before anything is trained; or in the end, if a trial failed.
    """
    plan = planned(overrides)
    study, search = plan.base.study, plan.search()
    axes = f"{len(study.arms)} arms x {len(plan.labels)} numbers of labels x {len(study.seeds)} seeds"
    total = len(search) + len(plan.reported({}))
    say(f"study: {total} runs: {axes}{f', and {len(search)} to search' if search else ''}", style="bold")
    made: list[Result] = []
    choices = best_of_search([_make(plan, run, made, total) for run in search])
    results = [_make(plan, run, made, total) for run in plan.reported(choices)]
    _tell(plan, choices, [*_references(plan), *results])
    if failed := sum(bool(result.error) for result in results):
        raise UserError(f"study: {failed} of {len(results)} runs failed; the same command tries them again")


def planned(overrides: Sequence[str]) -> StudyPlan:
    """Compose every arm of a study and check it, before anything is trained.

    Raises:
        UserError: if an arm is wrong, two arms are the same, or they are not scored on the same rows.
    """
    common = [*overrides, *compose(overrides).study.common, "task.folds=0"]
    base = compose(common)
    values = [[f"{option}={spelled(value)}" for value in values] for option, values in base.study.search.items()]
    combinations = list(product(*values))  # one that is empty without a search
    arms = {}
    for (arm, options), searched in product(base.study.arms.items(), combinations):
        with reworded(f"study.arms: {arm}: ", UserError):
            arms[arm, searched] = compose([*_concerning(common, options), *options, *_concerning(searched, options)])
    made = StudyPlan(base, arms, _possible_labels(base), combinations)
    _check(made)
    if len(base.study.seeds) < 2:
        say("study: one seed does not show how much seeds differ; give study.seeds at least three")
    return made


def _concerning(overrides: Iterable[str], arm: Sequence[str]) -> list[str]:
    """Return the overrides that concern an arm: not those of a stage that it switches off."""
    off = tuple(f"{override.removesuffix('=none')}." for override in arm if override.endswith("=none"))
    return [override for override in overrides if not override.startswith(off)]


def _possible_labels(base: Config) -> list[Labels]:
    """Return the numbers of labels that the task has rows for, and say which ones are left out."""
    study = base.study
    if study.labels is None:
        return [None]
    rows = labelled.load(base.require_task().unsampled())
    possible: list[Labels] = []
    there = f"there are {len(rows.classes)} classes and {len(rows.pool):,} training rows"
    for labels in study.labels:
        if study.per_class or labels == "all" or len(rows.classes) <= int(labels) <= len(rows.pool):
            possible.append(labels)
        else:
            say(f"study: {labels} labels are left out; {there}")
    if not possible:
        raise UserError(f"study.labels: none of these numbers is possible; {there}")
    return possible


def _check(study: StudyPlan) -> None:
    """Check each arm's data and model, that all are scored on the same rows, and that no two are the same."""
    arms_by_fingerprint: dict[str, str] = {}
    arms_by_test_rows: dict[str, str] = {}
    for (arm, searched), config in study.arms.items():
        resolved = resolve(study.at(config, study.labels[0], study.base.study.seeds[0]))
        with muted():
            chain.plan(resolved, trials.STAGES)
        other = arms_by_fingerprint.setdefault(resolved.artefact("finetune").fingerprint, arm)
        if other != arm:
            where = f" at {' '.join(searched)}" if searched else ""
            raise UserError(f"study.arms: '{arm}' and '{other}' are the same recipe{where}")
        arms_by_test_rows.setdefault(labelled.digest_of(resolved.task, resolved.rows.test), arm)
    if len(arms_by_test_rows) > 1:
        arms = ", ".join(map(repr, arms_by_test_rows.values()))
        raise UserError(f"study.arms: {arms} are not scored on the same test rows")


def _make(plan: StudyPlan, run: Run, made: list[Result], total: int) -> Result:
    """Make the model of a run, unless it is there, and return its scores, or its error if it failed.

    Args:
        made: The results of the runs before it, to which its own is added; the weights of the best are kept.
        total: How many runs there will be.
    """
    resolved = resolve(plan.at(plan.arms[run.arm, run.searched], run.labels, run.seed))
    metric, model = resolved.task.metric, resolved.artefact("finetune")
    if is_new := not model.measured:
        say(f"[{len(made) + 1}/{total}] {run.title}", style="bold")
    error = trials.make(resolved, run.link)
    result = Result(run, len(resolved.rows.train), model.directory, error=error or "")
    if error is None:
        measured = read_json(model.directory / METRICS)
        score, validation = (measured[split]["scores"][metric] for split in ("test", "validation"))
        result = result._replace(score=score, validation=validation)
        if is_new:
            say(f"  {metric} {score:.3f} on the test rows")
    made.append(result)
    if scored := [other for other in made if not other.error]:
        best = max(scored, key=lambda other: other.validation)
        directories = [other.directory for other in scored]
        trials.discard(plan.base.study.keep_weights, directories, [best.directory], plan.folder)
    return result


def best_of_search(results: Sequence[Result]) -> Choices:
    """Return the combination of each arm at each number of labels that scores best on the validation rows.

    Raises:
        UserError: if a trial of the search failed: the choice among the others could be another one.
    """
    scores: dict[tuple[str, Labels], dict[Searched, list[float]]] = defaultdict(lambda: defaultdict(list))
    for result in results:
        if result.error:
            raise UserError(f"study.search: {result.run.title} failed: {result.error}")
        scores[result.run.arm, result.run.labels][result.run.searched].append(result.validation)
    return {key: max(tried, key=lambda searched: mean(tried[searched])) for key, tried in scores.items()}


def _references(plan: StudyPlan) -> Iterator[Result]:
    """Fit the reference models on each sample, unless that was done, and yield their scores."""
    if "linear" not in plan.base.study.references:
        return
    for seed, labels in product(plan.base.study.seeds, plan.labels):
        run, resolved = Run("reference models", labels, seed), resolve(plan.at(plan.base, labels, seed))
        step = Step(STAGES["references"], resolved, run.title, run.link)
        with muted() if step.artefact.finished else nullcontext():
            chain.make_in_this_process([step], plan.folder)
        metrics = read_json(step.artefact.directory / METRICS)
        for name, measured in metrics["test"].items():
            score = measured["scores"][metrics["metric"]]
            yield Result(run._replace(arm=name), len(resolved.rows.train), step.artefact.directory, score)


def _tell(plan: StudyPlan, choices: Choices, results: Sequence[Result]) -> None:
    """Print the results of a study, and keep them as csv files and figures in its folder.

    Args:
        choices: What the search chose.
        results: Those of the references first.
    """
    study, task, folder = plan.base.study, plan.base.require_task(), plan.base.runs / plan.folder
    differences = []
    for labels in plan.labels:
        here = [result for result in results if result.run.labels == labels]
        by_name = {name: [one for one in here if one.run.arm == name] for name in (one.run.arm for one in here)}
        size = "" if labels is None else f"{labels} labels{' of each class' if study.per_class else ''}: "
        terminal.show(Prose(""), _table(by_name, study, f"{size}{task.metric} on the test rows"))
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
    runs = []
    for result in results:
        if result.error:
            say(f"Failed: {result.run.title}: {result.error}")
        run, scored, made = result.run, (result.score, result.validation), result.directory.name
        runs.append((run.arm, run.labels, run.seed, " ".join(run.searched), *scored, made, result.error))
    header = ("arm", "labels", "seed", "searched", task.metric, f"validation {task.metric}", "artefact", "error")
    csv.write(folder / "results.csv", Table(header, runs))
    csv.write(folder / "differences.csv", Table(("arm", "labels", "difference", "low", "high"), differences))
    _draw(folder / "figure", results, study, f"{task.metric} on the test rows")
    say(f"Every run: {folder}/results.csv; the differences: {folder}/differences.csv; the figure: {folder}/figure.png")


def _table(by_name: Mapping[str, Sequence[Result]], study: Study, title: str) -> Table:
    """Return the mean of each reference and arm at one number of labels, and every seed's score."""
    rows: list[tuple[str, float | str, float | None, str]] = []
    for name, results in by_name.items():
        seeds = " ".join("failed" if result.error else f"{result.score:.3f}" for result in results)
        # Of seeds that partly failed there is no mean: one of the others would be another one.
        values = [] if any(result.error for result in results) else [result.score for result in results]
        rows.append((name, mean(values) if values else "failed", stdev(values) if len(values) > 1 else None, seeds))
    return Table(("", "mean", "sd", f"seeds {' '.join(map(str, study.seeds))}"), rows, title)


def _draw(path: Path, results: Sequence[Result], study: Study, metric: str) -> None:
    """Draw the mean scores over the number of labels, with their standard deviations; references are dashed."""
    scored = [(result.run.arm, result.rows, result.score) for result in results if not result.error]
    by_name = pd.DataFrame(scored, columns=["name", "rows", "score"]).groupby("name", sort=False)
    lines, sizes = {}, sorted({result.rows for result in results})
    for number, (name, of_name) in enumerate(by_name):
        shift = 1.03 ** (number - len(by_name) / 2)  # a little beside one another, or bars would hide each other
        means = of_name.groupby("rows").score.agg(["mean", "std"]).fillna(0)
        style = {"linestyle": "-" if name in study.arms else "--"}
        lines[name] = figures.Line(means.index * shift, means["mean"], means["std"], style)
    figures.over_labels(path, lines, sizes, metric)
