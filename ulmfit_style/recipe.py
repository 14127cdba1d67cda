"""The configuration: all sections together, and what is wrong with values that do not fit them.

Past it there are frozen sections; nobody looks an option up by name.
"""

import importlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

import yaml
from pydantic import BeforeValidator, Field, SerializeAsAny, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from ulmfit_style.config import trainer_options
from ulmfit_style.config.commands import Ensemble, Evaluate, Export, Hub, Predict, Push, Report, Select, Serve
from ulmfit_style.config.experiments import Study, Sweep
from ulmfit_style.config.section import Count, Section, spelled
from ulmfit_style.config.training import Adapt, Corpus, Finetune, Model, Pretrain
from ulmfit_style.errors import ConfigError, UserError, nearest
from ulmfit_style.tasks.base import Task


def _of_its_kind(value: Any) -> Any:
    """Make the task of plain values, by the class that `_target_` names."""
    if not isinstance(value, dict):
        return value
    task_options = {name: option for name, option in value.items() if name != "_target_"}
    return task_class_of(value.get("_target_")).model_validate(task_options)


TRUSTED_MODULES = "ULMFIT_STYLE_MODULES"
"""An environment variable: the modules outside the package whose tasks a YAML may name, with commas between them."""

AFTERWARDS = ("evaluate", "predict", "hub", "push", "export", "serve", "report", "select")
"""The sections on what is done with a finished model, which has no part in making it."""

MOST_ALIASES = 20
"""How often a YAML may repeat a part by `*name`: repetitions of repetitions fill any memory."""


class Config(Section):
    """The whole recipe. Every stage composes the same one, so each knows what the others made."""

    name: Annotated[str, Field(pattern=r"^[^\W_][\w.-]*$")]
    """Names the folder of links under `runs`; in no fingerprint."""
    runs: Path
    """The folder of all artefacts."""
    compare: bool
    """Whether `finetune` also fits the reference models and fine-tunes without adaptation, to tell what it is worth."""
    processes: Count | None
    """Processes that train together, or answer a file; null for one on each visible GPU of this machine, or one where
    there is none, and under a launcher of your own for as many as it starts."""
    micro_batch_size: Count | Literal["auto"] | None
    """Rows per forward pass of a process; null for as many as `batch_size` has for each; auto for half of that, or half
    again, where the memory of a GPU does not hold them. It only splits the batch."""
    shard: bool
    """Whether the processes share weights, gradients and moments out among themselves while they train, where each
    would hold all of them (FSDP2): less memory, more exchange, the same result."""
    fast: bool = True
    """Whether training takes shortcuts that change nothing but the last digits: outputs of frozen layers are kept,
    absent words are not trained, on a CPU a contrast runs in parts, and the memory of a step is kept for the next.
    It is in no fingerprint: to make a finished model without them, give another `runs`."""
    save_minutes: Annotated[float, Field(gt=0)]
    """Minutes between two checkpoints from which a stopped run goes on."""
    model: Model
    corpus: Corpus
    pretrain: Pretrain | None
    """null: nothing is pretrained; a model with random weights stays as it is."""
    adapt: Adapt | None
    """null: nothing is adapted; `finetune` starts from the plain checkpoint."""
    task: Annotated[SerializeAsAny[Task] | None, BeforeValidator(_of_its_kind)]
    finetune: Finetune
    ensemble: Ensemble = Ensemble()
    evaluate: Evaluate
    predict: Predict
    hub: Hub
    push: Push = Push()
    export: Export = Export()
    serve: Serve = Serve()
    report: Report = Report()
    select: Select = Select()
    study: Study
    sweep: Sweep | None = None
    """null: `sweep` runs a grid."""

    def seeded(self, seed: int) -> Self:
        """Return the recipe of a trial: with a seed of the labelled rows and of `finetune`, and without folds."""
        task = None if self.task is None else self.task.model_copy(update={"sample_seed": seed, "folds": 0})
        return self.model_copy(update={"task": task, "finetune": self.finetune.model_copy(update={"seed": seed})})

    def require_task(self) -> Task:
        """Return the task.

        Raises:
            UserError: if there is none.
        """
        if self.task is None:
            raise UserError("task=none: there is nothing to fine-tune on; choose a task, such as task=rotten_tomatoes")
        return self.task

    def recipe(self) -> dict[str, Any]:
        """Return the config as plain values, from which `from_recipe` makes an equal one, but for the sweep."""
        values = self.model_dump(mode="json", exclude={"sweep"})
        if self.task is not None:
            target = type(self.task)
            values["task"] = {"_target_": f"{target.__module__}.{target.__qualname__}", **values["task"]}
        return values


def from_recipe(values: dict[str, Any]) -> Config:
    """Make the typed config from plain values, as `Config.recipe` returns them.

    Raises:
        ConfigError: for every wrong value, all at once.
    """
    values = _without_missing(values)
    try:
        config = Config.model_validate(values)
        problems = []
    except ValidationError as error:
        known = options(task_class_of(values["task"].get("_target_")) if values.get("task") else Task)
        problems = [_problem(details, known) for details in error.errors()]
    for stage in ("pretrain", "adapt", "finetune"):
        trainer = (values.get(stage) or {}).get("trainer")
        if isinstance(trainer, dict):
            problems += trainer_options.problems(stage, trainer)
    if problems:
        raise ConfigError(problems)
    return config


def load(recipe: Path) -> Config:
    """Read the config that made an artefact from its recipe.yaml.

    What was to be done with a finished model then is as it is shipped: it made nothing, and other versions of the
    program do other things with models.
    """
    return from_recipe({**read(recipe), **{name: {} for name in AFTERWARDS}})


def read(path: Path) -> dict[str, Any]:
    """Read the plain values of a YAML, such as a whole recipe."""
    require_few_aliases(path)
    return dict(yaml.safe_load(path.read_text(encoding="utf-8")) or {})


def require_few_aliases(path: Path) -> None:
    """Check that a YAML is not made to fill the memory.

    Raises:
        ConfigError: if it repeats itself too often.
    """
    text = path.read_text(encoding="utf-8", errors="replace")
    aliases = (isinstance(token, yaml.AliasToken) for token in yaml.scan(text))
    if text.count("*") > MOST_ALIASES and sum(aliases) > MOST_ALIASES:  # every alias has a star
        raise ConfigError([f"{path}: repeats parts of itself by *name more than {MOST_ALIASES} times; write them out"])


def task_class_of(target: str | None) -> type[Task]:
    """Import the task that `_target_` names. A module outside the package is code that runs, so the user lists it.

    Raises:
        ConfigError: if there is no such class, it is no task, or its module is not to be imported.
    """
    module, _, name = (target or "").rpartition(".")
    if not module.startswith(f"{__package__}.") and module not in os.environ.get(TRUSTED_MODULES, "").split(","):
        remedy = f"if you trust its code, set {TRUSTED_MODULES}={module} in the environment"
        raise ConfigError([f"task._target_={target}: is not of this program; {remedy}"])
    try:
        task_class = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError([f"task._target_={target}: cannot be imported ({error})"]) from error
    if not (isinstance(task_class, type) and issubclass(task_class, Task)):
        raise ConfigError([f"task._target_={target}: is not a subclass of ulmfit_style.tasks.base.Task"])
    return task_class


def section_of(name: str, task_class: type[Section]) -> type[Section] | None:
    """Return the section class that the top-level field `name` holds, if it holds one."""
    if name == "task":
        return task_class
    annotation = Config.model_fields[name].annotation
    kinds = (annotation, *get_args(annotation))
    return next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Section)), None)


def options(task_class: type[Section]) -> dict[str, FieldInfo]:
    """Return the fields of all sections by the keys that are typed: `finetune.epochs`."""
    fields = dict(Config.model_fields)
    for name in Config.model_fields:
        if (section := section_of(name, task_class)) is not None:
            fields |= {f"{name}.{key}": field for key, field in section.model_fields.items()}
    return fields


def _without_missing(values: dict[str, Any]) -> dict[str, Any]:
    """Leave out what a YAML marks as required (`???`) and nobody gave, so that it is reported as such."""
    given = {key: value for key, value in values.items() if value != "???"}
    return {key: _without_missing(value) if isinstance(value, dict) else value for key, value in given.items()}


def _problem(details: ErrorDetails, known: Mapping[str, FieldInfo]) -> str:
    """Word one of pydantic's findings in the user's spelling.

    Args:
        known: All options.
    """
    key, value = ".".join(map(str, details["loc"])), details["input"]
    if details["type"] == "extra_forbidden":
        if key.endswith("token"):
            return f"{key}: a token is never an option; set HF_TOKEN in the environment"
        return f"{key}: there is no such option{nearest(key, known)}"
    if details["type"] == "missing":
        meaning = known[key].description if key in known else None
        return f"{key}: is required ({' '.join(meaning.split())})" if meaning else f"{key}: is required"
    message = details["msg"].removeprefix("Value error, ").removeprefix("Input ")
    # What several options are wrong in together is told without the whole section.
    shown = "" if isinstance(value, dict | Section) else f"={spelled(value)}"
    return f"{key}{shown}: {message[:1].lower()}{message[1:]}"
