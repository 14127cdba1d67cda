"""Runs a sweep: trials by Optuna through Hydra's launchers, or a grid where there is no space."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial

from ulmfit_style import chain
from ulmfit_style.artefacts.directory import METRICS, read_json
from ulmfit_style.cli import flags
from ulmfit_style.cli.compose import compose
from ulmfit_style.cli.flags import Launch
from ulmfit_style.cli.overrides import grid
from ulmfit_style.console import muted, say
from ulmfit_style.data import pins
from ulmfit_style.errors import Pruned, UserError
from ulmfit_style.experiments import storage
from ulmfit_style.experiments.storage import TrialInTraining
from ulmfit_style.experiments.sweep import grid as plain_grid
from ulmfit_style.experiments.sweep import report, space
from ulmfit_style.experiments.sweep.trials import Outcome, Worker, count, folder, options_of, ranked_by
from ulmfit_style.recipe import Config
from ulmfit_style.stages import resolve

NUMBER = "ULMFIT_STYLE_TRIAL_NUMBER"
"""Set in the environment of a job by Hydra: which trial it is."""


def run(typed: Sequence[str]) -> None:
    """Search the space, or go on with it, and tell what was found; without one, run the grid that was typed.

    Raises:
        UserError: if anything is wrong, before a trial starts; or if too many trials failed.
    """
    points = grid(typed)
    config = compose(points[0])
    if config.sweep is None:
        plain_grid.run(typed)
        return
    if len(points) > 1:
        raise UserError(
            "sweep: a grid and a space, one at a time; give the space those choices too: model: [minilm, bert]"
        )
    ranked_by(config)
    seed = config.sweep.seeds[0]

    def check_trial(tried: Config) -> None:
        chain.plan(resolve(_plain(tried).seeded(seed)), chain.TRIAL)

    with muted():
        check_trial(config)
        space.check(config, typed, config.sweep.space, check_trial)
    try:
        worker = Worker(pins.pinned(config), typed)
        flags.run(_trial, ["--multirun", *typed], partial(_search, worker))
        report.run(typed)
    except storage.lost() as error:
        raise UserError(storage.unreachable(config.sweep.storage or "", error)) from error


def _search(worker: Worker, typed: Sequence[str], launched: Launch) -> None:
    """Take trials from the study, let Hydra's launcher run them, and write down what became of them, until all are.

    Args:
        typed: The overrides, as Hydra takes them.

    Raises:
        UserError: if too many trials failed.
    """
    say(f"sweep: {folder(worker.config)}: {len(worker.sweep.space)} dimensions, {worker.budget()}", style="bold")
    while trials := worker.next():
        jobs = [
            [*typed, *map(_laid_over, trial.user_attrs["options"]), f"+hydra.job.env_set.{NUMBER}='{trial.number}'"]
            for trial in trials
        ]
        for trial in trials:
            say(f"trial {trial.number}: {options_of(worker.study.trials[trial.number])}")
        with worker.alive(trials):
            returned = launched(jobs, trials[0].number)
        for trial, job in zip(trials, returned, strict=True):
            try:
                outcome = job.return_value
            except Exception as error:  # whatever a launcher's process died of
                outcome = Outcome("failed", error=str(error) or type(error).__name__)
            worker.finish(trial, outcome)
            say(worker.progress(trial.number))
    if running := count(worker.study).running:
        say(f"sweep: other processes still run {running}; `make sweep-report` tells of them when they are done")


def _laid_over(option: str) -> str:
    """Return an option so that Hydra takes it where no YAML spells it out; a group's choice is as it was."""
    return f"++{option}" if "." in option.partition("=")[0] else option


def _plain(config: Config) -> Config:
    """Return the recipe that a trial makes."""
    return pins.pinned(config).model_copy(update={"name": folder(config), "compare": False, "sweep": None})


def _trial(config: Config) -> Outcome:
    """Train the models of a trial, one for each seed, in whichever process the launcher chose."""
    sweep, number = config.sweep, int(os.environ[NUMBER])
    assert sweep is not None  # a sweep runs it
    plain = _plain(config)
    scores: list[float] = []
    intervals: list[list[float]] = []
    artefacts: list[str] = []
    for seed in sweep.seeds:
        seeded = plain.seeded(seed)
        trial = TrialInTraining(sweep, ranked_by(config), config.runs / plain.name, plain.name, number, scores)
        try:
            artefact = resolve(seeded).artefact("finetune")
            error = None if artefact.measured else chain.attempt(seeded, f"trial {number}", trial)
        except Pruned:
            return Outcome("pruned", scores, intervals, artefacts)
        except UserError as problem:
            error = str(problem)
        if error is not None:
            return Outcome("failed", scores, intervals, artefacts, error)
        if not artefact.measured:
            return Outcome("pruned", scores, intervals, artefacts)  # in processes of its own
        artefact.link(plain.name, f"trial-{number}-seed-{seed}")
        artefacts.append(artefact.directory.name)
        found = read_json(artefact.directory / METRICS)["validation"]
        metric = ranked_by(config)
        score = found["scores"][metric]
        stop = trial.report(sweep.measurements, score)
        scores.append(score)
        intervals.append(found["intervals"][metric])
        if stop:
            return Outcome("pruned", scores, intervals, artefacts)
    return Outcome("done", scores, intervals, artefacts)
