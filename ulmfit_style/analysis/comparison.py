"""What a run showed: every score on the same test rows, and what adaptation was worth."""

from ulmfit_style.console import say
from ulmfit_style.resolved import Resolved
from ulmfit_style.results import finished, scores, terminal
from ulmfit_style.results.parts import Prose

FEW = 50
"""Labelled rows of a class, on average, up to which a contrastive phase scored higher wherever it was measured
(docs/measured.md)."""


def summarise(resolved: Resolved) -> None:
    """Print the scores, the worth of adaptation, the language model's losses, and what to type next."""
    config, task = resolved.config, resolved.task
    run = finished.read(resolved.artefact("finetune").directory, config.name)
    metrics, measured, worth = run.model.metrics, run.measured, run.worth
    rows = f"{metrics['train']['rows']:,} labelled training rows, {metrics['test']['rows']:,} test rows"
    if "folds" in metrics:
        rows = f"Measured {scores.measured_how(metrics)}; the model that is left is trained on all of them"
    terminal.show(Prose(""), scores.by_name(task.metric, measured, rows))
    if len(measured) > 1:
        say(scores.highest(task.metric, measured, run.paired))
    if worth is not None:
        say(scores.worth(f"Adaptation changed {task.metric} by", worth))
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
    say(f"The model is in {folder} ({config.runs / run.model.directory.name}). Next, with the same options:")
    say(f"""  python -c 'from ulmfit_style import load; print(load("{folder}")({text}))'""")
    can_contrast = task.is_single_label and not config.finetune.contrast_epochs
    if can_contrast and metrics["train"]["rows"] <= FEW * len(metrics["train"]["classes"]):
        say("  make finetune adapt=none finetune=contrastive  # with so few labels it may score higher")
    say("  make sweep finetune.learning_rate=2e-5,5e-5,1e-4")
    say("  make report")
    say("  make push hub.repo=my-model hub.dry_run=true")
