"""A trial that is made in no time, for what studies and sweeps keep books of: its scores follow from its options."""

from pathlib import Path

from ulmfit_style.artefacts import predictions
from ulmfit_style.artefacts.directory import METRICS, write_json
from ulmfit_style.errors import Pruned, UserError
from ulmfit_style.resolved import Reporter, Resolved

FAILING = 0.07
"""The weight decay with which a trial fails."""


def train(resolved: Resolved, reporter: Reporter | None) -> None:
    """Answer some rows right, the more the higher the rate is, and other ones for every model."""
    config = resolved.config
    if config.finetune.weight_decay == FAILING:
        raise UserError("the loss is nan")
    task, artefact = resolved.task, resolved.artefact("finetune")
    share = 50 + 40 * config.finetune.learning_rate**0.25 + int(artefact.fingerprint, 16) % 10

    def make(directory: Path) -> None:
        scores, answered = {}, []
        for split in ("validation", "test"):
            rows = resolved.rows.split(split)
            right = [task.target(row) for row in rows]
            answers = [
                {"label": label if 37 * row.number % 100 < share else "nothing"}
                for row, label in zip(rows, right, strict=True)
            ]
            scores[split] = task.measure(answers, right)
            answered += predictions.of(split, task, rows, answers)
        score = scores["validation"]["scores"][task.metric if reporter is None else reporter.metric]
        for measurement in range(1, 1 if reporter is None else reporter.measurements):
            if reporter.report(measurement, score * measurement / reporter.measurements):
                raise Pruned
        predictions.write(directory, answered)
        (directory / "model.safetensors").write_bytes(b"weights")
        write_json(
            directory / METRICS,
            {"task": type(task).__name__, "metric": task.metric, **scores, "train": {"rows": 2}, "log": []},
        )

    artefact.make(make, config.recipe())
