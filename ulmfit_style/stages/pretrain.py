"""pretrain: a language model from random weights on general text (ULMFiT, section 3.1)."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from ulmfit_style import lineage
from ulmfit_style.recipe import Config
from ulmfit_style.training.language_model import train_language_model


def run(config: Config) -> Path:
    """Pretrain, unless it was done, and return the directory of the language model."""
    return lineage.pretrain(config).make(partial(_pretrain, config), config.recipe())


def _pretrain(config: Config, directory: Path) -> None:
    assert config.pretrain is not None  # lineage refused otherwise
    source = lineage.scratch(config).directory
    train_language_model(config, config.pretrain, source, lineage.general_text(config), directory)
