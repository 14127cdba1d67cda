"""What a study runs: every arm at every number of labels with every seed, and before that its search."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from ulmfit_style import chain, lineage
from ulmfit_style.artefacts.directory import Artefact
from ulmfit_style.cli.compose import compose
from ulmfit_style.config.schema import spelled
from ulmfit_style.console import muted, say
from ulmfit_style.data import labelled, pins
from ulmfit_style.errors import UserError
from ulmfit_style.lineage import Resolved
from ulmfit_style.recipe import Config
from ulmfit_style.stages import resolve

Labels = int | str | None
"""A number of labelled rows, `all` of them, or None for what the task says."""

Point = tuple[str, ...]
"""Overrides that a search tries; none where nothing is searched."""


@dataclass(frozen=True)
class Trial:
    """One fine-tuned model of a study."""

    arm: str
    labels: Labels
    seed: int
    point: Point
    config: Config

    @cached_property
    def resolved(self) -> Resolved:
        """What the trial reads and makes."""
        return resolve(self.config)

    @property
    def artefact(self) -> Artefact:
        """What the trial makes."""
        return self.resolved.artefact("finetune")

    @property
    def sample(self) -> str:
        """What its labelled rows are called where they are told about."""
        return f"{'' if self.labels is None else f'{self.labels} labels, '}seed {self.seed}"

    @property
    def title(self) -> str:
        """What the trial is called where it is told about."""
        return ", ".join([self.arm, *self.point, self.sample])


@dataclass(frozen=True)
class Plan:
    """A study, composed and checked."""

    base: Config
    variants: Mapping[tuple[str, Point], Config]
    """The recipe of each arm, at each point of its search."""
    labels: Sequence[Labels]
    points: Sequence[Point]

    @property
    def folder(self) -> str:
        """What the folder of links, tables and figures under `runs` is called."""
        return f"{self.base.name}-{self.base.study.name}"

    def searched(self) -> list[Trial]:
        """Return the trials by which each arm's point is chosen, at each number of labels; none without a choice."""
        if len(self.points) < 2:
            return []
        seeds = self.base.study.search_seeds
        return [
            self.trial(arm, labels, seed, point)
            for seed, labels, arm, point in itertools.product(seeds, self.labels, self.base.study.arms, self.points)
        ]

    def reported(self, chosen: Mapping[tuple[str, Labels], Point]) -> list[Trial]:
        """Return the trials that are told of: whole rounds over all arms, so that a stopped study compares them all.

        Args:
            chosen: The point of each arm at each number of labels.
        """
        return [
            self.trial(arm, labels, seed, chosen[arm, labels])
            for seed, labels, arm in itertools.product(self.base.study.seeds, self.labels, self.base.study.arms)
        ]

    def trial(self, arm: str, labels: Labels, seed: int, point: Point) -> Trial:
        """Return one trial."""
        config = self.at(self.variants[arm, point], labels, seed)
        return Trial(arm, labels, seed, point, config.model_copy(update={"name": self.folder}))

    def at(self, config: Config, labels: Labels, seed: int) -> Config:
        """Return a recipe at a number of labels with a seed."""
        sample: dict[str, Labels] = {}
        if labels is not None:
            kind = "shots" if self.base.study.per_class else "train_samples"
            sample = {"train_samples": None, "shots": None, kind: None if labels == "all" else labels}
        task = lineage.required_task(config).model_copy(update=sample)
        return config.model_copy(update={"task": task, "compare": False}).seeded(seed)


def plan(overrides: Sequence[str]) -> Plan:
    """Compose every arm of a study and check it, before anything is trained.

    Raises:
        UserError: if an arm is wrong, or two arms are the same, or not scored on the same rows.
    """
    common = [*overrides, *compose(overrides).study.common]
    base = compose(common)
    study = base.study
    lineage.required_task(base)
    values = [[f"{option}={spelled(value)}" for value in values] for option, values in study.search.items()]
    points = list(itertools.product(*values)) if values else [()]
    variants = {}
    for (arm, own), point in itertools.product(study.arms.items(), points):
        try:
            variants[arm, point] = pins.pinned(compose([*_of_concern(common, own), *own, *_of_concern(point, own)]))
        except UserError as error:
            raise UserError(f"study.arms: {arm}: {error}") from error
    made = Plan(base, variants, _possible(base), points)
    _check(made)
    if len(study.seeds) < 2:
        say("study: one seed tells nothing of the spread between seeds; give study.seeds at least three")
    return made


def _of_concern(overrides: Iterable[str], own: Sequence[str]) -> list[str]:
    """Return the overrides that concern an arm: not those of a stage that it switches off."""
    off = tuple(f"{override.removesuffix('=none')}." for override in own if override.endswith("=none"))
    return [override for override in overrides if not override.startswith(off)] if off else list(overrides)


def _possible(base: Config) -> list[Labels]:
    """Return the numbers of labels that the task has rows for; the others are told."""
    study = base.study
    if study.labels is None:
        return [None]
    whole = labelled.load(lineage.required_task(base).unsampled())
    possible: list[Labels] = []
    for labels in study.labels:
        if not isinstance(labels, int) or study.per_class:
            possible.append(labels)
        elif labels < len(whole.classes):
            say(f"study: {labels} labels are left out: there are {len(whole.classes)} classes")
        elif labels > len(whole.pool):
            say(f"study: {labels} labels are left out: there are {len(whole.pool):,} training rows")
        else:
            possible.append(labels)
    if not possible:
        raise UserError(f"study.labels={spelled(list(study.labels))}: the task has rows for none of them")
    return possible


def _check(made: Plan) -> None:
    """Check each arm's data and model, that all are scored on the same rows, and that no two are the same."""
    study = made.base.study
    owners: dict[str, str] = {}
    rows: dict[str, str] = {}
    for (arm, point), config in made.variants.items():
        first = made.at(config, made.labels[0], study.seeds[0])
        resolved = resolve(first)
        with muted():
            chain.plan(resolved, chain.TRIAL)
        other = owners.setdefault(resolved.artefact("finetune").fingerprint, arm)
        if other != arm:
            raise UserError(
                f"study.arms: '{arm}' and '{other}' are the same recipe{' at ' * bool(point)}{' '.join(point)}"
            )
        task = lineage.required_task(first)
        rows.setdefault(labelled.digest_of(task, labelled.load(task).test), arm)
    if len(rows) > 1:
        raise UserError(f"study.arms: {', '.join(map(repr, rows.values()))} are scored on other rows than one another")
