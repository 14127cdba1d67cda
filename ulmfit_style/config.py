"""The configuration: its schema, and the one function that composes it from `conf/` and the command line.

Hydra and OmegaConf stop here. Past `compose` there are frozen sections; nobody looks an option up by name.
"""

from __future__ import annotations

import importlib
import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import yaml
from pydantic import BeforeValidator, Field, SerializeAsAny, ValidationError
from pydantic_core import ErrorDetails

from ulmfit_style import training_arguments
from ulmfit_style.errors import ConfigError, nearest
from ulmfit_style.schema import Count, Rate, Ratio, Section
from ulmfit_style.tasks.base import Task

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override
    from omegaconf import DictConfig

PACKAGE = Path(__file__).parent
CONF = next(folder for folder in (PACKAGE / "conf", PACKAGE.parent / "conf") if folder.is_dir())
"""The config folder: inside an installed wheel, or beside the package in a checkout."""


SEARCH_PATH = "hydra.searchpath"
"""Hydra's list of further folders of YAMLs, which `--config-dir` adds to."""


Document = Literal["line", "paragraph", "file"]
"""What one document of a txt or md file is."""


def _one_or_several(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


class Model(Section):
    """A pretrained checkpoint."""

    checkpoint: str
    """A directory, a Hub id, or `package:<folder>` for files of an installed Python package."""
    revision: str | None = None
    """The Hub commit, tag or branch; it is pinned to a commit when first used."""
    sha256: str | None = None
    """The expected SHA-256 of model.safetensors, checked before use."""


class Corpus(Section):
    """Unlabelled text for `adapt`."""

    path: Annotated[tuple[str, ...], BeforeValidator(_one_or_several)] | None
    """What holds the documents: a file (csv, tsv, jsonl, parquet, txt, md; also .gz, .bz2, .xz, .zst), a folder with
    all files in it, a glob such as 'notes/*.txt', or a list of these; null for the text of the task's training split.
    """
    text: str = "text"
    """The column that holds the text; txt and md files have none."""
    document: Document | None = None
    """What one document is in txt and md files: a line, a paragraph (blank lines between them), or the whole file;
    null for a line of a txt file, and the whole of an md file."""
    max_documents: Count | None = None
    """At most this many documents, chosen by content hash; null for all."""
    heldout_ratio: Annotated[float, Field(gt=0, lt=1)] = 0.05
    """Share of the documents that is never trained on and measures the language model (at most 1,000 documents)."""


class Training(Section):
    """What every training stage takes."""

    trainer: Annotated[dict[str, Any], Field(default_factory=dict)]
    """Further fields of transformers' TrainingArguments: finetune.trainer.max_grad_norm=0.5"""

    def determinants(self) -> dict[str, Any]:
        """Return the fields that determine a result, as plain JSON values."""
        return {**super().determinants(), "trainer": training_arguments.determining(self.trainer)}


class Adapt(Training):
    """Continued pretraining on the corpus."""

    objective: Literal["auto", "mlm", "clm"] = "auto"
    """Masked or causal language modelling; auto for that of the architecture."""
    epochs: Annotated[float, Field(gt=0)]
    """Passes over the corpus with every weight thawed."""
    learning_rate: Rate
    """Peak rate of those passes."""
    head_epochs: Annotated[float, Field(ge=0)]
    """Passes that train the language-model head alone, before the others, where the checkpoint lacks one."""
    head_learning_rate: Rate
    """Peak rate of those head passes."""
    warmup_ratio: Ratio
    """Share of each phase's steps over which the rate rises from 0; it then falls linearly to 0."""
    weight_decay: Annotated[float, Field(ge=0)]
    """Decoupled weight decay (AdamW); biases and norms are spared."""
    batch_size: Count
    """Documents per optimizer step, over all processes."""
    max_length: Count
    """Tokens per training row, special tokens included; a longer document is cut into several rows, nothing dropped."""
    mask_probability: Annotated[float, Field(gt=0, lt=1)]
    """Share of the words that is masked (BERT: 0.15)."""
    seed: int
    """Seed of the order, the masks and the new head."""


class Finetune(Training):
    """Fine-tuning on the labelled task."""

    epochs: Annotated[float, Field(gt=0)]
    """Passes over the training rows."""
    learning_rate: Rate
    """Peak rate."""
    warmup_ratio: Ratio
    """Share of the steps over which the rate rises from 0; it then falls linearly to 0."""
    weight_decay: Annotated[float, Field(ge=0)]
    """Decoupled weight decay (AdamW); biases and norms are spared."""
    batch_size: Count
    """Rows per optimizer step, over all processes."""
    max_length: Count
    """Tokens per row, special tokens included; how many rows are longer, and are cut, is said."""
    seed: int
    """Seed of the order, the dropout and the new head."""


class Evaluate(Section):
    """What `evaluate` scores, and on which rows."""

    split: Literal["test", "validation", "train"] = "test"
    """The rows of the task that are scored: test, validation or train (those whose labels were used)."""
    path: str | None = None
    """Another file with the columns of the task's, of which all rows are scored, whatever `split` says."""
    model: str | None = None
    """The directory that `finetune` made, or the Hub id that `push` uploaded to; null for this config's own model."""


class Predict(Section):
    """What `predict` answers, and where the answers go."""

    input: str | None = None
    """A text; a file (csv, tsv, jsonl, parquet, txt; also .gz, .bz2, .xz, .zst) with the task's column of texts; or -
    for standard input, one text a line."""
    output: str | None = None
    """A file that ends in .jsonl or .csv; null for JSON lines on standard output."""
    model: str | None = None
    """The directory that `finetune` made, or the Hub id that `push` uploaded to; null for this config's own model."""


class Hub(Section):
    """Where `push` puts the model. The token comes from the environment (HF_TOKEN) alone, never from a config."""

    repo: str | None = None
    """The repository: `name` (your own account) or `account/name`."""
    private: bool = True
    """Whether a newly made repository is private."""
    dry_run: bool = False
    """List what would be uploaded, and stop."""


class Config(Section):
    """The whole recipe. Every stage composes the same one, so each knows what the others made."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    """Names the folder of links under `runs`; in no fingerprint."""
    runs: Path
    """The folder of all artefacts."""
    compare: bool
    """Whether `finetune` also fits the reference models and fine-tunes without adaptation, to tell what it is worth."""
    processes: Count | None
    """Processes that train together on this machine; null for one on each visible GPU, or one where there is none."""
    micro_batch_size: Count | None
    """Rows per forward pass of a process; null for as many as `batch_size` has for each. It only splits the batch."""
    save_minutes: Annotated[float, Field(gt=0)]
    """Minutes between two checkpoints from which a stopped run goes on."""
    model: Model
    corpus: Corpus
    adapt: Adapt | None
    """null: nothing is adapted; `finetune` starts from the plain checkpoint."""
    task: SerializeAsAny[Task] | None
    finetune: Finetune
    # The recipes of models that were made before there were these two lack them.
    evaluate: Evaluate = Evaluate()
    predict: Predict = Predict()
    hub: Hub

    def recipe(self) -> dict[str, Any]:
        """Return the config as plain values, from which `from_recipe` makes an equal one."""
        values = self.model_dump(mode="json")
        if self.task is not None:
            target = type(self.task)
            values["task"] = {"_target_": f"{target.__module__}.{target.__qualname__}", **values["task"]}
        return values


def compose(overrides: Sequence[str] = ()) -> Config:
    """Compose the configuration from `conf/` and `key=value` overrides.

    Raises:
        ConfigError: for every unknown key or choice, wrong type and value out of range, all at once; for what stands
            in a YAML, with the name of the file.
    """
    from hydra import compose as hydra_compose

    with _hydra():
        overrides = _normalised(overrides)
        return from_omegaconf(hydra_compose("config", overrides=overrides), _origin(overrides))


def checked(overrides: Sequence[str]) -> list[str]:
    """Check the keys, groups and choices of overrides, and return them as Hydra takes them.

    Raises:
        ConfigError: naming each override that cannot be parsed, and each unknown key, group or choice.
    """
    with _hydra():
        return _normalised(overrides)


def from_omegaconf(values: DictConfig, origin: Callable[[str], str] = lambda key: "") -> Config:
    """Make the typed config from what Hydra composed.

    Args:
        origin: Tells which YAML a dotted key stands in, as the end of an error message.

    Raises:
        ConfigError: for every wrong value, all at once.
    """
    from omegaconf import OmegaConf

    return from_recipe(cast(dict[str, Any], OmegaConf.to_container(values, resolve=True)), origin)


def grid(overrides: Sequence[str]) -> list[list[str]]:
    """Return the overrides of each point of the grid that `key=a,b` and Hydra's other simple sweeps span.

    Raises:
        ConfigError: if an override cannot be parsed, or its values cannot be counted, as those of `interval(0,1)`.
    """
    axes = []
    with _hydra():
        for text in overrides:
            override = _parse(text)
            if override.is_sweep_override():
                prefix = override.get_key_element()
                axes.append([f"{prefix}={value}" for value in override.sweep_string_iterator()])
            else:
                axes.append([text])
    return [list(point) for point in itertools.product(*axes)]


def from_recipe(values: dict[str, Any], origin: Callable[[str], str] = lambda key: "") -> Config:
    """Make the typed config from plain values, as `Config.recipe` returns them.

    Args:
        origin: Tells which YAML a dotted key stands in, as the end of an error message.

    Raises:
        ConfigError: for every wrong value, all at once.
    """
    values = _without_missing(values)
    problems, task = [], None
    options = dict(values.get("task") or {})
    try:
        if options:
            task_class = _task_class(options.pop("_target_", None))
            task = task_class.model_validate(options)
    except ConfigError as error:
        problems += [problem + origin("task._target_") for problem in error.problems]
    except ValidationError as error:
        problems += [_problem(details, origin, task_class, "task") for details in error.errors()]
    try:
        config = Config.model_validate({**values, "task": task})
    except ValidationError as error:
        problems += [_problem(details, origin, Config) for details in error.errors()]
    for stage in ("adapt", "finetune"):
        trainer = (values.get(stage) or {}).get("trainer")
        if isinstance(trainer, dict):
            found = training_arguments.problems(stage, trainer)
            problems += [problem + origin(f"{stage}.trainer.{name}") for name, problem in found.items()]
    if not problems and config.adapt is not None and config.corpus.path is None and config.task is None:
        problems.append("corpus=task: there is no task whose text could be adapted to; give corpus.path=<file>")
    if problems:
        raise ConfigError(problems)
    return config


def load(recipe: Path) -> Config:
    """Read the config that an artefact's recipe.yaml holds."""
    return from_recipe(yaml.safe_load(recipe.read_text(encoding="utf-8")))


@contextmanager
def _hydra() -> Iterator[None]:
    """Initialise Hydra on `conf/`, and turn what it finds wrong in a YAML into a ConfigError."""
    from hydra import initialize_config_dir
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    try:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            yield
    except (HydraException, OmegaConfBaseException, yaml.YAMLError) as error:
        reason = str(error) if str(error).strip() else str(error.__cause__)
        raise ConfigError([" ".join(reason.split())]) from error


def _normalised(overrides: Sequence[str]) -> list[str]:
    """Check every override against the schema and return them as Hydra takes them.

    A key that the schema has may be overridden whether or not a YAML spells it out, so `++` is put before each.

    Raises:
        ConfigError: naming each override that cannot be parsed, and each unknown key, group or choice.
    """
    from hydra import compose as hydra_compose
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.object_type import ObjectType

    loader = GlobalHydra.instance().config_loader()
    problems: list[str] = []
    parsed: list[tuple[str, Override]] = []
    for text in overrides:
        try:
            parsed.append((text, _parse(text)))
        except ConfigError as error:
            problems += error.problems
    searched = [text for text, override in parsed if override.key_or_group == SEARCH_PATH]
    if folder_problems := _folder_problems(_folders(searched)):
        raise ConfigError(folder_problems)  # which groups and choices there are cannot be told
    groups = loader.get_group_options("", ObjectType.GROUP, "config", searched)
    choices, first_choices, values = [], [*searched], []
    for text, override in parsed:
        key = override.key_or_group
        if key == "hydra" or key.startswith(("hydra.", "hydra/")):
            choices.append(text)
        elif key in groups:
            options = loader.get_group_options(key, ObjectType.CONFIG, "config", searched)
            wanted = list(override.sweep_iterator()) if override.is_sweep_override() else [override.value()]
            unknown = [str(choice) for choice in wanted if choice is not None and str(choice) not in options]
            there = f"(there are: {', '.join(options)})"
            problems += [f"{key}={name}: there is no such {key}{nearest(name, options)} {there}" for name in unknown]
            if not unknown:
                choices.append(text)
                first_choices.append(f"{key}={wanted[0]}")
        else:
            values.append((key, text))

    # The keys of `task` depend on which task is chosen, so the choices are composed first.
    chosen = hydra_compose("config", overrides=first_choices)
    task_class: type[Section] = Task
    try:
        if chosen.task is not None:
            task_class = _task_class(chosen.task.get("_target_"))
    except ConfigError as error:
        problems += [problem + _origin(first_choices)("task._target_") for problem in error.problems]
    for key, text in values:
        group, dot, _ = key.partition(".")
        if dot and group in chosen and chosen[group] is None:
            problems.append(f"{text}: there is no {group} here ({group}=none)")
        else:
            problems += _unknown_key(key, text, task_class)
    if problems:
        raise ConfigError(problems)
    return choices + [text if text.startswith("~") else f"++{text.lstrip('+')}" for _, text in values]


def _folders(overrides: Sequence[str]) -> list[Path]:
    """Return the folders of further YAMLs that overrides name."""
    values = [_parse(text).value() for text in overrides if text.startswith(f"{SEARCH_PATH}=")]
    # What is no list of names is for Hydra to refuse.
    names = [str(name) for value in values if isinstance(value, list) for name in value]
    return [Path(name.removeprefix("file://")) for name in names if not name.startswith("pkg://")]


def _folder_problems(folders: Sequence[Path]) -> list[str]:
    """Return what is wrong with folders of further YAMLs: one that is not there, or a file that would never be read."""
    problems = []
    for folder in folders:
        if not folder.is_dir():
            problems.append(f"{folder}: there is no such folder of configs")
        for path in sorted(folder.rglob("*.yaml")):
            inside = path.relative_to(folder)
            if (CONF / inside).exists():
                problems.append(f"{path}: the program has a {inside} of its own; choose another name")
    return problems


def _origin(overrides: Sequence[str]) -> Callable[[str], str]:
    """Return a function that tells which YAML a dotted key stands in, as the end of an error message.

    It returns the empty string for a key that was typed. Must be called while Hydra is initialised.
    """
    from hydra.core.global_hydra import GlobalHydra
    from hydra.types import RunMode
    from omegaconf import OmegaConf

    typed = [_parse(text).key_or_group for text in overrides if text.startswith("++")]
    folders = [CONF, *_folders(overrides)]
    loader = GlobalHydra.instance().config_loader()

    def origin(key: str) -> str:
        if any(f"{key}.".startswith(f"{other}.") for other in typed):
            return ""
        # What comes later in the list is laid over what comes before.
        for default in reversed(loader.compute_defaults_list("config", list(overrides), RunMode.RUN).defaults):
            package = f"{default.package}." if default.package else ""
            paths = [path for folder in folders if (path := folder / f"{default.config_path}.yaml").exists()]
            if not paths or not key.startswith(package):
                continue
            values = OmegaConf.load(paths[0])
            if OmegaConf.select(values, key.removeprefix(package)) is not None:
                return f" (in {os.path.relpath(paths[0])})"
        return ""

    return origin


def _parse(text: str) -> Override:
    """Parse one override by Hydra's grammar. Must be called while Hydra is initialised.

    Raises:
        ConfigError: saying how to quote it.
    """
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        return OverridesParser.create(GlobalHydra.instance().config_loader()).parse_overrides([text])[0]
    except HydraException as error:
        key, equals, value = text.partition("=")
        remedy = f"""write {key}="'{value}'\"""" if equals else "an override is key=value"
        raise ConfigError([f"{text}: cannot be read as an override; {remedy}"]) from error


def _task_class(target: str | None) -> type[Task]:
    """Import the task that `_target_` names; it may lie outside the package."""
    module, _, name = (target or "").rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError([f"task._target_={target}: cannot be imported ({error})"]) from error
    if not (isinstance(found, type) and issubclass(found, Task)):
        raise ConfigError([f"task._target_={target}: is not a subclass of ulmfit_style.tasks.base.Task"])
    return found


def _section(name: str, task_class: type[Section]) -> type[Section] | None:
    """Return the section class that the top-level field `name` holds, if it holds one."""
    sections: dict[str, type[Section]] = {
        "model": Model,
        "corpus": Corpus,
        "adapt": Adapt,
        "task": task_class,
        "finetune": Finetune,
        "evaluate": Evaluate,
        "predict": Predict,
        "hub": Hub,
    }
    return sections.get(name)


def _unknown_key(key: str, text: str, task_class: type[Section]) -> list[str]:
    """Return what is wrong with an override's key: nothing, or one problem."""
    first, _, rest = key.partition(".")
    section = _section(first, task_class)
    if first not in Config.model_fields:
        return [f"{text}: there is no option '{key}'{nearest(key, _all_keys(task_class))}"]
    if (section is None) != (not rest):
        return [f"{text}: '{first}' is {'one value' if section is None else 'a group of options'}"]
    if section is not None and issubclass(section, Training) and rest.startswith("trainer."):
        problem = training_arguments.name_problem(first, rest.removeprefix("trainer."))
        return [] if problem is None else [problem]
    if section is not None and rest not in section.model_fields:
        if "token" in rest:
            return [f"{first}.{rest}=...: a token is never an option; set HF_TOKEN in the environment"]
        keys = [f"{first}.{name}" for name in section.model_fields]
        return [f"{text}: there is no option '{key}'{nearest(key, keys) or nearest(key, _all_keys(task_class))}"]
    return []


def _without_missing(values: dict[str, Any]) -> dict[str, Any]:
    """Leave out what a YAML marks as required (`???`) and nobody gave, so that it is reported as such."""
    return {
        key: _without_missing(value) if isinstance(value, dict) else value
        for key, value in values.items()
        if value != "???"
    }


def _all_keys(task_class: type[Section]) -> list[str]:
    keys = list(Config.model_fields)
    for name in Config.model_fields:
        section = _section(name, task_class)
        keys += [] if section is None else [f"{name}.{field}" for field in section.model_fields]
    return keys


def _problem(details: ErrorDetails, origin: Callable[[str], str], schema: type[Section], prefix: str = "") -> str:
    """Word one of pydantic's findings in the user's spelling, and say which YAML it stands in."""
    where = ".".join(str(part) for part in (*([prefix] if prefix else []), *details["loc"]))
    if details["type"] == "extra_forbidden":
        return f"{where}: there is no such option{nearest(where, _all_keys(schema if prefix else Task))}{origin(where)}"
    field = schema.model_fields.get(str(details["loc"][-1])) if prefix else None
    meaning = f" ({' '.join(field.description.split())})" if field is not None and field.description else ""
    if details["type"] == "missing":
        return f"{where}: is required{meaning}"
    message = details["msg"].removeprefix("Value error, ").removeprefix("Input ")
    return f"{where}={details['input']}: {message[:1].lower()}{message[1:]}{origin(where)}"
