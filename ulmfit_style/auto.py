"""What `finetune=auto` chooses: the recipe that measured best for such a task and so many labels (docs/measured.md)."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

from ulmfit_style.config.training import Finetune
from ulmfit_style.tasks.base import Row, Task

Preset = Mapping[str, Any]

PRESETS: Mapping[str, Preset] = MappingProxyType(
    {
        "few_labels": {
            "pooling": "mean",
            "label_names": True,
            "contrast_steps": 50,
            "head": "solved",
            "epochs": 0,
        },
        "frozen": {"pooling": "mean", "label_names": False, "contrast_steps": 0, "head": "solved", "epochs": 0},
        "lp_ft": {"pooling": "mean", "label_names": False, "contrast_steps": 0, "head": "solved", "epochs": 10},
        "plain": {"pooling": "default", "label_names": False, "contrast_steps": 0, "head": "random", "epochs": 20},
    }
)
"""What the files of these names in conf/finetune/ say of the options that are left open."""

FEW = 200
"""Labelled rows of a class, on average, up to which contrast and a solved head are chosen."""


class Choice(NamedTuple):
    """A recipe and why it was chosen."""

    preset: str
    reason: str


def choose(
    options: Finetune, task: Task, kind: Literal["encoder", "decoder", "encoder-decoder"], rows: Sequence[Row]
) -> Choice:
    """Choose a recipe for what is left open.

    Args:
        kind: What the model is.
        rows: The labelled rows to be trained on.
    """
    if options.contrast_steps:
        return Choice("few_labels", "finetune.contrast_steps asks for it")
    if not task.is_single_label or len(task.inputs()) > 1 or kind == "encoder-decoder":
        return Choice("plain", "the others are for one text, one class and a model of one body")
    if not rows:
        return Choice("frozen", "there are no labelled rows, and the names of the classes stand for them")
    classes = len(task.classes(rows))
    share = f"{len(rows):,} labelled rows of {classes} classes"
    if len(rows) <= FEW * classes:
        return Choice("few_labels", f"{share}, {FEW} a class at most")
    return Choice("lp_ft", f"{share}, more than {FEW} a class")
