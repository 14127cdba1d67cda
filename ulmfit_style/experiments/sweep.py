"""sweep: a search of a space by Optuna, whose trials Hydra's launchers run; or a grid, where there is no space."""

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from statistics import stdev

import optuna
from optuna.trial import FrozenTrial, TrialState

from ulmfit_style import chain
from ulmfit_style.artefacts import predictions
from ulmfit_style.artefacts.directory import METRICS, read_json
from ulmfit_style.cli.compose import Launch, compose, grid, run_by_hydra
from ulmfit_style.console import muted, say
from ulmfit_style.errors import Pruned, UserError
from ulmfit_style.experiments import search_space, trial_queue, trials
from ulmfit_style.experiments.trial_queue import Outcome, TrialQueue, TrialReporter, folder_name, options_of, ranked_by
from ulmfit_style.recipe import Config
from ulmfit_style.results import scores, terminal
from ulmfit_style.results.parts import Difference, Interval, Prose, Table
from ulmfit_style.stages.table import resolve

SHOWN = 10
"""Trials that the table shows."""

FEWEST = 3
"""Trials that importances take."""

NUMBER = "ULMFIT_STYLE_TRIAL_NUMBER"
"""Set in the environment of a job by Hydra: which trial it is."""


def run(overrides: Sequence[str]) -> None:
    """Search the space, or go on with it, and print the results; without a space, run the grid that was typed.

    Raises:
        UserError: if anything is wrong, before a trial starts; or if too many trials failed.
    """
    points = grid(overrides)
    config = compose(points[0])
    if not config.require_task().path.files():
        raise UserError("sweep: chooses by the validation rows, and there are none; name labelled rows by task.path")
    if (sweep := config.sweep) is None:
        _run_grid(overrides, points)
        return
    if len(points) > 1:
        raise UserError("sweep: a grid and a space, one at a time; add the choices to the space: model: [minilm, bert]")
    ranked_by(config)

    def check(trial: Config) -> None:
        chain.plan(resolve(_recipe(trial).seeded(sweep.seeds[0])), trials.STAGES)

    with muted():
        check(config)
        search_space.check(overrides, sweep.space, check)
    run_by_hydra(_train, ["--multirun", *overrides], partial(_search, TrialQueue(config, sweep, overrides)))
    report(overrides)


def _search(queue: TrialQueue, overrides: Sequence[str], launch: Launch) -> None:
    """Take trials from the queue, let Hydra's launcher run them, and record what became of them, until all are done.

    Args:
        overrides: Those of the sweep, as Hydra takes them.

    Raises:
        UserError: if too many trials failed.
    """
    before = trial_queue.count(queue.study).total()
    say(f"sweep: {queue.folder.name}: {len(queue.sweep.space)} dimensions, {before} trials begun before", style="bold")
    while taken := queue.take():
        jobs = []
        for trial in taken:
            say(f"trial {trial.number}: {options_of(queue.study.trials[trial.number])}")
            # An option that no YAML spells out is taken with `++`, which a choice of a group is not.
            options = [f"++{text}" if "." in text.partition("=")[0] else text for text in trial.user_attrs["options"]]
            jobs.append([*overrides, *options, f"+hydra.job.env_set.{NUMBER}='{trial.number}'"])
        try:
            returned = launch(jobs, taken[0].number)
        except BaseException:
            queue.put_back(taken)
            raise
        for trial, job in zip(taken, returned, strict=True):
            try:
                outcome = job.return_value
            except Exception as error:  # whatever a launcher's process died of
                outcome = Outcome(TrialState.FAIL, error=str(error) or type(error).__name__)
            queue.finish(trial, outcome)
            say(_progress(queue, trial.number))


def _train(config: Config) -> Outcome:
    """Train the models of a trial, one for each seed, in whichever process the launcher chose."""
    sweep = config.sweep
    assert sweep is not None  # this is a job of a search
    recipe, number, metric = _recipe(config), int(os.environ[NUMBER]), ranked_by(config)
    outcome, folder = Outcome(TrialState.COMPLETE), config.runs / recipe.name
    try:
        for seed in sweep.seeds:
            resolved = resolve(recipe.seeded(seed))
            reporter = TrialReporter(sweep, folder, number, metric, sweep.measurements, tuple(outcome.scores))
            if (error := trials.make(resolved, f"trial-{number}-seed-{seed}", reporter)) is not None:
                outcome.state, outcome.error = TrialState.FAIL, error
                break
            model = resolved.artefact("finetune").directory
            measured = read_json(model / METRICS)["validation"]
            outcome.scores.append(measured["scores"][metric])
            outcome.intervals.append(measured["intervals"][metric])
            outcome.artefacts.append(model.name)
            if reporter.report(sweep.measurements, outcome.scores[-1]):
                raise Pruned
    except Pruned:
        outcome.state = TrialState.PRUNED
    return outcome


def _recipe(config: Config) -> Config:
    """Return the recipe that a trial makes."""
    return config.model_copy(update={"name": folder_name(config), "compare": False, "sweep": None})


def _progress(queue: TrialQueue, number: int) -> str:
    """Return the line on a trial that ended: `[5 of 6] trial 5: accuracy 0.620; best so far 0.655 (trial 0)`."""
    trial, counts = queue.study.trials[number], trial_queue.count(queue.study)
    ended = counts.total() - counts[TrialState.RUNNING]
    of = "" if queue.sweep.trials is None else f" of {queue.sweep.trials}"
    ending = {TrialState.PRUNED: "stopped early, at ", TrialState.FAIL: "failed"}.get(trial.state, "")
    score = "" if trial.value is None else f"{ranked_by(queue.config)} {trial.value:.3f}"
    best = [f"; best so far {best.value:.3f} (trial {best.number})" for best in trial_queue.ranked(queue.study)[:1]]
    return f"[{ended}{of}] trial {number}: {ending}{score}{''.join(best)}"


def _run_grid(overrides: Sequence[str], points: Sequence[Sequence[str]]) -> None:
    """Run `adapt finetune` at every point of the grid that comma-separated overrides span, and print a table.

    Trials share every artefact that their overrides leave alone, so a sweep of `finetune.*` adapts once. They are
    ranked by the validation rows; the test rows stay out of the choice.

    Raises:
        UserError: if nothing is swept, or any point of the grid is wrong: before the first trial starts.
    """
    if len(points) < 2:
        raise UserError("sweep: give an option several values, for example finetune.learning_rate=2e-5,5e-5,1e-4")
    plainly = ("compare=false", "task.folds=0")  # which the winner is run without
    run_by_hydra(partial(chain.run, stages=trials.STAGES), ["--multirun", *overrides, *plainly])

    # Content-addressed artefacts need no record of what a trial made, whichever launcher ran it.
    rows, by_trial = [], {}
    for point in points:
        resolved = resolve(compose([*point, *plainly]))
        metric, model = resolved.task.metric, resolved.artefact("finetune").directory
        measured, swept = read_json(model / METRICS)["validation"], [text for text in point if text not in overrides]
        score, interval = measured["scores"][metric], Interval(*measured["interval"])
        rows.append((" ".join(swept), score, interval, str(model), point))
        by_trial[" ".join(swept)] = measured
    rows.sort(key=lambda row: -row[1])
    header = ("trial", f"validation {metric}", "95 % interval", "artefact")
    table = Table(header, [row[:-1] for row in rows], f"{len(points)} trials, best first by the validation rows")
    terminal.show(Prose(""), table, Prose(scores.highest(metric, by_trial)))
    say(trials.command_of_the_best(rows[0][-1]))


@trial_queue.quiet()
def report(overrides: Sequence[str]) -> None:
    """Print the results of a sweep so far, the best trials first, and the command that runs the winner.

    Raises:
        UserError: if there is no sweep of that name.
    """
    config = compose(overrides)
    folder, database = config.runs / folder_name(config), config.sweep.storage if config.sweep else None
    try:
        study = optuna.load_study(study_name=folder.name, storage=trial_queue.open_journal(folder, database))
    except (FileNotFoundError, KeyError):
        problem = f"sweep-report: there is no sweep {folder.name} in {database or config.runs}"
        raise UserError(f"{problem}; make sweep sweep=finetune begins one") from None
    begun_by: list[str] = study.user_attrs["overrides"]
    config, ranked, counts = compose(begun_by), trial_queue.ranked(study), trial_queue.count(study)
    done, running = counts[TrialState.COMPLETE], counts[TrialState.RUNNING]
    stopped = f"{counts[TrialState.PRUNED]} stopped early, {counts[TrialState.FAIL]} failed"
    say(f"\n{folder.name}: {done} trials done, {stopped}, {running} running")
    for trial, error in trial_queue.failures(study):
        say(f"Failed: trial {trial.number} ({options_of(trial)}): {error}")
    if not ranked:
        return
    terminal.show(_table(ranked[:SHOWN], ranked_by(config)))
    if len(ranked) >= FEWEST:
        shares = optuna.importance.get_param_importances(study)
        listed = ", ".join(f"{key} {share:.2f}" for key, share in shares.items())
        say(f"What mattered (Optuna's importances): {listed}.")
    say(f"Its plots: pip install optuna-dashboard; optuna-dashboard {database or folder / trial_queue.JOURNAL}")
    for sentence in _comparison(config, ranked, folder.parent):
        say(sentence)
    # What was typed but for the search, and what won.
    search = ("sweep", "hydra/", "hydra.launcher", "hydra.sweep", "name=", "compare=")
    typed = [text for text in begun_by if not text.lstrip("+").startswith(search)]
    say(trials.command_of_the_best([f"name={config.name}_best", *typed, *ranked[0].user_attrs["options"]]))


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
