"""doctor: what an issue should tell about this machine, in lines to paste into it.

No token and no folder outside the project is printed.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from rich.filesize import decimal

from ulmfit_style.analysis import agreement
from ulmfit_style.console import say
from ulmfit_style.models import embedded

PACKAGES = (
    "ulmfit-style",
    "torch",
    "transformers",
    "accelerate",
    "tokenizers",
    "huggingface_hub",
    "hydra-core",
    "pydantic",
    "scikit-learn",
    "numpy",
    "pyarrow",
)

TIMEOUT_SECONDS = 5


def run() -> None:
    """Print versions, hardware, what answers and what is installed, and whether two processes train as one does."""
    _line("python", f"{platform.python_version()} ({platform.python_implementation()})")
    _line("system", platform.platform())
    for name in PACKAGES:
        _line(name, _version(name))
    _line("cores", _cores())
    _line("memory", _memory())
    for device in _devices():
        _line("device", device)
    _line("disk", f"{decimal(shutil.disk_usage(Path.cwd()).free)} free here")
    _line("package index", _package_index())
    _line("Hub", _hub())
    _line("HF_TOKEN", "set" if os.environ.get("HF_TOKEN") else "not set")
    for state in embedded.states():
        _line("embedded", state)
    _line("two processes", agreement.told())


def _line(what: str, found: str) -> None:
    say(f"{what:16}{found}")


def _package_index() -> str:
    """Ask pip, for it knows which index the user has, and how to get there."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--retries=0", f"--timeout={TIMEOUT_SECONDS}"]
    try:
        ended = subprocess.run([*pip, "index", "versions", "pip"], capture_output=True, timeout=30, check=False)
    except subprocess.TimeoutExpired:
        return "does not answer"
    return "answers" if ended.returncode == 0 else "does not answer"


def _hub() -> str:
    from huggingface_hub import constants, get_session

    if constants.HF_HUB_OFFLINE:
        return f"{constants.ENDPOINT}: not asked (HF_HUB_OFFLINE)"
    try:
        get_session().head(constants.ENDPOINT, timeout=TIMEOUT_SECONDS)
    except Exception as error:  # whichever HTTP library it is, and whatever it raises
        return f"{constants.ENDPOINT}: does not answer ({type(error).__name__})"
    return f"{constants.ENDPOINT}: answers"


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _cores() -> str:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{os.cpu_count()}, {usable} of them usable"


def _memory() -> str:
    try:
        return decimal(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (ValueError, OSError):
        return "unknown"


def _devices() -> Iterator[str]:
    """Tell what torch computes on."""
    if importlib.util.find_spec("torch") is None:
        yield "torch is not installed"
        return
    import torch

    if torch.cuda.is_available():
        for number in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(number)
            bf16 = "bf16" if torch.cuda.is_bf16_supported() else "no bf16"
            yield f"cuda:{number} {properties.name}, {decimal(properties.total_memory)}, {bf16}"
    elif torch.backends.mps.is_available():
        yield "mps"
    else:
        yield f"cpu alone, {torch.get_num_threads()} threads"
