"""Which heads transformers has for which architectures; the library is imported when it is asked."""

from __future__ import annotations

from typing import Literal

from ulmfit_style.errors import UserError
from ulmfit_style.tasks.interface import Architecture

Objective = Literal["mlm", "clm", "denoising"]

ENCODER_DECODER = "AutoModelForSeq2SeqLM"
"""The auto class of encoder-decoders."""


def objective(name: str, model_type: str, option: str = "adapt.objective") -> Objective:
    """Return the objective that an option names, or for `auto` that of the architecture.

    Args:
        model_type: What a checkpoint's config.json calls its architecture, such as "bert".

    Raises:
        UserError: if the architecture has no head for it.
    """
    supported: Objective | None = None
    if is_encoder_decoder(model_type):
        supported = "denoising"  # BART has a head for masked words too, which is the same
    elif has_head("AutoModelForMaskedLM", model_type):
        supported = "mlm"
    elif is_causal(model_type):
        supported = "clm"
    if supported is not None and name in ("auto", supported):
        return supported
    remedy = "leave it at auto" if supported else "choose another model, or adapt nothing: adapt=none"
    able = supported or "none of mlm, clm and denoising"
    raise UserError(f"{option}={name}: a model of type '{model_type}' has {able}; {remedy}")


def architecture(model_type: str) -> Architecture:
    """Return what a task has to know of an architecture."""
    if is_encoder_decoder(model_type):
        return Architecture(model_type, "encoder-decoder")
    return Architecture(model_type, "decoder" if is_causal(model_type) else "encoder")


def is_causal(model_type: str) -> bool:
    """Tell whether the models of an architecture read from left to right."""
    # Encoders such as BERT have a causal head too, but attend to the very tokens that it would predict.
    is_encoder = has_head("AutoModelForMaskedLM", model_type)
    return has_head("AutoModelForCausalLM", model_type) and not is_encoder and not is_encoder_decoder(model_type)


def is_encoder_decoder(model_type: str) -> bool:
    """Tell whether the models of an architecture are an encoder and a decoder."""
    return has_head(ENCODER_DECODER, model_type)


def has_head(auto_class: str, model_type: str) -> bool:
    """Tell whether a transformers auto class, such as AutoModelForMaskedLM, loads models of an architecture."""
    from transformers.models.auto import modeling_auto

    return model_type in getattr(modeling_auto, auto_class)._model_mapping._model_mapping


def can_cross_attend(model_type: str) -> bool:
    """Tell whether the models of an architecture can be decoders with cross-attention, in an encoder-decoder of two."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    if not has_head("AutoModelForCausalLM", model_type) or is_encoder_decoder(model_type):
        return False
    return hasattr(CONFIG_MAPPING[model_type], "add_cross_attention")
