"""Which artefact each stage of a config makes, and what it is made from.

Every stage composes the same config, so it knows the directories of the stages before it: there is no "latest".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from ulmfit_style import processes
from ulmfit_style.analysis import slices
from ulmfit_style.artefacts.directory import LIBRARIES, MANIFEST, RECIPE, Artefact, device, digest, read_json, versions
from ulmfit_style.config.schema import spelled
from ulmfit_style.config.stages import Corpus
from ulmfit_style.data import corpus, labelled
from ulmfit_style.data.corpus import Documents
from ulmfit_style.errors import UserError
from ulmfit_style.models import checkpoints
from ulmfit_style.models.checkpoints import Checkpoint
from ulmfit_style.recipe import Config, load
from ulmfit_style.tasks.base import Row, Task

RESULT_VERSIONS = {
    "scratch": 1,
    "pretrain": 2,
    "references": 2,
    "setfit": 1,
    "adapt": 3,
    "decoder_tokenizer": 1,
    "finetune": 2,
    "evaluate": 1,
}
"""Raised whenever a stage would make something else of the same config."""

ACTS_THROUGH = {
    "version": ((), "the program's results have changed since"),
    "init": (("model", "pretrain", "corpus", "adapt"), "the checkpoint's files have changed"),
    "general": (("adapt", "task"), "the general text has changed"),
    "like": (("model",), "the checkpoint's files have changed"),
    "corpus": (("corpus", "pretrain", "task"), "the corpus's text has changed"),
    "data": (("task",), "the labelled rows have changed"),
    "decoder": (("model", "finetune", "task"), "the decoder's files have changed"),
    "watched": (("task",), "other rows are watched"),
    "tuned": (
        ("model", "pretrain", "corpus", "adapt", "task", "finetune", "evaluate"),
        "the model's files have changed",
    ),
    "split": (("evaluate",), "other rows were scored"),
    "rows": (("task", "evaluate"), "the rows have changed"),
    "slices": (("evaluate",), "the columns of evaluate.slices have changed"),
    "probe": (("evaluate",), "the model that was not adapted has changed"),
}
"""Which groups of options act through a determinant, and what is to say if none of theirs changed. All other
determinants are options themselves."""


def general_text(config: Config) -> Documents:
    """Return the documents that `pretrain` reads."""
    path = None if config.pretrain is None else config.pretrain.path
    if path is None:
        return corpus.load(config.corpus, config.task, config.runs)
    return corpus.load(config.corpus.model_copy(update={"path": path}), config.task, config.runs, "pretrain.path")


def remembered_text(config: Config) -> Documents | None:
    """Return the general text of `adapt`: what it replays, and held out what it measures forgetting on."""
    if config.adapt is None or config.adapt.general is None:
        return None
    source = Corpus(path=(config.adapt.general,), heldout_ratio=0.5)
    return corpus.load(source, config.task, config.runs, "adapt.general")


def scratch(config: Config) -> Artefact:
    """Return the artefact of the model with random weights."""
    model = config.model
    determinants: dict[str, Any] = {"version": RESULT_VERSIONS["scratch"], "seed": model.seed}
    if model.checkpoint is not None:
        determinants["like"] = checkpoints.resolve(model).identity
    else:
        assert model.tokenizer is not None  # the config was checked
        determinants["model"] = {"architecture": model.architecture, "tokenizer": model.tokenizer.determinants()}
        determinants["corpus"] = general_text(config).identity
    return Artefact("scratch", determinants, config.runs)


def pretrain(config: Config) -> Artefact:
    """Return the artefact of the pretrained language model.

    Raises:
        UserError: if the config pretrains nothing.
    """
    if config.model.init == "pretrained":
        title = config.model.title()
        raise UserError(
            f"pretrain: {title} is pretrained; take an architecture, model=mini_bert, or model.init=scratch"
        )
    if config.pretrain is None:
        raise UserError("pretrain=none: nothing is pretrained; choose how with pretrain=plain")
    determinants = {
        "version": RESULT_VERSIONS["pretrain"],
        "init": {"scratch": scratch(config).fingerprint},
        "corpus": general_text(config).identity,
        "pretrain": config.pretrain.determinants(),
    }
    return Artefact("pretrain", determinants, config.runs)


def start(config: Config) -> Checkpoint:
    """Return what the recipe starts from: a checkpoint, a pretrained model, finished or not, or random weights."""
    if config.model.init == "pretrained":
        return checkpoints.resolve(config.model)
    made = scratch(config) if config.pretrain is None else pretrain(config)
    return Checkpoint(made.directory, {made.stage: made.fingerprint})


def adapt(config: Config) -> Artefact:
    """Return the artefact of the adapted language model.

    Raises:
        UserError: if the config adapts nothing.
    """
    if config.adapt is None:
        raise UserError("adapt=none: nothing is adapted; choose how with adapt=plain")
    if config.model.init == "scratch" and config.pretrain is None:
        raise UserError("pretrain=none: there is no language model to adapt; use pretrain=plain, or adapt=none")
    determinants = {
        "version": RESULT_VERSIONS["adapt"],
        "init": start(config).identity,
        "corpus": corpus.load(config.corpus, config.task, config.runs).identity,
        "adapt": config.adapt.determinants(),
    }
    if (general := remembered_text(config)) is not None:
        determinants["general"] = general.identity
    return Artefact("adapt", determinants, config.runs)


def init(config: Config) -> Checkpoint:
    """Return what fine-tuning starts from: the adapted model, finished or not, or what it would have been made from."""
    if config.adapt is None:
        return start(config)
    adapted = adapt(config)
    return Checkpoint(adapted.directory, {"adapt": adapted.fingerprint})


def finetune(config: Config) -> Artefact:
    """Return the artefact of the fine-tuned model."""
    task = required_task(config)
    determinants = {
        "version": RESULT_VERSIONS["finetune"],
        "init": init(config).identity,
        "task": {"kind": type(task).__name__, **task.determinants()},
        "data": labelled.load(task).digest(task),
        "finetune": config.finetune.determinants(),
    }
    if config.model.decoder is not None:
        new = {name: getattr(config.finetune, name) for name in ("new_epochs", "new_learning_rate")}
        determinants["decoder"] = {**decoder(config), **new}
    if config.finetune.patience is not None:
        determinants["watched"] = labelled.digest_of(task, labelled.watched(task)[1])
    return Artefact("finetune", determinants, config.runs)


def decoder(config: Config) -> dict[str, Any]:
    """Return what determines the decoder that an encoder is given, as JSON values."""
    checkpoint = config.model.decoder_checkpoint()
    if checkpoint is not None:
        return {"decoder": checkpoints.resolve(checkpoint, "model.decoder").identity}
    if config.model.decoder == "same":
        return {"decoder": "same"}
    tokenizer = decoder_tokenizer(config).fingerprint
    return {"decoder": "scratch", "layers": config.model.decoder_layers, "tokenizer": tokenizer}


def decoder_tokenizer(config: Config) -> Artefact:
    """Return the artefact of a new decoder's tokenizer."""
    task = required_task(config)
    determinants = {
        "version": RESULT_VERSIONS["decoder_tokenizer"],
        "tokenizer": config.model.decoder_tokenizer.determinants(),
        "data": labelled.digest_of(task, trained_rows(config)),
    }
    return Artefact("decoder_tokenizer", determinants, config.runs)


def trained_rows(config: Config) -> list[Row]:
    """Return the labelled rows that `finetune` trains on."""
    task = required_task(config)
    return labelled.load(task).train if config.finetune.patience is None else labelled.watched(task)[0]


def references(config: Config) -> Artefact:
    """Return the artefact of the reference models' scores."""
    task = required_task(config)
    determinants = {
        "version": RESULT_VERSIONS["references"],
        "kind": type(task).__name__,
        "init": start(config).identity,
        "data": labelled.load(task).digest(task),
        "max_length": config.finetune.max_length,
    }
    return Artefact("references", determinants, config.runs)


def features(config: Config) -> Artefact:
    """Return the artefact of the test rows' frozen features, which the references of all samples of labels share."""
    task = required_task(config)
    data = labelled.digest_of(task, labelled.load(task).test)
    return Artefact("features", {**references(config).determinants, "data": data}, config.runs)


def setfit(config: Config) -> Artefact:
    """Return the artefact of SetFit's scores."""
    own = {"version": RESULT_VERSIONS["setfit"], "seed": config.finetune.seed}
    return Artefact("setfit", {**references(config).determinants, **own}, config.runs)


def tuned(config: Config, named: str | None, option: str) -> Checkpoint:
    """Return the fine-tuned model: the config's own, finished or not, or the one that an option names.

    Raises:
        UserError: if there is none of that name.
    """
    if named is not None:
        return checkpoints.finetuned(named, option)
    own = finetune(config)
    return Checkpoint(own.directory, {"finetune": own.fingerprint})


def task_of(config: Config, named: str | None, option: str) -> Task:
    """Return the task of that model: the config's own, or the one that the named model was trained on."""
    return required_task(config if named is None else load(tuned(config, named, option).directory / RECIPE))


def evaluate(config: Config) -> Artefact:
    """Return the artefact of a fine-tuned model's scores.

    Raises:
        UserError: if the model is of another kind of task, or does not know a label of the rows.
    """
    task, named = required_task(config), config.evaluate.model
    model = tuned(config, named, "evaluate.model")
    split, rows = scored(config)
    if named is not None:
        theirs = task_of(config, named, "evaluate.model")
        if type(theirs) is not type(task):
            kinds = f"was trained on {type(theirs).__name__}, and the task is {type(task).__name__}"
            raise UserError(f"evaluate.model={named}: {kinds}; choose the task that fits")
    labelled.require_known(task, labelled.load(task).classes if named is None else checkpoints.classes(model), rows)
    determinants = {
        "version": RESULT_VERSIONS["evaluate"],
        "tuned": model.identity,
        "task": {"kind": type(task).__name__, **task.determinants()},
        "split": split,
        "rows": labelled.digest_of(task, rows),
    }
    if config.evaluate.slices:
        determinants["slices"] = digest(slices.groups(config, rows))
    if config.evaluate.probe != "none":
        bare = not_adapted(config)
        determinants["probe"] = {config.evaluate.probe: None if bare is None else bare.fingerprint}
    return Artefact("evaluate", determinants, config.runs)


def not_adapted(config: Config) -> Artefact | None:
    """Return the model that `compare` fine-tunes without adaptation, to be probed too; None if there is none."""
    if config.evaluate.model is not None or config.adapt is None or not config.compare:
        return None
    return finetune(config.model_copy(update={"adapt": None}))


def scored(config: Config) -> tuple[str, list[Row]]:
    """Return the rows that `evaluate` scores, and what they are called: a split, or "all" rows of another file."""
    task, options = required_task(config), config.evaluate
    if options.path is not None:
        return "all", labelled.load_whole(task, "evaluate.path", options.path)
    return options.split, labelled.load(task).split(options.split)


def required_task(config: Config) -> Task:
    """Return the task.

    Raises:
        UserError: if the config has none.
    """
    if config.task is None:
        raise UserError("task=none: there is nothing to fine-tune on; choose a task, for example task=rotten_tomatoes")
    return config.task


def require_tuned(config: Config, named: str | None, stage: str) -> None:
    """Check that the fine-tuned model which a stage is to run is there; a named one was looked for before.

    Raises:
        UserError: naming the command that makes it, and the nearest fine-tuned model that there is.
    """
    if named is None and not finetune(config).finished:
        chain = "finetune" if config.adapt is None else "adapt finetune"
        raise UserError(
            f"{stage}: there is no fine-tuned model for this config ({why_missing(finetune(config), config)}); "
            f"run `{chain}` with the same options, or name another model: {stage}.model=<directory or Hub id>"
        )


def require_pretrained(config: Config) -> None:
    """Check that the pretrained model is there which the recipe starts from, if it starts from one.

    Raises:
        UserError: naming the command that makes it, and the nearest pretrained model that there is.
    """
    if config.model.init == "scratch" and config.pretrain is not None and not pretrain(config).finished:
        raise UserError(
            f"there is no pretrained model for this config ({why_missing(pretrain(config), config)}); run `pretrain` "
            "with the same options, or start from random weights with pretrain=none adapt=none"
        )


def require_adapted(config: Config) -> None:
    """Check that what `finetune` starts from is there.

    Raises:
        UserError: naming the command that makes it, and the nearest adapted model that there is.
    """
    if config.adapt is not None and not adapt(config).finished:
        raise UserError(
            f"finetune: there is no adapted model for this config ({why_missing(adapt(config), config)}); "
            "run `adapt finetune` with the same options, or finetune the plain checkpoint with adapt=none"
        )


def finished_model(config: Config) -> Artefact:
    """Return the model that `push.stage` names: by default the fine-tuned one, or without a task the adapted one.

    Raises:
        UserError: if it is not finished, naming the command that makes it, and the nearest one that there is.
    """
    stage = config.push.stage or ("adapt" if config.task is None else "finetune")
    model = adapt(config) if stage == "adapt" else finetune(config)
    if not model.finished:
        chain = stage if stage == "adapt" or config.adapt is None else "adapt finetune"
        raise UserError(
            f"there is no finished model for this config ({why_missing(model, config)}); "
            f"run `{chain}` with the same options"
        )
    return model


def why_missing(artefact: Artefact, config: Config) -> str:
    """Tell why an artefact is not there: it was not finished, or made with other options, or nothing like it was made.

    Args:
        config: The config that means this artefact.
    """
    if artefact.measured:
        return f"{artefact.directory} holds its scores, but a study did not keep its weights (study.keep_weights)"
    if artefact.directory.exists():
        return f"{artefact.directory} was begun, but not finished"
    found = nearest(artefact, config.recipe())
    if found is None:
        return f"{artefact.directory} is not there"
    directory, differences = found
    return f"{artefact.directory} is not there; the nearest is {directory}: {', '.join(differences)}"


def made_with(artefact: Artefact, config: Config) -> str | None:
    """Tell what an artefact was made with that is other now, and in no fingerprint; None where nothing is known to be.

    The device, and a number of processes that nobody gave, are compared where torch is imported anyway.
    """
    manifest, ours, here = read_json(artefact.directory / MANIFEST), versions(), device()
    pairs: list[tuple[str, Any, Any]] = [(f"{name} ", manifest["versions"][name], ours[name]) for name in LIBRARIES]
    there = manifest.get("device")
    if here is not None and there is not None:
        pairs.append(("", there, here))
    if artefact.stage in ("adapt", "finetune"):
        count = config.processes or (manifest["processes"] if here is None else processes.count())
        recipe = yaml.safe_load((artefact.directory / RECIPE).read_text(encoding="utf-8"))
        pairs.append(("processes=", manifest["processes"], count))
        pairs.append(("micro_batch_size=", recipe["micro_batch_size"], config.micro_batch_size))
    told = [f"{name}{spelled(theirs)} (here {spelled(now)})" for name, theirs, now in pairs if theirs != now]
    return f"made with {', '.join(told)}" if told else None


def nearest(artefact: Artefact, recipe: Mapping[str, Any]) -> tuple[Path, list[str]] | None:
    """Return the finished artefact of the same stage with the fewest differences, and these, in words.

    Of equally near ones it is the newest.

    Args:
        recipe: The recipe of the config that means `artefact`, to compare with those of the others.
    """
    candidates = []
    for manifest in artefact.runs.glob(f"{artefact.stage}-*/{MANIFEST}"):
        directory = manifest.parent
        other = yaml.safe_load((directory / RECIPE).read_text(encoding="utf-8"))
        determinants = read_json(manifest)["determinants"]
        differences = list(_differences(determinants, artefact.determinants, other, recipe))
        candidates.append((len(differences), -manifest.stat().st_mtime, directory, differences))
    return min(candidates)[2:] if candidates else None


def _differences(
    theirs: Mapping[str, Any], ours: Mapping[str, Any], their_recipe: Mapping[str, Any], our_recipe: Mapping[str, Any]
) -> Iterator[str]:
    """Tell what differs, by the options that act through the determinants that differ."""
    told: set[str] = set()
    for name in {**ours, **theirs}:
        if theirs.get(name) == ours.get(name):
            continue
        if name not in ACTS_THROUGH:
            options = list(changes(theirs.get(name), ours.get(name), name))
        else:
            groups, otherwise = ACTS_THROUGH[name]
            options = [
                option for group in groups for option in changes(their_recipe.get(group), our_recipe.get(group), group)
            ] or [otherwise]
        # An option may act through several determinants.
        yield from (option for option in options if option not in told)
        told |= set(options)


def changes(theirs: Any, ours: Any, key: str) -> Iterator[str]:
    """Compare two values of recipes, all the way down."""
    if isinstance(theirs, dict) and isinstance(ours, dict):
        for name in {**ours, **theirs}:
            yield from changes(theirs.get(name), ours.get(name), f"{key}.{name}")
    elif isinstance(theirs, dict) or isinstance(ours, dict):
        yield f"{key}=none there" if theirs is None else f"{key}=none here"
    elif theirs != ours:
        yield f"{key}={spelled(theirs)} there, {spelled(ours)} here"
