"""What this process computes on, and in which memory."""

import ctypes
import os
import sys

from ulmfit_style.compute import processes


def device() -> str | None:
    """Return what this process computes on, and in bf16 or not unless told otherwise; None before torch is imported."""
    torch = sys.modules.get("torch")
    if torch is None:
        return None
    if torch.cuda.is_available():
        return f"cuda {torch.cuda.get_device_name()}, {'bf16' if torch.cuda.is_bf16_supported() else 'fp32'}"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def see_one_gpu() -> None:
    """Hide all GPUs but the first where one process trains: the Trainer would split every batch over them."""
    if processes.count() == 1:
        os.environ["CUDA_VISIBLE_DEVICES"] = os.environ.get("CUDA_VISIBLE_DEVICES", "0").partition(",")[0]


def set_memory(*, keep: bool) -> None:
    """Let the C library keep the memory that one step frees for the next, or give it back and ask again.

    A step frees and fetches hundreds of megabytes, each page of which the system has to find and to clear. But what is
    kept of weights that are gathered layer by layer is as much as all of them.
    """
    if sys.platform == "linux" and (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)):  # musl has none
        most_mapped, map_from, trim_threshold = -4, -3, -1
        for option, value in ({most_mapped: 0, trim_threshold: -1} if keep else {map_from: 2**18}).items():
            mallopt(option, value)
