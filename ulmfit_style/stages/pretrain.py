"""pretrain: a language model from random weights on general text (ULMFiT, section 3.1)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ulmfit_style.data.guard import BYTES_PER_TOKEN
from ulmfit_style.errors import UserError
from ulmfit_style.resolved import Resolved, Step
from ulmfit_style.training import checks


def starts_from(resolved: Resolved) -> str:
    """Return the stage that makes the random weights."""
    return "scratch"


def check(resolved: Resolved, stages: Sequence[str]) -> None:
    """Check the model and the options.

    Raises:
        UserError: if the config pretrains nothing, or the model cannot be trained so.
    """
    config = resolved.config
    if config.model.init == "pretrained":
        remedy = "take an architecture, model=mini_bert, or model.init=scratch"
        raise UserError(f"pretrain: {config.model.title()} is pretrained; {remedy}")
    checks.language_model(config, "pretrain", resolved.pretrain)


def determinants(resolved: Resolved) -> dict[str, Any]:
    """Return what the pretrained model depends on."""
    text, options = resolved.pretraining_text.identity, resolved.pretrain.determinants()
    return {"init": {"scratch": resolved.artefact("scratch").fingerprint}, "corpus": text, "pretrain": options}


def work(resolved: Resolved) -> float:
    """Return how many tokens pass through the model."""
    return 3 * resolved.pretrain.epochs * resolved.pretraining_text.train.bytes / BYTES_PER_TOKEN


def run(step: Step, directory: Path) -> None:
    """Train the language model."""
    from ulmfit_style.training.language_model import prepare, train_language_model

    resolved, source = step.resolved, step.resolved.artefact("scratch").directory
    prepared = prepare(step.config, resolved.pretrain, source, resolved.pretraining_text)
    train_language_model(prepared, source, resolved.pretraining_text, directory)
