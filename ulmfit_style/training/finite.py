"""Numbers that are not finite end a run where they arise, before they are saved or scored."""

import math
from collections.abc import Sequence
from typing import Any

from ulmfit_style.errors import UserError, listed

REMEDY = "try a lower learning_rate or a longer warmup_ratio"


def require_weights(model: Any, when: str) -> None:
    """Check all weights of a model; `when` begins the message.

    Raises:
        UserError: if some are infinite or not a number.
    """
    # By their extremes: torch.isfinite is slower by a factor of 20.
    weights = dict(model.named_parameters())
    if bad := [name for name, weight in weights.items() if not all(map(math.isfinite, weight.detach().aminmax()))]:
        raise UserError(f"{when}: {len(bad)} of {len(weights)} weight tensors are not finite ({bad[0]}); {REMEDY}")


def require_logits(places: Sequence[str], model: Any, inputs: Any, output: Any) -> None:
    """Check the logits that a model returned for rows: a forward hook, once it has the places of the rows.

    Raises:
        UserError: naming the rows, if some are not a number or infinite; minus infinity rules an answer out.
    """
    for name in [name for name in output if "logits" in name]:
        if not (output[name] < math.inf).all():  # nor is NaN
            raise UserError(f"the model's {name} are not finite on {listed(places)}; look at the rows and its weights")
