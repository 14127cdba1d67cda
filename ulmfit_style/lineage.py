"""Which artefact each stage of a config makes, and what it is made from.

Every stage composes the same config, so it knows the directories of the stages before it: there is no "latest".
"""

from __future__ import annotations

from ulmfit_style import checkpoints
from ulmfit_style.checkpoints import Checkpoint
from ulmfit_style.config import Config
from ulmfit_style.data import corpus, labelled
from ulmfit_style.errors import UserError
from ulmfit_style.run import Artefact
from ulmfit_style.tasks.base import Task

RESULT_VERSIONS = {"references": 1, "adapt": 1, "finetune": 1}
"""Raised whenever a stage would make something else of the same config."""


def adapt(config: Config) -> Artefact:
    """Return the artefact of the adapted language model.

    Raises:
        UserError: if the config adapts nothing.
    """
    if config.adapt is None:
        raise UserError("adapt=none: nothing is adapted; choose how with adapt=plain")
    determinants = {
        "version": RESULT_VERSIONS["adapt"],
        "init": checkpoints.resolve(config.model).identity,
        "corpus": corpus.load(config.corpus, config.task).digest(),
        "adapt": config.adapt.determinants(),
    }
    return Artefact("adapt", determinants, config.runs)


def init(config: Config) -> Checkpoint:
    """Return what fine-tuning starts from: the adapted model, finished or not, or the plain checkpoint."""
    if config.adapt is None:
        return checkpoints.resolve(config.model)
    adapted = adapt(config)
    return Checkpoint(adapted.directory, {"adapt": adapted.fingerprint})


def finetune(config: Config) -> Artefact:
    """Return the artefact of the fine-tuned model."""
    task = required_task(config)
    determinants = {
        "version": RESULT_VERSIONS["finetune"],
        "init": init(config).identity,
        "task": {"kind": type(task).__name__, **task.determinants()},
        "data": labelled.load(task).digest(task),
        "finetune": config.finetune.determinants(),
    }
    return Artefact("finetune", determinants, config.runs)


def references(config: Config) -> Artefact:
    """Return the artefact of the reference models' scores."""
    task = required_task(config)
    determinants = {
        "version": RESULT_VERSIONS["references"],
        "init": checkpoints.resolve(config.model).identity,
        "data": labelled.load(task).digest(task),
        "max_length": config.finetune.max_length,
    }
    return Artefact("references", determinants, config.runs)


def required_task(config: Config) -> Task:
    """Return the task.

    Raises:
        UserError: if the config has none.
    """
    if config.task is None:
        raise UserError("task=none: there is nothing to fine-tune on; choose a task, for example task=rotten_tomatoes")
    return config.task
