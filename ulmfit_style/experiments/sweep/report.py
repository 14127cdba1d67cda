"""What is told of a sweep: its best trials, what mattered, figures, the winner as a recipe, and whether it is one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import mean

import optuna
import yaml
from optuna import Study
from optuna.trial import FrozenTrial
from rich.table import Table

from ulmfit_style import lineage, metrics
from ulmfit_style.artefacts import predictions
from ulmfit_style.cli import CONF
from ulmfit_style.cli.compose import compose, experiment
from ulmfit_style.cli.overrides import SEARCH_PATH
from ulmfit_style.console import say, show
from ulmfit_style.errors import UserError
from ulmfit_style.experiments import storage
from ulmfit_style.experiments.sweep import trials
from ulmfit_style.experiments.sweep.trials import count, done, error_of, failed, options_of
from ulmfit_style.recipe import Config
from ulmfit_style.results import figures

FOLDER = Path("conf/experiment")
"""Where the winner is written, in the working directory."""

SHOWN = 10
"""Trials that the table shows."""

MOST_SLICES = 6
"""Dimensions of which a figure has a part, those that mattered most."""

FEWEST = 3
"""Trials that importances and figures take."""


def run(typed: Sequence[str]) -> None:
    """Tell what a sweep has found so far, also while it runs.

    Raises:
        UserError: if there is no sweep of that name, or its storage cannot be opened.
    """
    config = compose(typed)
    folder = config.runs / trials.folder(config)
    missing = f"sweep-report: there is no sweep {folder.name} in {{}}; make sweep sweep=finetune begins one"
    in_journal = config.sweep is None or config.sweep.storage is None
    if in_journal and not (folder / storage.JOURNAL).exists():
        raise UserError(missing.format(config.runs))
    kept = storage.opened(config.sweep, folder)
    with storage.quiet():
        try:
            study = optuna.load_study(study_name=folder.name, storage=kept)
        except KeyError as error:
            raise UserError(missing.format("that storage")) from error
        _tell(study, folder)


def _tell(study: Study, folder: Path) -> None:
    """Print what a study has found, draw it, and write its winner down."""
    overrides: list[str] = study.user_attrs["overrides"]
    config = compose(overrides)
    assert config.sweep is not None  # it was one
    counted, found, seeds = count(study), done(study), config.sweep.seeds
    ended = f"{counted.done} trials done, {counted.pruned} stopped early, {counted.failed} failed"
    say()
    say(f"{folder.name}: {ended}, {counted.running} running")
    for trial in failed(study):
        say(f"Failed: trial {trial.number} ({options_of(trial)}): {error_of(trial)}")
    if not found:
        return
    metric = trials.ranked_by(config)
    table = Table(title=f"the best by the validation rows, over {_seeds(seeds)}", title_justify="left")
    spread = ["sd", "of each"] if len(seeds) > 1 else ["95 % interval"]
    for heading in ("trial", f"validation {metric}", *spread, "options"):
        table.add_column(heading, overflow="fold")
    for trial in found[:SHOWN]:
        scores = trial.user_attrs["scores"]
        if len(seeds) > 1:
            own = [f"{metrics.spread(scores):.3f}", " ".join(f"{score:.3f}" for score in scores)]
        else:
            own = ["{:.3f} to {:.3f}".format(*trial.user_attrs["intervals"][0])]
        table.add_row(str(trial.number), f"{trial.values[0]:.3f}", *own, options_of(trial))
    show(table)
    if len(found) >= FEWEST:
        shares = optuna.importance.get_param_importances(study)
        say(
            f"What mattered (Optuna's importances): {', '.join(f'{key} {share:.2f}' for key, share in shares.items())}."
        )
        _draw(study, folder, [key for key in shares if shares[key]][:MOST_SLICES])
    _compare(config, study, found, folder)
    _write(overrides, config, found[0])


def _seeds(seeds: Sequence[object]) -> str:
    return f"{len(seeds)} seeds" if len(seeds) > 1 else "one seed"


def _compare(config: Config, study: Study, found: Sequence[FrozenTrial], folder: Path) -> None:
    """Say whether the best trial can be told from the recipe as it was."""
    best = found[0]
    recipes = [trial for trial in found if "default" in trial.user_attrs]
    if not recipes:
        say("The recipe as it was has no score yet, so it cannot be told whether the best trial is better.")
        return
    if best.number == recipes[0].number:
        say("No trial scored higher than the recipe as it was: keep it.")
        return
    task = lineage.required_task(config)
    if (metric := trials.ranked_by(config)) != task.metric:
        (low, _), (_, high) = (_mean_interval(trial) for trial in (best, recipes[0]))
        apart = "do not overlap" if low > high else "overlap: keep the recipe, or give more seeds or validation rows"
        say(f"The intervals of {metric}, of trial {best.number} and of the recipe as it was, {apart}.")
        return
    for trial in (best, recipes[0]):
        for path in (folder.parent / name / predictions.FILE for name in trial.user_attrs["artefacts"]):
            if not path.exists():
                say(f"Whether it is better than the recipe as it was is told where {path} is: on another machine.")
                return
    ours, theirs = (
        [predictions.points(task, folder.parent / name, "validation") for name in trial.user_attrs["artefacts"]]
        for trial in (best, recipes[0])
    )
    low, high = metrics.over_seeds(ours, theirs, task.of_means)
    gain, bottom, top = (100 * x for x in (best.values[0] - recipes[0].values[0], low, high))
    say(
        f"Trial {best.number} scored {gain:+.1f} points more than the recipe as it was (95 % interval {bottom:+.1f} to "
        f"{top:+.1f}, over {_seeds(ours)} and the validation rows): {metrics.verdict(low, high, len(ours))}."
    )
    if low <= 0 <= high:
        say("So it is within the noise of the recipe: keep that, or give more seeds (sweep.seeds) or validation rows.")
    else:
        say("The best of many trials was lucky as well: its score on the test rows is the fair one.")


def _mean_interval(trial: FrozenTrial) -> tuple[float, float]:
    lows, highs = zip(*trial.user_attrs["intervals"], strict=True)
    return mean(lows), mean(highs)


def _draw(study: Study, folder: Path, sliced: Sequence[str]) -> None:
    """Draw Optuna's own plots, with slices of the given dimensions."""
    from optuna.visualization import matplotlib as plots

    plotted: dict[str, Callable[[Study], object]] = {
        "history": plots.plot_optimization_history,
        "importances": plots.plot_param_importances,
        "slices": partial(plots.plot_slice, params=list(sliced) or None),
        "curves": plots.plot_intermediate_values,
    }
    for name, plot in plotted.items():
        figures.plotted(folder / name, partial(plot, study))
    say(f"Figures: {folder}/history.png, importances.png, slices.png and curves.png")


def _write(overrides: Sequence[str], config: Config, best: FrozenTrial) -> None:
    """Write the winner as a YAML of `conf/experiment/`, and say the command that runs it."""
    name = f"{config.name}_best"
    typed = [text for text in overrides if not text.lstrip("+").startswith(("sweep", "hydra", "name=", "compare="))]
    recipe = experiment([*typed, *best.user_attrs["options"], f"name={name}"])
    path = FOLDER / f"{name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    origin = f"Trial {best.number} of the sweep {trials.folder(config)}"
    head = f"# @package _global_\n# {origin}: {best.values[0]:.3f} on the validation rows.\n"
    path.write_text(head + yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True), encoding="utf-8")
    folders = [text for text in overrides if text.startswith(SEARCH_PATH)]
    if CONF.resolve() == FOLDER.parent.resolve() and not folders:
        command = f"make adapt finetune experiment={name}"
    else:
        command = " ".join(
            ["ulmfit-style adapt finetune --config-dir", str(FOLDER.parent), *folders, f"experiment={name}"]
        )
    say(f"The best one is {path}. On the test rows, beside the references: {command}")
