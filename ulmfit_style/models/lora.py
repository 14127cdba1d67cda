"""Low-rank adapters (LoRA; Hu et al. 2021, section 4.1), for models that are too large for full fine-tuning."""

import re
import warnings
from typing import Any

from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from ulmfit_style.config.training import Training
from ulmfit_style.models.layers import EMBEDDINGS, HEAD, LayerGroups


def full_phase_title(options: Training) -> str:
    """Return the title of the phase that trains everything that is ever trained."""
    return "adapters and head" if options.lora_rank else "every weight"


def add_adapters(model: PreTrainedModel, layers: LayerGroups, options: Training) -> LayerGroups:
    """Put adapters into the linear layers of the body, if `lora_rank` asks for them; return the layer groups to train.

    These are the adapters of each layer, and the whole head. The model keeps its class and its answers: adapters begin
    at zero.

    Args:
        layers: The layer groups of the model.
    """
    if not options.lora_rank:
        return layers
    from peft import LoraConfig, inject_adapter_in_model

    inner = {title: parameters for title, parameters in layers.items() if title not in (EMBEDDINGS, HEAD)}
    title_of = {id(parameter): title for title, parameters in inner.items() for parameter in parameters}
    linear = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear | Conv1D)}
    titles = {name: title_of[id(each.weight)] for name, each in linear.items() if id(each.weight) in title_of}
    # An expression: of a list, peft would take modules whose names end in one of the names too.
    names = "|".join(map(re.escape, titles))
    config = LoraConfig(r=options.lora_rank, lora_alpha=options.lora_alpha, target_modules=names)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "fan_in_fan_out is set to")  # peft sets it as each layer needs it
        inject_adapter_in_model(config, model)
    trained = {title: parameters if title == HEAD else [] for title, parameters in layers.items()}
    for name, title in titles.items():
        module: Any = model.get_submodule(name)
        trained[title] += [*module.lora_A.parameters(), *module.lora_B.parameters()]
    return {title: parameters for title, parameters in trained.items() if parameters}


def merge(model: PreTrainedModel) -> None:
    """Add the adapters to the weights beside them, and remove them: the model is as plain as before."""
    from peft.tuners.lora import LoraLayer

    for name, module in list(model.named_modules()):
        if isinstance(module, LoraLayer):
            module.merge()
            model.set_submodule(name, module.get_base_layer())
    del model.peft_config
