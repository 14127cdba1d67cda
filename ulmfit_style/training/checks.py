"""Whether a config can be trained: what can be known of the model and the options before the data is read."""

from ulmfit_style.compute import processes
from ulmfit_style.config.training import CONTRAST_GROUP_SIZE, Finetune, LanguageModelling
from ulmfit_style.errors import UserError, require_packages, reworded
from ulmfit_style.models import architectures, checkpoints, tokenizer_pair
from ulmfit_style.recipe import Config
from ulmfit_style.tasks.base import Task


def language_model(config: Config, stage: str, options: LanguageModelling) -> None:
    """Check a stage that trains a language model.

    Raises:
        UserError: if the architecture has no head for unlabelled text, or no room for it; or an option is wrong.
    """
    model_type = checkpoints.model_type(config.model)
    auto_class = architectures.language_model_class(model_type)
    if config.corpus.stream and architectures.architecture(model_type).carries_state:
        problem = f"a model of type '{model_type}' reads as many documents side by side as a batch has rows"
        raise UserError(f"corpus.stream=true: {problem}; take corpus.stream=false")
    if auto_class == architectures.ENCODER_DECODER and config.model.checkpoint is not None:
        directory = checkpoints.resolve(config.model, "model.checkpoint").directory
        checkpoints.sentinels(checkpoints.tokenizer(directory))
        if (directory / tokenizer_pair.FOLDER).is_dir():
            problem = "writes with another tokenizer than it reads with, and has no text to restore"
            raise UserError(f"{stage}: {config.model.title()} {problem}; adapt the encoder before, or take adapt=none")
    _check_options(config, stage, options, options.max_length)


def finetune(config: Config, task: Task) -> None:
    """Check `finetune`.

    Raises:
        UserError: if the architecture has no head for the task, or no room for the texts; or an option is wrong.
    """
    options, model_type, kind = config.finetune, checkpoints.model_type(config.model), type(task).__name__
    architecture = architectures.architecture(model_type)
    task = task.for_architecture(architecture)
    auto_class = task.auto_class(architecture)
    if config.model.decoder is not None:
        _check_decoder(config, task, model_type, auto_class)
    elif not architectures.has_head(auto_class, model_type):
        needed = f"{kind} needs one that {auto_class} knows"
        if auto_class == architectures.ENCODER_DECODER and architectures.has_head(architectures.MASKED_LM, model_type):
            needed += "; give it a decoder: model.decoder=same, or scratch"
        raise UserError(f"model.checkpoint={config.model.title()}: is of type '{model_type}', and {needed}")
    if (options.contrast_steps or options.head == "solved") and not task.is_single_label:
        wanted = f"contrast_steps={options.contrast_steps}" if options.contrast_steps else "head=solved"
        remedy = "take finetune=auto or plain"
        raise UserError(f"finetune.{wanted}: is for texts of one class each, and {kind} has none; {remedy}")
    if task.writes and checkpoints.described(config.model).get("direction") == "backward":
        remedy = "take one that does, such as model=awd_lstm"
        raise UserError(f"direction=backward: {kind} needs a model that writes from left to right; {remedy}")
    pooling = f"finetune.pooling={options.pooling}"
    if options.pooling in ("mean", "concat") and not task.scores_whole_texts:
        raise UserError(f"{pooling}: {kind} does not score whole texts; take finetune.pooling=default")
    if options.pooling in ("mean", "concat") and architecture.kind == "encoder-decoder":
        problem = f"pools one body, and a model of type '{model_type}' is an encoder and a decoder"
        raise UserError(f"{pooling}: {problem}; take finetune.pooling=default, or another model")
    _check_options(config, "finetune", options, task.positions_needed(options.max_length))


def _check_options(config: Config, stage: str, options: LanguageModelling | Finetune, positions_needed: int) -> None:
    """Check a new architecture, that processes can share batches, that LoRA can be had, and texts have room."""
    if config.model.architecture is not None:
        architectures.require_fields(config.model.architecture)
    for texts in (1, CONTRAST_GROUP_SIZE) if isinstance(options, Finetune) and options.contrast_steps else (1,):
        with reworded(f"{stage}.", UserError):
            processes.split(options.batch_size, config.micro_batch_size, texts, config.processes)
    if options.lora_rank:
        require_packages(f"{stage}.lora_rank={options.lora_rank}", "peft")
    if (options.lora_rank or config.shard) and checkpoints.model_type(config.model) in architectures.OWN:
        option, off = (f"{stage}.lora_rank", "0") if options.lora_rank else ("shard", "false")
        raise UserError(f"{option}: is for the layers of transformers, and this model has LSTMs; take {option}={off}")
    if config.shard and processes.wanted(config.processes) == 1:
        raise UserError("shard=true: one process has nothing to share out; take processes=2 or more, or shard=false")
    if config.shard and config.micro_batch_size == "auto":
        raise UserError("micro_batch_size=auto: finds what fits without shard=true, which needs less; give a number")
    positions = checkpoints.positions(config.model)
    if positions_needed > positions:
        answers = f" and answers take {positions_needed:,} in all" if positions_needed > options.max_length else ""
        too_long = f"{config.model.title()} reads {positions:,} tokens at most"
        raise UserError(f"{stage}.max_length={options.max_length}{answers}: {too_long}")


def _check_decoder(config: Config, task: Task, model_type: str, auto_class: str) -> None:
    """Check that the model is an encoder, that the task writes, and that the decoder can read along."""
    option = f"model.decoder={config.model.decoder}"
    if architectures.architecture(model_type).kind != "encoder" or auto_class != architectures.ENCODER_DECODER:
        needed = f"needs an encoder and a task that writes text, not a '{model_type}' and a {type(task).__name__}"
        raise UserError(f"{option}: {needed}; take model.decoder=null")
    if config.model.decoder == "scratch":
        return
    checkpoint = config.model.decoder_checkpoint() or config.model
    decoder_type = checkpoints.model_type(checkpoint, "model.decoder")
    if not architectures.can_cross_attend(decoder_type):
        problem = f"a model of type '{decoder_type}' has no cross-attention, so it cannot be a decoder"
        raise UserError(f"{option}: {problem}; name another checkpoint, or take model.decoder=scratch")
    written, positions = task.positions_needed(0), checkpoints.positions(checkpoint, "model.decoder")
    if written > positions:
        raise UserError(f"{option}: writes {positions:,} tokens at most, and task.max_target_length={written}")
