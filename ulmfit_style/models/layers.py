"""The layer groups of a model: which parameters are trainable together, and learn at one rate (ULMFiT, section 3).

Low-rank adapters (LoRA; Hu et al. 2021, section 4.1) stand in for those of models that are too large to tune whole.
"""

import re
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from ulmfit_style.config.training import Training

EMBEDDINGS, HEAD = "embeddings", "head"

LayerGroups = Mapping[str, list[nn.Parameter]]
"""The parameters of each layer group, from the embeddings up to the head."""


def layer_groups(model: PreTrainedModel, missing: Collection[str]) -> LayerGroups:
    """Return the layer groups, which hold every parameter once.

    The head is every parameter outside the body, and those of the body that the checkpoint lacked. A body has a list of
    layers. What stands before it belongs to the embeddings, as do embeddings anywhere outside the layers (DeBERTa's
    relative positions); what stands after it (a final norm, a pooler) belongs to the last layer, with which it was
    pretrained. Tied weights (the decoder of a masked language model) belong to the embeddings, and layers that share
    their weights (ALBERT) are one. A group without parameters is left out: a tied head may have none.

    Args:
        missing: Names of the parameters that `from_pretrained` did not find, and initialised.
    """
    bodies = [model.base_model]
    if model.config.is_encoder_decoder:  # without a head of their own, as the decoder of an EncoderDecoderModel has one
        bodies = [model.get_encoder().base_model, model.get_decoder().base_model]
    title_of: dict[int, str] = {}
    titles = [EMBEDDINGS]
    for body in bodies:
        layers = max(outer_lists(body), key=len, default=())
        inside: dict[int, str] = {}
        for number, layer in enumerate(layers, start=len(titles)):
            inside |= {id(parameter): f"layer {number}" for parameter in layer.parameters()}
        looked_up = {id(module.weight) for module in body.modules() if isinstance(module, nn.Embedding)} - set(inside)
        title = EMBEDDINGS
        for parameter in body.parameters():
            title = inside.get(id(parameter), title)
            title_of.setdefault(id(parameter), EMBEDDINGS if id(parameter) in looked_up else title)
        titles += dict.fromkeys(inside.values())
    groups: dict[str, list[nn.Parameter]] = {title: [] for title in [*titles, HEAD]}
    for name, parameter in model.named_parameters():
        groups[HEAD if name in missing else title_of.get(id(parameter), HEAD)].append(parameter)
    return {title: parameters for title, parameters in groups.items() if parameters}


def outer_lists(model: nn.Module) -> list[nn.ModuleList]:
    """Return the lists of modules that are in no other list."""
    lists = [module for module in model.modules() if isinstance(module, nn.ModuleList)]
    inner = {id(module) for outer in lists for module in outer.modules() if module is not outer}
    return [layers for layers in lists if id(layers) not in inner]


def split_by_layer(groups: Sequence[Mapping[str, Any]], layers: LayerGroups, decay: float) -> Iterator[dict[str, Any]]:
    """Split an optimizer's parameter groups by layer groups; each part has its own `lr`, and its title as `layer`.

    The head comes first: the Trainer logs the rate of the first part.

    Args:
        decay: The factor by which the rate of each group is lower than that of the one above.
    """
    for depth, (title, parameters) in enumerate(reversed(list(layers.items()))):
        members = set(map(id, parameters))
        for group in groups:
            if params := [parameter for parameter in group["params"] if id(parameter) in members]:
                yield {**group, "params": params, "lr": group["lr"] / decay**depth, "layer": title}


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


def merge_adapters(model: PreTrainedModel) -> None:
    """Add the adapters to the weights beside them, and remove them: the model is as plain as before."""
    from peft.tuners.lora import LoraLayer

    for name, module in list(model.named_modules()):
        if isinstance(module, LoraLayer):
            module.merge()
            model.set_submodule(name, module.get_base_layer())
    del model.peft_config
