"""Which heads transformers has for which architectures; the library is imported when it is asked."""

from typing import Literal

from ulmfit_style.errors import UserError
from ulmfit_style.tasks.values import Architecture

ENCODER_DECODER = "AutoModelForSeq2SeqLM"
"""The auto class of encoder-decoders."""


def objective(model_type: str) -> Literal["mlm", "clm", "denoising"]:
    """Return what the models of an architecture learn on unlabelled text.

    Args:
        model_type: What a checkpoint's config.json calls its architecture, such as "bert".

    Raises:
        UserError: if the architecture has no head for it.
    """
    kind = architecture(model_type).kind
    if kind == "encoder-decoder":
        return "denoising"  # BART has a head for masked words too, which is the same
    if has_head("AutoModelForMaskedLM", model_type):
        return "mlm"
    if kind == "decoder":
        return "clm"
    remedy = "choose another model, or adapt nothing: adapt=none"
    raise UserError(f"adapt: a model of type '{model_type}' has no head for unlabelled text; {remedy}")


def architecture(model_type: str) -> Architecture:
    """Return what a task has to know of an architecture."""
    if has_head(ENCODER_DECODER, model_type):
        return Architecture(model_type, "encoder-decoder")
    # Encoders such as BERT have a causal head too, but attend to the very tokens that it would predict.
    is_encoder = has_head("AutoModelForMaskedLM", model_type)
    is_causal = has_head("AutoModelForCausalLM", model_type) and not is_encoder
    return Architecture(model_type, "decoder" if is_causal else "encoder")


def has_head(auto_class: str, model_type: str) -> bool:
    """Tell whether a transformers auto class, such as AutoModelForMaskedLM, loads models of an architecture."""
    from transformers.models.auto import modeling_auto

    return model_type in getattr(modeling_auto, auto_class)._model_mapping._model_mapping


def can_cross_attend(model_type: str) -> bool:
    """Tell whether the models of an architecture can be decoders with cross-attention, in an encoder-decoder of two."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    if not has_head("AutoModelForCausalLM", model_type) or has_head(ENCODER_DECODER, model_type):
        return False
    return hasattr(CONFIG_MAPPING[model_type], "add_cross_attention")
