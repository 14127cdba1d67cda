"""sweep: a search of a space by Optuna, whose trials Hydra's launchers run; or a grid, where there is no space."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from statistics import mean

from optuna.trial import TrialState

from ulmfit_style import chain
from ulmfit_style.cli import hydra_flags
from ulmfit_style.cli.composing import compose, grid
from ulmfit_style.cli.hydra_flags import Launch
from ulmfit_style.console import duration, muted, say
from ulmfit_style.data import pins
from ulmfit_style.errors import Pruned, UserError
from ulmfit_style.experiments import search_space, sweep_grid, sweep_report, trial_storage
from ulmfit_style.experiments.trial_queue import (
    Outcome,
    TrialQueue,
    complete,
    count,
    folder_name,
    options_of,
    ranked_by,
)
from ulmfit_style.experiments.trial_storage import TrialReporter
from ulmfit_style.experiments.trials import Trial
from ulmfit_style.recipe import Config

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
        sweep_grid.run(overrides)
        return
    if len(points) > 1:
        raise UserError("sweep: a grid and a space, one at a time; add the choices to the space: model: [minilm, bert]")
    ranked_by(config)

    def check(trial: Config) -> None:
        chain.plan(_recipe(trial).seeded(sweep.seeds[0]), chain.TRIAL)

    with muted():
        check(config)
        search_space.check(config, overrides, sweep.space, check)
    try:
        queue = TrialQueue(pins.pinned(config), sweep, overrides)
        hydra_flags.run(_train, ["--multirun", *overrides], partial(_search, queue))
        sweep_report.run(overrides)
    except trial_storage.connection_errors() as error:
        raise UserError(trial_storage.unreachable(sweep, error)) from error


def _search(queue: TrialQueue, overrides: Sequence[str], launch: Launch) -> None:
    """Take trials from the queue, let Hydra's launcher run them, and record what became of them, until all are done.

    Args:
        overrides: Those of the sweep, as Hydra takes them.

    Raises:
        UserError: if too many trials failed.
    """
    sweep, begun = queue.sweep, count(queue.study).begun
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
            say(f"trial {trial.number}: {options_of(queue.study.trials[trial.number])}")
        with queue.alive(trials):
            returned = launch(jobs, trials[0].number)
        for trial, job in zip(trials, returned, strict=True):
            try:
                outcome = job.return_value
            except Exception as error:  # whatever a launcher's process died of
                outcome = Outcome(TrialState.FAIL, error=str(error) or type(error).__name__)
            queue.finish(trial, outcome)
            say(_progress(queue, trial.number))
    if running := count(queue.study).running:
        say(f"sweep: other processes still run {running}; `make sweep-report` shows them when they are done")


def _laid_over(option: str) -> str:
    """Return an option so that Hydra takes it where no YAML spells it out; a group's choice is as it was."""
    return f"++{option}" if "." in option.partition("=")[0] else option


def _recipe(config: Config) -> Config:
    """Return the recipe that a trial makes."""
    return pins.pinned(config).model_copy(update={"name": folder_name(config), "compare": False, "sweep": None})


def _train(config: Config) -> Outcome:
    """Train the models of a trial, one for each seed, in whichever process the launcher chose."""
    if (sweep := config.sweep) is None:
        raise UserError("sweep=none: this is a job of a search")
    recipe, number, metric = _recipe(config), int(os.environ[NUMBER]), ranked_by(config)
    outcome = Outcome(TrialState.COMPLETE)
    for seed in sweep.seeds:
        trial = Trial(recipe.seeded(seed), f"trial {number}", f"trial-{number}-seed-{seed}")
        reporter = TrialReporter(sweep, config.runs / recipe.name, number, outcome.scores)
        try:
            error = trial.make(reporter)
        except Pruned:
            return replace(outcome, state=TrialState.PRUNED)
        if error is not None:
            return replace(outcome, state=TrialState.FAIL, error=error)
        measured = trial.scored("validation")
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
    sweep, trial, counts = queue.sweep, queue.study.trials[number], count(queue.study)
    ending = {TrialState.PRUNED: "stopped early, at ", TrialState.FAIL: "failed"}.get(trial.state, "")
    score = "" if trial.value is None else f"{ranked_by(queue.config)} {trial.value:.3f}"
    of = "" if sweep.trials is None else f" of {sweep.trials}"
    line = f"[{counts.begun - counts.running}{of}] trial {number}: {ending}{score}; done {counts.complete}, "
    line += f"running {counts.running}, stopped early {counts.pruned}, failed {counts.failed}"
    ranked = complete(queue.study)
    if ranked:
        line += f"; best so far {ranked[0].value:.3f} (trial {ranked[0].number})"
    seconds_left = [] if queue.hours_left is None else [3600 * queue.hours_left]
    seconds = [trial.duration.total_seconds() for trial in ranked if trial.duration is not None]
    if sweep.trials is not None and seconds:
        together = max(counts.running, sweep.parallel)
        seconds_left.append((sweep.trials - counts.begun + counts.running) * mean(seconds) / together)
    return line + (f"; about {duration(min(seconds_left))} left" if any(seconds_left) else "")
