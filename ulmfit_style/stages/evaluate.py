"""evaluate: score a finished model on rows of the task's data, or on another file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ulmfit_style import processes
from ulmfit_style.analysis import probe, slices
from ulmfit_style.artefacts import predictions
from ulmfit_style.artefacts.directory import METRICS, RECIPE, Artefact, digest, read_json, write_json
from ulmfit_style.console import say
from ulmfit_style.data import labelled
from ulmfit_style.errors import UserError
from ulmfit_style.lineage import Resolved, Stage, Step, required_task, why_missing
from ulmfit_style.models import checkpoints
from ulmfit_style.recipe import load
from ulmfit_style.results import scores, terminal
from ulmfit_style.results.model import Prose
from ulmfit_style.tasks.base import Row


def check(resolved: Resolved, stages: Sequence[str]) -> None:
    """Check that the task is one that the probe knows.

    Raises:
        UserError: if there is no task, or it is none of those.
    """
    if resolved.config.evaluate.probe != "none":
        probe.check(resolved.task)


def determinants(resolved: Resolved) -> dict[str, Any]:
    """Return what the scores depend on.

    Raises:
        UserError: if the model is of another kind of task, or does not know a label of the rows.
    """
    task, options = resolved.task, resolved.config.evaluate
    model = resolved.finetuned(options.model, "evaluate.model")
    split, rows = scored(resolved)
    if options.model is not None:
        trained_on = required_task(load(model.directory / RECIPE))
        if type(trained_on) is not type(task):
            kinds = f"was trained on {type(trained_on).__name__}, and the task is {type(task).__name__}"
            raise UserError(f"evaluate.model={options.model}: {kinds}; choose the task that fits")
    classes = resolved.rows.classes if options.model is None else checkpoints.classes(model)
    names = ", ".join([*classes[:10], *(["..."] if len(classes) > 10 else [])])
    problem = f"is one that the model does not know (it knows: {names})"
    labelled.require_known(task, classes, rows, options.path or f"evaluate: the {split} rows", problem)
    found = {
        "model": model.identity,
        "task": {"kind": type(task).__name__, **task.determinants()},
        "split": split,
        "rows": labelled.digest_of(task, rows),
    }
    if options.slices:
        found["slices"] = digest(slices.groups(resolved.config, rows))
    if options.probe != "none":
        bare = not_adapted(resolved)
        found["probe"] = {options.probe: None if bare is None else bare.fingerprint}
    return found


def steps(stage: Stage, resolved: Resolved, stages: Sequence[str]) -> list[Step]:
    """Return the step, with a title that names the rows.

    Raises:
        UserError: if the model without adaptation is to be probed too, and is not there.
    """
    options, bare = resolved.config.evaluate, not_adapted(resolved)
    if options.probe != "none" and bare is not None and not bare.finished and "finetune" not in stages:
        problem = f"there is no model without adaptation to be probed too ({why_missing(bare, resolved.config)})"
        raise UserError(f"evaluate.probe: {problem}; run `finetune` with compare=true, or take compare=false")
    return [Step(stage, resolved, f"evaluate: {options.path or f'the {options.split} rows'}")]


def scored(resolved: Resolved) -> tuple[str, list[Row]]:
    """Return the rows that are scored, and what they are called: a split, or "all" rows of another file."""
    options = resolved.config.evaluate
    if options.path is not None:
        return "all", labelled.load_whole(resolved.task, "evaluate.path", options.path)
    return options.split, resolved.rows.split(options.split)


def not_adapted(resolved: Resolved) -> Artefact | None:
    """Return the model that `compare` fine-tunes without adaptation, to be probed too; None if there is none."""
    config = resolved.config
    if config.evaluate.model is not None or config.adapt is None or not config.compare:
        return None
    return resolved.variant(adapt=None).artefact("finetune")


def run(step: Step, directory: Path) -> None:
    """Score the model."""
    from ulmfit_style.predictor import Predictor
    from ulmfit_style.training.scoring import Scorer

    resolved, task, options = step.resolved, step.resolved.task, step.config.evaluate
    split, rows = scored(resolved)
    source = resolved.finetuned(options.model, "evaluate.model").directory
    tuned = Predictor(str(source), option="evaluate.model")
    measured, found = Scorer(tuned.model, tuned.tokenizer, task, tuned.max_length).score(rows, split)
    if not processes.is_main():
        return
    predictions.write(directory, found)
    metrics: dict[str, Any] = {"task": type(task).__name__, "metric": task.metric, "model": str(source), "split": split}
    metrics |= {"path": options.path, split: measured}
    if options.slices:
        targets, columns = [task.target(row) for row in rows], slices.groups(step.config, rows)
        metrics["slices"] = {column: slices.measure(task, found, targets, groups) for column, groups in columns.items()}
    if options.probe != "none":
        bare = not_adapted(resolved)
        models = {"this one": tuned} | ({} if bare is None else {"not adapted": Predictor(str(bare.directory))})
        metrics["probe"] = {name: probe.measure(task, model.stream, rows) for name, model in models.items()}
    write_json(directory / METRICS, metrics)


def conclude(resolved: Resolved, stages: Sequence[str]) -> None:
    """Print the scores of the finished artefact, each with its interval, and those of each class."""
    config, directory = resolved.config, resolved.artefact("evaluate").directory
    metrics = read_json(directory / METRICS)
    measured = metrics[metrics["split"]]
    data = config.evaluate.path or metrics["split"]
    title = f"{data}: {measured['rows']:,} rows, answered by {metrics['model']}"
    signatures = [Prose(f"{name}: {signature}") for name, signature in measured.get("signatures", {}).items()]
    terminal.show(Prose(""), scores.by_score({data: measured}, title), *signatures)
    terminal.show(*scores.classes(measured["report"]))
    terminal.show(*scores.slices(metrics["metric"], metrics.get("slices", {})))
    terminal.show(*scores.probed(metrics.get("probe", {})))
    say(f"Every prediction with its row: {directory / predictions.FILE}")
