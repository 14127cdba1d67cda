"""The chain: which artefacts the stages of a config make, in which order, and what came of them."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ulmfit_style import lineage, processes
from ulmfit_style.analysis import probe
from ulmfit_style.analysis.comparison import conclude, without_adaptation
from ulmfit_style.artefacts.directory import METRICS, Artefact, read_json
from ulmfit_style.config.stages import GROUP, Finetune, LanguageModelling
from ulmfit_style.console import say
from ulmfit_style.errors import UserError
from ulmfit_style.models import architectures, checkpoints
from ulmfit_style.models.tokenizer_pair import FOLDER
from ulmfit_style.recipe import Config
from ulmfit_style.results import figures
from ulmfit_style.stages import adapt, evaluate, finetune, predict, pretrain, references, report, scratch
from ulmfit_style.tasks.base import Task
from ulmfit_style.tasks.text import TextTask
from ulmfit_style.tasks.text_classification import TextClassification

TRIAL = ("adapt", "finetune")
"""The stages of one of many runs that are compared: a trial of a study or of a sweep."""

COURSE = "course"
"""What the figure beside metrics.json is called, with its two endings."""

REPORTED_TO = ("tensorboard", "wandb", "mlflow", "trackio")
"""What `trainer.report_to` is known to take, each the name of its package too."""

FEWEST_POINTS = 10
"""Logged steps that are worth a figure."""


@dataclass(frozen=True)
class Step:
    """One artefact to make."""

    title: str
    role: str
    """What the artefact is called in `runs/<name>/`."""
    artefact: Artefact
    stage: Callable[[Config], Path]
    config: Config


def plan(config: Config, stages: Sequence[str]) -> list[Step]:
    """Return the steps of the stages. The model and all data are checked here, before anything is trained.

    Raises:
        UserError: if something in the data or the options is wrong, or the adapted model that `finetune` needs is not
            there.
    """
    _check_model(config, stages)
    steps = []
    if "pretrain" not in stages and {"adapt", "finetune"} & set(stages):
        lineage.require_pretrained(config)
    if "finetune" in stages and "adapt" not in stages and not lineage.finetune(config).finished:
        lineage.require_adapted(config)
    if config.model.init == "scratch" and (config.pretrain is None or "pretrain" in stages):
        title = f"scratch: {config.model.title()} with random weights"
        steps.append(Step(title, "scratch", lineage.scratch(config), scratch.run, config))
    if "pretrain" in stages:
        title = f"pretrain: {config.model.title()} learns the general text"
        steps.append(Step(title, "pretrain", lineage.pretrain(config), pretrain.run, config))
    if "finetune" in stages and config.compare:
        title = "references: simple models on the same rows"
        steps.append(Step(title, "references", lineage.references(config), references.run, config))
        if config.adapt is not None:
            bare = without_adaptation(config)
            title = "finetune, not adapted: for comparison"
            steps.append(Step(title, "finetune-not-adapted", lineage.finetune(bare), finetune.run, bare))
    if "adapt" in stages and (config.adapt is not None or "finetune" not in stages):
        title = f"adapt: {config.model.title()} learns the corpus"
        steps.append(Step(title, "adapt", lineage.adapt(config), adapt.run, config))
    if "finetune" in stages:
        steps.append(Step("finetune: the task", "finetune", lineage.finetune(config), finetune.run, config))
    if "evaluate" in stages:
        if config.evaluate.probe != "none":
            probe.check(lineage.required_task(config))
        title = f"evaluate: {config.evaluate.path or f'the {config.evaluate.split} rows'}"
        steps.append(Step(title, "evaluate", lineage.evaluate(config), evaluate.run, config))
    learning = [step for step in steps if step.stage in (pretrain.run, adapt.run) and not step.artefact.finished]
    if learning and architectures.is_encoder_decoder(checkpoints.model_type(config.model)):
        checkpoints.check_sentinels(config.model)
        if config.model.checkpoint and (checkpoints.resolve(config.model).directory / FOLDER).is_dir():
            two = f"{config.model.title()} writes with another tokenizer than it reads with, and has no text to restore"
            raise UserError(f"adapt.objective=denoising: {two}; adapt the encoder before, or take adapt=none")
    if "predict" in stages:
        predict.check(config)
    if "report" in stages:
        report.check(config, stages)
    return steps


def _check_model(config: Config, stages: Sequence[str]) -> None:
    """Check that the architecture has a head for each stage, and positions for its texts, before the data is read."""
    trained = {"pretrain": config.pretrain, "adapt": config.adapt, "finetune": config.finetune}
    for stage, options in trained.items():
        if stage not in stages or options is None:
            continue
        model_type, positions = checkpoints.model_type(config.model), checkpoints.positions(config.model)
        if isinstance(options, LanguageModelling):
            architectures.objective(options.objective, model_type, f"{stage}.objective")
        elif config.task is not None:
            _check_head(config, config.task, model_type)
            finetune.check_groups(config)
        _check_batch(config, stage, options)
        _check_reporting(stage, options)
        if options.lora_rank and importlib.util.find_spec("peft") is None:
            raise UserError(f"{stage}.lora_rank={options.lora_rank}: needs peft; install it: pip install peft")
        reach = options.max_length
        if isinstance(options, Finetune) and config.task is not None:
            reach = config.task.suited(model_type).reach(reach)
        if reach > positions:
            answers = f" and answers take {reach:,} in all" if reach > options.max_length else ""
            too_long = f"{config.model.title()} reads {positions:,} tokens at most"
            raise UserError(f"{stage}.max_length={options.max_length}{answers}: {too_long}")


def _check_batch(config: Config, stage: str, options: LanguageModelling | Finetune) -> None:
    """Check that the processes can share the batches evenly; how many GPUs there are is not known here."""
    for texts in (1, GROUP) if isinstance(options, Finetune) and options.contrast_epochs else (1,):
        try:
            processes.split(options.batch_size, config.micro_batch_size, texts, config.processes)
        except UserError as error:
            raise UserError(f"{stage}.{error}") from error


def _check_reporting(stage: str, options: LanguageModelling | Finetune) -> None:
    """Check that the libraries are there which are told of the training."""
    names = options.trainer.get("report_to") or []
    for name in [names] if isinstance(names, str) else names:
        if name in REPORTED_TO and importlib.util.find_spec(name) is None:
            raise UserError(f"{stage}.trainer.report_to={name}: needs {name}; install it: pip install {name}")


def _check_head(config: Config, task: Task, model_type: str) -> None:
    auto_class, kind = task.auto_class(model_type), type(task).__name__
    if config.model.decoder is not None:
        _check_decoder(config, task, model_type)
    elif not architectures.has_head(auto_class, model_type):
        needed = f"{kind} needs one that {auto_class} knows"
        if auto_class == architectures.ENCODER_DECODER and architectures.has_head("AutoModelForMaskedLM", model_type):
            needed += "; give it a decoder: model.decoder=same"
        raise UserError(f"model.checkpoint={config.model.title()}: is of type '{model_type}', and {needed}")
    if config.finetune.contrast_epochs and not isinstance(task, TextClassification):
        raise UserError(
            f"finetune.contrast_epochs={config.finetune.contrast_epochs:g}: compares texts of one class each, and "
            f"{type(task).__name__} has none; take finetune.contrast_epochs=0"
        )
    pooling = config.finetune.pooling
    if pooling != "default":
        remedy = "take finetune.pooling=default"
        if not isinstance(task, TextTask):
            raise UserError(f"finetune.pooling={pooling}: {type(task).__name__} does not score whole texts; {remedy}")
        if architectures.is_encoder_decoder(model_type):
            kind = f"a model of type '{model_type}' is an encoder and a decoder, and the head pools one body"
            raise UserError(f"finetune.pooling={pooling}: {kind}; {remedy}, or another model")


def _check_decoder(config: Config, task: Task, model_type: str) -> None:
    """Check that the model is an encoder that is given a decoder for a task that writes, and which can read along."""
    option, remedy = f"model.decoder={config.model.decoder}", "take model.decoder=null"
    if architectures.is_encoder_decoder(model_type) or architectures.is_causal(model_type):
        raise UserError(f"{option}: a model of type '{model_type}' writes by itself; {remedy}")
    if task.auto_class(model_type) != architectures.ENCODER_DECODER:
        raise UserError(f"{option}: {type(task).__name__} wants no text that a decoder could write; {remedy}")
    if config.finetune.pooling != "default":
        raise UserError(f"{option}: finetune.pooling={config.finetune.pooling} is for a head, and this is a decoder")
    if config.model.decoder == "scratch":
        return
    checkpoint = config.model.decoder_checkpoint() or config.model
    own = checkpoints.model_type(checkpoint, "model.decoder")
    if not architectures.can_cross_attend(own):
        others = "name another checkpoint, or take model.decoder=scratch"
        raise UserError(
            f"{option}: a model of type '{own}' has no cross-attention, so it cannot be a decoder; {others}"
        )
    written, positions = task.suited(model_type).reach(0), checkpoints.positions(checkpoint)
    if written > positions:
        raise UserError(f"{option}: writes {positions:,} tokens at most, and task.max_target_length={written}")


def make(steps: Sequence[Step], name: str) -> None:
    """Make the artefacts of the steps, but for those that are up to date, and link them in `runs/<name>/`."""
    if not all(step.artefact.finished for step in steps):
        prepare()
    for number, step in enumerate(steps, start=1):
        if processes.from_main(step.artefact.finished):
            say(f"[{number}/{len(steps)}] {step.title}: {up_to_date(step)}")
        else:
            say(f"[{number}/{len(steps)}] {step.title}", style="bold")
            started = time.monotonic()
            step.stage(step.config)
            say(f"  done in {time.monotonic() - started:.0f} s: {step.artefact.directory}")
        if processes.is_main():
            step.artefact.link(name, step.role)


def up_to_date(step: Step) -> str:
    """Tell where a finished artefact is, and in a second line what it was made with that is other now, if anything."""
    differently = lineage.made_with(step.artefact, step.config)
    return f"up to date ({step.artefact.directory})" + (f"\n  {differently}" if differently else "")


def draw(steps: Sequence[Step]) -> None:
    """Draw the losses and rates of what was trained, beside its metrics.json, unless it was done or is too short.

    A figure takes half a second, and importing matplotlib one. So a command draws in the end, when its results are
    safe, and a study, which may have hundreds of runs, does not; their figures come when a command next names them.
    """
    for step in steps:
        path = step.artefact.directory / COURSE
        scores = path.with_name(METRICS)
        trained = step.artefact.stage in ("pretrain", "adapt", "finetune") and scores.exists()
        if not trained or path.with_suffix(".svg").exists():
            continue
        metrics = read_json(scores)
        log = [entry for entry in metrics["log"] if "loss" in entry]
        if len(log) < FEWEST_POINTS:
            continue
        unit = f"nats a {metrics['per']}" if "per" in metrics else "mean"
        try:
            figures.course(path, log, step.artefact.directory.name, unit)
        except Exception as error:  # whatever matplotlib raises: the run is finished
            say(f"{path}.png: could not be drawn ({type(error).__name__}: {error})")
        else:
            say(f"Losses and rates are drawn in {path}.png")


def tell(config: Config, stages: Sequence[str]) -> None:
    """Say what came of the stages, and what to type next."""
    if "finetune" in stages:
        conclude(config)
    elif {"pretrain", "adapt"} & set(stages) and config.task is not None:
        say(f"Next: make {'finetune' if 'adapt' in stages else 'adapt finetune'}, with the same options")
    if "evaluate" in stages:
        evaluate.tell(config)


def prepare() -> None:
    """Load the libraries, on one GPU where there are several, and send what they say to the log of the run."""
    processes.see_one_gpu()
    from transformers.utils import logging as library_logging

    library_logging.disable_progress_bar()
    library_logging.disable_default_handler()
    library_logging.enable_propagation()
