"""What is named on the Hub without a revision is pinned: to the commit that was first used in the folder `runs`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from ulmfit_style.artefacts.directory import lock_of, read_json, write_json
from ulmfit_style.console import say
from ulmfit_style.data import hub
from ulmfit_style.models import checkpoints
from ulmfit_style.recipe import Config

PINS = "pins.json"
"""Within `runs`: the commit of each Hub id of a model, and of each `hub:<account>/<name>` of a data set."""


def pinned(config: Config) -> Config:
    """Return the config with a commit for all that it names on the Hub without a revision.

    So the same config means the same artefacts when the Hub moves on, and its recipe tells what was used.

    Raises:
        UserError: if the Hub has no such checkpoint or file, or cannot be reached the first time.
    """
    changes: dict[str, Any] = {}
    if config.model.revision is None and checkpoints.is_on_hub(config.model):
        found = partial(checkpoints.commit, config.model)
        commit = _commit(config.runs, "model.checkpoint", config.model.title(), found)
        changes["model"] = config.model.model_copy(update={"revision": commit})
    if (decoder := config.model.decoder_checkpoint()) and decoder.revision is None and checkpoints.is_on_hub(decoder):
        found = partial(checkpoints.commit, decoder, "model.decoder")
        commit = _commit(config.runs, "model.decoder", decoder.title(), found)
        changes["model"] = changes.get("model", config.model).model_copy(update={"decoder_revision": commit})
    if config.corpus.path is not None:
        paths = tuple(_reference(config.runs, "corpus.path", path) for path in config.corpus.path)
        changes["corpus"] = config.corpus.model_copy(update={"path": paths})
    if config.pretrain is not None and config.pretrain.path is not None:
        paths = tuple(_reference(config.runs, "pretrain.path", path) for path in config.pretrain.path)
        changes["pretrain"] = config.pretrain.model_copy(update={"path": paths})
    if config.task is not None:
        splits = config.task.path
        files = {split: _reference(config.runs, splits.option(split), path) for split, path in splits.files().items()}
        changes["task"] = config.task.model_copy(update={"path": splits.model_copy(update=files)})
    if config.evaluate.path is not None:
        path = _reference(config.runs, "evaluate.path", config.evaluate.path)
        changes["evaluate"] = config.evaluate.model_copy(update={"path": path})
    return config.model_copy(update=changes)


def _reference(runs: Path, option: str, reference: str) -> str:
    """Return a reference to a file with its commit, where it is one to the Hub that has none."""
    if not reference.startswith(hub.PREFIX) or (file := hub.parse(option, reference)).revision is not None:
        return reference
    name = f"{hub.PREFIX}{file.repository}"
    return f"{name}@{_commit(runs, option, name, partial(hub.commit, option, reference))}/{file.name}"


def _commit(runs: Path, option: str, name: str, found: Callable[[], str]) -> str:
    """Return the commit that a name is pinned to; the first time it is the one that is found now."""
    path = runs / PINS
    if path.exists() and name in (pins := read_json(path)):
        return str(pins[name])
    commit = found()
    runs.mkdir(parents=True, exist_ok=True)
    with lock_of(path):
        pins = read_json(path) if path.exists() else {}
        if name not in pins:
            say(f"{option}={name}: pinned to its commit {commit[:8]} ({path})")
            write_json(path, pins := {**pins, name: commit})
    return str(pins[name])
