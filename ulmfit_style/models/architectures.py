"""Which heads transformers has for which architectures.

They are read from the library's source, for importing it would import torch.
"""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Literal

from ulmfit_style.errors import UserError
from ulmfit_style.tasks.models import Architecture

ENCODER_DECODER = "AutoModelForSeq2SeqLM"
"""The auto class of encoder-decoders."""


def objective(name: str, model_type: str, option: str = "adapt.objective") -> Literal["mlm", "clm", "denoising"]:
    """Return the objective that an option names, or for `auto` that of the architecture.

    Args:
        model_type: What a checkpoint's config.json calls its architecture, such as "bert".

    Raises:
        UserError: if the architecture has no head for it.
    """
    own: Literal["mlm", "clm", "denoising"] | None = None
    if is_encoder_decoder(model_type):
        own = "denoising"  # BART has a head for masked words too, which is the same
    elif has_head("AutoModelForMaskedLM", model_type):
        own = "mlm"
    elif is_causal(model_type):
        own = "clm"
    if own is not None and name in ("auto", own):
        return own
    able = own or "none of mlm, clm and denoising"
    remedy = "leave it at auto" if own else "choose another model, or adapt nothing: adapt=none"
    raise UserError(f"{option}={name}: a model of type '{model_type}' has {able}; {remedy}")


def architecture(model_type: str) -> Architecture:
    """Return what a task has to know of an architecture."""
    if is_encoder_decoder(model_type):
        return Architecture(model_type, "encoder-decoder")
    return Architecture(model_type, "decoder" if is_causal(model_type) else "encoder")


def is_causal(model_type: str) -> bool:
    """Tell whether the models of an architecture read from left to right."""
    # Encoders such as BERT have a causal head too, but attend to the very tokens that it would predict.
    others = has_head("AutoModelForMaskedLM", model_type) or is_encoder_decoder(model_type)
    return has_head("AutoModelForCausalLM", model_type) and not others


def is_encoder_decoder(model_type: str) -> bool:
    """Tell whether the models of an architecture are an encoder and a decoder."""
    return has_head(ENCODER_DECODER, model_type)


def has_head(auto_class: str, model_type: str) -> bool:
    """Tell whether a transformers auto class, such as AutoModelForMaskedLM, loads models of an architecture."""
    return model_type in _table(auto_class)


def can_cross_attend(model_type: str) -> bool:
    """Tell whether the models of an architecture can be decoders with cross-attention, in an encoder-decoder of two."""
    path = _models() / model_type.replace("-", "_") / f"modeling_{model_type.replace('-', '_')}.py"
    writes = has_head("AutoModelForCausalLM", model_type) and not is_encoder_decoder(model_type)
    return writes and path.exists() and "add_cross_attention" in path.read_text(encoding="utf-8")


def is_loaded_by(auto_class: str, architecture: str) -> bool:
    """Tell whether an auto class loads the models of a class, such as BertForMaskedLM, with the head that they have."""
    return architecture in _table(auto_class).values()


@cache
def _table(auto_class: str) -> dict[str, str]:
    """Return the class that an auto class loads, of each architecture that it knows."""
    # `class AutoModelForX: _model_mapping = MODEL_FOR_X_MAPPING`, and `MODEL_FOR_X_MAPPING_NAMES = OrderedDict([...])`
    (own,) = (node.body for node in _source() if isinstance(node, ast.ClassDef) and node.name == auto_class)
    (pairs,) = _assigned(_source(), f"{ast.unparse(*_assigned(own, '_model_mapping'))}_NAMES")
    assert isinstance(pairs, ast.Call)
    return dict(ast.literal_eval(pairs.args[0]))


def _models() -> Path:
    package = importlib.util.find_spec("transformers")
    assert package is not None  # a dependency
    assert package.origin is not None
    return Path(package.origin).with_name("models")


@cache
def _source() -> list[ast.stmt]:
    return ast.parse((_models() / "auto" / "modeling_auto.py").read_text(encoding="utf-8")).body


def _assigned(body: Sequence[ast.stmt], name: str) -> list[ast.expr]:
    """Return what a name is given in a body."""
    return [line.value for line in body if isinstance(line, ast.Assign) and ast.unparse(line.targets[0]) == name]
