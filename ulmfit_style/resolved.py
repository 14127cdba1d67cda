"""Stages, steps, and a config resolved to its data and artefacts.

A command resolves its config once: what it reads is read and hashed when first asked for, and not again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Protocol

from pydantic import ValidationError

from ulmfit_style import auto
from ulmfit_style.artefacts import differences, predictions
from ulmfit_style.artefacts.directory import MANIFEST, RECIPE, Artefact, is_finished, read_json, require_intact
from ulmfit_style.cli import CONF
from ulmfit_style.config.section import sections_of
from ulmfit_style.config.training import Adapt, Corpus, Finetune, Model, Pretrain
from ulmfit_style.console import say_once
from ulmfit_style.errors import UserError
from ulmfit_style.models import architectures, checkpoints
from ulmfit_style.recipe import Config, read
from ulmfit_style.tasks.base import Task

if TYPE_CHECKING:
    from ulmfit_style.data.corpus import Documents
    from ulmfit_style.data.guard import Findings
    from ulmfit_style.data.labelled import Labelled
    from ulmfit_style.data.rows import Rows


class Reporter(Protocol):
    """Takes the scores of a model while it is trained, if it is a trial of a sweep. It can be pickled."""

    metric: str
    """The score of the validation rows that is reported."""
    measurements: int
    """How many times, the last one at the end of the training."""

    def report(self, measurement: int, score: float) -> bool:
        """Take a score, and return whether the training should stop; the first measurement is number 1."""


@dataclass(frozen=True)
class Stage:
    """A row of the table of stages. Its module is `ulmfit_style.stages.<name>`.

    The module of a stage that makes an artefact has `determinants(resolved)`, which returns what the result depends on
    as JSON values, and `run(step, directory)`, which fills the directory. It may have `starts_from(resolved)`, which
    returns the stage that it goes on from, if it does; `own(resolved)`, which returns the config that it works by,
    where a model that is named has a part in it; `steps(stage, resolved, stages)`, if a plan takes other steps of it
    than one when it is a command; `summarise(resolved, name)`, which prints the results after all steps; and
    `work(resolved)`, how many tokens pass through the model, those that it learns from three times, by which it is
    foretold how long it takes. The module of a command without an artefact has `run(resolved)`. Both may have
    `check(resolved, stages)`, which refuses wrong options before the data is read.
    """

    name: str
    help: str = ""
    """What the command does, in a line."""
    help_sections: Sequence[str] = ()
    """The sections of the config, beside that of its name, whose options `--help` lists with the command."""
    noun: str = ""
    """What the artefact is, for messages: `fine-tuned model`."""
    version: int | None = None
    """The version of its results: raised whenever it would make something else of the same config. None: it makes no
    artefact."""
    is_command: bool = True
    """Whether it is a command, on which several processes work together; else it belongs to the plans of others, and
    the main process makes it."""

    @property
    def module(self) -> ModuleType:
        """The stage's module, imported when it is first needed."""
        return import_module(f"ulmfit_style.stages.{self.name}")

    @property
    def makes_artefact(self) -> bool:
        """Whether it fills a directory; else it is a command on what others made."""
        return self.version is not None

    def own(self, resolved: Resolved) -> Resolved:
        """Return the config that it works by, such as that of a model which is named."""
        return self.module.own(resolved) if hasattr(self.module, "own") else resolved

    def starts_from(self, resolved: Resolved) -> str | None:
        """Return the stage whose artefact it starts from, by the config; None for the plain checkpoint."""
        return self.module.starts_from(resolved) if hasattr(self.module, "starts_from") else None

    def check(self, resolved: Resolved, stages: Sequence[str]) -> None:
        """Refuse wrong options, before the data is read."""
        if hasattr(self.module, "check"):
            self.module.check(self.own(resolved), stages)

    def steps(self, resolved: Resolved, stages: Sequence[str]) -> list[Step]:
        """Return the steps that it has in a plan of the stages that were asked for."""
        if not self.makes_artefact or (self.is_command and self.name not in stages):
            return []
        steps = [Step(self, self.own(resolved), f"{self.name}: {self.noun}")]
        if hasattr(self.module, "steps"):
            steps = self.module.steps(self, resolved, stages)
        return [part for step in steps for part in step.with_folds()]


@dataclass(frozen=True)
class Step:
    """One artefact to make."""

    stage: Stage
    resolved: Resolved
    title: str
    link_name: str = ""
    """The name of its link in `runs/<name>/`; empty for the name of the stage."""
    reporter: Reporter | None = None
    is_kept: bool = True
    """Whether it is linked and its weights are kept; else only scores and predictions are."""

    def with_folds(self) -> list[Step]:
        """Return the step, after those of its folds that are not scored, or whose weights are still to be removed."""
        if self.stage.name != "finetune" or self.artefact.finished:
            return [self]
        folds = self.resolved.folds
        steps = [
            replace(self, resolved=fold, title=f"{self.title}, fold {number} of {len(folds)}", is_kept=False)
            for number, fold in enumerate(folds, start=1)
        ]
        return [*(step for step in steps if step.artefact.finished or not step.artefact.measured), self]

    @property
    def artefact(self) -> Artefact:
        """What the step makes."""
        return self.resolved.artefact(self.stage.name)

    @property
    def config(self) -> Config:
        """The config that the artefact is made by."""
        return self.resolved.config

    @property
    def recipe(self) -> dict[str, Any]:
        """The recipe that is kept with the artefact."""
        return self.resolved.recipe(self.stage.name)


class Resolved:
    """A config with its data sources and the artefacts of its stages.

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
            determinants = {"version": row.version, **row.module.determinants(row.own(self))}
            self._artefacts[stage] = Artefact(stage, determinants, self.config.runs)
        return self._artefacts[stage]

    @property
    def task(self) -> Task:
        """The task.

        Raises:
            UserError: if the config has none.
        """
        return self.config.require_task()

    @cached_property
    def rows(self) -> Labelled:
        """The labelled rows of the task, checked, split and sampled; an updated model has not been trained on the test.

        Raises:
            UserError: if it has been trained on all of them.
        """
        from ulmfit_style.data import labelled

        rows = labelled.load(self.task)
        unseen = rows if self.updated is None else rows.unseen(self.seen)
        if rows.test and not unseen.test and self.task.fold is None:
            problem = f"was trained on all {len(rows.test):,} rows that would be its test"
            raise UserError(f"finetune.init={self.config.finetune.init}: {problem}; add others, or a file of test rows")
        return unseen

    @cached_property
    def updated(self) -> checkpoints.Checkpoint | None:
        """The finished model that `finetune.init` names.

        Raises:
            UserError: if it does not tell what it was trained on.
        """
        if (named := self.config.finetune.init) is None:
            return None
        directory = checkpoints.find_finetuned(named, "finetune.init", self.config.runs, is_single=True)
        if not (directory / predictions.LEARNT).exists():
            problem = f"holds no {predictions.LEARNT}, which tells what it was trained on; make it again"
            raise UserError(f"finetune.init={named}: {problem}")
        return checkpoints.Checkpoint(directory, {"finetune": read_json(directory / MANIFEST)["fingerprint"]})

    @cached_property
    def seen(self) -> frozenset[str]:
        """The digests of the texts that the model which is updated was trained on."""
        return frozenset(read_json(self.updated.directory / predictions.LEARNT) if self.updated else ())

    @cached_property
    def findings(self) -> Findings:
        """What is found in the labelled rows."""
        from ulmfit_style.data import guard

        return guard.findings(self.rows, is_quick=True)

    @cached_property
    def folds(self) -> list[Resolved]:
        """The config with each fold of the rows as the test; none where the rows are split."""
        tasks = [self.task.model_copy(update={"fold": number}) for number in range(len(self.rows.folds))]
        # Calibrating each would take twice as long again, and change none of their labels.
        options = self.finetune.model_copy(update={"calibration_folds": 0})
        variants = [self.variant(task=task, finetune=options) for task in tasks]
        return [variant for variant, rows in zip(variants, self.rows.folds, strict=True) if rows]

    @property
    def training_rows(self) -> Rows:
        """The labelled rows that `finetune` trains on."""
        return self.rows.train if self.config.finetune.patience is None else self.rows.watched[0]

    @property
    def pretrain(self) -> Pretrain:
        """The section `pretrain`.

        Raises:
            UserError: if nothing is pretrained.
        """
        if self.config.pretrain is None:
            raise UserError("pretrain=none: nothing is pretrained; choose how with pretrain=plain")
        return self.config.pretrain

    @property
    def adapt(self) -> Adapt:
        """The section `adapt`.

        Raises:
            UserError: if nothing is adapted.
        """
        if self.config.adapt is None:
            raise UserError("adapt=none: nothing is adapted; choose how with adapt=plain")
        return self.config.adapt

    @cached_property
    def finetune(self) -> Finetune:
        """The section `finetune`, in which the task and its labels decide what was left open."""
        options = self.config.finetune
        if not options.open:
            return options
        architecture = architectures.architecture(checkpoints.model_type(self.config.model))
        preset, reason = auto.choose(options, self.task, architecture, len(self.rows.train), len(self.rows.classes))
        say_once(f"finetune=auto takes {preset}: {reason}")
        # All presets are built on `plain`.
        values = {**read(CONF / "finetune/plain.yaml"), **read(CONF / f"finetune/{preset}.yaml")}
        try:
            return Finetune.model_validate({**options.model_dump(), **{name: values[name] for name in options.open}})
        except ValidationError as error:
            problem = error.errors()[0]["msg"].removeprefix("Value error, ")
            raise UserError(f"finetune=auto takes {preset}: {problem}") from error

    def recipe(self, stage: str) -> dict[str, Any]:
        """Return the recipe of a stage's artefact as plain values; that of a fine-tuned model leaves nothing open."""
        return self.config.model_copy(update={"finetune": self.finetune} if stage == "finetune" else {}).recipe()

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
        """The general text of `adapt`, of which the held-out half measures what it forgets."""
        if self.config.adapt is None or self.config.adapt.general is None:
            return None
        return self._documents(Corpus(path=(self.config.adapt.general,), heldout_ratio=0.5), "adapt.general")

    def _documents(self, source: Corpus, option: str) -> Documents:
        from ulmfit_style.data import corpus

        return corpus.load(source, self.config.task, self.config.runs, option)

    def source_of(self, stage: str) -> checkpoints.Checkpoint:
        """Return what a stage starts from: the artefact of another one, finished or not, or the config's checkpoint."""
        if stage == "finetune" and self.updated is not None:
            return self.updated
        if (parent := self.stages[stage].starts_from(self)) is not None:
            return self._checkpoint_of(parent)
        return checkpoints.resolve(self.config.model, "model.checkpoint")

    def unchanged(self, stage: str) -> Path | None:
        """Return the finished artefact that `runs/<name>/<stage>` links to, if it was made by the same options.

        Nothing but its recipe is read.
        """
        directory = self.config.runs / (self.config.runs / self.config.name / stage).resolve().name
        if not is_finished(directory):
            return None
        recipe, made_by = self.config.recipe(), read(directory / RECIPE)
        recipe["finetune"] |= {name: made_by["finetune"].get(name) for name in self.config.finetune.open}
        return directory if all(recipe[name] == made_by.get(name) for name in sections_of(stage)) else None

    @property
    def answering(self) -> str:
        """The stage that makes what answers the task by this config."""
        return "ensemble" if self.config.ensemble.members else "finetune"

    def finetuned(self, named: str | None, option: str) -> checkpoints.Checkpoint:
        """Return the fine-tuned model: the config's, finished or not, or the one that an option names.

        Raises:
            UserError: if there is none of that name.
        """
        if named is None:
            return self._checkpoint_of(self.answering)
        checkpoints.find_finetuned(named, option, self.config.runs)
        model = Model(checkpoint=checkpoints.of_run(named, self.config.runs))
        return checkpoints.resolve(model, option, is_single=False)

    def finished_model(self, command: str) -> Path:
        """Return the directory of the model that answers: the one that `predict.model` names, or the config's own.

        Where what `runs/<name>/` links to was made by the same options, it is taken as it is, and no training data are
        read.

        Raises:
            UserError: if it is not there.
        """
        if (named := self.config.predict.model) is not None:
            return checkpoints.find_finetuned(named, "predict.model", self.config.runs)
        if (directory := self.unchanged(self.answering)) is not None:
            return directory
        return require_finished(self, self.answering, command)

    def _checkpoint_of(self, stage: str) -> checkpoints.Checkpoint:
        artefact = self.artefact(stage)
        return checkpoints.Checkpoint(artefact.directory, {stage: artefact.fingerprint})


def require_finished(resolved: Resolved, stage: str, command: str) -> Path:
    """Return the directory of the artefact of a stage, which a command needs.

    Raises:
        UserError: if it is not there, naming the command that makes it, and the nearest artefact that there is.
    """
    artefact, asking = resolved.artefact(stage), resolved.stages.get(command)
    require_intact(artefact.directory)
    if artefact.finished:
        return artefact.directory
    makes_more = asking is not None and asking.makes_artefact
    # Random weights are made by the way, when something is trained from them.
    commands = [*_makers(resolved, stage), *([command] if makes_more else [])] or ["finetune"]
    missing, why = resolved.stages[stage].noun, differences.why_missing(artefact, resolved.recipe(stage))
    remedy = f"run `{' '.join(commands)}` with the same options"
    raise UserError(f"{command}: there is no {missing} for this config ({why}); {remedy}")


def _makers(resolved: Resolved, stage: str) -> list[str]:
    """Return the commands that make the artefact of a stage, and of what it starts from where that is missing."""
    parent = resolved.stages[stage].starts_from(resolved)
    is_missing = parent is not None and not resolved.artefact(parent).finished
    commands = _makers(resolved, parent) if parent is not None and is_missing else []
    return [*commands, stage] if resolved.stages[stage].is_command else commands
