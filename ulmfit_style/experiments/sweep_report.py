"""sweep-report: the best trials, what mattered, the command that runs the winner, and whether it is better."""

from collections.abc import Sequence
from pathlib import Path
from statistics import stdev

import optuna
from optuna import Study
from optuna.trial import FrozenTrial, TrialState

from ulmfit_style.artefacts import predictions
from ulmfit_style.cli.compose import compose
from ulmfit_style.console import say
from ulmfit_style.errors import UserError
from ulmfit_style.experiments import trial_queue, trials
from ulmfit_style.experiments.trial_queue import folder_name, options_of, ranked_by
from ulmfit_style.recipe import Config
from ulmfit_style.results import scores, terminal
from ulmfit_style.results.parts import Difference, Interval, Table

SHOWN = 10
"""Trials that the table shows."""

FEWEST = 3
"""Trials that importances take."""


def run(overrides: Sequence[str]) -> None:
    """Print the results of a sweep so far, draw them, and write its winner down.

    Raises:
        UserError: if there is no sweep of that name.
    """
    config = compose(overrides)
    folder = config.runs / folder_name(config)
    if not (folder / trial_queue.JOURNAL).exists():
        begin = "make sweep sweep=finetune begins one"
        raise UserError(f"sweep-report: there is no sweep {folder.name} in {config.runs}; {begin}")
    with trial_queue.quiet():
        _report(optuna.load_study(study_name=folder.name, storage=trial_queue.open_journal(folder)), folder)


def _report(study: Study, folder: Path) -> None:
    overrides: list[str] = study.user_attrs["overrides"]
    config, ranked, counts = compose(overrides), trial_queue.ranked(study), trial_queue.count(study)
    done, running = counts[TrialState.COMPLETE], counts[TrialState.RUNNING]
    stopped = f"{counts[TrialState.PRUNED]} stopped early, {counts[TrialState.FAIL]} failed"
    say()
    say(f"{folder.name}: {done} trials done, {stopped}, {running} running")
    for trial, error in trial_queue.failures(study):
        say(f"Failed: trial {trial.number} ({options_of(trial)}): {error}")
    if not ranked:
        return
    terminal.show(_table(ranked[:SHOWN], ranked_by(config)))
    if len(ranked) >= FEWEST:
        shares = optuna.importance.get_param_importances(study)
        listed = ", ".join(f"{key} {share:.2f}" for key, share in shares.items())
        say(f"What mattered (Optuna's importances): {listed}.")
    say(f"Its plots, in a browser: pip install optuna-dashboard; optuna-dashboard {folder / trial_queue.JOURNAL}")
    for sentence in _comparison(config, ranked, folder.parent):
        say(sentence)
    say(trials.command_of_the_best(_winner(overrides, config, ranked[0])))


def _table(ranked: Sequence[FrozenTrial], metric: str) -> Table:
    """Return the score of each trial: with the spread over its seeds, or with the interval of its one model."""
    seeds = len(ranked[0].user_attrs["scores"])
    rows = []
    for trial in ranked:
        sure = Interval(*trial.user_attrs["intervals"][0]) if seeds == 1 else stdev(trial.user_attrs["scores"])
        rows.append((trial.number, trial.values[0], sure, options_of(trial)))
    title = f"the best by the validation rows, over {'one seed' if seeds == 1 else f'{seeds} seeds'}"
    return Table(("trial", f"validation {metric}", scores.INTERVAL if seeds == 1 else "sd", "options"), rows, title)


def _comparison(config: Config, ranked: Sequence[FrozenTrial], runs: Path) -> list[str]:
    """Say whether the best trial can be told from the recipe as it was, by the task's own metric."""
    best, recipe = ranked[0], next((trial for trial in ranked if "default" in trial.user_attrs), None)
    if recipe is None:
        return ["The recipe as it was has no score yet, so it cannot be told whether the best trial is better."]
    if best.number == recipe.number:
        return ["No trial scored higher than the recipe as it was: keep it."]
    task = config.require_task()
    names = (trial.user_attrs["artefacts"] for trial in (best, recipe))
    ours, theirs = ([predictions.read(runs / name, "validation") for name in of_seeds] for of_seeds in names)
    difference = Difference(*predictions.difference(task, ours, theirs))
    advice = "So it is within the noise of the recipe: keep that, or give more seeds (sweep.seeds) or validation rows."
    if difference.is_clear:
        advice = "The best of many trials was lucky as well: its score on the test rows is the fair one."
    better = f"Trial {best.number} differs in {task.metric} from the recipe as it was by"
    return [scores.worth(better, difference, len(ours), "validation rows"), advice]


def _winner(overrides: Sequence[str], config: Config, best: FrozenTrial) -> list[str]:
    """Return the overrides that make the best trial's model: what was typed but for the search, and what won."""
    search = ("sweep", "hydra/", "hydra.launcher", "hydra.sweep", "name=", "compare=")
    typed = [text for text in overrides if not text.lstrip("+").startswith(search)]
    return [f"name={config.name}_best", *typed, *best.user_attrs["options"]]
