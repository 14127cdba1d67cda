"""Which heads transformers has for which architectures; the library is imported when it is asked."""

from collections.abc import Collection, Mapping
from functools import cache
from typing import Any

from ulmfit_style.artefacts.directory import installed
from ulmfit_style.errors import UserError, nearest, reworded
from ulmfit_style.models import embedded
from ulmfit_style.tasks.values import Architecture

ENCODER_DECODER = "AutoModelForSeq2SeqLM"
"""The auto class of encoder-decoders."""

ARCHITECTURES = "architectures.json"
"""In the user's cache."""

MASKED_LM = "AutoModelForMaskedLM"
CAUSAL_LM = "AutoModelForCausalLM"

OWN = {
    "awd_lstm": {CAUSAL_LM, "AutoModelForSequenceClassification", "AutoModelForTokenClassification"},
    "rnn": {ENCODER_DECODER},
}
"""The architectures of this package, and their auto classes; transformers learns of them by `register`.

The first carries its state from one part of a text to the next."""


def register() -> None:
    """Let transformers load what this package has: its architectures, and the pooled head on any body."""
    import ulmfit_style.models.awd_lstm  # which imports the pooled head
    import ulmfit_style.models.rnn  # noqa: F401


def require_fields(options: Mapping[str, Any]) -> None:
    """Check that the config of an architecture has all fields that are given, and takes their values.

    Args:
        options: Those of `model.architecture`.

    Raises:
        UserError: naming each field that it does not have, or what is wrong.
    """
    from transformers import AutoConfig

    register()
    model_type = options["model_type"]
    fields = AutoConfig.for_model(model_type).to_dict()
    if unknown := [name for name in options if name not in fields]:
        problem = f"a {model_type} has no such field"
        remedies = {name: nearest(name, fields) or "; leave it out" for name in unknown}
        raise UserError("\n".join(f"model.architecture.{name}: {problem}{remedies[name]}" for name in unknown))
    with reworded("model.architecture: cannot be built (", ValueError, TypeError, after=")"):
        AutoConfig.for_model(**options)


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
    return Architecture(model_type, "decoder" if is_causal else "encoder", model_type in OWN)


def has_head(auto_class: str, model_type: str) -> bool:
    """Tell whether a transformers auto class, such as AutoModelForMaskedLM, loads models of an architecture."""
    return model_type in _types(auto_class) or auto_class in OWN.get(model_type, ())


@cache
def _types(auto_class: str) -> Collection[str]:
    """Return the architectures that an auto class loads: kept in the user's cache, for transformers imports torch."""
    name = f"{auto_class} of transformers {installed('transformers')}"
    if name not in (known := embedded.kept(ARCHITECTURES)):
        from transformers.models.auto import modeling_auto

        known = {name: list(getattr(modeling_auto, auto_class)._model_mapping._model_mapping)}
        embedded.keep(ARCHITECTURES, known)
    return known[name]


def can_cross_attend(model_type: str) -> bool:
    """Tell whether the models of an architecture can be decoders with cross-attention, in an encoder-decoder of two."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    if model_type in OWN or not has_head(CAUSAL_LM, model_type) or has_head(ENCODER_DECODER, model_type):
        return False
    return hasattr(CONFIG_MAPPING[model_type], "add_cross_attention")
