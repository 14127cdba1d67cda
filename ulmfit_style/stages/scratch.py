"""scratch: a model with random weights and its tokenizer, for `pretrain`, or to fine-tune from scratch."""

from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing

from ulmfit_style.artefacts.fingerprint import digest
from ulmfit_style.console import say
from ulmfit_style.data.corpus import batched
from ulmfit_style.errors import reworded
from ulmfit_style.models import checkpoints
from ulmfit_style.models.architectures import CAUSAL_LM, ENCODER_DECODER, has_head, language_model_class, register
from ulmfit_style.models.new_tokenizer import DECODER, learn
from ulmfit_style.resolved import Resolved, Stage, Step
from ulmfit_style.tasks import types

ENCODER = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")}
"""The special tokens of a new encoder (BERT), and of a new encoder-decoder, whose texts [CLS] begins and [SEP] ends."""


def determinants(resolved: Resolved) -> dict[str, Any]:
    """Return what the model with random weights depends on."""
    model = resolved.config.model
    if model.tokenizer is None:  # a checkpoint has its own
        return {"seed": model.seed, "like": checkpoints.resolve(model, "model.checkpoint").identity}
    made_of = {"architecture": model.architecture, "tokenizer": model.tokenizer.determinants()}
    corpus, written = resolved.pretraining_text.identity, _written(resolved)
    return {"seed": model.seed, "model": made_of, "corpus": [corpus, digest(written)] if written else corpus}


def _written(resolved: Resolved) -> list[str]:
    """Return the right answers, of which the tokenizer learns too where the first task of a model is to write."""
    task = resolved.config.task
    is_learnt = task is not None and task.writes and resolved.config.pretrain is None
    return [str(resolved.task.target(row)) for row in resolved.rows.train] if is_learnt else []


def steps(stage: Stage, resolved: Resolved, stages: Sequence[str]) -> list[Step]:
    """Return the step, where a model with random weights is pretrained or fine-tuned."""
    config = resolved.config
    if config.model.init != "scratch" or (config.pretrain is not None and "pretrain" not in stages):
        return []
    return [Step(stage, resolved, f"scratch: {config.model.title()} with random weights")]


def run(step: Step, directory: Path) -> None:
    """Make the model and its tokenizer.

    Raises:
        UserError: if the architecture cannot be built.
    """
    import transformers

    register()
    options = step.config.model
    auto_class = language_model_class(checkpoints.model_type(options))
    if options.tokenizer is None:  # a checkpoint has its own
        source = checkpoints.resolve(options, "model.checkpoint").directory
        tokenizer = checkpoints.tokenizer(source)
        architecture = transformers.AutoConfig.for_model(**checkpoints.body_config(source))
    else:
        texts = chain(step.resolved.pretraining_text.train, _written(step.resolved))
        special = DECODER if auto_class == CAUSAL_LM else ENCODER
        learnt = learn(options.tokenizer, "model.tokenizer", batched(texts), special)
        tokenizer, architecture = _fit(learnt, options.architecture or {}, masked=auto_class != CAUSAL_LM)
    transformers.set_seed(options.seed)
    with reworded("model.architecture: cannot be built (", ValueError, TypeError, after=")"):
        model = getattr(transformers, auto_class).from_config(architecture)
    say(f"  {model.num_parameters():,} parameters with random weights, {len(tokenizer):,} tokens")
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)


def _fit(learnt: Tokenizer, options: dict[str, Any], *, masked: bool) -> tuple[types.Tokenizer, Any]:
    """Return a new tokenizer with its special tokens, and an architecture that has room for its tokens."""
    from transformers import AutoConfig, PreTrainedTokenizerFast
    from transformers.tokenization_utils_base import VERY_LARGE_INTEGER

    model_type = options["model_type"]
    fields = AutoConfig.for_model(model_type).to_dict()
    inputs = ["input_ids", *(["token_type_ids"] if fields.get("type_vocab_size", 0) > 1 else []), "attention_mask"]
    special = {**DECODER, "bos_token": DECODER["eos_token"], "pad_token": DECODER["eos_token"]}
    if masked:
        special = ENCODER
        ends = [(token, learnt.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
        learnt.post_processor = TemplateProcessing("[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1", ends)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=learnt, model_input_names=inputs, **special)
    numbers = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("pad", "bos", "eos")}
    if has_head(ENCODER_DECODER, model_type):
        ends_with = ("eos_token_id", "forced_eos_token_id", "decoder_start_token_id")
        numbers |= {"bos_token_id": tokenizer.cls_token_id, **dict.fromkeys(ends_with, tokenizer.sep_token_id)}
    architecture = AutoConfig.for_model(**{**options, **numbers, "vocab_size": len(tokenizer)})
    # T5 counts distances, and has no positions that could run out.
    tokenizer.model_max_length = architecture.to_dict().get("max_position_embeddings", VERY_LARGE_INTEGER)
    return tokenizer, architecture
