"""What is read of finished artefacts: a model, what it was made from, and what else was measured beside it."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ulmfit_style.artefacts import predictions
from ulmfit_style.artefacts.directory import MANIFEST, MEASURED, METRICS, RECIPE, damage, no_run, read_json
from ulmfit_style.config.section import ANSWERING, MODEL_SECTIONS
from ulmfit_style.console import from_here, say, say_once
from ulmfit_style.errors import UserError, reworded
from ulmfit_style.recipe import Config, load
from ulmfit_style.results import scores
from ulmfit_style.results.parts import Difference

MODELS = (*ANSWERING, "adapt", "pretrain")
"""The stages that make a model, the last one of a chain first."""

ADAPTED, NOT_ADAPTED, BEFORE = "adapted + fine-tuned", "fine-tuned, not adapted", "before the update"
"""What models are called in tables."""

FROZEN = "frozen features"
"""How the name of the reference model begins that `finetune=frozen` makes."""


@dataclass(frozen=True)
class Finished:
    """An artefact that is finished, or of which the scores were kept."""

    directory: Path
    stage: str
    """The stage that made it."""
    manifest: Mapping[str, Any]
    determinants: Mapping[str, Any]
    """All that determined it."""
    metrics: Mapping[str, Any]

    @property
    def init(self) -> Mapping[str, str]:
        """What it was made from: one stage with a fingerprint, or `checkpoint` with a commit or a digest of files."""
        return self.determinants["init"]


def find(directory: Path) -> Finished | None:
    """Read a finished artefact; None where there is none in the directory, or it is damaged, which is said."""
    if reason := damage(directory):
        say_once(f"{directory} is damaged, and passed over: {reason}")
        return None
    for path in (directory / MANIFEST, directory / MEASURED):
        if path.exists():
            manifest, metrics = read_json(path), directory / METRICS
            measured = read_json(metrics) if metrics.exists() else {}
            return Finished(directory, manifest["stage"], manifest, manifest["determinants"], measured)
    return None


@dataclass(frozen=True)
class Run:
    """A finished model, with what is known of it from the artefacts beside it."""

    name: str
    model: Finished
    config: Config
    """That of the model."""

    @cached_property
    def chain(self) -> Sequence[Finished]:
        """What the model was made from, in the order in which it was made, as far as it is there; the model is last."""
        chain = [self.model]
        while source := self._source(chain[0]):
            chain.insert(0, source)
        return chain

    def _source(self, made: Finished) -> Finished | None:
        ((stage, fingerprint),) = made.init.items()
        return find(made.directory.with_name(f"{stage}-{fingerprint}")) if stage in MODELS else None

    @property
    def members(self) -> Mapping[str, Mapping[str, Any]]:
        """What an ensemble tells of its members, by their folders: their `name`, and what they scored on the `test`."""
        return self.model.metrics.get("members", {})

    @property
    def title(self) -> str:
        """The checkpoint that it was made of, or those of its members."""
        recipes = [self.model.directory / folder / RECIPE for folder in self.members]
        return " + ".join(dict.fromkeys(load(recipe).model.title() for recipe in recipes)) or self.config.model.title()

    def stage(self, name: str) -> Finished | None:
        """Return what a stage of the chain made; None if it took no part, or is not there."""
        return next((made for made in self.chain if made.stage == name), None)

    @property
    def is_finetuned(self) -> bool:
        """Whether the model answers a task."""
        return self.model.stage in ANSWERING

    @property
    def is_adapted(self) -> bool:
        """Whether the model, or the one that it was fine-tuned from, was adapted."""
        return self.model.stage == "adapt" or "adapt" in self.model.init

    @cached_property
    def not_adapted(self) -> Finished | None:
        """The model that was fine-tuned alike, but from the checkpoint without adaptation."""
        if (adapted := self.stage("adapt")) is None or not self.is_finetuned:
            return None
        return next(self._others("finetune", {**self.model.determinants, "init": adapted.init}), None)

    @cached_property
    def references(self) -> Mapping[str, Mapping[str, Any]]:
        """What the simple models scored on validation and test that were fitted on the same rows, by their names."""
        first = self.stage("adapt") or self.stage("finetune") or self.model
        init, data = first.init, self.model.determinants.get("data")
        wanted = {"data": data, "init": init, "max_length": self.config.finetune.max_length}
        made = next(self._others("references", wanted), None) if self.is_finetuned else None
        return {} if made is None else made.metrics

    @cached_property
    def evaluations(self) -> Sequence[Finished]:
        """What `evaluate` measured of the model."""
        return list(self._others("evaluate", {"model": {self.model.stage: self.model.manifest["fingerprint"]}}))

    @property
    def by_labels(self) -> list["Run"]:
        """The models with a name, of the same checkpoint and files of rows, by the rows that they were trained on."""

        def kind(run: Run) -> tuple[Any, ...]:
            return run.config.require_task().path, run.title, run.is_adapted

        runs = [run for run in scored(self.model.directory.parent) if kind(run) == kind(self)]
        return sorted(runs, key=lambda run: run.model.metrics["train"]["rows"])

    @cached_property
    def exports(self) -> Sequence[Finished]:
        """What `export` wrote of the model with its head, the newest first."""
        wanted = {"model": {"finetune": self.model.manifest["fingerprint"]}, "features": None}
        return list(self._others("export", wanted))

    @property
    def measured(self) -> Mapping[str, Mapping[str, Any]]:
        """What was measured on the test rows, of the simple models, the one without adaptation, and this one.

        Empty where there are no test rows.
        """
        if "test" not in self.model.metrics:
            return {}
        compared = {name: test for name, (_, _, test) in self._compared.items()}
        return {**self.references.get("test", {}), **compared, self._called: self.model.metrics["test"]}

    @property
    def _called(self) -> str:
        """What the model is called in `measured`."""
        return "their mean" if self.members else ADAPTED if self.is_adapted else "fine-tuned"

    @cached_property
    def _compared(self) -> Mapping[str, tuple[Finished, str, Mapping[str, Any]]]:
        """The models whose answers to its test rows are there: where, what they are called there, and their scores."""
        compared = {one["name"]: (self.model, folder, one["test"]) for folder, one in self.members.items()}
        if self.not_adapted is not None:
            compared[NOT_ADAPTED] = (self.not_adapted, "test", self.not_adapted.metrics["test"])
        if BEFORE in self.model.metrics:
            compared[BEFORE] = (self.model, BEFORE, self.model.metrics[BEFORE])
        return compared

    @cached_property
    def differences(self) -> Mapping[str, Difference]:
        """What the score of the test rows differs by from those of other models in `measured`, by their names."""
        compared = self._compared if self.measured else {}
        found = {name: self.difference(made, split) for name, (made, split, _) in compared.items()}
        return {name: difference for name, difference in found.items() if difference is not None}

    @property
    def worth(self) -> Difference | None:
        """What adaptation changed in the score of the test rows, if the model without it is there."""
        return None if self.not_adapted is None else self.differences.get(NOT_ADAPTED)

    @property
    def verdicts(self) -> list[str]:
        """What the scores on the test rows tell: which of several models is the best, and what changed the score."""
        if len(self.measured) < 2:
            return []
        metric, measured = self.model.metrics["metric"], self.measured
        what = {one["name"]: f"Averaging, compared with {one['name']} alone," for one in self.members.values()}
        what |= {BEFORE: "The update", NOT_ADAPTED: "Adaptation"}
        changes = {f"{what[name]} changed {metric} by": one for name, one in self.differences.items() if name in what}
        paired = {frozenset((self._called, name)): one for name, one in self.differences.items()}
        return [scores.highest(metric, measured, paired), *(scores.worth(*change) for change in changes.items())]

    def difference(self, other: Finished, split: str = "test") -> Difference | None:
        """Return what the score differs by from another model's on the test rows that both answered, if any.

        Args:
            split: What the answers of the other are called.
        """
        pairs = predictions.in_common(self.model.directory, other.directory, split)
        answered = [[list(side)] for side in zip(*pairs, strict=True)]
        return Difference(*predictions.difference(self.config.require_task(), *answered)) if pairs else None

    def _others(self, stage: str, wanted: Mapping[str, Any]) -> Iterator[Finished]:
        """Yield the other finished artefacts of a stage in the folder of the model's, the newest first.

        Args:
            wanted: Some determinants that they have.
        """
        directories = set(self.model.directory.parent.glob(f"{stage}-*")) - {self.model.directory}
        artefacts = [made for directory in directories if (made := find(directory)) is not None]
        for made in sorted(artefacts, key=lambda made: (made.manifest["finished"], made.directory), reverse=True):
            if {name: made.determinants.get(name) for name in wanted} == wanted:
                yield made


def scored(folder: Path) -> Iterator[Run]:
    """Yield the fine-tuned models of a folder of artefacts that have a name and were scored on test rows.

    Those that cannot be read are told.
    """
    for link in sorted(link for stage in ANSWERING for link in folder.glob(f"*/{stage}")):
        try:
            if find(link) is not None and (run := read(link, link.parent.name)).measured:
                yield run
        except UserError as error:
            say_once(f"{link} is passed over: {error}")


def read(directory: Path, name: str) -> Run:
    """Return the run of a finished model.

    Raises:
        UserError: if its recipe is not one of this version.
    """
    model = find(from_here(directory))
    assert model is not None  # the caller looked
    recipe = model.directory / RECIPE
    with reworded(f"{recipe}: was written by another version of the program: ", UserError):
        return Run(name, model, load(recipe))


def named(runs: Path, name: str) -> Run:
    """Return a run by its name in the folder of artefacts, or by the directory of its model.

    Raises:
        UserError: if there is none, or it is not finished.
    """
    for folder in (runs / name, Path(name).expanduser()):
        for path in (folder, *(folder / stage for stage in MODELS)):
            if (made := find(path)) is not None and made.stage in MODELS:
                return read(path, name)
    raise UserError(f"{name}: {no_run(runs, name, MODELS)}")


def as_made(config: Config, overrides: Sequence[str]) -> Config:
    """Return a config whose model is that of the run of its name, where nothing typed says which is meant.

    Args:
        overrides: What was typed, such as `name=reviews` and `predict.input=new.csv`.

    Raises:
        UserError: if a name alone was typed, and no finished model has it.
    """
    sections = (*MODEL_SECTIONS, "ensemble")
    typed = {re.split(r"[@./=]", override.lstrip("+~"), maxsplit=1)[0] for override in overrides}
    is_named = config.evaluate.model is not None or config.predict.model is not None or config.report.runs
    if is_named or not typed.isdisjoint({*sections, "experiment"}):
        return config
    try:
        run = named(config.runs, config.name)
    except UserError as error:
        if "name" in typed:
            raise UserError(f"name={error}") from error
        return config
    say(f"name={config.name}: the options of the model are those of {run.model.directory}")
    return config.model_copy(update={name: getattr(run.config, name) for name in sections})
