"""export: write the fine-tuned model as ONNX, and tell what its answers are worth beside the model's own."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ulmfit_style.artefacts.directory import METRICS, WEIGHTS, read_json, write_json
from ulmfit_style.compute import processes
from ulmfit_style.console import say
from ulmfit_style.errors import UserError, require_packages
from ulmfit_style.metrics import intervals
from ulmfit_style.models import architectures, checkpoints
from ulmfit_style.publishing import html_report
from ulmfit_style.resolved import Resolved, Step
from ulmfit_style.results import finished, scores, terminal
from ulmfit_style.results.parts import Difference, Prose, Size, Table
from ulmfit_style.tasks.base import Answer, Row, Task

MOST_ROWS = 1000
"""Test rows of which the answers are compared."""

TORCH = "torch"
"""What the model itself is called in tables."""


def starts_from(resolved: Resolved) -> str | None:
    """Return the stage that makes what is exported, unless there is a model that the same options made."""
    return None if resolved.unchanged("finetune") else "finetune"


def check(resolved: Resolved, stages: Sequence[str]) -> None:
    """Check that there is an export of the task's models, and what makes it.

    Raises:
        UserError: if not.
    """
    problem, model_type = None, checkpoints.model_type(resolved.config.model)
    if resolved.config.ensemble.members:
        problem = "an ensemble is several models, which are exported one by one, by their own names"
    elif resolved.task.writes:
        problem = f"{type(resolved.task).__name__} writes texts, and models that write are not exported"
    elif resolved.task.pools_windows and not resolved.config.export.features:
        problem = "a head that puts windows together (task.long_documents=pooled) is not exported"
    elif architectures.architecture(model_type).carries_state:
        problem = f"a model of type '{model_type}' carries its state from token to token, and such are not exported"
    if problem is not None:
        raise UserError(f"export: {problem}; `predict` and transformers read their directory as it is")
    require_packages("export", "onnx", "onnxruntime", "onnxscript")


def determinants(resolved: Resolved) -> dict[str, Any]:
    """Return what the files depend on."""
    fingerprint = _source(resolved).resolve().name.rpartition("-")[2]
    return {"model": {"finetune": fingerprint}, **resolved.config.export.determinants()}


def _source(resolved: Resolved) -> Path:
    """Return the directory of the model; where it was made by the same options, no training data are read."""
    return resolved.unchanged("finetune") or resolved.artefact("finetune").directory


def run(step: Step, directory: Path) -> None:
    """Write the files, and compare their answers to the test rows with those of the model."""
    if not processes.is_main():
        return
    from ulmfit_style.predictor import Predictor
    from ulmfit_style.publishing import onnx_files
    from ulmfit_style.training.scoring import Scorer, mean_features

    source, name = _source(step.resolved), step.config.name
    predictor = Predictor(str(source), "cpu")
    task, tokenizer, max_length = predictor.task.for_scoring(), predictor.tokenizer, predictor.max_length
    is_body = step.config.export.features
    model = predictor.model.base_model if is_body else predictor.model
    rows = list(html_report.test_rows(finished.read(source, name), task).values())[:MOST_ROWS]
    onnx_files.write(model, tokenizer, max_length, directory)
    models = {TORCH: (model, [*source.glob(WEIGHTS)])}
    for title, file in onnx_files.FILES.items():
        models[title] = onnx_files.by_onnx(model, directory / file), [directory / file]
    compared: dict[str, Any] = {}
    theirs: Any = None
    for title, (one, files) in models.items():
        started = time.perf_counter()
        if is_body:
            ours = mean_features(one, tokenizer, max_length, [text for row in rows for text in task.texts(row)])
        else:
            ours = list(Scorer(one, tokenizer, task, max_length).answers(rows))
        rate = len(rows) / (time.perf_counter() - started)
        theirs = ours if theirs is None else theirs
        compared[title] = {"bytes": sum(file.stat().st_size for file in files), "rows_per_second": rate}
        if is_body and rows:
            compared[title]["apart"] = float(np.abs(ours - theirs).max())
        elif rows:
            compared[title] |= _agreement(task, rows, ours, theirs)
    write_json(directory / METRICS, {"metric": task.metric, "rows": len(rows), "models": compared})


def _agreement(task: Task, rows: Sequence[Row], ours: Sequence[Answer], theirs: Sequence[Answer]) -> dict[str, Any]:
    """Return the score of answers, and how far they are from those of the model itself."""
    targets = list(map(task.target, rows))
    points, baseline = ([task.row_scores(answers, targets)] for answers in (ours, theirs))
    shown = [[task.display(*one)[1] for one in zip(rows, side, targets, strict=True)] for side in (ours, theirs)]
    pairs = [task.calibration_pairs(answers, targets) for answers in (ours, theirs)]
    ours_sure, theirs_sure = (np.array([sure for sure, _ in side]) for side in pairs)
    return {
        "score": task.score(ours, targets)[task.metric],
        "difference": intervals.difference(points, baseline, task.of_means),
        "same": sum(map(str.__eq__, *shown)) / len(rows),
        "apart": float(np.abs(ours_sure - theirs_sure).max()) if len(ours_sure) == len(theirs_sure) > 0 else None,
    }


def summarise(resolved: Resolved, stage: str) -> None:
    """Print the files beside the model itself: size, speed, scores and agreement; a drop is said."""
    directory = resolved.artefact(stage).directory
    metrics = read_json(directory / METRICS)
    heads = {"score": metrics["metric"], "same": "same answers", "apart": "farthest apart"}
    held = [name for name in heads if name in metrics["models"][TORCH]]
    table = [
        (name, Size(one["bytes"]), *(one[each] for each in held), round(one["rows_per_second"]) or None)
        for name, one in metrics["models"].items()
    ]
    title = f"{metrics['rows']:,} test rows" if metrics["rows"] else "no test rows to compare answers on"
    drops = {name: Difference(*one["difference"]) for name, one in metrics["models"].items() if "difference" in one}
    lost = [(name, drop) for name, drop in drops.items() if drop.value < 0]
    said = [Prose(scores.worth(f"{name} changed {metrics['metric']} by", drop)) for name, drop in lost]
    terminal.show(Table(("", "size", *(heads[each] for each in held), "rows per second"), table, title), *said)
    say(f"export: {directory}; transformers.js and onnxruntime read it (docs/how-to/serve.md)", style="bold")
