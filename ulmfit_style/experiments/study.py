"""study: named arms, each over the same seeds and numbers of labels, and by how much they differ.

Trials run one after another in this process; what is there already is not made again.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from statistics import mean
from typing import final

from ulmfit_style import chain
from ulmfit_style.artefacts.directory import METRICS, read_json
from ulmfit_style.console import duration, muted, say
from ulmfit_style.errors import UserError
from ulmfit_style.experiments import estimate, study_plan, study_report
from ulmfit_style.experiments.study_plan import ArmTrial, Choices, Labels, Searched, StudyPlan
from ulmfit_style.experiments.study_report import Result
from ulmfit_style.experiments.trials import discard
from ulmfit_style.lineage import Step
from ulmfit_style.stages import STAGES, resolve


def run(overrides: Sequence[str]) -> None:
    """Run a study, or go on with it, and print what it found.

    Raises:
        UserError: if an arm is wrong, before anything is trained; or in the end, if a trial failed.
    """
    plan = study_plan.plan(overrides)
    search = plan.search()
    choices = {(arm, labels): plan.combinations[0] for arm in plan.base.study.arms for labels in plan.labels}
    if all(trial.trial.artefact.measured for trial in search):
        choices |= _best([study_report.read(trial) for trial in search])
    runner = _Runner(plan, [*search, *plan.reported(choices)])
    choices |= _best([runner.run(trial) for trial in search])
    results = [runner.run(trial) for trial in plan.reported(choices)]
    study_report.write(plan, choices, [*_references(plan), *results])
    failed = sum(bool(result.error) for result in results)
    if failed:
        raise UserError(f"study: {failed} of {len(results)} runs failed; the same command tries them again")


@final
class _Runner:
    """Makes the trials of a study one by one, and says how far it has come.

    Args:
        trials: All of them; where a search has not chosen yet, with any of its combinations.
    """

    def __init__(self, plan: StudyPlan, trials: Sequence[ArmTrial]) -> None:
        self.plan, self.total, self.number = plan, len(trials), 0
        self.missing = [trial for trial in trials if not trial.trial.artefact.measured]
        self.finished: list[ArmTrial] = []
        """Those that are done, for the time that others take."""
        self.best: tuple[float, Path] | None = None
        """The best score on the validation rows, and the directory of that model."""
        sizes = f" x {len(plan.labels)} numbers of labels" if len(plan.labels) > 1 else ""
        search = " and a search" if len(plan.combinations) > 1 else ""
        study = f"study: {len(plan.base.study.arms)} arms{sizes} x {len(plan.base.study.seeds)} seeds{search}"
        if not self.missing:
            say(f"{study}: all {self.total} runs are up to date")
            return
        done = f", {self.total - len(self.missing)} of them up to date" if len(self.missing) < self.total else ""
        say(f"{study}: {self.total} runs{done}; the rest takes about {self._time_left()} here")

    def run(self, trial: ArmTrial) -> Result:
        """Make a trial, unless it is there, and return what it scored, a failed one too."""
        self.number += 1
        artefact = trial.trial.artefact
        error = trial.trial.make() if artefact.measured else self._make(trial)
        result = study_report.read(trial, error)
        if error is None and artefact.finished:
            candidates = [candidate for candidate in (self.best, (result.validation, artefact.directory)) if candidate]
            self.best = max(candidates, key=lambda candidate: candidate[0])
            directories = [directory for _, directory in candidates]
            discard(self.plan.base.study.keep_weights, directories, [self.best[1]], self.plan.folder)
        return result

    def _make(self, trial: ArmTrial) -> str | None:
        """Make a trial; return what went wrong, if anything did."""
        say(f"[{self.number}/{self.total}] {trial.trial.title}", style="bold")
        started = time.monotonic()
        if (error := trial.trial.make()) is not None:
            return error
        self.finished.append(trial)
        fingerprint = trial.trial.artefact.fingerprint
        self.missing = [other for other in self.missing if other.trial.artefact.fingerprint != fingerprint]
        metric = trial.trial.resolved.task.metric
        score = trial.trial.measured("test")["scores"][metric]
        left = f"; about {self._time_left()} left" if self.missing else ""
        say(f"  {metric} {score:.3f} on the test rows, in {time.monotonic() - started:.0f} s{left}")
        return None

    def _time_left(self) -> str:
        return duration(estimate.seconds(self.plan, self.missing, self.finished))


def _best(results: Sequence[Result]) -> Choices:
    """Return the combination of each arm at each number of labels that scores best on the validation rows.

    Raises:
        UserError: if a trial of the search failed: a choice among the others would be another one.
    """
    scores: dict[tuple[str, Labels], dict[Searched, list[float]]] = defaultdict(lambda: defaultdict(list))
    for result in results:
        if result.error:
            names = ", ".join([result.arm, *result.searched, result.sample.title])
            raise UserError(f"study.search: {names} failed: {result.error}")
        scores[result.arm, result.sample.labels][result.searched].append(result.validation)
    return {key: max(tried, key=lambda searched: mean(tried[searched])) for key, tried in scores.items()}


def _references(plan: StudyPlan) -> Iterator[Result]:
    """Fit the reference models on each sample, unless it was done, and yield what they scored."""
    if "linear" not in plan.base.study.references:
        return
    for sample in plan.samples(plan.base.study.seeds):
        resolved = resolve(plan.at(plan.base, sample))
        step = Step(STAGES["references"], resolved, f"reference models, {sample.title}", sample.link("references"))
        with muted() if step.artefact.finished else nullcontext():
            chain.make_here([step], plan.folder)
        scores = read_json(step.artefact.directory / METRICS)
        for name, measured in scores["test"].items():
            yield Result(name, sample, score=measured["scores"][scores["metric"]])
