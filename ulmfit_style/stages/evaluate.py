"""evaluate: score a finished model on rows of the task's data, or on another file."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from rich.table import Table

from ulmfit_style import lineage, processes
from ulmfit_style.analysis import probe, slices
from ulmfit_style.artefacts import predictions
from ulmfit_style.artefacts.directory import METRICS, read_json, write_json
from ulmfit_style.console import say, show
from ulmfit_style.errors import UserError
from ulmfit_style.recipe import Config


def run(config: Config) -> Path:
    """Score the model, unless it was done, and return the directory of the scores.

    Raises:
        UserError: if the model was not made.
    """
    made = lineage.evaluate(config)
    if not made.finished:
        lineage.require_tuned(config, config.evaluate.model, "evaluate")
        bare = lineage.not_adapted(config)
        if config.evaluate.probe != "none" and bare is not None and not bare.finished:
            problem = f"there is no model without adaptation to be probed too ({lineage.why_missing(bare, config)})"
            raise UserError(f"evaluate.probe: {problem}; run `finetune` with compare=true, or take compare=false")
    return made.make(partial(_evaluate, config), config.recipe())


def _evaluate(config: Config, directory: Path) -> None:
    from ulmfit_style.predictor import Predictor
    from ulmfit_style.training.scoring import Scorer

    task = lineage.required_task(config)
    split, rows = lineage.scored(config)
    source = lineage.tuned(config, config.evaluate.model, "evaluate.model").directory
    tuned = Predictor(str(source), option="evaluate.model")
    measured, found = Scorer(tuned.model, tuned.tokenizer, task, tuned.max_length).score(rows, split)
    if not processes.is_main():
        return
    predictions.write(directory, found)
    metrics: dict[str, Any] = {"task": type(task).__name__, "metric": task.metric, "model": str(source), "split": split}
    metrics |= {split: measured}
    if config.evaluate.slices:
        targets = [task.target(row) for row in rows]
        metrics["slices"] = slices.measure(task, found, targets, slices.groups(config, rows))
    if config.evaluate.probe != "none":
        bare = lineage.not_adapted(config)
        models = {"this one": tuned} | ({} if bare is None else {"not adapted": Predictor(str(bare.directory))})
        metrics["probe"] = {name: probe.measure(task, model.stream, rows) for name, model in models.items()}
    write_json(directory / METRICS, metrics)


def tell(config: Config) -> None:
    """Print the scores of the finished artefact, each with its interval, and those of each class."""
    directory = lineage.evaluate(config).directory
    metrics = read_json(directory / METRICS)
    measured = metrics[metrics["split"]]
    data = config.evaluate.path or metrics["split"]
    table = Table(title=f"{data}: {measured['rows']:,} rows, answered by {metrics['model']}", title_justify="left")
    table.add_column("score")
    table.add_column("value", justify="right")
    table.add_column("95 % interval", justify="right")
    for name, value in measured["scores"].items():
        low, high = measured["intervals"].get(name, (None, None))
        table.add_row(name, f"{value:.3f}", "" if low is None else f"{low:.3f} to {high:.3f}")
    say()
    show(table)
    for name, signature in measured.get("signatures", {}).items():
        say(f"{name}: {signature}")
    if measured["report"]:
        show(_report(measured["report"]))
        if (small := slices.small_classes(measured["report"])) is not None:
            say(small)
    slices.tell(metrics["metric"], metrics.get("slices", {}))
    if "probe" in metrics:
        probe.tell(metrics["probe"])
    say(f"Every prediction with its row: {directory / predictions.FILE}")


def _report(classes: list[dict[str, str | float]]) -> Table:
    table = Table()
    for name in classes[0]:
        table.add_column(name, justify="left" if name == "class" else "right")
    for entry in classes:
        table.add_row(*(f"{value:.3f}" if isinstance(value, float) else str(value) for value in entry.values()))
    return table
