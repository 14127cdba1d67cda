"""Which trials a study runs: every arm at every number of labels with every seed, and before that its search."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import final

from ulmfit_style import chain
from ulmfit_style.cli.compose import compose
from ulmfit_style.config.section import spelled
from ulmfit_style.console import muted, say
from ulmfit_style.data import labelled
from ulmfit_style.errors import UserError
from ulmfit_style.experiments import trials
from ulmfit_style.recipe import Config
from ulmfit_style.stages.table import resolve

Labels = int | str | None
"""A number of labelled rows, `all` of them, or None for what the task says."""

Searched = tuple[str, ...]
"""One combination of the overrides that `study.search` tries; empty where nothing is searched."""

Choices = Mapping[tuple[str, Labels], Searched]
"""What the search chose for each arm at each number of labels; nothing without a search."""


@final
@dataclass(frozen=True)
class Run:
    """One run of a study: an arm, or reference models, on the labelled rows that a seed draws."""

    arm: str
    labels: Labels
    seed: int
    searched: Searched = ()

    @property
    def title(self) -> str:
        """The run in messages: `adapted, 100 labels, seed 0`."""
        labels = [] if self.labels is None else [f"{self.labels} labels"]
        return ", ".join([self.arm, *self.searched, *labels, f"seed {self.seed}"])

    @property
    def link(self) -> str:
        """The name of the link to what it made: `adapted-100-seed-0`."""
        return re.sub(r"[^A-Za-z0-9.]+", "-", self.title.replace(" labels", "")).strip("-")


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
        """The name of the folder of links, tables and figures under `runs`."""
        return f"{self.base.name}-{self.base.study.name}"

    def search(self) -> list[Run]:
        """Return the runs by which each arm's combination is chosen; none where there is no choice."""
        if len(self.combinations) < 2:
            return []
        study = self.base.study
        axes = product(study.search_seeds, self.labels, study.arms, self.combinations)
        return [Run(arm, labels, seed, searched) for seed, labels, arm, searched in axes]

    def reported(self, choices: Choices) -> list[Run]:
        """Return the runs that are reported: whole rounds over all arms, for a stopped study to compare them all."""
        axes = product(self.base.study.seeds, self.labels, self.base.study.arms)
        return [Run(arm, labels, seed, choices.get((arm, labels), self.combinations[0])) for seed, labels, arm in axes]

    def at(self, recipe: Config, labels: Labels, seed: int) -> Config:
        """Return a recipe with a number of labels and a seed."""
        size: dict[str, Labels] = {}
        if labels is not None:
            kind = "shots" if self.base.study.per_class else "train_samples"
            size = {"train_samples": None, "shots": None, kind: None if labels == "all" else labels}
        task = recipe.require_task().model_copy(update=size)
        return recipe.model_copy(update={"task": task, "compare": False, "name": self.folder}).seeded(seed)


def plan(overrides: Sequence[str]) -> StudyPlan:
    """Compose every arm of a study and check it, before anything is trained.

    Raises:
        UserError: if an arm is wrong, two arms are the same, or they are not scored on the same rows.
    """
    common = [*overrides, *compose(overrides).study.common, "task.folds=0"]
    base = compose(common)
    values = [[f"{option}={spelled(value)}" for value in values] for option, values in base.study.search.items()]
    combinations = list(product(*values))  # one that is empty without a search
    arms = {}
    for (arm, options), searched in product(base.study.arms.items(), combinations):
        try:
            arms[arm, searched] = compose([*_concerning(common, options), *options, *_concerning(searched, options)])
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
    rows = labelled.load(base.require_task().unsampled())
    possible: list[Labels] = []
    there = f"there are {len(rows.classes)} classes and {len(rows.pool):,} training rows"
    for labels in study.labels:
        if study.per_class or labels == "all" or len(rows.classes) <= int(labels) <= len(rows.pool):
            possible.append(labels)
        else:
            say(f"study: {labels} labels are left out; {there}")
    if not possible:
        raise UserError(f"study.labels: none of these numbers is possible; {there}")
    return possible


def _check(study: StudyPlan) -> None:
    """Check each arm's data and model, that all are scored on the same rows, and that no two are the same."""
    arms_by_fingerprint: dict[str, str] = {}
    arms_by_test_rows: dict[str, str] = {}
    for (arm, searched), config in study.arms.items():
        resolved = resolve(study.at(config, study.labels[0], study.base.study.seeds[0]))
        with muted():
            chain.plan(resolved, trials.STAGES)
        other = arms_by_fingerprint.setdefault(resolved.artefact("finetune").fingerprint, arm)
        if other != arm:
            where = f" at {' '.join(searched)}" if searched else ""
            raise UserError(f"study.arms: '{arm}' and '{other}' are the same recipe{where}")
        arms_by_test_rows.setdefault(labelled.digest_of(resolved.task, resolved.rows.test), arm)
    if len(arms_by_test_rows) > 1:
        arms = ", ".join(map(repr, arms_by_test_rows.values()))
        raise UserError(f"study.arms: {arms} are not scored on the same test rows")
