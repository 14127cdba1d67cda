"""doctor: what an issue should say about this machine, in lines to paste into it.

No token and no folder outside the project is printed.
"""

import os
import platform
from collections.abc import Iterator, Sequence
from contextlib import suppress

from rich.filesize import decimal

from ulmfit_style.artefacts.directory import LIBRARIES, installed, versions
from ulmfit_style.compute.devices import device
from ulmfit_style.console import say
from ulmfit_style.errors import UserError
from ulmfit_style.models import embedded

PACKAGES = (*LIBRARIES, "huggingface_hub", "hydra-core", "pydantic", "numpy", "pyarrow")

TIMEOUT_SECONDS = 5


def run(arguments: Sequence[str]) -> None:
    """Print versions, hardware, what answers and what is installed.

    Raises:
        UserError: if there is an argument.
    """
    if arguments:
        raise UserError(f"{arguments[0]}: doctor has no options; leave it out")
    for name, value in _facts():
        say(f"{name:16}{value}")


def _facts() -> Iterator[tuple[str, str]]:
    yield "system", platform.platform()
    yield from versions(PACKAGES).items()
    yield "cores", str(os.cpu_count())
    yield "memory", decimal(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    with suppress(ImportError):
        import torch

        for number in range(torch.cuda.device_count()):
            gpu = torch.cuda.get_device_properties(number)
            yield f"cuda:{number}", f"{gpu.name}, {decimal(gpu.total_memory)}"
    yield "device", device() or "torch cannot be imported"
    yield "Hub", _hub()
    yield "HF_TOKEN", "set" if os.environ.get("HF_TOKEN") else "not set"
    for package in embedded.packages():
        yield "embedded", f"{package.name} {installed(package.name)}"


def _hub() -> str:
    from huggingface_hub import constants, get_session

    try:
        get_session().head(constants.ENDPOINT, timeout=TIMEOUT_SECONDS)
    except Exception as error:  # whichever HTTP library it is, and whatever it raises
        return f"{constants.ENDPOINT}: does not answer ({type(error).__name__})"
    return f"{constants.ENDPOINT}: answers"
