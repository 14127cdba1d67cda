"""adapt: continued pretraining of the checkpoint's language model on the corpus (ULMFiT, section 3.2)."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path

from ulmfit_style import checkpoints, lineage, processes
from ulmfit_style.config import Config
from ulmfit_style.console import say
from ulmfit_style.data import corpus
from ulmfit_style.run import CHECKPOINTS, METRICS, write_json


def run(config: Config) -> Path:
    """Adapt, unless it was done, and return the directory of the adapted language model."""
    return lineage.adapt(config).make(partial(_adapt, config), config.recipe())


def _adapt(config: Config, directory: Path) -> None:
    import transformers
    from transformers import AutoConfig, AutoTokenizer, set_seed

    from ulmfit_style.training.layers import head
    from ulmfit_style.training.objectives import Chunks, choose, heldout
    from ulmfit_style.training.phases import Phase, settings, train

    options = config.adapt
    assert options is not None  # lineage refused otherwise

    # Data
    source = checkpoints.resolve(config.model).directory
    tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    model_type = AutoConfig.from_pretrained(source, trust_remote_code=False).model_type
    objective = choose(options.objective, model_type, tokenizer, options)
    documents = corpus.load(config.corpus, config.task)
    rows = Chunks(documents.train, tokenizer, options.max_length)
    unseen = Chunks(documents.heldout, tokenizer, options.max_length)
    say(f"  {rows.tokens:,} tokens in {len(rows):,} rows; the loss is on the held-out ones, in nats a {objective.per}")

    # Model
    set_seed(options.seed)
    model, loaded = getattr(transformers, objective.auto_class).from_pretrained(
        source, output_loading_info=True, use_safetensors=True, trust_remote_code=False
    )
    missing = loaded["missing_keys"]

    # Phases
    phases = [Phase("every weight", None, options.epochs, options.learning_rate)]
    if missing and options.head_epochs:
        say("  the checkpoint has no language-model head: a new one is trained first, with the body frozen")
        phases.insert(0, Phase("new head", head(model, missing), options.head_epochs, options.head_learning_rate))

    # Train
    outcomes = train(
        model,
        phases,
        settings(config, options),
        objective,
        rows,
        objective.collate,
        directory / CHECKPOINTS,
        measure=lambda: heldout(model, objective, unseen),
    )

    # Finish
    if not processes.is_main():
        return
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    stations = {"untrained head" if missing else "checkpoint": outcomes[0].before}
    stations |= {outcome.title: outcome.after for outcome in outcomes}
    metrics = {
        "documents": {"train": len(documents.train), "heldout": len(documents.heldout)},
        "tokens": rows.tokens,
        "per": objective.per,
        "heldout": [
            {"after": station, **measures, "perplexity": math.exp(measures["loss"])}
            for station, measures in stations.items()
        ],
        "log": [{"phase": outcome.title, **entry} for outcome in outcomes for entry in outcome.log],
    }
    write_json(directory / METRICS, metrics)
