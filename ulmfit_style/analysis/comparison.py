"""What a run showed: every score on the same test rows, and what adaptation was worth."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from ulmfit_style.artefacts import predictions
from ulmfit_style.artefacts.directory import METRICS, read_json
from ulmfit_style.console import say, show
from ulmfit_style.lineage import Resolved
from ulmfit_style.recipe import Config
from ulmfit_style.tasks.text_classification import TextClassification

FEW = 50
"""Labelled rows of a class, on average, up to which a contrastive phase scored higher wherever it was measured
(docs/measured.md)."""


def conclude(resolved: Resolved) -> None:
    """Print the table of scores, the worth of adaptation and the language model's losses, from finished artefacts."""
    config, task, tuned = resolved.config, resolved.task, resolved.artefact("finetune")
    metrics = read_json(tuned.directory / METRICS)
    results: dict[str, Mapping[str, Any]] = {}
    plain = None
    if config.compare:
        results |= read_json(resolved.artefact("references").directory / METRICS)["test"]
    if config.compare and config.adapt is not None:
        plain = resolved.variant(adapt=None).artefact("finetune")
        results["fine-tuned, not adapted"] = read_json(plain.directory / METRICS)["test"]
    results["fine-tuned" if config.adapt is None else "adapted + fine-tuned"] = metrics["test"]

    say()
    show(_table(results, task.metric, metrics))
    best = max(results, key=lambda name: results[name]["scores"][task.metric])
    if len(results) > 1:
        say(f"Highest on these rows: {best}.")
    if plain is not None:
        say(worth(task.metric, *predictions.difference(task, tuned.directory, plain.directory)))
    if config.adapt is not None:
        adapted = read_json(resolved.artefact("adapt").directory / METRICS)
        steps = ", ".join(f"{entry['loss']:.3f} ({entry['after']})" for entry in adapted["heldout"])
        say(f"Language-model loss on held-out documents, nats a {adapted['per']}: {steps}.")
        if "general_loss" in adapted["heldout"][0]:
            general = ", ".join(f"{entry['general_loss']:.3f}" for entry in adapted["heldout"])
            say(f"On general text, which it may forget (adapt.general): {general}.")
    folder = config.runs / config.name / "finetune"
    say()
    say(f"The model is in {folder} ({tuned.directory}). Next, with the same options:")
    asked = '"..."' if len(task.inputs()) == 1 else '("...", "...")'
    say(f"""  python -c 'from ulmfit_style import load; print(load("{folder}")({asked}))'""")
    if _has_few_labels(config, metrics["train"]):
        say("  make finetune adapt=none finetune=contrastive  # with so few labels it may score higher")
    say("  make sweep finetune.learning_rate=2e-5,5e-5,1e-4")
    say("  make report")
    say("  make push hub.repo=my-model hub.dry_run=true")


def _has_few_labels(config: Config, train: Mapping[str, Any]) -> bool:
    """Tell whether there are so few labels that a contrastive phase, which was not asked for, is worth a try."""
    possible = isinstance(config.task, TextClassification) and not config.finetune.contrast_epochs
    return possible and train["rows"] <= FEW * len(train["classes"])


def _table(results: Mapping[str, Mapping[str, Any]], metric: str, metrics: Mapping[str, Any]) -> Table:
    train, rows = metrics["train"]["rows"], metrics["test"]["rows"]
    table = Table(title=f"{train:,} labelled training rows, {rows:,} test rows", title_justify="left")
    table.add_column("model")
    table.add_column(metric, justify="right")
    table.add_column("95 % interval", justify="right")
    for name, result in results.items():
        low, high = result["interval"]
        table.add_row(name, f"{result['scores'][metric]:.3f}", f"{low:.3f} to {high:.3f}")
    return table


def worth(metric: str, gain: float, low: float, high: float) -> str:
    """Say what adaptation was worth: the difference that it made, and its interval."""
    change = f"Adaptation changed {metric} by {100 * gain:+.1f} points here"
    span = f"95 % interval {100 * low:+.1f} to {100 * high:+.1f} over the test rows, one seed"
    if low <= 0 <= high:
        return f"{change} ({span}): it cannot be told from zero."
    return (
        f"{change} ({span}): the interval excludes zero, but it does not cover other seeds and other labelled rows, "
        "and one seed cannot tell adaptation from luck."
    )
