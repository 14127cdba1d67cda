"""sweep: a search of a space by Optuna, whose trials Hydra's launchers run; or a grid, where there is no space."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from statistics import mean

from optuna.trial import TrialState

from ulmfit_style import chain
from ulmfit_style.cli import flags
from ulmfit_style.cli.compose import compose
from ulmfit_style.cli.flags import Launch
from ulmfit_style.cli.overrides import grid
from ulmfit_style.console import duration, muted, say
from ulmfit_style.errors import Pruned, UserError
from ulmfit_style.experiments import search_space, sweep_report, trial_queue, trial_storage
from ulmfit_style.experiments.trial_queue import Outcome, TrialQueue
from ulmfit_style.experiments.trial_storage import TrialReporter
from ulmfit_style.experiments.trials import Trial
from ulmfit_style.recipe import Config
from ulmfit_style.results import terminal
from ulmfit_style.results.model import Interval, Table
from ulmfit_style.stages import resolve

NUMBER = "ULMFIT_STYLE_TRIAL_NUMBER"
"""Set in the environment of a job by Hydra: which trial it is."""


def run(overrides: Sequence[str]) -> None:
    """Search the space, or go on with it, and print what was found; without one, run the grid that was typed.

    Raises:
        UserError: if anything is wrong, before a trial starts; or if too many trials failed.
    """
    points = grid(overrides)
    config = compose(points[0])
    if (sweep := config.sweep) is None:
        _run_grid(overrides, points)
        return
    if len(points) > 1:
        raise UserError("sweep: a grid and a space, one at a time; add the choices to the space: model: [minilm, bert]")
    trial_queue.ranked_by(config)

    def check(trial: Config) -> None:
        chain.plan(resolve(_recipe(trial).seeded(sweep.seeds[0])), chain.TRIAL)

    with muted():
        check(config)
        search_space.check(config, overrides, sweep.space, check)
    try:
        queue = TrialQueue(resolve(config), sweep, overrides)
        flags.run(_train, ["--multirun", *overrides], partial(_search, queue))
        sweep_report.run(overrides)
    except trial_storage.CONNECTION_ERRORS as error:
        raise trial_storage.unreachable(sweep, error) from error


def _search(queue: TrialQueue, overrides: Sequence[str], launch: Launch) -> None:
    """Take trials from the queue, let Hydra's launcher run them, and record what became of them, until all are done.

    Args:
        overrides: Those of the sweep, as Hydra takes them.

    Raises:
        UserError: if too many trials failed.
    """
    sweep, begun = queue.sweep, len(trial_queue.begun(queue.study))
    bounds = [] if sweep.trials is None else [f"{sweep.trials} trials"]
    bounds += [] if sweep.max_hours is None else [f"{sweep.max_hours:g} hours of this worker"]
    budget = f"{' or '.join(bounds)}{f', {begun} of them begun before' if begun else ''}"
    say(f"sweep: {queue.folder.name}: {len(sweep.space)} dimensions, {budget}", style="bold")
    while trials := queue.take():
        jobs = [
            [*overrides, *map(_laid_over, trial.user_attrs["options"]), f"+hydra.job.env_set.{NUMBER}='{trial.number}'"]
            for trial in trials
        ]
        for trial in trials:
            say(f"trial {trial.number}: {trial_queue.options_of(queue.study.trials[trial.number])}")
        with queue.alive(trials):
            returned = launch(jobs, trials[0].number)
        for trial, job in zip(trials, returned, strict=True):
            try:
                outcome = job.return_value
            except Exception as error:  # whatever a launcher's process died of
                outcome = Outcome(TrialState.FAIL, error=str(error) or type(error).__name__)
            queue.finish(trial, outcome)
            say(_progress(queue, trial.number))
    if running := trial_queue.count(queue.study)[TrialState.RUNNING]:
        say(f"sweep: other processes still run {running}; `make sweep-report` shows them when they are done")


def _run_grid(overrides: Sequence[str], points: Sequence[Sequence[str]]) -> None:
    """Run `adapt finetune` at every point of the grid that comma-separated overrides span, and print a table.

    Trials share every artefact that their overrides leave alone, so a sweep of `finetune.*` adapts once. They are
    ranked by the validation rows; the test rows stay out of the choice.

    Raises:
        UserError: if nothing is swept, or any point of the grid is wrong: before the first trial starts.
    """
    if len(points) < 2:
        raise UserError("sweep: give an option several values, for example finetune.learning_rate=2e-5,5e-5,1e-4")
    without_comparison = "compare=false"  # which the winner is run with
    flags.run(partial(chain.run, stages=chain.TRIAL), ["--multirun", without_comparison, *overrides])

    # Content-addressed artefacts need no record of what a trial made, whichever launcher ran it.
    rows = []
    for point in points:
        trial = Trial(resolve(compose([without_comparison, *point])), "", "")
        metric = trial.resolved.task.metric
        measured, swept = trial.measured("validation"), " ".join(option for option in point if option not in overrides)
        score, interval = measured["scores"][metric], Interval(*measured["interval"])
        rows.append((swept, score, interval, str(trial.artefact.directory), " ".join(point)))
    rows.sort(key=lambda row: -row[1])
    header = ("trial", f"validation {metric}", "95 % interval", "artefact")
    title = f"{len(points)} trials, best first by the validation rows"
    say()
    terminal.show(Table(header, [row[:-1] for row in rows], title))
    say(f"The best one on the test rows, beside the references: make adapt finetune {rows[0][-1]}")


def _laid_over(option: str) -> str:
    """Return an option so that Hydra takes it where no YAML spells it out; a group's choice is as it was."""
    return f"++{option}" if "." in option.partition("=")[0] else option


def _recipe(config: Config) -> Config:
    """Return the recipe that a trial makes."""
    return config.model_copy(update={"name": trial_queue.folder_name(config), "compare": False, "sweep": None})


def _train(config: Config) -> Outcome:
    """Train the models of a trial, one for each seed, in whichever process the launcher chose."""
    if (sweep := config.sweep) is None:
        raise UserError("sweep=none: this is a job of a search")
    recipe, number, metric = _recipe(config), int(os.environ[NUMBER]), trial_queue.ranked_by(config)
    outcome = Outcome(TrialState.COMPLETE)
    for seed in sweep.seeds:
        trial = Trial(resolve(recipe.seeded(seed)), f"trial {number}", f"trial-{number}-seed-{seed}")
        reporter = TrialReporter(sweep, config.runs / recipe.name, number, metric, sweep.measurements, outcome.scores)
        try:
            error = trial.make(reporter)
        except Pruned:
            return replace(outcome, state=TrialState.PRUNED)
        if error is not None:
            return replace(outcome, state=TrialState.FAIL, error=error)
        measured = trial.measured("validation")
        outcome = replace(
            outcome,
            scores=[*outcome.scores, measured["scores"][metric]],
            intervals=[*outcome.intervals, measured["intervals"][metric]],
            artefacts=[*outcome.artefacts, trial.artefact.directory.name],
        )
        if reporter.report(sweep.measurements, measured["scores"][metric]):
            return replace(outcome, state=TrialState.PRUNED)
    return outcome


def _progress(queue: TrialQueue, number: int) -> str:
    """Return the line on a trial that ended, and on all of them."""
    sweep, trial, counts = queue.sweep, queue.study.trials[number], trial_queue.count(queue.study)
    running, ranked = counts[TrialState.RUNNING], trial_queue.ranked(queue.study)
    of = "" if sweep.trials is None else f" of {sweep.trials}"
    ending = {TrialState.PRUNED: "stopped early, at ", TrialState.FAIL: "failed"}.get(trial.state, "")
    score = "" if trial.value is None else f"{trial_queue.ranked_by(queue.resolved.config)} {trial.value:.3f}"
    parts = [
        f"[{counts.total() - running}{of}] trial {number}: {ending}{score}",
        f"done {counts[TrialState.COMPLETE]}, running {running}, stopped early {counts[TrialState.PRUNED]}, "
        f"failed {counts[TrialState.FAIL]}",
    ]
    parts += [f"best so far {best.value:.3f} (trial {best.number})" for best in ranked[:1]]
    seconds_left = [] if queue.hours_left is None else [3600 * queue.hours_left]
    seconds = [other.duration.total_seconds() for other in ranked if other.duration is not None]
    if sweep.trials is not None and seconds:
        together = max(running, sweep.parallel)
        seconds_left.append((sweep.trials - counts.total() + running) * mean(seconds) / together)
    parts += [f"about {duration(min(seconds_left))} left"] if any(seconds_left) else []
    return "; ".join(parts)
