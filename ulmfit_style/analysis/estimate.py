"""What steps will take: time, memory and disk, by what the last ones of their kind took on this machine."""

import math
import os
import shutil
import sys
import timeit
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import psutil

from ulmfit_style.artefacts.directory import MANIFEST, installed, machine, read_json
from ulmfit_style.artefacts.fingerprint import digest
from ulmfit_style.config.section import sections_of
from ulmfit_style.console import duration
from ulmfit_style.data.guard import BYTES_PER_TOKEN
from ulmfit_style.models import checkpoints, embedded
from ulmfit_style.resolved import Resolved, Step
from ulmfit_style.results.parts import Size
from ulmfit_style.tasks.base import Row

TIMES = "times.json"
"""In the user's cache: the last steps of each kind, each as a `Timed`."""

KEPT = 20
"""Steps of each kind that are kept."""

USEFUL = 0.7
"""The part of the rate of a matrix product that training reaches, by all weights, where no step was timed yet."""

LIBRARIES, TRAINED, GOES_ON = 10**9, 4, 9
"""Bytes of memory without the model; how often its weights are there while it is trained, with gradient and moments;
and how often in the checkpoints that a stage can go on from, up to three at a time."""


EXPORTED = 1.3
"""How often its weights are in the files of `export`: in 32 bits and in 8."""


class Timed(NamedTuple):
    """What a finished step took."""

    work: float
    """What its stage's `work` returned."""
    seconds: float
    memory: int
    """The most bytes that its process ever had."""


def tokens(resolved: Resolved, rows: Iterable[Row]) -> float:
    """Return about how many tokens the texts of rows have, as `finetune` cuts them, where it does."""
    sizes = (len(text.encode(errors="surrogatepass")) for row in rows for text in resolved.task.texts(row))
    most = resolved.config.finetune.max_length if resolved.task.long_texts.startswith("cut") else math.inf
    return sum(min(size / BYTES_PER_TOKEN, most) for size in sizes)


def needs(steps: Sequence[Step]) -> str:
    """Return what steps that are still to be made need, in words."""
    expected, kinds = seconds(steps), [_timed(step) for step in steps]
    guessed = "" if all(kinds) else " (a guess: no step of the kind was timed on this machine yet)"
    lasts = "an unknown time" if expected is None else f"about {duration(expected)}{guessed}"
    models = [step for step in steps if step.stage.name in ("pretrain", "adapt", "finetune")]
    size = max(map(_size, models), default=0)
    if models and not size and guessed:
        return "an unknown amount of time, memory and disk: no step of a new model was timed on this machine yet"
    memory = Size(max([timed.memory for kind in kinds for timed in kind], default=LIBRARIES + TRAINED * size))
    exported = sum(EXPORTED * _size(step) for step in steps if step.stage.name == "export")
    disk = Size(10**6 + size * (sum(step.is_kept for step in models) + GOES_ON) * bool(models) + exported)
    runs = steps[0].config.runs.absolute()
    free = Size(shutil.disk_usage(next(folder for folder in (runs, *runs.parents) if folder.exists())).free)
    there = f"{Size(psutil.virtual_memory().available)} and {free} are free"
    return f"{lasts}, {memory} of memory and at most {disk} on the disk ({there})"


def seconds(steps: Iterable[Step]) -> float | None:
    """Return how long it takes to make steps; None where nothing tells it."""
    expected = [_seconds(step) for step in steps]
    return None if None in expected else sum(filter(None, expected))


def record(step: Step) -> None:
    """Keep what a step took that was just made."""
    timed = Timed(_work(step), read_json(step.artefact.directory / MANIFEST)["seconds"], _most_memory())
    embedded.keep(TIMES, {_kind(step): [*_timed(step), timed][-KEPT:]})


def _most_memory() -> int:
    """Return the most bytes that this process ever had."""
    if sys.platform == "win32":
        return int(psutil.Process().memory_info().peak_wset)
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _seconds(step: Step) -> float | None:
    work = 1 + _work(step)
    if timed := _timed(step):
        nearest = min(reversed(timed), key=lambda other: abs(math.log(work / (1 + other.work))))
        return nearest.seconds * work / (1 + nearest.work)
    if sys.platform == "darwin" or Path("/dev/nvidia0").exists() or not _size(step):
        return None  # another device trains than this one, or a model whose size is not known yet
    return 2 * _size(step) / 4 * work / (USEFUL * _rate())


@cache
def _rate() -> float:
    """Return the operations a second of this machine in a matrix product."""
    matrix = np.ones((400, 400), np.float32)
    return 2 * 400**3 / min(timeit.repeat(lambda: matrix @ matrix, number=1, repeat=50))


def _work(step: Step) -> float:
    return step.stage.module.work(step.resolved) if hasattr(step.stage.module, "work") else 0


def _timed(step: Step) -> list[Timed]:
    return [Timed(*values) for values in embedded.kept(TIMES).get(_kind(step), ())]


def _kind(step: Step) -> str:
    """Return what is the same for steps of one speed, but for their work."""
    config, stage = step.config, step.stage.name
    task = type(config.task).__name__ if "task" in sections_of(stage) else ""
    model = config.evaluate.model if stage == "evaluate" else config.model.architecture
    here = [machine(), os.environ.get("OMP_NUM_THREADS"), config.processes, installed("torch")]
    return digest([stage, task, model, _size(step), *here])[:16]


def _size(step: Step) -> int:
    """Return the bytes of a checkpoint in single precision, as it is trained; 0 where there is none."""
    if step.config.model.checkpoint is None:
        return 0
    directory = checkpoints.resolve(step.config.model, "model.checkpoint").directory
    is_half = "float16" in (directory / "config.json").read_text(encoding="utf-8")
    return sum(path.stat().st_size for path in directory.glob("*.safetensors")) * (2 if is_half else 1)
