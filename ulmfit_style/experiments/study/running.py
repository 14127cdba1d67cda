"""Runs a study: one trial after another in this process, what is done already not again."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import mean

from ulmfit_style import chain, lineage
from ulmfit_style.artefacts.directory import METRICS, Artefact, discard_weights, read_json
from ulmfit_style.console import duration, muted, say
from ulmfit_style.errors import UserError
from ulmfit_style.experiments.study import report, results
from ulmfit_style.experiments.study.estimate import Estimate
from ulmfit_style.experiments.study.results import Reference, Result
from ulmfit_style.experiments.study.trials import Labels, Plan, Point, Trial, plan
from ulmfit_style.stages import resolve


def run(overrides: Sequence[str]) -> None:
    """Run a study, or go on with it, and print what it found.

    Raises:
        UserError: if an arm is wrong, before anything is trained; or in the end, if a trial failed.
    """
    made = plan(overrides)
    study = made.base.study
    running = _Running(made, Estimate(made))
    searched = made.searched()
    chosen = dict.fromkeys(((arm, labels) for arm in study.arms for labels in made.labels), made.points[0])
    if all(trial.artefact.measured for trial in searched):
        chosen |= _best_points(searched, (results.read(trial, None) for trial in searched))
    running.announce([*searched, *made.reported(chosen)])
    chosen |= _best_points(searched, running.through(searched))
    trials = made.reported(chosen)
    found = list(running.through(trials))
    simple = [reference for trial in _one_each(trials) for reference in running.references(trial)]
    for trial in (*searched, *trials):
        if trial.artefact.measured:
            trial.artefact.link(made.folder, results.slug(trial))
    report.tell(made, chosen if searched else {}, found, simple)
    failed = [result for result in found if result.error is not None]
    if failed:
        raise UserError(f"study: {len(failed)} of {len(found)} runs failed; the same command tries them again")


@dataclass
class _Running:
    """How far a study has come."""

    plan: Plan
    estimate: Estimate
    total: int = 0
    number: int = 0
    left: list[Trial] = field(default_factory=list)
    best: tuple[float, Artefact] | None = None
    """The validation score of the best trial so far, and its artefact: its weights stay (study.keep_weights=best)."""

    def announce(self, trials: Sequence[Trial]) -> None:
        """Say how many trials there are, and about how long the missing ones take."""
        self.left = [trial for trial in trials if not trial.artefact.measured]
        self.total = len(trials)
        arms = f"{len(self.plan.base.study.arms)} arms"
        sizes = f" x {len(self.plan.labels)} numbers of labels" if len(self.plan.labels) > 1 else ""
        reported = f"{arms}{sizes} x {len(self.plan.base.study.seeds)} seeds"
        search = " and a search" if len(self.plan.points) > 1 else ""
        if not self.left:
            say(f"study: {reported}{search}: all {self.total} runs are up to date")
            return
        done = f", {self.total - len(self.left)} of them up to date" if len(self.left) < self.total else ""
        about = duration(self.estimate.seconds(self.left))
        say(f"study: {reported}{search}: {self.total} runs{done}; the rest takes about {about} here")

    def through(self, trials: Sequence[Trial]) -> Iterator[Result]:
        """Make what is missing of the trials, and return what each showed, a failed one too."""
        for trial in trials:
            self.number += 1
            error = None if trial.artefact.measured else self._make(trial)
            result = results.read(trial, error)
            yield result
            if error is None:
                self._keep(trial, result)

    def _make(self, trial: Trial) -> str | None:
        """Make a trial's artefacts; return what went wrong, if anything."""
        say(f"[{self.number}/{self.total}] {trial.title}", style="bold")
        started = time.monotonic()
        if (error := chain.attempt(trial.config, trial.title)) is not None:
            return error
        self.left = [other for other in self.left if other.artefact.fingerprint != trial.artefact.fingerprint]
        self.estimate.learn(trial)
        metric = lineage.required_task(trial.config).metric
        score = read_json(trial.artefact.directory / METRICS)["test"]["scores"][metric]
        left = f"; about {duration(self.estimate.seconds(self.left))} left" if self.left else ""
        say(f"  {metric} {score:.3f} on the test rows, in {time.monotonic() - started:.0f} s{left}")
        return None

    def _keep(self, trial: Trial, result: Result) -> None:
        """Discard the weights that are not to be kept, but for those that another name links to."""
        keep, artefact = self.plan.base.study.keep_weights, trial.artefact
        if keep == "all" or not artefact.finished:
            return
        losers = [artefact]
        if keep == "best" and (self.best is None or result.validation > self.best[0]):
            losers = [] if self.best is None else [self.best[1]]
            self.best = result.validation, artefact
        for loser in losers:
            discard_weights(loser.directory, self.plan.folder)

    def references(self, trial: Trial) -> Iterator[Reference]:
        """Fit the reference models on the rows of a trial, unless it was done, and return what they showed."""
        if "linear" not in self.plan.base.study.references:
            return
        config = self.plan.at(self.plan.base, trial.labels, trial.seed)
        resolved = resolve(config.model_copy(update={"compare": True, "adapt": None}))
        (step,) = resolved.stages["references"].steps(resolved, ["finetune"])
        if not step.artefact.finished:
            say(f"reference models, {trial.sample}", style="bold")
            with muted():
                chain.make_here([step], self.plan.folder)
        step.artefact.link(self.plan.folder, f"references-{results.slug(trial, arm=False)}")
        yield from results.of_references(trial, step.artefact)


def _one_each(trials: Sequence[Trial]) -> list[Trial]:
    """Return one trial of each number of labels and seed."""
    return list({(trial.labels, trial.seed): trial for trial in trials}.values())


def _best_points(searched: Sequence[Trial], found: Iterable[Result]) -> Mapping[tuple[str, Labels], Point]:
    """Return the point of each arm at each number of labels that scores best on the validation rows.

    Raises:
        UserError: if a run of the search failed: a choice among the others would be another one.
    """
    scores: dict[tuple[str, Labels], dict[Point, list[float]]] = defaultdict(lambda: defaultdict(list))
    for trial, result in zip(searched, found, strict=True):
        if result.error is not None:
            raise UserError(f"study.search: {trial.title} failed: {result.error}")
        scores[trial.arm, trial.labels][trial.point].append(result.validation)
    return {key: max(points, key=lambda point: mean(points[point])) for key, points in scores.items()}
