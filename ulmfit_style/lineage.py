"""What each stage of a config is made from, and so which artefact it means.

A command resolves its config once: what it reads is read and hashed when first asked for, and not again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import yaml

from ulmfit_style import processes
from ulmfit_style.artefacts.directory import LIBRARIES, MANIFEST, RECIPE, Artefact, device, read_json, versions
from ulmfit_style.config.schema import spelled
from ulmfit_style.config.stages import Corpus
from ulmfit_style.data import corpus, labelled
from ulmfit_style.data.corpus import Documents
from ulmfit_style.data.labelled import Labelled
from ulmfit_style.errors import UserError
from ulmfit_style.models import checkpoints
from ulmfit_style.models.checkpoints import Checkpoint
from ulmfit_style.recipe import Config
from ulmfit_style.tasks.base import Row, Task

MODEL_SECTIONS = ("model", "corpus", "pretrain", "adapt", "task", "finetune")
"""The sections of a config that determine a fine-tuned model, each after those that it builds on."""


class Reporter(Protocol):
    """Who is told the scores of a model while it is trained, where it is a trial of a sweep. It can be pickled."""

    metric: str
    """The score of the validation rows that is reported."""
    measurements: int
    """How many times, the last one at the end of the training."""

    def report(self, measurement: int, score: float) -> bool:
        """Take a score, and return whether the training shall stop; the first measurement is number 1."""


@dataclass(frozen=True)
class Stage:
    """A row of the table of stages. Its module is `ulmfit_style.stages.<name>` with dashes as underscores.

    The module of a stage that makes an artefact has `determinants(resolved)`, which returns what the result depends on
    as JSON values, and `run(step, directory)`, which fills the directory. It may have `steps(resolved, stages)`, where
    a plan takes other steps of it than one when it is typed. That of a command without an artefact has `run(resolved)`.
    Both may have `check(resolved, stages)`, which refuses wrong options before the data is read.
    """

    name: str
    help: str
    """What the command does, in a line."""
    reads: tuple[str, ...] = ()
    """The sections of the config whose options `--help` lists with the command."""
    makes: str = ""
    """What the artefact is, for messages: `fine-tuned model`."""
    version: int | None = None
    """The version of its results: raised whenever it would make something else of the same config. None: it makes no
    artefact."""
    starts_from: Callable[[Resolved], str | None] = lambda resolved: None
    """The stage whose artefact it starts from, by the config; None for the plain checkpoint."""
    is_typed: bool = True
    """Whether it is a command; else a plan takes it where others need it."""
    uses_ranks: bool = True
    """Whether several processes work on it together; else the main one does."""

    @property
    def module(self) -> ModuleType:
        """The stage's module, imported when it is first needed."""
        return import_module(f"ulmfit_style.stages.{self.name.replace('-', '_')}")

    def check(self, resolved: Resolved, stages: Sequence[str]) -> None:
        """Refuse wrong options, before the data is read."""
        if hasattr(self.module, "check"):
            self.module.check(resolved, stages)

    def steps(self, resolved: Resolved, stages: Sequence[str]) -> list[Step]:
        """Return the steps that it has in a plan of the stages that were typed."""
        if self.version is None or (self.is_typed and self.name not in stages):
            return []
        if hasattr(self.module, "steps"):
            return list(self.module.steps(self, resolved, stages))
        return [Step(self, resolved, f"{self.name}: {self.makes}")]


@dataclass(frozen=True)
class Step:
    """One artefact to make."""

    stage: Stage
    resolved: Resolved
    title: str
    role: str = ""
    """What the artefact is called in `runs/<name>/`; empty for the name of the stage."""
    reporter: Reporter | None = None

    @property
    def artefact(self) -> Artefact:
        """What the step makes."""
        return self.resolved.artefact(self.stage.name)

    @property
    def config(self) -> Config:
        """The config that the artefact is made by."""
        return self.resolved.config


class Resolved:
    """A config, with all that it reads and the artefacts that it means.

    Args:
        config: The config, in which what is named on the Hub has a commit.
        stages: The table of stages, by name.
    """

    def __init__(self, config: Config, stages: Mapping[str, Stage]) -> None:
        self.config, self.stages = config, stages
        self._artefacts: dict[str, Artefact] = {}

    def variant(self, **sections: Any) -> Resolved:
        """Return the config with other sections: `variant(adapt=None)`."""
        return Resolved(self.config.model_copy(update=sections), self.stages)

    def artefact(self, stage: str) -> Artefact:
        """Return the artefact that a stage makes, finished or not."""
        if stage not in self._artefacts:
            row = self.stages[stage]
            determinants = {"version": row.version, **row.module.determinants(self)}
            self._artefacts[stage] = Artefact(stage, determinants, self.config.runs)
        return self._artefacts[stage]

    @property
    def task(self) -> Task:
        """The task.

        Raises:
            UserError: if the config has none.
        """
        return required_task(self.config)

    @cached_property
    def rows(self) -> Labelled:
        """The labelled rows of the task, checked, split and sampled."""
        return labelled.load(self.task)

    @property
    def trained_rows(self) -> list[Row]:
        """The labelled rows that `finetune` trains on."""
        return self.rows.train if self.config.finetune.patience is None else self.rows.watched[0]

    @cached_property
    def corpus(self) -> Documents:
        """The documents that `adapt` reads."""
        return self._documents(self.config.corpus, "corpus.path")

    @cached_property
    def pretraining_text(self) -> Documents:
        """The documents that `pretrain` reads."""
        if self.config.pretrain is None or self.config.pretrain.path is None:
            return self.corpus
        source = self.config.corpus.model_copy(update={"path": self.config.pretrain.path})
        return self._documents(source, "pretrain.path")

    @cached_property
    def general_text(self) -> Documents | None:
        """The general text of `adapt`: what it replays, and held out what it measures forgetting on."""
        if self.config.adapt is None or self.config.adapt.general is None:
            return None
        return self._documents(Corpus(path=(self.config.adapt.general,), heldout_ratio=0.5), "adapt.general")

    def _documents(self, source: Corpus, option: str) -> Documents:
        return corpus.load(source, self.config.task, self.config.runs, option)

    @cached_property
    def start(self) -> Checkpoint:
        """What the recipe starts from: a checkpoint, a pretrained model, finished or not, or random weights."""
        return self._input_of("adapt")

    @cached_property
    def init(self) -> Checkpoint:
        """What fine-tuning starts from: the adapted model, finished or not, or what it would have been made from."""
        return self._input_of("finetune")

    def _input_of(self, stage: str) -> Checkpoint:
        before = self.stages[stage].starts_from(self)
        return (
            checkpoints.resolve(self.config.model, "model.checkpoint")
            if before is None
            else self._checkpoint_of(before)
        )

    def linked(self, stage: str) -> Path | None:
        """Return the finished artefact that `runs/<name>/<stage>` links to, if it was made by the same options.

        Nothing but its recipe is read.
        """
        link = self.config.runs / self.config.name / stage
        if not (link / MANIFEST).exists():
            return None
        recipe, made_by = self.config.recipe(), yaml.safe_load((link / RECIPE).read_text(encoding="utf-8"))
        same = all(recipe[section] == made_by.get(section) for section in _sections_of(stage))
        return link.resolve() if same else None

    def finetuned(self, named: str | None, option: str) -> Checkpoint:
        """Return the fine-tuned model: the config's, finished or not, or the one that an option names.

        Raises:
            UserError: if there is none of that name.
        """
        return self._checkpoint_of("finetune") if named is None else checkpoints.finetuned(named, option)

    def _checkpoint_of(self, stage: str) -> Checkpoint:
        artefact = self.artefact(stage)
        return Checkpoint(artefact.directory, {stage: artefact.fingerprint})


def required_task(config: Config) -> Task:
    """Return the task.

    Raises:
        UserError: if the config has none.
    """
    if config.task is None:
        raise UserError("task=none: there is nothing to fine-tune on; choose a task, for example task=rotten_tomatoes")
    return config.task


def require_finished(resolved: Resolved, stage: str, command: str) -> None:
    """Check that the artefact of a stage, which a command needs, is there.

    Raises:
        UserError: naming the command that makes it, and the nearest artefact that there is.
    """
    artefact, asking = resolved.artefact(stage), resolved.stages.get(command)
    if artefact.finished:
        return
    makes_more = asking is not None and asking.version is not None
    # Random weights are made by the way, when something is trained from them.
    commands = [*_makers(resolved, stage), *([command] if makes_more else [])] or ["finetune"]
    raise UserError(
        f"{command}: there is no {resolved.stages[stage].makes} for this config "
        f"({why_missing(artefact, resolved.config)}); run `{' '.join(commands)}` with the same options"
    )


def _makers(resolved: Resolved, stage: str) -> list[str]:
    """Return the commands that make the artefact of a stage, and of what it starts from where that is missing."""
    before = resolved.stages[stage].starts_from(resolved)
    missing = before is not None and not resolved.artefact(before).finished
    commands = _makers(resolved, before) if before is not None and missing else []
    return [*commands, stage] if resolved.stages[stage].is_typed else commands


def _sections_of(stage: str) -> tuple[str, ...]:
    """Return the sections that determine the artefact of a stage."""
    if stage in MODEL_SECTIONS:
        return MODEL_SECTIONS[: MODEL_SECTIONS.index(stage) + 1]
    return (*MODEL_SECTIONS, "evaluate")


def why_missing(artefact: Artefact, config: Config) -> str:
    """Say why an artefact is not there: it was not finished, or made with other options, or nothing like it was made.

    Args:
        config: The config that means this artefact.
    """
    if artefact.measured:
        return f"{artefact.directory} holds its scores, but a study did not keep its weights (study.keep_weights)"
    if artefact.directory.exists():
        return f"{artefact.directory} was begun, but not finished"
    nearest = _nearest(artefact, config.recipe())
    if nearest is None:
        return f"{artefact.directory} is not there"
    directory, differences = nearest
    return f"{artefact.directory} is not there; the nearest is {directory}: {', '.join(differences)}"


def made_with(artefact: Artefact, config: Config) -> str | None:
    """Say what an artefact was made with that is other now, and in no fingerprint; None where nothing is known to be.

    The device, and a number of processes that nobody gave, are compared where torch is imported anyway.
    """
    manifest, versions_now, device_now = read_json(artefact.directory / MANIFEST), versions(), device()
    pairs: list[tuple[str, Any, Any]] = [
        (f"{name} ", manifest["versions"][name], versions_now[name]) for name in LIBRARIES
    ]
    if device_now is not None and manifest["device"] is not None:
        pairs.append(("", manifest["device"], device_now))
    if artefact.stage in ("adapt", "finetune"):
        count = config.processes or (manifest["processes"] if device_now is None else processes.count())
        recipe = yaml.safe_load((artefact.directory / RECIPE).read_text(encoding="utf-8"))
        pairs.append(("processes=", manifest["processes"], count))
        pairs.append(("micro_batch_size=", recipe["micro_batch_size"], config.micro_batch_size))
    differences = [f"{name}{spelled(then)} (here {spelled(now)})" for name, then, now in pairs if then != now]
    return f"made with {', '.join(differences)}" if differences else None


def _nearest(artefact: Artefact, recipe: Mapping[str, Any]) -> tuple[Path, list[str]] | None:
    """Return the finished artefact of the same stage with the fewest differences, and these, in words.

    Of equally near ones it is the newest.

    Args:
        recipe: The recipe of the config that means `artefact`, to compare with those of the others.
    """
    candidates = []
    for manifest in artefact.runs.glob(f"{artefact.stage}-*/{MANIFEST}"):
        other_recipe = yaml.safe_load((manifest.parent / RECIPE).read_text(encoding="utf-8"))
        sections = _sections_of(artefact.stage)
        options = [line for key in sections for line in changes(other_recipe.get(key), recipe.get(key), key)]
        this, other = artefact.determinants, read_json(manifest)["determinants"]
        names = [name for name in {**this, **other} if this.get(name) != other.get(name)]
        differences = options or [f"what it was made from has changed: {', '.join(names)}"]
        candidates.append((len(differences), -manifest.stat().st_mtime, manifest.parent, differences))
    return min(candidates)[2:] if candidates else None


def changes(other: Any, this: Any, key: str) -> Iterator[str]:
    """Compare two values of recipes, all the way down, and say what differs."""
    if isinstance(other, dict) and isinstance(this, dict):
        for name in {**this, **other}:
            yield from changes(other.get(name), this.get(name), f"{key}.{name}")
    elif isinstance(other, dict) or isinstance(this, dict):
        yield f"{key}=none there" if other is None else f"{key}=none here"
    elif other != this:
        yield f"{key}={spelled(other)} there, {spelled(this)} here"
