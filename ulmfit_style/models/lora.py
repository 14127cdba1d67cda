"""Low-rank adapters (LoRA; Hu et al. 2021, section 4.1), for models that are too large to be tuned whole."""

from __future__ import annotations

import re
import warnings
from typing import Any

from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from ulmfit_style.config.stages import Training
from ulmfit_style.console import say
from ulmfit_style.errors import UserError
from ulmfit_style.models.layers import EMBEDDINGS, HEAD, LayerGroups


def full_phase_title(options: Training) -> str:
    """Return what a phase is called that thaws all that is trained."""
    return "adapters and head" if options.lora_rank else "every weight"


def add_adapters(model: PreTrainedModel, layers: LayerGroups, options: Training) -> LayerGroups:
    """Put an adapter into each linear layer of the body, if they are wanted, and return the layer groups to train.

    These are the adapters of each layer, and the head, whole. The model stays of its class, and says what it said:
    adapters begin at zero.

    Args:
        layers: The layer groups of the model.

    Raises:
        UserError: if no layer of the body is linear.
    """
    if not options.lora_rank:
        return layers
    from peft import LoraConfig, inject_adapter_in_model

    places = {
        id(parameter): title for title, own in layers.items() if title not in (EMBEDDINGS, HEAD) for parameter in own
    }
    titles = {
        name: places[id(module.weight)]
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | Conv1D) and id(module.weight) in places
    }
    if not titles:
        raise UserError(f"lora_rank={options.lora_rank}: no layer of the model is linear; take lora_rank=0")
    # An expression, for of a list peft takes what ends in one of the names too.
    names = "|".join(map(re.escape, titles))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "fan_in_fan_out is set to")  # it is then set as each layer needs it
        inject_adapter_in_model(
            LoraConfig(r=options.lora_rank, lora_alpha=options.lora_alpha, target_modules=names), model
        )
    result = {title: own if title == HEAD else [] for title, own in layers.items()}
    for name, title in titles.items():
        module: Any = model.get_submodule(name)
        result[title] += [*module.lora_A.parameters(), *module.lora_B.parameters()]
    trained, whole = (sum(parameter.numel() for own in some.values() for parameter in own) for some in (result, layers))
    say(f"  LoRA: {trained / 1e6:.3g} M of {whole / 1e6:.3g} M parameters are trained")
    return {title: own for title, own in result.items() if own}


def merge(model: PreTrainedModel) -> None:
    """Add the adapters to the weights that they stand beside, and take them out: it is as plain as it came."""
    from peft.tuners.lora import LoraLayer

    for name, module in list(model.named_modules()):
        if isinstance(module, LoraLayer):
            module.merge()
            model.set_submodule(name, module.get_base_layer())
    del model.peft_config
