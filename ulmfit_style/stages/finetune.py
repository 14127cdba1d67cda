"""finetune: train the task on its labelled rows, from the adapted model or the plain checkpoint, and score it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ulmfit_style import lineage, processes
from ulmfit_style.artefacts import predictions
from ulmfit_style.artefacts.directory import CHECKPOINTS, METRICS, write_json
from ulmfit_style.config.schema import spelled
from ulmfit_style.config.stages import GROUP, Finetune
from ulmfit_style.console import say
from ulmfit_style.data import labelled
from ulmfit_style.errors import UserError
from ulmfit_style.experiments import storage
from ulmfit_style.models import checkpoints, tokenizer_pair
from ulmfit_style.models.architectures import is_causal
from ulmfit_style.recipe import Config

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from ulmfit_style.models.layers import LayerGroups
    from ulmfit_style.tasks.base import Row
    from ulmfit_style.training.batching import EncodedDataset
    from ulmfit_style.training.phases import Phase, TrainingPlan

NEW = "what is new"

FEWEST_GROUPS = 2
"""The layer groups that every model has: a head, and a layer."""


def run(config: Config) -> Path:
    """Fine-tune, unless it was done, and return the directory of the fine-tuned model."""
    return lineage.finetune(config).make(partial(_finetune, config), config.recipe())


def prepare(config: Config) -> tuple[TrainingPlan, PreTrainedTokenizerBase]:
    """Return the model with a new head and all that it is trained on, and its tokenizer."""
    import transformers
    from transformers import AutoConfig, set_seed

    from ulmfit_style.models.layers import HEAD, layer_groups
    from ulmfit_style.models.lora import add_adapters
    from ulmfit_style.training import warm_start
    from ulmfit_style.training.batching import EncodedDataset, collate
    from ulmfit_style.training.phases import Phase, TrainingData, TrainingPlan, phase_settings

    options, task = config.finetune, lineage.required_task(config)
    source = lineage.init(config).directory
    model_type = AutoConfig.from_pretrained(source, trust_remote_code=False).model_type

    # Data
    rows = labelled.load(task)
    task = task.suited(model_type)
    trained = lineage.trained_rows(config)
    head = task.head(rows.classes)
    tokenizer = tokenizer_pair.read(source)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    pair = None
    if config.model.decoder is not None:
        decoder = _decoder(config, trained)
        pair = warm_start.pair_tokenizers(config.model, tokenizer, decoder)
        tokenizer = pair.as_one()
    encoded = [task.encode(row, tokenizer, options.max_length, head.get("label2id", {})) for row in trained]
    features = EncodedDataset(
        {**feature, "weight": weight * feature.get("weight", 1)}
        for parts, weight in zip(encoded, task.weights(trained), strict=True)
        for feature in parts
    )
    long = sum(any(feature["long"] for feature in parts) for parts in encoded)
    longer = f"{long:,} ({long / len(trained):.0%}) are longer than {options.max_length} tokens, and are"
    say(f"  {len(trained):,} labelled rows, of which {longer} {task.long_texts} (finetune.max_length)")
    if empty := sum(not parts for parts in encoded):
        say(f"  {empty:,} of them are left out: nothing of them can be learnt in so few tokens")
    if cut := sum(any(feature.get("long_target") for feature in parts) for parts in encoded):
        say(f"  {cut:,} right answers are longer than there is room for, and are cut (task.max_target_length)")

    # Model
    set_seed(options.seed)
    if pair is not None:
        model, missing = warm_start.encoder_decoder(config.model, source, decoder, pair, task.reach(0))
    elif options.pooling == "default":
        # By pad_token_id a causal model finds the last token of a text.
        auto_class = getattr(transformers, task.auto_class(model_type))
        model, missing, _ = checkpoints.load_model(auto_class, source, **head, pad_token_id=tokenizer.pad_token_id)
    else:
        model, missing = pooled(source, options.pooling, head)
    task.start(model, tokenizer, trained)

    # Phases
    layers = add_adapters(model, layer_groups(model, missing), options)
    phases = _phases(options, layers, len(features))
    if pair is not None and options.new_epochs:
        phases.insert(0, Phase(NEW, layers[HEAD], options.new_epochs, options.new_learning_rate))
    if options.contrast_epochs:
        phases.insert(0, _contrast(options, layers, features, tokenizer))
    data = TrainingData(task, features, partial(collate, tokenizer=tokenizer))
    return TrainingPlan(model, phases, phase_settings(config, options, layers), data), tokenizer


def _decoder(config: Config, trained: Sequence[Row]) -> Path | None:
    """Return the directory of the decoder's checkpoint, or of its new tokenizer; None where it is the encoder's own."""
    from ulmfit_style.training import warm_start

    checkpoint = config.model.decoder_checkpoint()
    if checkpoint is not None:
        return checkpoints.resolve(checkpoint, "model.decoder").directory
    if config.model.decoder != "scratch":
        return None
    task = lineage.required_task(config)
    targets = [str(task.target(row)) for row in trained]
    learn = partial(warm_start.learn_tokenizer, config.model.decoder_tokenizer, targets)
    return lineage.decoder_tokenizer(config).make(learn, config.recipe())


def _finetune(config: Config, directory: Path) -> None:
    from ulmfit_style.models.lora import merge
    from ulmfit_style.training.best import BestState
    from ulmfit_style.training.phases import train
    from ulmfit_style.training.pruning import Pruning
    from ulmfit_style.training.scoring import Scorer
    from ulmfit_style.training.warm_start import untie

    options, task = config.finetune, lineage.required_task(config)
    rows = labelled.load(task)
    plan, tokenizer = prepare(config)
    model = plan.model
    scorer = Scorer(model, tokenizer, task, options.max_length)

    # Train
    best, watched = None, []
    if options.patience is not None:
        watched = labelled.watched(task)[1]
        say(f"  {len(watched):,} others are watched: the state that scores best on them is kept (finetune.patience)")
        best = BestState(task.metric, partial(scorer.metric, watched), options.patience)
    pruning, trial = None, storage.trial_in_training()
    if trial is not None:
        look = partial(scorer.metric, rows.validation, trial.sweep.metric)
        pruning = Pruning(look, trial.report, trial.sweep.measurements)
    results = train(plan, directory / CHECKPOINTS, best=best, pruning=pruning)
    if options.lora_rank:
        merge(model)
    if best is not None:
        kept = best.kept
        last = [entry for entry in best.curve if entry["phase"] == kept["phase"]][-1]
        score_there = f"{task.metric} {kept[task.metric]:.3f} on the watched rows"
        told = f" of '{kept['phase']}'" if len(plan.phases) > 1 else ""
        say(f"  kept: the state{told} after epoch {kept['epoch']:g} of {last['epoch']:g} ({score_there})")

    # Score
    scores, found = {}, []
    for split in ("validation", "test"):
        scores[split], answered = scorer.score(rows.split(split), split)
        found += answered

    # Finish
    if not processes.is_main():
        return
    untie(model)
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    predictions.write(directory, found)
    metrics: dict[str, Any] = {
        "task": type(task).__name__,
        "metric": task.metric,
        "train": {"rows": len(rows.train), "of": len(rows.pool), "classes": rows.classes, "left_out": rows.left_out},
        **scores,
        "log": [{"phase": result.title, **entry} for result in results for entry in result.log],
    }
    if best is not None:
        metrics["kept"] = {**best.kept, "rows": len(watched)}
        order = [phase.title for phase in plan.phases]
        metrics["log"] = sorted(
            [*metrics["log"], *best.curve], key=lambda entry: (order.index(entry["phase"]), entry["step"])
        )
    write_json(directory / METRICS, metrics)


def pooled(
    source: Path, pooling: Literal["concat", "mean"], head: Mapping[str, Any]
) -> tuple[PreTrainedModel, set[str]]:
    """Return a checkpoint's body under a new head that pools it, and the names of the parameters that the body lacked.

    Args:
        pooling: As `PooledConfig.pooling`.
        head: What the config tells of the outputs, as `Task.head` has it.
    """
    from transformers import AutoModel

    from ulmfit_style.models.pooling import PooledConfig, PooledForSequenceClassification

    body, missing, _ = checkpoints.load_model(AutoModel, source)
    body.config.name_or_path = ""  # a path of this disk, which would be saved
    config = PooledConfig(
        body=body.config.to_dict(),
        pooling=pooling,
        summary_token="last" if is_causal(body.config.model_type) else "first",
        **head,
    )
    return PooledForSequenceClassification(config, body), {f"body.{name}" for name in missing}


def check_groups(config: Config) -> None:
    """Check that `finetune.unfreeze` fits the model's layer groups, on a copy without weights.

    Raises:
        UserError: if there are fewer than it names, or more of them than `finetune.max_steps` has steps for.
    """
    options, task = config.finetune, lineage.required_task(config)
    counted = options.unfreeze == "chain_thaw" and options.max_steps is not None
    if config.model.decoder is not None or not (_most(options) > FEWEST_GROUPS or counted):
        return  # and nothing is imported; what a decoder is made of is known when it is made
    import torch
    import transformers
    from transformers import AutoConfig

    from ulmfit_style.models.layers import EMBEDDINGS, layer_groups

    if config.model.architecture is None:
        architecture = AutoConfig.from_pretrained(checkpoints.resolve(config.model).directory, trust_remote_code=False)
    else:
        architecture = AutoConfig.for_model(**config.model.architecture)
    with torch.device("meta"):
        model = getattr(transformers, task.auto_class(architecture.model_type)).from_config(architecture)
    # Embeddings have no adapters.
    _thawed(options, [name for name in layer_groups(model, ()) if not options.lora_rank or name != EMBEDDINGS])


def _most(options: Finetune) -> int:
    """Return the largest number of layer groups that `unfreeze` names."""
    return max((number for number in options.unfreeze if isinstance(number, int)), default=0)


def _thawed(options: Finetune, names: Sequence[str]) -> list[tuple[str, Sequence[str]]]:
    """Return the title of each phase and the layer groups that it trains, of those of a model, the lowest first.

    Raises:
        UserError: if the model has fewer groups, or there are fewer steps than phases.
    """
    from ulmfit_style.models.lora import full_phase_title

    if _most(options) > len(names):
        raise UserError(
            f"finetune.unfreeze={spelled(options.unfreeze)}: the model has {len(names)} layer groups "
            f"({', '.join(names)}); give smaller numbers, or all"
        )
    every = (full_phase_title(options), names)
    if options.unfreeze == "chain_thaw":
        *lower, head = names
        phases = [*((f"{group} alone", [group]) for group in (head, *lower)), every]
    else:
        phases = [
            every if number == "all" else (f"last {number} of {len(names)} layer groups", names[-number:])
            for number in options.unfreeze
        ]
    if options.max_steps is not None and options.max_steps < len(phases):
        raise UserError(
            f"finetune.max_steps={options.max_steps}: finetune.unfreeze={spelled(options.unfreeze)} has "
            f"{len(phases)} phases; give at least as many steps"
        )
    return phases


def _passes(options: Finetune, phases: int, rows: int) -> list[float]:
    """Return how many times each phase goes through the rows: once, and the last one `epochs` times.

    `max_steps` bounds all of them together, so that recipes of one phase and of several compare; none before the last
    takes more than an equal share.
    """
    from ulmfit_style.training.batching import epochs_for

    times = [*[1.0] * (phases - 1), options.epochs]
    if options.max_steps is None:
        return times
    whole = ceil(rows / options.batch_size)
    before = min(whole, options.max_steps // phases)
    bounds = [*[before] * (phases - 1), options.max_steps - before * (phases - 1)]
    return [
        own if own * whole <= steps else epochs_for(steps, rows, options.batch_size)
        for own, steps in zip(times, bounds, strict=True)
    ]


def _phases(options: Finetune, layers: LayerGroups, rows: int) -> list[Phase]:
    """Return what is thawed in which order.

    Raises:
        UserError: if the model has fewer layer groups, or there are fewer steps than phases.
    """
    from ulmfit_style.training.phases import Phase

    thawed = _thawed(options, list(layers))
    return [
        Phase(title, [parameter for name in names for parameter in layers[name]], times, options.learning_rate)
        for (title, names), times in zip(thawed, _passes(options, len(thawed), rows), strict=True)
    ]


def _contrast(
    options: Finetune, layers: LayerGroups, features: EncodedDataset, tokenizer: PreTrainedTokenizerBase
) -> Phase:
    """Return the phase that comes before all others: what the head reads is trained, and the head is not."""
    from ulmfit_style.models.layers import HEAD
    from ulmfit_style.training.contrast import ContrastiveDataset, ContrastiveObjective
    from ulmfit_style.training.phases import Phase, TrainingData

    rows = ContrastiveDataset(features, tokenizer, options.seed)
    body = [parameter for group, own in layers.items() if group != HEAD for parameter in own]
    data = TrainingData(ContrastiveObjective(), rows, rows.collate, GROUP)
    return Phase("contrast", body, options.contrast_epochs, options.contrast_learning_rate, data)
