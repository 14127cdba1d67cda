"""Training as a short list of phases: which parameters are thawed, for how long, at which peak rate."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from rich.table import Table
from safetensors.torch import load_model, save_model
from torch import nn
from transformers import PreTrainedModel, TrainerCallback, TrainingArguments

from ulmfit_style import processes
from ulmfit_style.artefacts.directory import read_json, write_json
from ulmfit_style.config.stages import Adapt, Finetune, LanguageModelling, Schedule
from ulmfit_style.console import progress, say, show
from ulmfit_style.errors import UserError
from ulmfit_style.models.layers import Layers, with_rates
from ulmfit_style.recipe import Config
from ulmfit_style.training.batching import Ordered, Rows
from ulmfit_style.training.best import Best
from ulmfit_style.training.objectives import Objective
from ulmfit_style.training.pruning import Pruning
from ulmfit_style.training.resume import Keeper, is_whole, newest_whole, seal
from ulmfit_style.training.schedule import Rising
from ulmfit_style.training.trainer import Finite, Measuring, Progress, RecipeTrainer, Reporting, number

LOGGING_STEPS = 10
"""Optimizer steps between two entries of the log; fewer in a phase that would have fewer than so many entries."""

GENERAL = "general_loss"
"""The measure of forgetting: the loss on general text."""

Collate = Callable[[Sequence[Any]], dict[str, torch.Tensor]]


@dataclass(frozen=True)
class Lesson:
    """What is learnt, and from what."""

    objective: Objective
    rows: Rows
    collate: Collate
    texts: int = 1
    """The texts of a row; the batch size counts these."""


@dataclass(frozen=True)
class Phase:
    """One Trainer run over one set of thawed parameters, with a whole schedule of its own."""

    title: str
    thawed: Sequence[nn.Parameter]
    """What is trained; the rest is frozen."""
    epochs: float
    learning_rate: float
    """Peak rate."""
    lesson: Lesson | None = None
    """What it is about; None for the lesson of the course."""


@dataclass(frozen=True)
class Settings:
    """What the phases of a stage share."""

    batch_size: int
    """Texts per optimizer step, over all processes."""
    warmup_ratio: float
    weight_decay: float
    seed: int
    micro_batch_size: int | None
    """Texts per forward pass of a process; None for as many as the batch has for each."""
    measurements: int
    """Times that a phase measures, evenly spread, the last time at its end."""
    save_minutes: float
    """Minutes between two checkpoints to go on from."""
    extras: Mapping[str, Any]
    """Further TrainingArguments."""
    schedule: Schedule | Rising = "linear"
    layers: Layers | None = None
    """The layer groups, where each has a rate of its own."""
    layer_decay: float = 1
    """The factor by which the rate of each layer group is lower than that of the one above."""
    budget: Mapping[str, float] = field(default_factory=dict)
    """How much a measure may rise in a phase before training stops, by its name."""


def settings(config: Config, options: LanguageModelling | Finetune, layers: Layers) -> Settings:
    """Return the settings of a stage's phases.

    Args:
        layers: The layer groups of the model.
    """
    return Settings(
        batch_size=options.batch_size,
        warmup_ratio=options.warmup_ratio,
        weight_decay=options.weight_decay,
        seed=options.seed,
        micro_batch_size=config.micro_batch_size,
        measurements=options.measurements if isinstance(options, LanguageModelling) else 1,
        save_minutes=config.save_minutes,
        extras=options.trainer,
        schedule=options.schedule,
        layers=None if options.layer_decay == 1 else layers,
        layer_decay=options.layer_decay,
        budget={GENERAL: options.max_forgetting} if isinstance(options, Adapt) and options.max_forgetting else {},
    )


@dataclass(frozen=True)
class Course:
    """What a stage trains, on what, and how."""

    model: PreTrainedModel
    phases: Sequence[Phase]
    settings: Settings
    lesson: Lesson

    def ordered(self, place: int) -> Ordered:
        """Return the rows of a phase, in its order."""
        lesson, settings = self.phases[place].lesson or self.lesson, self.settings
        micro, _ = processes.split(settings.batch_size, settings.micro_batch_size, lesson.texts)
        together = micro * processes.count() if processes.count() > 1 else 1
        return Ordered(lesson.rows, settings.batch_size // lesson.texts, settings.seed, place, together)


@dataclass(frozen=True)
class Outcome:
    """What a phase did."""

    title: str
    before: dict[str, float]
    """The stage's measures before the phase, by their names."""
    after: dict[str, float]
    log: list[dict[str, Any]]
    """One entry of loss, rates and gradient norm every few steps."""


def train(
    course: Course,
    folder: Path,
    measure: Callable[[], dict[str, float]] = dict,
    best: Best | None = None,
    pruning: Pruning | None = None,
) -> list[Outcome]:
    """Train the phases of a course in place, each from the last weights of the one before, and return what each did.

    A stage that was stopped goes on: finished phases are read back from `folder`, the unfinished one from its
    newest whole checkpoint, bit-identically.

    Args:
        folder: Where checkpoints are kept until the stage is finished.
        measure: What is measured before the first phase and after each, and said.
        best: What chooses the state that the model has in the end; None for the last one.
        pruning: What stops it where it is a trial that falls behind; None where it is none.
    """
    model, settings = course.model, course.settings
    model.to(PartialState().device)
    outcomes: list[Outcome] = []
    reporting = Reporting(settings.extras.get("report_to", "none"), folder.parent)
    if settings.layers is not None:
        show(_rates(settings.layers, course.phases[-1].learning_rate, settings.layer_decay))
    steps = [_steps(phase, course.ordered(place)) for place, phase in enumerate(course.phases)]
    for place, phase in enumerate(course.phases):
        if pruning is not None:
            pruning.before, pruning.total = sum(steps[:place]), sum(steps)
        done = folder / f"phase-{place}" / "done"
        if is_whole(done):
            load_model(model, done / "model.safetensors", device=str(model.device))
            outcomes.append(Outcome(**read_json(done / "outcome.json")))
            if best is not None:
                best.load(done)
            say(f"  {phase.title}: was done before")
            continue
        before = outcomes[-1].after if outcomes else measure()
        measuring = Measuring(phase.title, measure, before, settings.budget)
        before_it = sum(outcome.log[-1]["step"] for outcome in outcomes)
        reporting.begin(place, before_it, is_last=place == len(course.phases) - 1)
        others = [reporting, *([] if pruning is None else [pruning])]
        log = _run(course, place, measuring, others, folder / f"phase-{place}", best)
        outcomes.append(Outcome(phase.title, before, measure(), log))
        changes = [
            f"{name.replace('_', ' ')} {number(before[name])} -> {number(value)}"
            for name, value in outcomes[-1].after.items()
        ]
        say(f"  {phase.title}: {', '.join(changes) or 'done'}")
        if processes.is_main():
            done.mkdir(parents=True, exist_ok=True)
            save_model(model, str(done / "model.safetensors"))
            write_json(done / "outcome.json", asdict(outcomes[-1]))
            if best is not None:
                best.save(done)
            seal(done)
        processes.wait()
    if best is not None:
        best.restore(model)
    return outcomes


def _run(
    course: Course,
    place: int,
    measuring: Measuring,
    others: Sequence[TrainerCallback],
    folder: Path,
    best: Best | None,
) -> list[dict[str, Any]]:
    """Train one phase in place, from its newest whole checkpoint if there is one, and return its log."""
    phase, settings = course.phases[place], course.settings
    best = best if phase.lesson is None else None  # another lesson does not bring a better answer to the task
    resumed = newest_whole(folder)
    if resumed is not None:
        say(f"  {phase.title}: goes on from {resumed}")
    if best is not None:
        best.phase = phase.title
        if resumed is not None:
            best.load(resumed)
        if best.over:  # the run was stopped between the end of this phase and its being marked as done
            phase = replace(phase, epochs=best.curve[-1]["epoch"])
    ordered = course.ordered(place)
    total = _steps(phase, ordered)
    measuring.every = math.ceil(total / settings.measurements)
    done = 0 if resumed is None else int(resumed.name.rpartition("-")[2])
    with progress(phase.title, total, done) as steps, Keeper(phase.title, settings.save_minutes) as keeper:
        callbacks: list[TrainerCallback] = [
            Progress(steps, ordered, best),
            Finite(phase.title),
            measuring,
            *([] if best is None else [best]),
            *others,
            keeper,
        ]
        trainer = trainer_of(course, phase, ordered, folder, callbacks)
        trainer.train(resume_from_checkpoint=None if resumed is None else str(resumed))
    course.model.zero_grad(set_to_none=True)
    return [entry for entry in trainer.state.log_history if {"loss", "heldout_loss"} & set(entry)]


def trainer_of(
    course: Course, phase: Phase, rows: Ordered, folder: Path, callbacks: list[TrainerCallback]
) -> RecipeTrainer:
    """Return what trains the model through a phase, whose parameters are thawed, and all others frozen.

    `requires_grad` is set before the model is wrapped: frozen parameters get no gradient, no decay and no optimizer
    state, and the backward pass ends at the lowest thawed layer (ULMFiT, section 3.3). The phase's number enters its
    seed, or every phase would replay the same batches.

    Args:
        rows: Those of its lesson, in the order of the phase.
        folder: Where checkpoints are kept, if one is asked for.

    Raises:
        UserError: if the batch cannot be split, or several GPUs are visible to one process.
    """
    thawed = {id(parameter) for parameter in phase.thawed}
    for parameter in course.model.parameters():
        parameter.requires_grad_(id(parameter) in thawed)
    settings, lesson = course.settings, phase.lesson or course.lesson
    micro, passes = processes.split(settings.batch_size, settings.micro_batch_size, lesson.texts)
    trainer = RecipeTrainer(
        model=course.model,
        objective=lesson.objective,
        shape=settings.schedule,
        layer_groups=settings.layers,
        layer_decay=settings.layer_decay,
        args=TrainingArguments(
            output_dir=str(folder),
            num_train_epochs=phase.epochs,
            learning_rate=phase.learning_rate,
            per_device_train_batch_size=micro,
            gradient_accumulation_steps=passes,
            warmup_steps=settings.warmup_ratio,
            weight_decay=settings.weight_decay,
            seed=settings.seed * 1000 + rows.phase,
            train_sampling_strategy="sequential",  # the rows bring their order along
            save_strategy="no",  # the keeper asks for it
            disable_tqdm=True,
            remove_unused_columns=False,
            logging_nan_inf_filter=False,
            **{**_defaults(_steps(phase, rows)), **settings.extras, "report_to": "none"},  # `Reporting` tells them
        ),
        train_dataset=rows,
        collate=lesson.collate,
        callbacks=callbacks,
    )
    if trainer.args.n_gpu > 1:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", "all")
        raise UserError(f"CUDA_VISIBLE_DEVICES={visible}: one process trains on one GPU; name one")
    return trainer


def _steps(phase: Phase, rows: Ordered) -> int:
    """Return the optimizer steps of a phase."""
    return math.ceil(math.ceil(len(rows) / rows.batch_size) * phase.epochs)


def _rates(layers: Layers, learning_rate: float, layer_decay: float) -> Table:
    """Return the table of the layer groups' peak rates, the head's first."""
    table = Table(title=f"a rate for each layer group (layer_decay={layer_decay:g})", title_justify="left")
    for column in ("layer group", "weights", "peak rate"):
        table.add_column(column, justify="left" if column == "layer group" else "right")
    whole = [{"params": [parameter for own in layers.values() for parameter in own], "lr": learning_rate}]
    for group in with_rates(whole, layers, layer_decay):
        weights = sum(parameter.numel() for parameter in group["params"])
        table.add_row(group["layer"], f"{weights:,}", f"{group['lr']:.1e}")
    return table


def _defaults(steps: int) -> dict[str, Any]:
    """Return the TrainingArguments that a user's extras may replace, for a phase of so many optimizer steps."""
    return {
        "use_cpu": processes.count() > 1
        and not torch.cuda.is_available(),  # or the processes would not find each other
        "bf16": torch.cuda.is_available() and torch.cuda.is_bf16_supported(),
        "logging_first_step": True,
        "logging_steps": min(LOGGING_STEPS, math.ceil(steps / LOGGING_STEPS)),
        "dataloader_pin_memory": torch.cuda.is_available(),
    }
