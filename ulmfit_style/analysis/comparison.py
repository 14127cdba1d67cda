"""What a run showed: every score on the same test rows, and what adaptation was worth."""

from __future__ import annotations

from ulmfit_style.console import say
from ulmfit_style.lineage import Resolved
from ulmfit_style.results import finished, scores, terminal
from ulmfit_style.results.finished import ADAPTED, NOT_ADAPTED, Run
from ulmfit_style.results.model import Prose

FEW = 50
"""Labelled rows of a class, on average, up to which a contrastive phase scored higher wherever it was measured
(docs/measured.md)."""


def conclude(resolved: Resolved) -> None:
    """Print the table of scores, the worth of adaptation and the language model's losses, from finished artefacts."""
    config, task = resolved.config, resolved.task
    model = finished.find(resolved.artefact("finetune").directory)
    assert model is not None  # it was just made
    run = Run(config.name, model, config)
    name, metrics = ADAPTED if run.is_adapted else "fine-tuned", model.metrics
    measured = run.measured if config.compare else {name: metrics["test"]}
    rows = f"{metrics['train']['rows']:,} labelled training rows, {metrics['test']['rows']:,} test rows"
    terminal.show(Prose(""), scores.by_name(task.metric, measured, rows))
    worth = run.worth if config.compare else None
    if len(measured) > 1:
        say(scores.highest(task.metric, measured, {frozenset((ADAPTED, NOT_ADAPTED)): worth} if worth else {}))
    if worth is not None:
        say(scores.adaptation(task.metric, worth))
    if (adapted := run.stage("adapt")) is not None:
        heldout = adapted.metrics["heldout"]
        losses = ", ".join(f"{entry['loss']:.3f} ({entry['after']})" for entry in heldout)
        say(f"Language-model loss on held-out documents, nats per {adapted.metrics['per']}: {losses}.")
        if "general_loss" in heldout[0]:
            general = ", ".join(f"{entry['general_loss']:.3f}" for entry in heldout)
            say(f"On general text, which it may forget (adapt.general): {general}.")
    folder = config.runs / config.name / "finetune"
    text = '"..."' if len(task.inputs()) == 1 else '("...", "...")'
    say()
    say(f"The model is in {folder} ({model.directory}). Next, with the same options:")
    say(f"""  python -c 'from ulmfit_style import load; print(load("{folder}")({text}))'""")
    if _has_few_labels(resolved, metrics["train"]["rows"], len(metrics["train"]["classes"])):
        say("  make finetune adapt=none finetune=contrastive  # with so few labels it may score higher")
    say("  make sweep finetune.learning_rate=2e-5,5e-5,1e-4")
    say("  make report")
    say("  make push hub.repo=my-model hub.dry_run=true")


def _has_few_labels(resolved: Resolved, rows: int, classes: int) -> bool:
    """Return whether there are so few labels that a contrastive phase, if it was not there, is worth a try."""
    can_contrast = resolved.task.is_single_label and not resolved.config.finetune.contrast_epochs
    return can_contrast and rows <= FEW * classes
