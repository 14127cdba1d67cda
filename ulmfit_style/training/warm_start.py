"""An encoder-decoder from an encoder: the decoder's weights are there already, or new; cross-attention is new."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from tokenizers import Tokenizer, processors
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    EncoderDecoderModel,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from ulmfit_style import processes
from ulmfit_style.artefacts.directory import Artefact
from ulmfit_style.console import say
from ulmfit_style.data.new_tokenizer import DECODER, learn
from ulmfit_style.errors import UserError
from ulmfit_style.models import checkpoints
from ulmfit_style.models.tokenizer_pair import TokenizerPair
from ulmfit_style.recipe import Config
from ulmfit_style.tasks.base import Row

if TYPE_CHECKING:
    from ulmfit_style.config.stages import Model

POSITIONS = 512
"""Tokens that a decoder from scratch writes at most, unless `task.max_target_length` asks for more."""


def tokenizers(
    config: Config, source: PreTrainedTokenizerBase, artefact: Artefact, rows: Sequence[Row]
) -> TokenizerPair:
    """Return the encoder's tokenizer with that of the decoder, which ends a text, and puts nothing before it.

    A new one is trained on the right answers of the training rows, once.

    Args:
        artefact: That of a new tokenizer.
        rows: The training rows.

    Raises:
        UserError: if the decoder's tokenizer has no token that ends a text.
    """
    made = source
    checkpoint = config.model.decoder_checkpoint()
    if checkpoint is not None:
        place = checkpoints.resolve(checkpoint, "model.decoder").directory
        made = checkpoints.tokenizer(place)
    elif config.model.decoder == "scratch":
        place = artefact.make(partial(_learn, config, rows), config.recipe())
        made = checkpoints.tokenizer(place)
    end = made.eos_token or made.sep_token
    if end is None or not made.is_fast:
        problem = "has no token that ends a text" if made.is_fast else "has no tokenizer.json"
        raise UserError(f"model.decoder={config.model.decoder}: its tokenizer {problem}; name another decoder")
    backend = Tokenizer.from_str(made.backend_tokenizer.to_str())
    ends = [(end, made.convert_tokens_to_ids(end))]
    backend.post_processor = processors.TemplateProcessing(f"$A {end}", f"$A {end} $B:1 {end}:1", ends)
    special = {**made.special_tokens_map, "eos_token": end, "pad_token": made.pad_token or end}
    return TokenizerPair(source, PreTrainedTokenizerFast(tokenizer_object=backend, **special))


def _learn(config: Config, rows: Sequence[Row], directory: Path) -> None:
    if not processes.is_main():
        return
    assert config.task is not None  # there are rows
    texts, options = [str(config.task.target(row)) for row in rows], config.model.decoder_tokenizer
    learnt = learn(options, "model.decoder_tokenizer", [texts], len(texts), DECODER)
    say(f"  a new tokenizer of {learnt.get_vocab_size():,} tokens, from {len(texts):,} right answers")
    PreTrainedTokenizerFast(tokenizer_object=learnt, **DECODER).save_pretrained(directory)


def encoder_decoder(
    config: Config, source: Path, tokenizer: TokenizerPair, length: int
) -> tuple[PreTrainedModel, set[str]]:
    """Return the encoder-decoder, and the names of its parameters that are new.

    Where the decoder is the encoder once more, they have one matrix of embeddings until `untie`.

    Args:
        source: The directory of the encoder's checkpoint.
        length: The tokens that are written at most.
    """
    options, target = config.model, tokenizer.target
    encoder, without, _ = checkpoints.loaded(AutoModel, source)
    if options.decoder == "scratch":
        decoder, new = _new(options, encoder, target, length)
    else:
        checkpoint = options.decoder_checkpoint()
        place = source if checkpoint is None else checkpoints.resolve(checkpoint, "model.decoder").directory
        settings = AutoConfig.from_pretrained(place, trust_remote_code=False)
        settings.is_decoder = settings.add_cross_attention = True
        decoder, new, _ = checkpoints.loaded(AutoModelForCausalLM, place, config=settings)
    for part in (encoder, decoder):
        part.config.name_or_path = ""  # a path of this disk, which would be saved
    model = EncoderDecoderModel(encoder=encoder, decoder=decoder)
    model.config.decoder_start_token_id = next(
        token for token in (target.cls_token_id, target.bos_token_id, target.eos_token_id) if token is not None
    )
    model.config.pad_token_id, model.config.eos_token_id = target.pad_token_id, target.eos_token_id
    names = {f"encoder.{name}" for name in without} | {f"decoder.{name}" for name in new}
    if options.decoder == "same":
        shared = encoder.get_input_embeddings()
        decoder.set_input_embeddings(shared)
        decoder.tie_weights()
        # Told to transformers, which would not save checkpoints of tied weights that it does not know.
        (one, other) = (_name_of(model, part, shared) for part in ("decoder", "encoder"))
        model._tied_weights_keys = {one: other}
    return model, names | {name for name, _ in model.named_parameters() if name.startswith("enc_to_dec_proj.")}


def untie(model: PreTrainedModel) -> None:
    """Give an encoder and a decoder that share their embeddings each their own, as transformers will load them."""
    if isinstance(model, EncoderDecoderModel) and model._tied_weights_keys:
        model._tied_weights_keys = {}
        model.decoder.set_input_embeddings(copy.deepcopy(model.encoder.get_input_embeddings()))
        model.decoder.tie_weights()


def _new(
    options: Model, encoder: PreTrainedModel, target: PreTrainedTokenizerBase, length: int
) -> tuple[PreTrainedModel, set[str]]:
    """Return a decoder with random weights, as wide as the encoder, and the names of its parameters.

    It is a GPT-2, whose norms come before each block, for it learns from fewer rows than a BERT.
    """
    settings = AutoConfig.for_model(
        "gpt2",
        vocab_size=len(target),
        n_embd=encoder.config.hidden_size,
        n_head=encoder.config.num_attention_heads,
        n_layer=options.decoder_layers,
        n_positions=max(POSITIONS, length),
        add_cross_attention=True,
        is_decoder=True,
        bos_token_id=target.eos_token_id,  # and no padding, or GPT-2 would warn of a text that begins with it
        eos_token_id=target.eos_token_id,
    )
    decoder = AutoModelForCausalLM.from_config(settings)
    return decoder, {name for name, _ in decoder.named_parameters()}


def _name_of(model: PreTrainedModel, part: str, module: torch.nn.Module) -> str:
    """Return the name of a module's weight within a part of a model."""
    names = (name for name, own in getattr(model, part).named_modules(remove_duplicate=False) if own is module)
    return f"{part}.{next(names)}.weight"
