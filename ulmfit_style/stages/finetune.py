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
from ulmfit_style.models import architectures, checkpoints, tokenizer_pair
from ulmfit_style.models.architectures import is_causal
from ulmfit_style.recipe import Config

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from ulmfit_style.models.layers import Layers
    from ulmfit_style.training.batching import Encoded
    from ulmfit_style.training.phases import Course, Phase

NEW = "what is new"

FEWEST_GROUPS = 2
"""The layer groups that every model has: a head, and a layer."""


def run(config: Config) -> Path:
    """Fine-tune, unless it was done, and return the directory of the fine-tuned model."""
    return lineage.finetune(config).make(partial(_finetune, config), config.recipe())


def prepare(config: Config) -> tuple[Course, PreTrainedTokenizerBase]:
    """Return the model with a new head and all that it is trained on, and its tokenizer."""
    import transformers
    from transformers import AutoConfig, set_seed

    from ulmfit_style.models.layers import HEAD, groups
    from ulmfit_style.models.lora import with_adapters
    from ulmfit_style.training import warm_start
    from ulmfit_style.training.answers import collate
    from ulmfit_style.training.batching import Encoded
    from ulmfit_style.training.phases import Course, Lesson, Phase, settings

    options, task = config.finetune, lineage.required_task(config)
    source = lineage.init(config).directory
    model_type = AutoConfig.from_pretrained(source, trust_remote_code=False).model_type

    # Data
    rows = labelled.load(task)
    task = task.for_architecture(architectures.architecture(model_type))
    trained = lineage.trained_rows(config)
    head = task.head(rows.classes)
    tokenizer = tokenizer_pair.read(source)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    pair = None if config.model.decoder is None else warm_start.tokenizers(config, tokenizer)
    if pair is not None:
        tokenizer = pair.as_one()
    encoded = [task.encode(row, tokenizer, options.max_length, head.get("label2id", {})) for row in trained]
    features = Encoded(
        {**feature, "weight": weight * feature.get("weight", 1)}
        for parts, weight in zip(encoded, task.row_weights(trained), strict=True)
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
        model, missing = warm_start.encoder_decoder(config, source, pair, task.positions_needed(0))
    elif options.pooling == "default":
        # By pad_token_id a causal model finds the last token of a text.
        auto_class = getattr(transformers, task.auto_class(architectures.architecture(model_type)))
        model, missing, _ = checkpoints.loaded(auto_class, source, **head, pad_token_id=tokenizer.pad_token_id)
    else:
        model, missing = pooled(source, options.pooling, head)
    task.prepare_model(model, tokenizer, trained)

    # Phases
    layers = with_adapters(model, groups(model, missing), options)
    phases = _phases(options, layers, len(features))
    if pair is not None and options.new_epochs:
        phases.insert(0, Phase(NEW, layers[HEAD], options.new_epochs, options.new_learning_rate))
    if options.contrast_epochs:
        phases.insert(0, _contrast(options, layers, features, tokenizer))
    lesson = Lesson(task, features, partial(collate, tokenizer=tokenizer))
    return Course(model, phases, settings(config, options, layers), lesson), tokenizer


def _finetune(config: Config, directory: Path) -> None:
    from ulmfit_style.models.lora import merge
    from ulmfit_style.training.best import Best
    from ulmfit_style.training.phases import train
    from ulmfit_style.training.pruning import Pruning
    from ulmfit_style.training.scoring import metric, score
    from ulmfit_style.training.warm_start import untie

    options, task = config.finetune, lineage.required_task(config)
    rows = labelled.load(task)
    course, tokenizer = prepare(config)
    model = course.model

    # Train
    best, watched = None, []
    if options.patience is not None:
        watched = labelled.watched(task)[1]
        say(f"  {len(watched):,} others are watched: the state that scores best on them is kept (finetune.patience)")
        watch = partial(metric, model, tokenizer, task, watched, options.max_length)
        best = Best(task.metric, watch, options.patience)
    pruning, trial = None, storage.trial_in_training()
    if trial is not None:
        look = partial(metric, model, tokenizer, task, rows.validation, options.max_length, trial.sweep.metric)
        pruning = Pruning(look, trial.report, trial.sweep.measurements)
    outcomes = train(course, directory / CHECKPOINTS, best=best, pruning=pruning)
    if options.lora_rank:
        merge(model)
    if best is not None:
        kept = best.kept
        last = [entry for entry in best.curve if entry["phase"] == kept["phase"]][-1]
        score_there = f"{task.metric} {kept[task.metric]:.3f} on the watched rows"
        told = f" of '{kept['phase']}'" if len(course.phases) > 1 else ""
        say(f"  kept: the state{told} after epoch {kept['epoch']:g} of {last['epoch']:g} ({score_there})")

    # Score
    scores, found = {}, []
    for split in ("validation", "test"):
        scores[split], answered = score(model, tokenizer, task, rows.split(split), options.max_length, split)
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
        "log": [{"phase": outcome.title, **entry} for outcome in outcomes for entry in outcome.log],
    }
    if best is not None:
        metrics["kept"] = {**best.kept, "rows": len(watched)}
        order = [phase.title for phase in course.phases]
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

    body, missing, _ = checkpoints.loaded(AutoModel, source)
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

    from ulmfit_style.models.layers import EMBEDDINGS, groups

    if config.model.architecture is None:
        model_config = AutoConfig.from_pretrained(checkpoints.resolve(config.model).directory, trust_remote_code=False)
    else:
        model_config = AutoConfig.for_model(**config.model.architecture)
    auto_class = task.auto_class(architectures.architecture(model_config.model_type))
    with torch.device("meta"):
        model = getattr(transformers, auto_class).from_config(model_config)
    # Embeddings have no adapters.
    _thawed(options, [name for name in groups(model, ()) if not options.lora_rank or name != EMBEDDINGS])


def _most(options: Finetune) -> int:
    """Return the largest number of layer groups that `unfreeze` names."""
    return max((number for number in options.unfreeze if isinstance(number, int)), default=0)


def _thawed(options: Finetune, names: Sequence[str]) -> list[tuple[str, Sequence[str]]]:
    """Return the title of each phase and the layer groups that it trains, of those of a model, the lowest first.

    Raises:
        UserError: if the model has fewer groups, or there are fewer steps than phases.
    """
    from ulmfit_style.models.lora import everything

    if _most(options) > len(names):
        raise UserError(
            f"finetune.unfreeze={spelled(options.unfreeze)}: the model has {len(names)} layer groups "
            f"({', '.join(names)}); give smaller numbers, or all"
        )
    every = (everything(options), names)
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
    from ulmfit_style.training.batching import passes

    times = [*[1.0] * (phases - 1), options.epochs]
    if options.max_steps is None:
        return times
    whole = ceil(rows / options.batch_size)
    before = min(whole, options.max_steps // phases)
    bounds = [*[before] * (phases - 1), options.max_steps - before * (phases - 1)]
    return [
        own if own * whole <= steps else passes(steps, rows, options.batch_size)
        for own, steps in zip(times, bounds, strict=True)
    ]


def _phases(options: Finetune, layers: Layers, rows: int) -> list[Phase]:
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


def _contrast(options: Finetune, layers: Layers, features: Encoded, tokenizer: PreTrainedTokenizerBase) -> Phase:
    """Return the phase that comes before all others: what the head reads is trained, and the head is not."""
    from ulmfit_style.models.layers import HEAD
    from ulmfit_style.training.contrast import Contrast, Groups
    from ulmfit_style.training.phases import Lesson, Phase

    rows = Groups(features, tokenizer, options.seed)
    body = [parameter for group, own in layers.items() if group != HEAD for parameter in own]
    lesson = Lesson(Contrast(), rows, rows.collate, GROUP)
    return Phase("contrast", body, options.contrast_epochs, options.contrast_learning_rate, lesson)
