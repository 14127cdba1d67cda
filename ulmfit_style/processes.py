"""Which of several processes this one is, and what they agree on. With one process nothing is imported."""

from __future__ import annotations

import os
from typing import TypeVar

from ulmfit_style.errors import UserError

T = TypeVar("T")


def count() -> int:
    """Return how many processes train together, over all machines."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_main() -> bool:
    """Tell whether this process is the one that prints and writes."""
    return os.environ.get("RANK", "0") == "0"


def join() -> None:
    """Join the other processes, by NCCL on GPUs and by Gloo without.

    Raises:
        UserError: if they are not as many as the launcher said: each would train by itself.
    """
    if count() == 1:
        return
    import torch
    from accelerate import PartialState

    joined = PartialState(cpu=not torch.cuda.is_available()).num_processes
    if joined != count():
        raise UserError(f"{count()} processes were started, and {joined} found each other")


def leave() -> None:
    """Part from the other processes."""
    if count() > 1:
        from accelerate import PartialState

        PartialState().destroy_process_group()


def from_main(value: T) -> T:
    """Return the main process's value in every process."""
    if count() == 1:
        return value
    from accelerate.utils import broadcast_object_list

    values = [value]
    broadcast_object_list(values)
    return values[0]


def any_of(flag: bool) -> bool:
    """Tell, in every process alike, whether the flag is set in one of them."""
    if count() == 1:
        return flag
    from accelerate.utils import gather_object

    return any(gather_object([flag]))


def wait() -> None:
    """Wait until every process is here."""
    if count() > 1:
        from accelerate import PartialState

        PartialState().wait_for_everyone()
