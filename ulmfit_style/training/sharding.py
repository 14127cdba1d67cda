"""Weights, gradients and moments that are shared out among the processes, layer by layer (FSDP2; Zhao et al. 2023).

Phases, layer groups and whoever measures or saves a model know it by its parameters. So what is sharded, and trained,
is a copy of its structure; its own parameters hold nothing meanwhile, but where `whole` fills them. All processes have
to call these functions together.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer
from torch.utils._pytree import tree_map_only

from ulmfit_style.compute import processes
from ulmfit_style.models.layers import outer_lists

SHARES: dict[Any, dict[Any, Any]] = {}
"""The models that are sharded now: for each parameter, that of the copy, of which each process has its share."""


def shard(model: Any, optimizer: Optimizer) -> Any:
    """Return the sharded copy of a model, whose shares the optimizer steps from now on; what it saves stays whole."""
    copied = copy.deepcopy(model, {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())})
    for layers in outer_lists(copied):
        for layer in layers:
            fully_shard(layer)
    fully_shard(copied)
    shares = SHARES[model] = dict(zip(model.parameters(), copied.parameters(), strict=True))
    _empty(model)
    for group in optimizer.param_groups:
        group["params"] = [shares[weights] for weights in group["params"]]
    optimizer.register_state_dict_post_hook(lambda _, saved: tree_map_only(DTensor, _gathered, saved))
    optimizer.register_load_state_dict_post_hook(_share_state)
    return copied


@contextmanager
def whole(model: Any) -> Iterator[None]:
    """Fill the parameters of a model while the block runs; those of one that is not sharded are there anyway."""
    for weights, share in SHARES.get(model, {}).items():
        weights.data = share.detach().full_tensor()
    yield
    _empty(model)


def _empty(model: Any) -> None:
    """Leave one number of each parameter that is sharded; it is finite, as `require_weights` wants it."""
    for weights in SHARES.get(model, ()):
        weights.data = weights.new_zeros(1)


def _gathered(share: Any) -> Any:
    """Return the whole of a moment, in the process that saves it."""
    tensor = share.full_tensor()
    return tensor.cpu() if processes.is_main() else None


def _share_state(optimizer: Any) -> None:
    """Keep this process's share of the moments that an optimizer has loaded; its count of steps is a scalar."""
    for weights, state in optimizer.state.items():
        place = weights.device_mesh, weights.placements
        state.update({name: distribute_tensor(value, *place) for name, value in state.items() if value.dim()})
