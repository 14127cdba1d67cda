"""A phase that trains the head alone runs the frozen trunk once, and then trains on the outputs that are kept."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers.modeling_outputs import BaseModelOutputWithPoolingAndCrossAttentions

from ulmfit_style.console import say
from ulmfit_style.tasks.base import Task

if TYPE_CHECKING:
    from ulmfit_style.training.phases import TrainingData, TrainingPlan

MAX_BYTES = 1_000_000_000
"""What the outputs that are kept may take in the memory of each process."""


def kept_trunk(plan: TrainingPlan, number: int) -> AbstractContextManager[None]:
    """Return the context in which a phase is trained: a trunk that it freezes is run once, if that saves anything.

    In such a phase the head alone has dropout. Every process keeps all rows, because it gets others on each pass.
    """
    phase, data, model = plan.phases[number], plan.data_of(number), plan.model
    trunk: Any = model.base_model
    is_frozen = {id(weights) for weights in phase.trainable}.isdisjoint(map(id, trunk.parameters()))
    # Other objectives mask or draw the rows anew on each pass, and a decoder of its own reads the labels too.
    has_fixed_rows = isinstance(data.objective, Task) and not model.config.is_encoder_decoder
    has_several_passes = plan.steps(number) * plan.options.batch_size > len(data.rows)
    if not (plan.fast and is_frozen and has_fixed_rows and has_several_passes):
        return nullcontext()
    size = int(data.rows.lengths.sum()) * trunk.config.get_text_config().hidden_size * torch.float32.itemsize
    if size > MAX_BYTES:
        say(f"  {phase.title}: the frozen layers are run on every pass: their outputs would take {size / 1e9:.1f} GB")
        return nullcontext()
    say(f"  {phase.title}: the frozen layers are run once, and their outputs are kept")
    return _replaced(model, data)


@contextmanager
def _replaced(model: Any, data: TrainingData) -> Iterator[None]:
    """Run a model's trunk over all rows in `eval` mode, and replace it by its outputs while the block trains."""
    trunk, run = model.base_model, model.base_model.forward
    kept: dict[bytes, tuple[Tensor, Tensor | None]] = {}

    def keep(trunk: Any, arguments: Any, inputs: Any, outputs: Any) -> None:
        keys, mask = _keys_and_mask(*arguments, **inputs)
        tokens = outputs.last_hidden_state[mask].cpu().split(mask.sum(1).tolist())
        pooled: Any = outputs.get("pooler_output")
        has_pooler = pooled is not None and pooled.dim() == 2  # else there is none, or an identity
        summaries = pooled.cpu() if has_pooler else [None] * len(keys)
        kept.update(zip(keys, zip(tokens, summaries, strict=True), strict=True))

    def look_up(*arguments: Any, **inputs: Any) -> Any:
        if not trunk.training:  # other rows are scored on the way
            return run(*arguments, **inputs)
        keys, mask = _keys_and_mask(*arguments, **inputs)
        hidden, summaries = zip(*(kept[key] for key in keys), strict=True)
        tokens = torch.cat(hidden).to(mask.device)
        states = tokens.new_zeros(*mask.shape, tokens.shape[-1])
        states[mask] = tokens
        pooled = None if summaries[0] is None else torch.stack(summaries).to(mask.device)
        return BaseModelOutputWithPoolingAndCrossAttentions(last_hidden_state=states, pooler_output=pooled)

    # Always in the same batches, or a resumed phase would differ in the last digits.
    with trunk.register_forward_hook(keep, with_kwargs=True):
        data.run(model, data.by_length)
    trunk.forward = look_up
    try:
        yield
    finally:
        del trunk.forward


def _keys_and_mask(input_ids: Tensor, attention_mask: Tensor, **inputs: Any) -> tuple[list[bytes], Tensor]:
    """Return what tells rows apart, all that a trunk reads of their tokens, and where these stand, (batch, length)."""
    columns = [input_ids, *(value for value in inputs.values() if getattr(value, "shape", None) == input_ids.shape)]
    mask = attention_mask.bool()
    rows = torch.stack(columns, dim=-1).cpu()
    return [row[places].numpy().tobytes() for row, places in zip(rows, mask.cpu(), strict=True)], mask
