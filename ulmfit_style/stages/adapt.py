"""adapt: continued pretraining of the checkpoint's language model on the corpus (ULMFiT, section 3.2)."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path

from ulmfit_style import checkpoints, lineage
from ulmfit_style.config import Config
from ulmfit_style.console import say
from ulmfit_style.data import corpus
from ulmfit_style.run import METRICS, write_json


def run(config: Config) -> Path:
    """Adapt, unless it was done, and return the directory of the adapted language model."""
    return lineage.adapt(config).make(partial(_adapt, config), config.recipe())


def _adapt(config: Config, directory: Path) -> None:
    from accelerate import PartialState
    from transformers import AutoModelForMaskedLM, AutoTokenizer, set_seed

    from ulmfit_style.training.layers import head
    from ulmfit_style.training.objectives import Chunks, MaskedLM, heldout_loss
    from ulmfit_style.training.phases import Phase, Settings, run_phase

    options = config.adapt
    assert options is not None  # lineage refused otherwise

    # Data
    documents = corpus.load(config.corpus, config.task)
    source = checkpoints.resolve(config.model).directory
    tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    rows = Chunks(documents.train, tokenizer, options.max_length)
    heldout = Chunks(documents.heldout, tokenizer, options.max_length)
    objective = MaskedLM(tokenizer, options.mask_probability, options.seed)
    say(f"  {rows.tokens:,} tokens in {len(rows):,} rows")

    # Model
    set_seed(options.seed)
    model, loaded = AutoModelForMaskedLM.from_pretrained(
        source, output_loading_info=True, use_safetensors=True, trust_remote_code=False
    )
    missing = loaded["missing_keys"]
    model.to(PartialState().device)

    # Phases
    phases = [Phase("every weight", None, options.epochs, options.learning_rate)]
    if missing and options.head_epochs:
        say("  the checkpoint has no language-model head: a new one is trained first, with the body frozen")
        phases.insert(0, Phase("new head", head(model, missing), options.head_epochs, options.head_learning_rate))

    # Train
    losses = [heldout_loss(model, objective, heldout)]
    log = []
    settings = Settings(options.batch_size, options.warmup_ratio, options.weight_decay, options.seed)
    for number, phase in enumerate(phases):
        entries = run_phase(model, phase, number, settings, objective, rows, objective.collate)
        log += [{"phase": phase.title, **entry} for entry in entries]
        losses.append(heldout_loss(model, objective, heldout))
        say(f"  {phase.title}: held-out loss {losses[-2]:.3f} -> {losses[-1]:.3f} nats a masked token")

    # Finish
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    stations = ["untrained head" if missing else "checkpoint", *(phase.title for phase in phases)]
    metrics = {
        "documents": {"train": len(documents.train), "heldout": len(documents.heldout)},
        "tokens": rows.tokens,
        "heldout": [
            {"after": station, "loss": loss, "perplexity": math.exp(loss)}
            for station, loss in zip(stations, losses, strict=True)
        ],
        "log": log,
    }
    write_json(directory / METRICS, metrics)
