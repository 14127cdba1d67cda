"""Which trials a study runs: every arm at every number of labels with every seed, and before that its search."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import final

from ulmfit_style import chain
from ulmfit_style.cli.compose import compose
from ulmfit_style.config.schema import spelled
from ulmfit_style.console import muted, say
from ulmfit_style.data import labelled, pins
from ulmfit_style.errors import UserError
from ulmfit_style.experiments.trials import Trial
from ulmfit_style.lineage import required_task
from ulmfit_style.recipe import Config
from ulmfit_style.stages import resolve

Labels = int | str | None
"""A number of labelled rows, `all` of them, or None for what the task says."""

Searched = tuple[str, ...]
"""One combination of the overrides that `study.search` tries; empty where nothing is searched."""

Choices = Mapping[tuple[str, Labels], Searched]
"""What the search chose for each arm at each number of labels."""


@final
@dataclass(frozen=True)
class Sample:
    """The labelled rows that one seed draws."""

    labels: Labels
    seed: int

    @property
    def title(self) -> str:
        """What the rows are called in a line."""
        return f"{'' if self.labels is None else f'{self.labels} labels, '}seed {self.seed}"

    def link(self, *names: str) -> str:
        """Return the name of a link to what was made of the rows."""
        parts = [*names, "" if self.labels is None else str(self.labels), f"seed-{self.seed}"]
        return "-".join(re.sub(r"[^A-Za-z0-9.]+", "-", part).strip("-") for part in parts if part)


@final
@dataclass(frozen=True)
class ArmTrial:
    """The trial of an arm on one sample."""

    arm: str
    searched: Searched
    sample: Sample
    trial: Trial


@final
@dataclass(frozen=True)
class StudyPlan:
    """A study, composed and checked."""

    base: Config
    arms: Mapping[tuple[str, Searched], Config]
    """The recipe of each arm, with each combination of its search."""
    labels: Sequence[Labels]
    combinations: Sequence[Searched]

    @property
    def folder(self) -> str:
        """What the folder of links, tables and figures under `runs` is called."""
        return f"{self.base.name}-{self.base.study.name}"

    def samples(self, seeds: Iterable[int]) -> list[Sample]:
        """Return the samples of some seeds at every number of labels."""
        return [Sample(labels, seed) for seed, labels in product(seeds, self.labels)]

    def search(self) -> list[ArmTrial]:
        """Return the trials by which each arm's combination is chosen; none where there is no choice."""
        if len(self.combinations) < 2:
            return []
        samples = self.samples(self.base.study.search_seeds)
        return [self.trial(*point) for point in product(samples, self.base.study.arms, self.combinations)]

    def reported(self, choices: Choices) -> list[ArmTrial]:
        """Return the trials that are reported: whole rounds over all arms, for a stopped study to compare them all.

        Args:
            choices: What the search chose.
        """
        pairs = product(self.samples(self.base.study.seeds), self.base.study.arms)
        return [self.trial(sample, arm, choices[arm, sample.labels]) for sample, arm in pairs]

    def trial(self, sample: Sample, arm: str, searched: Searched) -> ArmTrial:
        """Return one trial."""
        resolved, names = resolve(self.at(self.arms[arm, searched], sample)), (arm, *searched)
        return ArmTrial(arm, searched, sample, Trial(resolved, ", ".join([*names, sample.title]), sample.link(*names)))

    def at(self, config: Config, sample: Sample) -> Config:
        """Return a recipe on a sample."""
        size: dict[str, Labels] = {}
        if sample.labels is not None:
            kind = "shots" if self.base.study.per_class else "train_samples"
            size = {"train_samples": None, "shots": None, kind: None if sample.labels == "all" else sample.labels}
        task = required_task(config).model_copy(update=size)
        return config.model_copy(update={"task": task, "compare": False, "name": self.folder}).seeded(sample.seed)


def plan(overrides: Sequence[str]) -> StudyPlan:
    """Compose every arm of a study and check it, before anything is trained.

    Raises:
        UserError: if an arm is wrong, two arms are the same, or they are not scored on the same rows.
    """
    common = [*overrides, *compose(overrides).study.common]
    base = compose(common)
    values = [[f"{option}={spelled(value)}" for value in values] for option, values in base.study.search.items()]
    combinations = list(product(*values))  # one that is empty without a search
    arms = {}
    for (arm, options), searched in product(base.study.arms.items(), combinations):
        try:
            whole = [*_concerning(common, options), *options, *_concerning(searched, options)]
            arms[arm, searched] = pins.pinned(compose(whole))
        except UserError as error:
            raise UserError(f"study.arms: {arm}: {error}") from error
    made = StudyPlan(base, arms, _possible_labels(base), combinations)
    _check(made)
    if len(base.study.seeds) < 2:
        say("study: one seed does not show how much seeds differ; give study.seeds at least three")
    return made


def _concerning(overrides: Iterable[str], arm: Sequence[str]) -> list[str]:
    """Return the overrides that concern an arm: not those of a stage that it switches off."""
    off = tuple(f"{override.removesuffix('=none')}." for override in arm if override.endswith("=none"))
    return [override for override in overrides if not override.startswith(off)]


def _possible_labels(base: Config) -> list[Labels]:
    """Return the numbers of labels that the task has rows for, and say which ones are left out."""
    study = base.study
    if study.labels is None:
        return [None]
    whole = labelled.load(required_task(base).unsampled())
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


def _check(made: StudyPlan) -> None:
    """Check each arm's data and model, that all are scored on the same rows, and that no two are the same."""
    first_sample = Sample(made.labels[0], made.base.study.seeds[0])
    arms_by_fingerprint: dict[str, str] = {}
    arms_by_test_rows: dict[str, str] = {}
    for (arm, searched), config in made.arms.items():
        resolved = resolve(made.at(config, first_sample))
        with muted():
            chain.plan(resolved, chain.TRIAL)
        other = arms_by_fingerprint.setdefault(resolved.artefact("finetune").fingerprint, arm)
        if other != arm:
            where = f" at {' '.join(searched)}" if searched else ""
            raise UserError(f"study.arms: '{arm}' and '{other}' are the same recipe{where}")
        arms_by_test_rows.setdefault(labelled.digest_of(resolved.task, resolved.rows.test), arm)
    if len(arms_by_test_rows) > 1:
        arms = ", ".join(map(repr, arms_by_test_rows.values()))
        raise UserError(f"study.arms: {arms} are not scored on the same test rows")
