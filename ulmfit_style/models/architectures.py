"""Which heads transformers has for which architectures; the library is imported when it is asked."""

from ulmfit_style.errors import UserError
from ulmfit_style.tasks.values import Architecture

ENCODER_DECODER = "AutoModelForSeq2SeqLM"
"""The auto class of encoder-decoders."""

MASKED_LM = "AutoModelForMaskedLM"
CAUSAL_LM = "AutoModelForCausalLM"

OWN = {"awd_lstm"}
"""The architectures of this package, which transformers learns of by `register`."""


def register() -> None:
    """Let transformers load what this package has: its architectures, and the pooled head on any body."""
    import ulmfit_style.models.awd_lstm  # noqa: F401  # which imports the pooled head


def language_model_class(model_type: str) -> str:
    """Return the auto class of the models of an architecture that learn from unlabelled text.

    Args:
        model_type: What a checkpoint's config.json calls its architecture, such as "bert".

    Raises:
        UserError: if there is none.
    """
    # The order counts: BART has all three heads, and BERT both of the others.
    for auto_class in (ENCODER_DECODER, MASKED_LM, CAUSAL_LM):
        if has_head(auto_class, model_type):
            return auto_class
    remedy = "choose another model, or adapt nothing: adapt=none"
    raise UserError(f"adapt: a model of type '{model_type}' has no head for unlabelled text; {remedy}")


def architecture(model_type: str) -> Architecture:
    """Return what a task has to know of an architecture."""
    if has_head(ENCODER_DECODER, model_type):
        return Architecture(model_type, "encoder-decoder")
    # Encoders such as BERT have a causal head too, but attend to the very tokens that it would predict.
    is_causal = has_head(CAUSAL_LM, model_type) and not has_head(MASKED_LM, model_type)
    return Architecture(model_type, "decoder" if is_causal else "encoder", _config_has(model_type, "carries_state"))


def has_head(auto_class: str, model_type: str) -> bool:
    """Tell whether a transformers auto class, such as AutoModelForMaskedLM, loads models of an architecture."""
    from transformers.models.auto import modeling_auto

    if model_type in OWN:
        register()
    mapping = getattr(modeling_auto, auto_class)._model_mapping
    return model_type in {*mapping._model_mapping, *(config.model_type for config in mapping._extra_content)}


def can_cross_attend(model_type: str) -> bool:
    """Tell whether the models of an architecture can be decoders with cross-attention, in an encoder-decoder of two."""
    if not has_head(CAUSAL_LM, model_type) or has_head(ENCODER_DECODER, model_type):
        return False
    return _config_has(model_type, "add_cross_attention")


def _config_has(model_type: str, field: str) -> bool:
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    return model_type in CONFIG_MAPPING and hasattr(CONFIG_MAPPING[model_type], field)
