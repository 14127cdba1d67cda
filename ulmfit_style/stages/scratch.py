"""scratch: a model with random weights and its tokenizer, for `pretrain`, or to fine-tune from scratch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ulmfit_style.console import say
from ulmfit_style.data.new_tokenizer import DECODER, learn
from ulmfit_style.errors import UserError, nearest
from ulmfit_style.lineage import Resolved, Stage, Step
from ulmfit_style.models import checkpoints
from ulmfit_style.models.architectures import ENCODER_DECODER, has_head, is_encoder_decoder

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedConfig, PreTrainedTokenizerBase

ENCODER = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}
"""The special tokens of a new encoder (BERT), and of a new encoder-decoder, whose texts [CLS] begins and [SEP] ends."""


DECODER_HEAD = "AutoModelForCausalLM"


def determinants(resolved: Resolved) -> dict[str, Any]:
    """Return what the model with random weights depends on."""
    model = resolved.config.model
    if model.checkpoint is not None:
        return {"seed": model.seed, "like": checkpoints.resolve(model).identity}
    assert model.tokenizer is not None  # the config was checked
    made_of = {"architecture": model.architecture, "tokenizer": model.tokenizer.determinants()}
    return {"seed": model.seed, "model": made_of, "corpus": resolved.pretraining_text.identity}


def steps(stage: Stage, resolved: Resolved, stages: Sequence[str]) -> list[Step]:
    """Return the step, where a model with random weights is pretrained or fine-tuned."""
    config = resolved.config
    if config.model.init != "scratch" or (config.pretrain is not None and "pretrain" not in stages):
        return []
    return [Step(stage, resolved, f"scratch: {config.model.title()} with random weights")]


def run(step: Step, directory: Path) -> None:
    """Make the model and its tokenizer.

    Raises:
        UserError: if the architecture cannot be built, or the text makes too few tokens.
    """
    import transformers
    from transformers import AutoConfig, AutoTokenizer, set_seed

    model = step.config.model
    tokenizer: PreTrainedTokenizerBase
    if model.checkpoint is not None:
        source = checkpoints.resolve(model).directory
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
        architecture = AutoConfig.from_pretrained(source, trust_remote_code=False)
    else:
        assert model.tokenizer is not None  # the config was checked
        masked = _head((model.architecture or {})["model_type"]) != DECODER_HEAD
        texts, special = step.resolved.pretraining_text.train, ENCODER if masked else DECODER
        learnt = learn(model.tokenizer, "model.tokenizer", texts.batches(), len(texts), special)
        if (made := learnt.get_vocab_size()) < model.tokenizer.vocab_size:
            problem = f"the text to train on makes {made:,} tokens; ask for fewer, or give more text"
            raise UserError(f"model.tokenizer.vocab_size={model.tokenizer.vocab_size}: {problem}")
        tokenizer, architecture = _fit(learnt, model.architecture or {}, masked=masked)
    set_seed(model.seed)
    try:
        fresh = getattr(transformers, _head(architecture.model_type)).from_config(architecture)
    except (ValueError, TypeError) as error:
        raise UserError(f"model.architecture: cannot be built ({error})") from error
    say(f"  {fresh.num_parameters():,} parameters with random weights, {len(tokenizer):,} tokens")
    fresh.save_pretrained(directory)
    tokenizer.save_pretrained(directory)


def _head(model_type: str) -> str:
    """Return the auto class of an architecture's language model."""
    if is_encoder_decoder(model_type):
        return ENCODER_DECODER
    return "AutoModelForMaskedLM" if has_head("AutoModelForMaskedLM", model_type) else DECODER_HEAD


def _fit(
    learnt: Tokenizer, options: dict[str, Any], *, masked: bool
) -> tuple[PreTrainedTokenizerBase, PreTrainedConfig]:
    """Return a new tokenizer with its special tokens, and an architecture that has room for its tokens.

    Raises:
        UserError: naming each field that the architecture does not have.
    """
    from tokenizers.processors import TemplateProcessing
    from transformers import AutoConfig, PreTrainedTokenizerFast
    from transformers.tokenization_utils_base import VERY_LARGE_INTEGER

    there = AutoConfig.for_model(options["model_type"]).to_dict()
    wrong = [name for name in options if name not in there]
    if wrong:
        lines = [f"model.architecture.{name}: a {options['model_type']} has no such field" for name in wrong]
        raise UserError("\n".join(line + nearest(name, there) for line, name in zip(lines, wrong, strict=True)))
    if masked:
        ends = [(token, learnt.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
        learnt.post_processor = TemplateProcessing("[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1", ends)
    names = ["input_ids", *(["token_type_ids"] if there.get("type_vocab_size", 0) > 1 else []), "attention_mask"]
    special = ENCODER if masked else {**DECODER, "bos_token": DECODER["eos_token"], "pad_token": DECODER["eos_token"]}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=learnt, model_input_names=names, **special)
    numbers = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("pad", "bos", "eos")}
    if is_encoder_decoder(options["model_type"]):
        by_end = ("eos_token_id", "forced_eos_token_id", "decoder_start_token_id")
        numbers |= {"bos_token_id": tokenizer.cls_token_id, **dict.fromkeys(by_end, tokenizer.sep_token_id)}
    architecture = AutoConfig.for_model(**{**options, **numbers, "vocab_size": len(tokenizer)})
    # T5 counts distances, and has no positions that could run out.
    tokenizer.model_max_length = architecture.to_dict().get("max_position_embeddings", VERY_LARGE_INTEGER)
    return tokenizer, architecture
