"""Whether a config can be trained: what can be known of the model and the options before the data is read."""

from __future__ import annotations

import importlib.util

from ulmfit_style import processes
from ulmfit_style.config.stages import GROUP, Finetune, LanguageModelling
from ulmfit_style.errors import UserError
from ulmfit_style.models import architectures, checkpoints
from ulmfit_style.models.tokenizer_pair import FOLDER
from ulmfit_style.recipe import Config
from ulmfit_style.tasks.base import Task
from ulmfit_style.training.unfreezing import highest, thawed

REPORTED_TO = ("tensorboard", "wandb", "mlflow", "trackio")
"""What `trainer.report_to` is known to take, each the name of its package too."""

FEWEST_GROUPS = 2
"""The layer groups that every model has: a head, and a layer."""


def language_model(config: Config, stage: str, options: LanguageModelling) -> None:
    """Check a stage that trains a language model.

    Raises:
        UserError: if the architecture has no head for the objective, or no room for the texts; or an option is wrong.
    """
    architectures.objective(options.objective, checkpoints.model_type(config.model), f"{stage}.objective")
    _check_options(config, stage, options)
    _check_length(config, stage, options.max_length, options.max_length)


def can_be_restored(config: Config) -> None:
    """Check that a text can be taken out of an encoder-decoder's input and restored.

    Raises:
        UserError: if its tokenizer has no token for what is taken out, or it writes with another tokenizer.
    """
    if not architectures.is_encoder_decoder(checkpoints.model_type(config.model)) or config.model.checkpoint is None:
        return  # a new tokenizer has a token for it
    directory = checkpoints.resolve(config.model).directory
    checkpoints.sentinels(checkpoints.tokenizer(directory))
    if (directory / FOLDER).is_dir():
        two = f"{config.model.title()} writes with another tokenizer than it reads with, and has no text to restore"
        raise UserError(f"adapt.objective=denoising: {two}; adapt the encoder before, or take adapt=none")


def classifier(config: Config, task: Task) -> None:
    """Check `finetune`.

    Raises:
        UserError: if the architecture has no head for the task, or no room for the texts; or an option is wrong.
    """
    model_type, options = checkpoints.model_type(config.model), config.finetune
    _check_head(config, task, model_type)
    _check_groups(config, task)
    _check_options(config, "finetune", options)
    _check_length(
        config,
        "finetune",
        options.max_length,
        task.for_architecture(architectures.architecture(model_type)).positions_needed(options.max_length),
    )


def _check_options(config: Config, stage: str, options: LanguageModelling | Finetune) -> None:
    """Check the batch, and that the libraries are there which the options need."""
    _check_batch(config, stage, options)
    _check_reporting(stage, options)
    if options.lora_rank and importlib.util.find_spec("peft") is None:
        raise UserError(f"{stage}.lora_rank={options.lora_rank}: needs peft; install it: pip install peft")


def _check_length(config: Config, stage: str, max_length: int, reach: int) -> None:
    """Check that the model has a position for each token that is read or written."""
    positions = checkpoints.positions(config.model)
    if reach > positions:
        answers = f" and answers take {reach:,} in all" if reach > max_length else ""
        too_long = f"{config.model.title()} reads {positions:,} tokens at most"
        raise UserError(f"{stage}.max_length={max_length}{answers}: {too_long}")


def _check_batch(config: Config, stage: str, options: LanguageModelling | Finetune) -> None:
    """Check that the processes can share the batches evenly; how many GPUs there are is not known here."""
    for texts in (1, GROUP) if isinstance(options, Finetune) and options.contrast_epochs else (1,):
        try:
            processes.split(options.batch_size, config.micro_batch_size, texts, config.processes)
        except UserError as error:
            raise UserError(f"{stage}.{error}") from error


def _check_reporting(stage: str, options: LanguageModelling | Finetune) -> None:
    """Check that the libraries are there which are told of the training."""
    names = options.trainer.get("report_to") or []
    for name in [names] if isinstance(names, str) else names:
        if name in REPORTED_TO and importlib.util.find_spec(name) is None:
            raise UserError(f"{stage}.trainer.report_to={name}: needs {name}; install it: pip install {name}")


def _check_head(config: Config, task: Task, model_type: str) -> None:
    auto_class, kind = task.auto_class(architectures.architecture(model_type)), type(task).__name__
    if config.model.decoder is not None:
        _check_decoder(config, task, model_type)
    elif not architectures.has_head(auto_class, model_type):
        needed = f"{kind} needs one that {auto_class} knows"
        if auto_class == architectures.ENCODER_DECODER and architectures.has_head("AutoModelForMaskedLM", model_type):
            needed += "; give it a decoder: model.decoder=same"
        raise UserError(f"model.checkpoint={config.model.title()}: is of type '{model_type}', and {needed}")
    if config.finetune.contrast_epochs and not task.is_single_label:
        raise UserError(
            f"finetune.contrast_epochs={config.finetune.contrast_epochs:g}: compares texts of one class each, and "
            f"{type(task).__name__} has none; take finetune.contrast_epochs=0"
        )
    pooling = config.finetune.pooling
    if pooling != "default":
        remedy = "take finetune.pooling=default"
        if not task.scores_whole_texts:
            raise UserError(f"finetune.pooling={pooling}: {type(task).__name__} does not score whole texts; {remedy}")
        if architectures.is_encoder_decoder(model_type):
            kind = f"a model of type '{model_type}' is an encoder and a decoder, and the head pools one body"
            raise UserError(f"finetune.pooling={pooling}: {kind}; {remedy}, or another model")


def _check_decoder(config: Config, task: Task, model_type: str) -> None:
    """Check that the model is an encoder that is given a decoder for a task that writes, and which can read along."""
    option, remedy = f"model.decoder={config.model.decoder}", "take model.decoder=null"
    if architectures.is_encoder_decoder(model_type) or architectures.is_causal(model_type):
        raise UserError(f"{option}: a model of type '{model_type}' writes by itself; {remedy}")
    if task.auto_class(architectures.architecture(model_type)) != architectures.ENCODER_DECODER:
        raise UserError(f"{option}: {type(task).__name__} wants no text that a decoder could write; {remedy}")
    if config.finetune.pooling != "default":
        raise UserError(f"{option}: finetune.pooling={config.finetune.pooling} is for a head, and this is a decoder")
    if config.model.decoder == "scratch":
        return
    checkpoint = config.model.decoder_checkpoint() or config.model
    own = checkpoints.model_type(checkpoint, "model.decoder")
    if not architectures.can_cross_attend(own):
        others = "name another checkpoint, or take model.decoder=scratch"
        raise UserError(
            f"{option}: a model of type '{own}' has no cross-attention, so it cannot be a decoder; {others}"
        )
    written, positions = (
        task.for_architecture(architectures.architecture(model_type)).positions_needed(0),
        checkpoints.positions(checkpoint),
    )
    if written > positions:
        raise UserError(f"{option}: writes {positions:,} tokens at most, and task.max_target_length={written}")


def _check_groups(config: Config, task: Task) -> None:
    """Check that `finetune.unfreeze` fits the model's layer groups, on a copy without weights.

    Raises:
        UserError: if there are fewer than it names, or more of them than `finetune.max_steps` has steps for.
    """
    options = config.finetune
    counted = options.unfreeze == "chain_thaw" and options.max_steps is not None
    if config.model.decoder is not None or not (highest(options) > FEWEST_GROUPS or counted):
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
        model = getattr(transformers, task.auto_class(architectures.architecture(architecture.model_type))).from_config(
            architecture
        )
    # Embeddings have no adapters.
    thawed(options, [name for name in layer_groups(model, ()) if not options.lora_rank or name != EMBEDDINGS])
