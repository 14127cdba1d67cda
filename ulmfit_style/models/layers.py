"""The layer groups of a model: which parameters are trainable together, and learn at one rate (ULMFiT, section 3)."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from torch import nn
from transformers import PreTrainedModel

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
