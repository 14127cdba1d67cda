"""adapt: continued pretraining of the checkpoint's language model on the corpus (ULMFiT, section 3.2)."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from ulmfit_style import lineage
from ulmfit_style.data import corpus
from ulmfit_style.recipe import Config
from ulmfit_style.training.language_model import train_language_model


def run(config: Config) -> Path:
    """Adapt, unless it was done, and return the directory of the adapted language model."""
    return lineage.adapt(config).make(partial(_adapt, config), config.recipe())


def _adapt(config: Config, directory: Path) -> None:
    assert config.adapt is not None  # lineage refused otherwise
    documents = corpus.load(config.corpus, config.task, config.runs)
    general = lineage.remembered_text(config)
    train_language_model(config, config.adapt, lineage.start(config).directory, documents, directory, general)
