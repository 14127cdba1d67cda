"""Training a language model on documents: what `pretrain` and `adapt` share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.table import Table

from ulmfit_style import processes
from ulmfit_style.artefacts.directory import CHECKPOINTS, METRICS, write_json
from ulmfit_style.config.stages import Adapt, Pretrain
from ulmfit_style.console import say, show
from ulmfit_style.data import tokens
from ulmfit_style.data.corpus import Documents
from ulmfit_style.errors import UserError
from ulmfit_style.models import checkpoints
from ulmfit_style.recipe import Config

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from ulmfit_style.training.batching import Rows
    from ulmfit_style.training.objectives import LanguageObjective
    from ulmfit_style.training.phases import TrainingPlan

SAMPLES = 3
"""Held-out rows that the model completes before and after, to be looked at."""


@dataclass(frozen=True)
class Prepared:
    """A language model that is ready to be trained."""

    plan: TrainingPlan
    objective: LanguageObjective
    tokenizer: PreTrainedTokenizerBase
    trained: tokens.Chunks
    unseen: tokens.Chunks
    """The held-out documents."""
    remembered: tokens.Chunks | None
    """The held-out documents of the general text."""
    missing: set[str]
    """The names of the parameters that the checkpoint lacked: those of the language-model head, where it had none."""
    unplaced: set[str]
    """The names of the checkpoint's weights that a language model has no place for, and which travel with it."""


def prepare(
    config: Config, options: Pretrain | Adapt, source: Path, documents: Documents, general: Documents | None
) -> Prepared:
    """Return the language model of a checkpoint, and all that it is trained on.

    Args:
        source: The directory of the checkpoint.
        general: The text that `adapt` is not to forget; half of it is held out to measure that.

    Raises:
        UserError: if the documents are too few, or the model and its tokenizer do not fit them.
    """
    from transformers import AutoConfig

    from ulmfit_style.models.layers import HEAD, layer_groups
    from ulmfit_style.models.lora import add_adapters, full_phase_title
    from ulmfit_style.training.batching import MixedDataset
    from ulmfit_style.training.objectives import choose
    from ulmfit_style.training.packing import PackedDataset, first_position
    from ulmfit_style.training.phases import Phase, TrainingData, TrainingPlan, phase_settings

    # Data
    tokenizer = checkpoints.tokenizer(source)
    model_type = AutoConfig.from_pretrained(source, trust_remote_code=False).model_type
    objective = choose(options.objective, model_type, tokenizer, options)
    chunks, unseen = tokens.load(documents, tokenizer, options.max_length, config.runs)
    remembered = None if general is None else tokens.load(general, tokenizer, options.max_length, config.runs)

    # Model
    model, missing, unplaced = _load(objective, source, options.seed)
    layers = add_adapters(model, layer_groups(model, missing), options)
    if len(tokenizer) > (vocabulary := model.get_input_embeddings().weight.shape[0]):
        raise UserError(f"{source}: the tokenizer has {len(tokenizer):,} tokens, and the model {vocabulary:,}")

    # Rows
    start = None
    if objective.causal is not None:
        start = first_position(model, options.max_length, tokenizer.pad_token_id, causal=objective.causal)
    if start is None:
        say(f"  a model of type '{model_type}' cannot keep packed documents apart: each has a row of its own")

    def packed(some: tokens.Chunks) -> Rows:
        return some if start is None else PackedDataset(some, options.max_length, start)

    rows = packed(chunks)
    # A corpus of one's own may be small; to learn a language from less than a batch is a mistake.
    fewest = options.batch_size if isinstance(options, Pretrain) else 1
    if chunks.tokens < fewest * options.max_length:
        raise UserError(
            f"the {chunks.tokens:,} tokens to train on do not fill {fewest} rows of {options.max_length}; give "
            "more text, or lower max_length" + (" or batch_size" if fewest > 1 else "")
        )
    say(
        f"  {chunks.tokens:,} tokens in {len(rows):,} rows; the loss is on the held-out ones, in nats a {objective.per}"
    )

    if remembered is not None and isinstance(options, Adapt) and options.replay_ratio:
        own = len(rows)
        rows = MixedDataset(rows, packed(remembered[0]), options.replay_ratio)
        say(f"  {len(rows) - own:,} rows of general text are mixed in (adapt.replay_ratio)")

    # Phases
    every = [parameter for own in layers.values() for parameter in own]
    phases = [Phase(full_phase_title(options), every, options.epochs, options.learning_rate)]
    if missing and isinstance(options, Adapt) and options.head_epochs:
        say("  the checkpoint has no language-model head: a new one is trained first, with the body frozen")
        phases.insert(0, Phase("new head", layers[HEAD], options.head_epochs, options.head_learning_rate))
    plan = TrainingPlan(
        model, phases, phase_settings(config, options, layers), TrainingData(objective, rows, objective.collate)
    )
    general_unseen = None if remembered is None else remembered[1]
    return Prepared(plan, objective, tokenizer, chunks, unseen, general_unseen, missing, unplaced)


def train_language_model(
    config: Config,
    options: Pretrain | Adapt,
    source: Path,
    documents: Documents,
    directory: Path,
    general: Documents | None = None,
) -> None:
    """Train the language model of a checkpoint on documents, and save it with what was measured.

    A language-model head that the checkpoint lacks is trained first, with the body frozen.

    Args:
        source: The directory of the checkpoint.
        directory: Where the model goes.
        general: The text that `adapt` is not to forget; half of it is held out to measure that.

    Raises:
        UserError: if the documents are too few, or the model and its tokenizer do not fit them.
    """
    from ulmfit_style.models.layers import drift
    from ulmfit_style.models.lora import merge
    from ulmfit_style.training.objectives import heldout
    from ulmfit_style.training.phases import GENERAL, train

    prepared = prepare(config, options, source, documents, general)
    model, objective, unseen = prepared.plan.model, prepared.objective, prepared.unseen
    shown = [unseen[index] for index in range(min(SAMPLES, len(unseen)))]
    samples = [[objective.sample(model, row) for row in shown]]

    def measure() -> dict[str, float]:
        measures = heldout(model, objective, unseen)
        if prepared.remembered is not None:
            measures[GENERAL] = heldout(model, objective, prepared.remembered)["loss"]
        return measures

    # Train
    results = train(prepared.plan, directory / CHECKPOINTS, measure=measure)
    if options.lora_rank:
        merge(model)

    # Finish
    if not processes.is_main():
        return
    samples.append([objective.sample(model, row) for row in shown])
    checkpoints.save(model, directory, source, prepared.unplaced)
    prepared.tokenizer.save_pretrained(directory)
    loaded = "untrained head" if prepared.missing else "checkpoint"
    beginning = "random weights" if isinstance(options, Pretrain) else loaded
    stations = {beginning: results[0].before}
    stations |= {result.title: result.after for result in results}
    metrics: dict[str, Any] = {
        "documents": {
            "train": len(documents.train),
            "heldout": len(documents.heldout),
            "in_test_or_validation": documents.removed,
        },
        "tokens": prepared.trained.tokens,
        "rows": len(prepared.plan.data.rows),
        "per": objective.per,
        "heldout": [{"after": station, **measures} for station, measures in stations.items()],
        "samples": [
            {"text": old["text"], "right": old["right"], "before": old["answer"], "after": new["answer"]}
            for old, new in zip(*samples, strict=True)
        ],
        "log": [{"phase": result.title, **entry} for result in results for entry in result.log],
    }
    if isinstance(options, Adapt):
        start = _load(objective, source, options.seed).model
        metrics["drift"] = drift(model, start, prepared.missing)
        say(f"  weights have moved by {', '.join(f'{share:.1%} ({name})' for name, share in metrics['drift'].items())}")
    _show(metrics["samples"])
    write_json(directory / METRICS, metrics)


def _load(objective: LanguageObjective, source: Path, seed: int) -> checkpoints.LoadedModel:
    """Return a checkpoint's language model."""
    import transformers
    from transformers import set_seed

    set_seed(seed)
    return checkpoints.load_model(getattr(transformers, objective.auto_class), source)


def _show(samples: Sequence[Mapping[str, str]]) -> None:
    table = Table(title="held-out text, completed", title_justify="left")
    for column in samples[0]:
        table.add_column(column, overflow="fold")
    for sample in samples:
        table.add_row(*map(escape, sample.values()))
    show(table)
