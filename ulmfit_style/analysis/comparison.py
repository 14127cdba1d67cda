"""What a run showed: every score on the same test rows, and what adaptation was worth."""

from pathlib import Path

from ulmfit_style.console import say
from ulmfit_style.resolved import Resolved
from ulmfit_style.results import finished, scores, terminal
from ulmfit_style.results.parts import Prose


def summarise(resolved: Resolved, stage: str) -> None:
    """Print the scores of the model that a stage made, what changed them, its losses, and what to type next."""
    config, run = resolved.config, finished.read(resolved.artefact(stage).directory, resolved.config.name)
    task = run.config.require_task()
    metrics, measured = run.model.metrics, run.measured
    if measured:
        rows = f"{metrics['train']['rows']:,} labelled training rows, {metrics['test']['rows']:,} test rows"
        if "folds" in metrics:
            rows = f"Measured {scores.measured_how(metrics)}; the model that is left is trained on all of them"
        table = scores.by_name(task.metric, measured, rows)
        terminal.show(Prose(""), table, *scores.edges(measured.values(), task.metric), *map(Prose, run.verdicts))
    else:
        say("There are no labelled rows, so nothing is scored. A file of some would tell what the model is worth.")
    if measured and run.references and (better := better_reference(run, task.metric)) is not None:
        say(better)
    if (adapted := run.stage("adapt")) is not None:
        losses = ", ".join(f"{entry['loss']:.3f} ({entry['after']})" for entry in adapted.metrics["heldout"])
        say(f"Language-model loss on held-out documents, nats per {adapted.metrics['per']}: {losses}.")
    folder = config.runs / config.name / stage
    text = '"..."' if len(task.inputs()) == 1 else '("...", "...")'
    say(f"\nThe model is in {folder} ({config.runs / run.model.directory.name}). Next:")
    say(f"""  python -c 'from ulmfit_style import load; print(load("{folder}")({text}))'""")
    is_contrasted = run.config.finetune.contrast_steps and not run.config.finetune.epochs
    rate = "contrast_learning_rate=5e-5,1e-4,2e-4" if is_contrasted else "learning_rate=2e-5,5e-5,1e-4"
    name = f"name={config.name}" + ("" if config.runs == Path("runs") else f" runs={config.runs}")
    sweep, evaluate = f"sweep finetune.{rate}  # and the same options", f"evaluate {name} evaluate.path=<file>"
    say(f"  make {sweep if measured and not run.members else evaluate}")
    say(f"  make report {name}")
    say(f"  make push {name} hub.repo=my-model hub.dry_run=true")


def better_reference(run: finished.Run, metric: str) -> str | None:
    """Say which reference model is the best by the validation rows, and how it is kept; None where it is the model.

    With folds there are no validation rows, and all are cross-validated.
    """
    split, rows = ("test", "cross-validated") if "folds" in run.model.metrics else ("validation", "validation")
    ours = run.model.metrics[split]
    measured = {**run.references.get(split, {}), "this model": ours}
    best = max(reversed(measured), key=lambda name: measured[name]["scores"][metric])  # of equal ones the last
    if best == "this model":
        return None
    theirs, keep = measured[best], "to keep it, with the same options: make finetune adapt=none finetune=frozen"
    scored = f"{metric} {theirs['scores'][metric]:.3f} on the {ours['rows']:,} {rows} rows"
    overlap = "" if theirs["interval"][0] > ours["interval"][1] else " (the intervals overlap)"
    remedy = keep if best.startswith(finished.FROZEN) else "no command makes a model of it"
    return f"{best} has {scored}, and this model {ours['scores'][metric]:.3f}{overlap}; {remedy}"
