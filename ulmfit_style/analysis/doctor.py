"""doctor: what an issue should say about this machine, in lines to paste into it.

No token and no folder outside the project is printed.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from rich.filesize import decimal

from ulmfit_style.analysis import two_processes
from ulmfit_style.console import say
from ulmfit_style.errors import UserError
from ulmfit_style.models import embedded

PACKAGES = (
    *("ulmfit-style", "torch", "transformers", "accelerate", "tokenizers", "huggingface_hub"),
    *("hydra-core", "pydantic", "scikit-learn", "numpy", "pyarrow"),
)

TIMEOUT_SECONDS = 5

TWO_PROCESSES = "two_processes=true"
"""The option that trains a tiny model in one process and in two, which takes most of a minute."""


def run(arguments: Sequence[str]) -> None:
    """Print versions, hardware, what answers and what is installed; when asked, whether two processes train as one.

    Raises:
        UserError: if an argument is not `two_processes=true`.
    """
    for argument in arguments:
        if argument != TWO_PROCESSES:
            raise UserError(f"{argument}: is no option of doctor; it has one: {TWO_PROCESSES}")
    for name, value in _facts():
        say(f"{name:16}{value}")
    if arguments:
        say(f"{'two processes':16}{two_processes.compared()}")


def _facts() -> Iterator[tuple[str, str]]:
    yield "python", f"{platform.python_version()} ({platform.python_implementation()})"
    yield "system", platform.platform()
    for name in PACKAGES:
        yield name, _version(name)
    yield "cores", _cores()
    yield "memory", _memory()
    for device in _devices():
        yield "device", device
    yield "disk", f"{decimal(shutil.disk_usage(Path.cwd()).free)} free here"
    yield "package index", _package_index()
    yield "Hub", _hub()
    yield "HF_TOKEN", "set" if os.environ.get("HF_TOKEN") else "not set"
    for package in embedded.packages():
        yield "embedded", f"{package.name} {_version(package.name)}"


def _package_index() -> str:
    """Ask pip, for it knows which index the user has, and how to reach it."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--retries=0", f"--timeout={TIMEOUT_SECONDS}"]
    try:
        subprocess.run([*pip, "index", "versions", "pip"], capture_output=True, timeout=30, check=True)
    except subprocess.SubprocessError:
        return "does not answer"
    return "answers"


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
    """Yield what torch computes on."""
    try:
        import torch
    except ImportError:
        yield "torch is not installed"
        return
    for number in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(number)
        bf16 = "bf16" if torch.cuda.is_bf16_supported() else "no bf16"
        yield f"cuda:{number} {properties.name}, {decimal(properties.total_memory)}, {bf16}"
    if torch.backends.mps.is_available():
        yield "mps"
    elif not torch.cuda.is_available():
        yield f"cpu alone, {torch.get_num_threads()} threads"
