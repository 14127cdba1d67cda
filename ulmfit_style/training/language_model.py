"""Training a language model on documents: what `pretrain` and `adapt` share."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import transformers
from accelerate import PartialState

from ulmfit_style.artefacts.directory import CHECKPOINTS, METRICS, write_json
from ulmfit_style.compute import processes
from ulmfit_style.config.training import Adapt, LanguageModelling, Pretrain
from ulmfit_style.console import say
from ulmfit_style.data import tokens
from ulmfit_style.data.corpus import Documents
from ulmfit_style.errors import UserError, listed
from ulmfit_style.models import architectures, checkpoints, new_tokens, shipped_head
from ulmfit_style.models.layers import HEAD, add_adapters, full_phase_title, layer_groups, merge_adapters
from ulmfit_style.recipe import Config
from ulmfit_style.tasks import entities
from ulmfit_style.tasks.types import Tokenizer
from ulmfit_style.training.batching import Rows
from ulmfit_style.training.objectives import Anchored, CausalLM, Denoising, LanguageObjective, MaskedLM
from ulmfit_style.training.packing import PackedDataset, first_position
from ulmfit_style.training.phases import Phase, TrainingData, TrainingPlan, train
from ulmfit_style.training.streaming import StreamedLM, Streams


@dataclass(frozen=True)
class Prepared:
    """A language model that is ready to be trained."""

    plan: TrainingPlan
    objective: LanguageObjective
    token_count: int
    """The tokens of the documents that are trained on."""
    heldout: tokens.Chunks
    """The held-out documents."""
    general: tokens.Chunks | None
    """The held-out documents of the general text."""
    missing: set[str]
    """The names of the parameters that the checkpoint lacked: those of the language-model head, where it had none."""
    unused: set[str]
    """The names of the checkpoint's weights that a language model has no place for, and which are saved beside it."""
    unextended: tuple[float, float] | None
    """Where there are new tokens, the tokens a word of the held-out documents and their bits a byte without them."""

    def measure(self) -> dict[str, float]:
        """Return the measures of the held-out documents, and the loss on the general text."""
        measures = self.objective.measure(self.plan.model, self.heldout)
        if self.general is not None:
            measures["general_loss"] = self.objective.measure(self.plan.model, self.general)["loss"]
        return measures


def prepare(
    config: Config, options: Pretrain | Adapt, source: Path, documents: Documents, general: Documents | None = None
) -> Prepared:
    """Return the language model of a checkpoint with everything that it is trained on.

    A language-model head that the checkpoint lacks is trained first, with the body frozen.

    Args:
        source: The directory of the checkpoint.
        general: The text that `adapt` is not to forget; half of its documents measure that.

    Raises:
        UserError: if there is too little text, or the model and its tokenizer do not fit.
    """
    # Data
    asked = options.new_tokens if isinstance(options, Adapt) else 0
    added = new_tokens.add(asked, checkpoints.tokenizer(source), documents.train)
    body, tokenizer = checkpoints.body_config(source), added.tokenizer
    objective = choose_objective(options, body, tokenizer)
    streamed = isinstance(objective, StreamedLM)
    length = tokens.WHOLE if streamed else options.max_length
    chunks, heldout = tokens.load(documents, tokenizer, length, config.runs)
    if chunks.tokens < options.max_length * (options.batch_size if streamed else 1):
        problem = f"do not fill {f'{options.batch_size} rows' if streamed else 'a row'} of {options.max_length}"
        remedy = "give more text, or lower max_length" + " or batch_size" * streamed
        raise UserError(f"the {chunks.tokens:,} tokens to train on {problem}; {remedy}")

    # Model
    loaded = _load(objective, source, options.seed)
    model, missing, unused = shipped_head.add(loaded, source)
    unextended = None
    if added.words:
        own = choose_objective(options, body, checkpoints.tokenizer(source))
        in_pieces = tokens.load(documents, own.tokenizer, length, config.runs)[1]
        bits = own.measure(model.to(PartialState().device), in_pieces)["bits_per_byte"]
        unextended = (_per_word(in_pieces, documents), bits)
        per_word = f"{unextended[0]:.3f} -> {_per_word(heldout, documents):.3f} tokens a held-out word"
        without = f"{bits:.3f} bits per byte without them"
        say(f"  {len(added.words):,} new tokens ({listed(added.words, 5)}): {per_word}, {without}")
        added.grow(model)
    layers = add_adapters(model, layer_groups(model, missing), options)
    if len(tokenizer) > (vocabulary := model.get_input_embeddings().weight.shape[0]):
        raise UserError(f"{source}: the tokenizer has {len(tokenizer):,} tokens, and the model {vocabulary:,}")

    # Rows
    start = None
    if objective.can_be_packed:
        start = first_position(model, options.max_length, tokenizer.pad_token_id, causal=objective.causal)
    if start is None and not streamed:
        say(f"  a model of type '{body['model_type']}' cannot keep packed documents apart: each has a row of its own")

    rows: Rows = chunks if start is None else PackedDataset(chunks, options.max_length, start)
    if isinstance(objective, StreamedLM):
        rows = Streams(chunks, objective, options.batch_size, options.seed)
    data = TrainingData(objective, rows, rows.collate if isinstance(rows, Streams) else objective.collate)
    measured = f"the loss is on the held-out ones, in nats a {objective.per}"
    say(f"  {chunks.tokens:,} tokens in {len(data.rows):,} rows; {measured}")
    general_heldout = None if general is None else tokens.load(general, tokenizer, length, config.runs)[1]

    # Phases
    parameters = [parameter for group in layers.values() for parameter in group]
    phases = [Phase(full_phase_title(options), parameters, options.epochs, options.learning_rate)]
    if added.words and isinstance(options, Adapt) and options.head_epochs:
        rate, rows_of = options.head_learning_rate, added.trained(model)
        phases.insert(0, Phase("new tokens", rows_of, options.head_epochs, rate, rows=added.ids))
    if missing and isinstance(options, Adapt) and options.head_epochs:
        say("  the checkpoint has no language-model head: a new one is trained first, with the body frozen")
        phases.insert(0, Phase("new head", layers[HEAD], options.head_epochs, options.head_learning_rate))
    if loaded.missing and isinstance(options, Adapt) and options.anchor and isinstance(objective, MaskedLM):
        head = "a new language-model head" if missing else "the language-model head that ships"
        say(f"  {head}, and embeddings that are held near the checkpoint's (adapt.anchor={options.anchor:g})")
        checkpoint = _load(objective, source, options.seed).model
        added.grow(checkpoint)
        anchored = Anchored(objective, checkpoint.to(PartialState().device), options.anchor)
        phases[-1] = replace(phases[-1], data=replace(data, objective=anchored))
    how = config.micro_batch_size, config.save_minutes, config.shard, config.fast
    plan = TrainingPlan(model, phases, data, options, layers, *how)
    return Prepared(plan, objective, chunks.tokens, heldout, general_heldout, missing, unused, unextended)


def choose_objective(options: LanguageModelling, body: Mapping[str, Any], tokenizer: Tokenizer) -> LanguageObjective:
    """Return the objective of a model.

    Args:
        body: What its config says.

    Raises:
        UserError: if the architecture has no head for it, or the tokenizer no token for what is taken out.
    """
    model_type = body["model_type"]
    if architectures.architecture(model_type).carries_state:
        return StreamedLM(tokenizer, options.max_length, body.get("direction") == "backward")
    auto_class = architectures.language_model_class(model_type)
    if auto_class == CausalLM.auto_class:
        return CausalLM(tokenizer)
    if auto_class == Denoising.auto_class:
        return Denoising(tokenizer, options.mask_probability, options.seed, checkpoints.sentinels(tokenizer))
    return MaskedLM(tokenizer, options.mask_probability, options.seed)


def train_language_model(prepared: Prepared, source: Path, documents: Documents, directory: Path) -> None:
    """Train a language model on documents, and save it with its metrics.

    Args:
        source: The directory of the checkpoint.
        directory: Where the model is saved.
    """
    # Train
    model, options = prepared.plan.model, prepared.plan.options
    results = train(prepared.plan, directory / CHECKPOINTS, prepared.measure)
    if options.lora_rank:
        merge_adapters(model)

    # Finish
    if not processes.is_main():
        return
    checkpoints.save(model, directory, source, prepared.unused)
    prepared.objective.tokenizer.save_pretrained(directory)
    start = "untrained head" if prepared.missing else "new tokens, untrained" if prepared.unextended else "checkpoint"
    measured = {"random weights" if isinstance(options, Pretrain) else start: results[0].before}
    measured |= {result.title: result.after for result in results}
    count, heldout = len(documents.train), len(documents.heldout)
    metrics: dict[str, Any] = {
        "documents": {"train": count, "heldout": heldout, "in_test_or_validation": documents.removed},
        "tokens": prepared.token_count,
        "rows": len(prepared.plan.data.rows),
        "per": prepared.objective.per,
        "heldout": [{"after": title, **measures} for title, measures in measured.items()],
        "log": [{"phase": result.title, **entry} for result in results for entry in result.log],
    }
    if prepared.unextended:
        per_word = _per_word(prepared.heldout, documents)
        states = [("checkpoint, without new tokens", *prepared.unextended)]
        states += [(title, per_word, measures["bits_per_byte"]) for title, measures in measured.items()]
        names = ("after", "tokens_per_word", "bits_per_byte")
        metrics["tokenizers"] = [dict(zip(names, state, strict=True)) for state in states]
    write_json(directory / METRICS, metrics)


def _load(objective: LanguageObjective, source: Path, seed: int) -> checkpoints.LoadedModel:
    """Return a checkpoint's language model."""
    transformers.set_seed(seed)
    return checkpoints.load_model(getattr(transformers, objective.auto_class), source)


def _per_word(heldout: tokens.Chunks, documents: Documents) -> float:
    """Return the tokens of the held-out documents, special ones left out, for each of their words and other signs."""
    count = sum(int((row["words"] >= 0).sum()) for row in map(heldout.__getitem__, range(len(heldout))))
    return count / sum(len(entities.words(text)) for text in documents.heldout)
