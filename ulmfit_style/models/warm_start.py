"""An encoder-decoder made from an encoder: its decoder is pretrained or new, its cross-attention is always new."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tokenizers
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, EncoderDecoderModel, PreTrainedTokenizerFast

from ulmfit_style.compute import processes
from ulmfit_style.config.training import DecoderTokenizer, Model
from ulmfit_style.console import say
from ulmfit_style.errors import UserError
from ulmfit_style.models import checkpoints
from ulmfit_style.models.checkpoints import LoadedModel
from ulmfit_style.models.new_tokenizer import DECODER, learn
from ulmfit_style.models.tokenizer_pair import TokenizerPair
from ulmfit_style.tasks.types import Tokenizer

POSITIONS = 512
"""The most tokens that a decoder from scratch generates, unless `task.max_target_length` asks for more."""


def pair_tokenizers(options: Model, source: Tokenizer, decoder: Path) -> TokenizerPair:
    """Return the encoder's tokenizer with the decoder's, which ends a text and puts nothing before it.

    Args:
        decoder: The directory of the decoder's tokenizer.

    Raises:
        UserError: if the decoder's tokenizer has no token that ends a text.
    """
    target = checkpoints.tokenizer(decoder)
    end = target.eos_token or target.sep_token
    if end is None or not target.is_fast:
        problem = "has no token that ends a text" if target.is_fast else "has no tokenizer.json"
        raise UserError(f"model.decoder={options.decoder}: its tokenizer {problem}; name another decoder")
    backend = tokenizers.Tokenizer.from_str(target.backend_tokenizer.to_str())
    ends = [(end, target.convert_tokens_to_ids(end))]
    backend.post_processor = tokenizers.processors.TemplateProcessing(f"$A {end}", f"$A {end} $B:1 {end}:1", ends)
    special = {**target.special_tokens_map, "eos_token": end, "pad_token": target.pad_token or end}
    return TokenizerPair(source, PreTrainedTokenizerFast(tokenizer_object=backend, **special))


def learn_tokenizer(options: DecoderTokenizer, targets: Sequence[str], directory: Path) -> None:
    """Train the tokenizer of a decoder from scratch on the right answers of the training rows, and save it."""
    if processes.is_main():
        tokenizer = learn(options, "model.decoder_tokenizer", [targets], DECODER)
        say(f"  a new tokenizer of {tokenizer.get_vocab_size():,} tokens, from {len(targets):,} right answers")
        PreTrainedTokenizerFast(tokenizer_object=tokenizer, **DECODER).save_pretrained(directory)


def encoder_decoder(options: Model, source: Path, decoder: Path, target: Tokenizer, length: int) -> LoadedModel:
    """Return the encoder-decoder, and the names of its new parameters.

    Args:
        source: The directory of the encoder's checkpoint.
        decoder: The directory of the decoder's checkpoint; not read where its weights are random.
        target: The decoder's tokenizer.
        length: The most tokens that are generated.
    """
    encoder, missing, _ = checkpoints.load_model(AutoModel, source)
    if options.decoder == "scratch":
        decoder_model, decoder_missing, _ = _untrained_decoder(options, encoder, target, length)
    else:
        settings = {"is_decoder": True, "add_cross_attention": True}
        decoder_model, decoder_missing, _ = checkpoints.load_model(AutoModelForCausalLM, decoder, **settings)
    for part in (encoder, decoder_model):
        part.config.name_or_path = ""  # a path of this disk, which would be saved
    model = EncoderDecoderModel(encoder=encoder, decoder=decoder_model)
    starts = (target.cls_token_id, target.bos_token_id, target.eos_token_id)
    model.config.decoder_start_token_id = next(token for token in starts if token is not None)
    model.config.pad_token_id, model.config.eos_token_id = target.pad_token_id, target.eos_token_id
    new = {f"encoder.{name}" for name in missing} | {f"decoder.{name}" for name in decoder_missing}
    new |= {name for name, _ in model.named_parameters() if name.startswith("enc_to_dec_proj.")}
    return LoadedModel(model, new, set())


def _untrained_decoder(options: Model, encoder: Any, target: Tokenizer, length: int) -> LoadedModel:
    """Return a decoder with random weights, as wide as the encoder, and the names of its parameters.

    It is a GPT-2, with its norms before each block: it learns from fewer rows than a BERT.
    """
    config = AutoConfig.for_model(
        "gpt2",
        vocab_size=len(target),
        n_embd=encoder.config.hidden_size,
        n_head=encoder.config.num_attention_heads,
        n_layer=options.decoder_layers,
        n_positions=max(POSITIONS, length),
        add_cross_attention=True,
        bos_token_id=target.eos_token_id,  # without padding, or GPT-2 would warn of a text that begins with it
        eos_token_id=target.eos_token_id,
    )
    decoder = AutoModelForCausalLM.from_config(config)
    return LoadedModel(decoder, {name for name, _ in decoder.named_parameters()}, set())
