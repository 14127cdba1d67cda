"""What is named on the Hub without a revision is pinned: to the commit that was first used in the folder `runs`."""

import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from ulmfit_style.artefacts.directory import lock_of, read_json, write_json
from ulmfit_style.config.section import Section
from ulmfit_style.config.training import Model
from ulmfit_style.console import say
from ulmfit_style.data import hub
from ulmfit_style.models import checkpoints
from ulmfit_style.recipe import Config
from ulmfit_style.tasks.files import Splits

PINS = "pins.json"
"""Within `runs`: the commit of each Hub id of a model, and of each `hub:<account>/<name>` of a data set."""


def pinned(config: Config) -> Config:
    """Return the config with a commit for all that it names on the Hub without a revision, in whichever section.

    So the same config means the same artefacts when the Hub moves on, and its recipe tells what was used. The model
    that `finetune.init` names is that of its directory, and nothing is adapted before it.

    Raises:
        UserError: if the Hub has no such checkpoint or file, or cannot be reached the first time.
    """
    # The name of a run may mean another model later, such as the one that is made of it.
    if (named := config.finetune.init) is not None:
        made = checkpoints.find_finetuned(named, "finetune.init", config.runs, is_single=True).resolve()
        finetune = config.finetune.model_copy(update={"init": str(config.runs / made.name)})
        config = config.model_copy(update={"finetune": finetune, "adapt": None})
    if config.model.checkpoint == "auto":
        from ulmfit_style.data import languages

        task = _pinned(config.runs, "task", config.task)
        config = config.model_copy(update={"model": languages.choose(config.model_copy(update={"task": task}))})
    return _pinned(config.runs, "", config)


def _pinned(runs: Path, option: str, value: Any) -> Any:
    """Return a value of the config, pinned all the way down; `option` is what the user sets it by.

    Mappings hold what an experiment tries: it is pinned when the config of a trial is.
    """
    if isinstance(value, str):
        return _reference(runs, option, value) if re.match(rf"{hub.PREFIX}\S+/", value) else value
    if isinstance(value, (tuple, list)):
        return type(value)(_pinned(runs, option, item) for item in value)
    if not isinstance(value, Section):
        return value
    changes: dict[str, Any] = dict(_revisions(runs, option, value) if isinstance(value, Model) else ())
    for name, part in value:
        inner = value.option(name) if isinstance(value, Splits) else f"{option}.{name}".removeprefix(".")
        if (pinned_part := _pinned(runs, inner, part)) != part:
            changes[name] = pinned_part
    return value.model_copy(update=changes) if changes else value


def _revisions(runs: Path, option: str, model: Model) -> Iterator[tuple[str, str]]:
    """Yield the commits of a checkpoint and of its decoder, by their fields, if the Hub has them and none is named."""
    parts = {"revision": ("checkpoint", model), "decoder_revision": ("decoder", model.decoder_checkpoint())}
    for field, (name, part) in parts.items():
        if part is not None and part.revision is None and checkpoints.is_on_hub(part):
            newest = partial(checkpoints.commit, part, f"{option}.{name}")
            yield field, _commit(runs, f"{option}.{name}", part.title(), newest)


def _reference(runs: Path, option: str, reference: str) -> str:
    """Return a reference to a file of the Hub with its commit."""
    file = hub.parse(option, reference)
    if file.revision is not None:
        return reference
    name = f"{hub.PREFIX}{file.repository}"
    return f"{name}@{_commit(runs, option, name, partial(hub.commit, option, reference))}/{file.name}"


def _commit(runs: Path, option: str, name: str, newest: Callable[[], str]) -> str:
    """Return the commit that a name is pinned to; the first time it is the newest."""
    path = runs / PINS
    with lock_of(path):
        pins: dict[str, str] = read_json(path) if path.exists() else {}
        if name not in pins:
            pins[name] = newest()
            say(f"{option}={name}: pinned to its commit {pins[name][:8]} ({path})")
            write_json(path, pins)
    return pins[name]
