"""Starts processes that train or answer together, and tells which of them this one is, and what they agree on.

With one process nothing is imported.
"""

import logging
import os
import platform
import re
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Literal, NoReturn, TypeVar

from ulmfit_style.errors import Interrupted, UserError

T = TypeVar("T")

Micro = int | Literal["auto"] | None
"""Texts of a forward pass; None for as many as the batch has for each process, "auto" for as many as memory holds."""

RUN_ID = "ulmfit-style"
"""What the launcher calls the processes that `start` starts."""

STOPPING = (signal.SIGINT, signal.SIGTERM)
"""The signals that stop a process."""

SAVING_SECONDS = 600
"""How long processes that are stopped may take to save."""

JOINING_SECONDS = 120
"""How long processes that are started together wait for each other."""


def start(count: int, module: str, arguments: Sequence[str]) -> None:
    """Start so many processes of `python -m module` on this machine, and wait for them.

    A signal that stops this process stops them too: they have time to save, unless it comes again.

    Raises:
        UserError: if one of them fails; what it said stands on standard error.
    """
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    # Without this each process would take every core, and they would wait for each other.
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // count)))
    logging.disable()  # torch's, on signals
    options = LaunchConfig(
        1,
        1,
        count,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        local_addr="localhost",  # the machine's own name need not be one that it knows
        run_id=RUN_ID,
        max_restarts=0,
        signals_to_handle="",  # `stoppable` does
        shutdown_timeout=SAVING_SECONDS,
    )
    try:
        elastic_launch(options, sys.executable)("-m", module, *arguments)
    except ChildFailedError as error:
        code = error.get_first_failure()[1].exitcode
        raise UserError(f"a process ended with exit code {code}; what it said stands above") from None
    finally:
        logging.disable(logging.NOTSET)


@contextmanager
def stoppable(signals: list[int]) -> Iterator[None]:
    """Raise KeyboardInterrupt on Ctrl-C and Interrupted on SIGTERM while the block runs; a second one ends it at once.

    Args:
        signals: Those that come are added.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        signals.append(number)
        for each in STOPPING:
            signal.signal(each, signal.SIG_DFL)
        raise KeyboardInterrupt if number == signal.SIGINT else Interrupted(number, "stopped")

    with handled_by(stop):
        yield


@contextmanager
def handled_by(stop: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Give the signals that stop a process to a function while the block runs; nothing is done outside the main thread.

    Args:
        stop: Called with the signal.
    """
    numbers = STOPPING if threading.current_thread() is threading.main_thread() else ()
    handlers = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def end_with_launcher() -> None:
    """End this process when the one that started it is gone: it would train on by itself."""

    def watch(launcher: int) -> None:
        while os.getppid() == launcher:
            time.sleep(1)
        os._exit(1)

    if count() > 1:
        threading.Thread(target=watch, args=[os.getppid()], daemon=True).start()


def count() -> int:
    """Return how many processes train together, over all machines."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def wanted(number: int | None) -> int:
    """Return how many processes are to train together: as many as are asked for, or were started, or there are GPUs."""
    if number is not None:
        return number
    import torch  # which a process that only starts others can do without

    return max(count(), torch.cuda.device_count())


def split(batch_size: int, micro_batch_size: Micro, texts: int = 1, among: int | None = None) -> tuple[int, int]:
    """Return the rows of a forward pass and the passes of an optimizer step, for each process.

    Args:
        batch_size: Texts of an optimizer step, over all processes.
        micro_batch_size: Texts of a forward pass; before it is known what memory holds, "auto" is as None.
        texts: The texts of a row.
        among: The processes; None for those that train together now.

    Raises:
        UserError: if the batch cannot be split so.
    """
    among = among or count()
    whole = batch_size // texts
    given = micro_batch_size if isinstance(micro_batch_size, int) else batch_size // among
    micro = max(1, given // texts)
    passes, rest = divmod(whole, micro * among)
    if rest or not whole:
        share = f"each of {among} processes reads {micro * texts} texts at once"
        raise UserError(f"batch_size={batch_size}: take a multiple of {micro * texts * among}, because {share}")
    return micro, passes


def rank() -> int:
    """Return the number of this process among all, from 0."""
    return int(os.environ.get("RANK", "0"))


def is_main() -> bool:
    """Tell whether this process is the one that prints and writes."""
    return rank() == 0


def is_started() -> bool:
    """Tell whether `start` started this process, and another waits for it to end."""
    return os.environ.get("TORCHELASTIC_RUN_ID") == RUN_ID


def machine() -> str:
    """Return the name of this machine and the number that the launcher gave it."""
    return f"machine {os.environ.get('GROUP_RANK', '0')} ({platform.node()})"


def join() -> None:
    """Join the other processes, by NCCL on GPUs and by Gloo without.

    Raises:
        UserError: if they do not meet, or are not as many as the launcher said: each would train by itself.
    """
    if count() == 1:
        return
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "FATAL")  # read when torch is imported; its errors are raised as well
    address, port = os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"]
    # By itself Gloo takes the address that the machine's own name has, which is often 127.0.1.1.
    with suppress(OSError):  # of which torch tells when it joins
        if (interface := interface_to(address)) is not None:
            os.environ.setdefault("GLOO_SOCKET_IFNAME", interface)
    import torch
    from accelerate import PartialState
    from torch.distributed import DistError, rendezvous  # type: ignore[attr-defined]

    # In a thread, for torch waits without end where something else listens, and hears no signal meanwhile.
    meeting = ThreadPoolExecutor(1).submit(next, rendezvous("env://"))
    try:
        store, rank, world_size = meeting.result(JOINING_SECONDS)
        # What torchrun starts meets at a place of its own; else a run of others may have met there.
        if "TORCHELASTIC_RUN_ID" not in os.environ and store.add("met", 1) > world_size:
            raise DistError("EADDRINUSE")
    except (DistError, TimeoutError) as error:
        if "EADDRINUSE" in str(error):
            raise UserError(f"MASTER_PORT={port}: another program has it; take another one, on all machines") from None
        remedy = "see what the others say, and whether it is machine 0"
        problem = f"the {count()} processes did not meet there in time; {remedy}"
        raise UserError(f"MASTER_ADDR={address} MASTER_PORT={port}: {problem}") from None
    found = PartialState(cpu=not torch.cuda.is_available(), store=store, rank=rank, world_size=world_size).num_processes
    if found != count():
        raise UserError(f"{count()} processes were started, and {found} found each other")


def interface_to(host: str) -> str | None:
    """Return the name of the network interface from which a host is reached: `eth0`; None where it has none.

    Raises:
        OSError: if the host has no address, or no interface leads to it.
    """
    import psutil

    family, kind, _, _, address = socket.getaddrinfo(host, 9, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, kind) as probe:
        probe.connect(address)  # which sends nothing
        own = probe.getsockname()[0]
    named = psutil.net_if_addrs().items()
    return next((name for name, addresses in named if own in {address.address for address in addresses}), None)


def is_loss(error: BaseException) -> bool:
    """Tell whether an error means that another process is gone, or the network to it."""
    import torch

    return isinstance(error, torch.distributed.DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error))


def address_in(error: BaseException) -> str:
    """Return the address of the process that an error of Gloo names, in brackets: ` (10.0.0.2)`; or nothing."""
    found = re.search(r"\[([\d.]+|[\da-f:]+)\]:\d+", str(error))
    return "" if found is None else f" ({found[1]})"


def leave() -> None:
    """Part from the other processes."""
    if count() > 1:
        from accelerate import PartialState

        PartialState().destroy_process_group()


def end(code: int) -> NoReturn:
    """End this process with an exit code, which the launcher is to see.

    Gloo's threads live until the interpreter is gone, and about one time in fifty they abort it on its way
    ("terminate called without an active exception"): several processes therefore end without Python's farewell. So does
    one that was stopped by a signal: with torch the farewell takes seconds.
    """
    if count() == 1 and code < 128:
        sys.exit(code)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def from_main(value: T) -> T:
    """Return the main process's value in every process."""
    return from_all(value)[0]


def from_all(value: T) -> list[T]:
    """Return the values of all processes, the main one's first, in every process."""
    if count() == 1:
        return [value]
    from accelerate.utils import gather_object

    return list(gather_object([value]))


def share(items: Sequence[T]) -> Sequence[T]:
    """Return this process's part of the items: every so many-th of them, so that long ones are spread."""
    return items[rank() :: count()]


def joined(results: Sequence[T]) -> list[T]:
    """Return, in every process, what all of them made of their shares, in the order of the items.

    Args:
        results: What this process made of its share.
    """
    shares = from_all(list(results))
    return [shares[place % len(shares)][place // len(shares)] for place in range(sum(map(len, shares)))]


def wait() -> None:
    """Wait until every process is here."""
    from_all(None)
