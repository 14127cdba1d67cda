"""What `finetune=auto` chooses: the recipe that measured best for such a task and so many labels (docs/measured.md)."""

from ulmfit_style.config.training import Finetune
from ulmfit_style.tasks.base import Task
from ulmfit_style.tasks.values import Architecture

FEW = 200
"""Labelled rows of a class, on average, up to which contrast and a solved head are chosen."""


def choose(options: Finetune, task: Task, architecture: Architecture, rows: int, classes: int) -> tuple[str, str]:
    """Return the YAML in conf/finetune/ that says what was left open, and why it is that one.

    Args:
        architecture: That of the model.
        rows: How many labelled rows are to be trained on.
        classes: How many classes there are.
    """
    if options.pooling == "default" or options.head == "random":
        return "plain", "finetune.pooling or finetune.head, as typed, rules out a solved head"
    if options.contrast_steps:
        return "few_labels", "finetune.contrast_steps asks for it"
    if not task.is_single_label or len(task.inputs()) > 1 or architecture.kind == "encoder-decoder":
        return "plain", "the others are for one text, one class and a model of one body"
    if not rows:
        return "frozen", "there are no labelled rows, and the names of the classes stand for them"
    share = f"{rows:,} labelled rows of {classes} classes"
    if rows <= FEW * classes:
        return "few_labels", f"{share}, at most {FEW} a class"
    return "lp_ft", f"{share}, more than {FEW} a class"
