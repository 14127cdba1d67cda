"""evaluate: score a finished model on rows of the task's data, or on another file."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ulmfit_style.analysis import estimate, probe, slices
from ulmfit_style.artefacts import fingerprint, predictions
from ulmfit_style.artefacts.directory import METRICS, RECIPE, read_json, write_json
from ulmfit_style.cli.compose import compose
from ulmfit_style.compute import processes
from ulmfit_style.console import say
from ulmfit_style.data import labelled
from ulmfit_style.data.rows import Rows
from ulmfit_style.errors import UserError, listed
from ulmfit_style.models import checkpoints
from ulmfit_style.recipe import load
from ulmfit_style.resolved import Resolved, Step
from ulmfit_style.results import scores, terminal
from ulmfit_style.results.parts import Prose
from ulmfit_style.tasks.base_text import LabelTask


def own(resolved: Resolved) -> Resolved:
    """Return the config with the task of the model that is named, where no task was chosen."""
    named, task = resolved.config.evaluate.model, resolved.config.task
    if named is None or (task is not None and task != compose().task):
        return resolved
    directory = checkpoints.find_finetuned(named, "evaluate.model", resolved.config.runs)
    return resolved.variant(task=load(directory / RECIPE).require_task())


def starts_from(resolved: Resolved) -> str | None:
    """Return the stage that makes what is scored, if it is this config's own model."""
    return resolved.answering if resolved.config.evaluate.model is None else None


def check(resolved: Resolved, stages: Sequence[str]) -> None:
    """Check that the answers can flip where the probe is to count that.

    Raises:
        UserError: if they are not labels, or there is no task.
    """
    if resolved.config.evaluate.probe != "none" and not isinstance(resolved.task, LabelTask):
        kind = type(resolved.task).__name__
        raise UserError(f"evaluate.probe=names: counts labels that change, and {kind} answers none")


def determinants(resolved: Resolved) -> dict[str, Any]:
    """Return what the scores depend on.

    Raises:
        UserError: if the model is of another kind of task, or does not know a label of the rows.
    """
    task, options = resolved.task, resolved.config.evaluate
    model = resolved.finetuned(options.model, "evaluate.model")
    split, rows = scored(resolved)
    if options.model is None:
        classes = resolved.rows.classes
    else:
        trained_on = load(model.directory / RECIPE).require_task()
        if type(trained_on) is not type(task):
            kinds = f"was trained on {type(trained_on).__name__}, and the task is {type(task).__name__}"
            raise UserError(f"evaluate.model={options.model}: {kinds}; choose the task that fits")
        classes = read_json(model.directory / METRICS)["train"]["classes"]
    problem = f"is one that the model does not know (it knows: {listed(classes)})"
    labelled.require_known(task, classes, rows, options.path or f"evaluate: the {split} rows", problem)
    determinants = {
        "model": model.identity,
        "task": {"kind": type(task).__name__, **task.determinants()},
        "split": split,
        "rows": labelled.digest_of(task, rows),
    }
    if options.slices:
        determinants["slices"] = fingerprint.digest(slices.groups(resolved.config, rows))
    if options.probe != "none":
        determinants["probe"] = options.probe
    return determinants


def scored(resolved: Resolved) -> tuple[str, Rows]:
    """Return the rows that are scored, and what they are called: a split, or "all" rows of another file.

    Raises:
        UserError: if there are none.
    """
    options = resolved.config.evaluate
    if options.path is not None:
        return "all", labelled.load_whole(resolved.task, "evaluate.path", options.path, options.format)
    rows, folds = resolved.rows.split(options.split), resolved.rows.folds
    if not rows or (folds and options.model is not None and options.split == "test"):
        which = f"{options.split} rows{' kept from training (task.folds)' if folds else ''}"
        raise UserError(f"evaluate: there are no labelled {which}; name a file: evaluate.path=<file>")
    return options.split, rows


def work(resolved: Resolved) -> float:
    """Return how many tokens pass through the model."""
    return estimate.tokens(resolved, scored(resolved)[1])


def run(step: Step, directory: Path) -> None:
    """Score the model."""
    from ulmfit_style.predictor import Predictor

    resolved, task, options = step.resolved, step.resolved.task, step.config.evaluate
    split, rows = scored(resolved)
    source = resolved.finetuned(options.model, "evaluate.model").directory
    model = Predictor(str(source), option="evaluate.model")
    # A row of folds is answered by the model that has not seen it.
    if options.path is None and rows is resolved.rows.test and resolved.rows.folds:
        answered: Sequence[predictions.Prediction] = predictions.read(source, "test")
        measured = task.measure(answered, list(map(task.target, rows)))
    else:
        measured, answered = model.scorer(task).score(rows, split)
    if not processes.is_main():
        return
    predictions.write(directory, answered)
    metrics: dict[str, Any] = {"task": type(task).__name__, "metric": task.metric, "model": str(source)}
    metrics |= {"path": options.path, "split": split, split: measured}
    if options.slices:
        targets, columns = [task.target(row) for row in rows], slices.groups(step.config, rows)
        metrics["slices"] = {name: slices.measure(task, answered, targets, groups) for name, groups in columns.items()}
    if options.probe != "none":
        metrics["probe"] = {"this one": probe.measure(task, model.stream, rows)}
    write_json(directory / METRICS, metrics)


def summarise(resolved: Resolved, stage: str) -> None:
    """Print the scores of the finished artefact, each with its interval, and those of each class."""
    config, directory = resolved.config, resolved.artefact(stage).directory
    metrics = read_json(directory / METRICS)
    measured = metrics[metrics["split"]]
    data = config.evaluate.path or metrics["split"]
    title = f"{data}: {measured['rows']:,} rows, answered by {metrics['model']}"
    signatures = [Prose(f"{name}: {signature}") for name, signature in measured.get("signatures", {}).items()]
    terminal.show(Prose(""), scores.by_score({data: measured}, title), *scores.edges([measured]), *signatures)
    terminal.show(*scores.classes(measured["report"]), *scores.groups(metrics))
    say(f"Every prediction with its row: {directory / predictions.FILE}")
