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
from ulmfit_style.models.layers import LayerGroups, split_by_layer
from ulmfit_style.recipe import Config
from ulmfit_style.training.batching import Rows, ShuffledDataset
from ulmfit_style.training.best import BestState
from ulmfit_style.training.objectives import Objective
from ulmfit_style.training.pruning import Pruning
from ulmfit_style.training.resume import CheckpointKeeper, is_whole, newest_whole, seal
from ulmfit_style.training.schedule import ExponentialSchedule
from ulmfit_style.training.trainer import Finite, Measuring, Progress, RecipeTrainer, Reporting, number

LOGGING_STEPS = 10
"""Optimizer steps between two entries of the log; fewer in a phase that would have fewer than so many entries."""

GENERAL = "general_loss"
"""The measure of forgetting: the loss on general text."""

Collate = Callable[[Sequence[Any]], dict[str, torch.Tensor]]


@dataclass(frozen=True)
class TrainingData:
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
    data: TrainingData | None = None
    """What it is trained on; None for the data of the plan."""


@dataclass(frozen=True)
class PhaseSettings:
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
    schedule: Schedule | ExponentialSchedule = "linear"
    layers: LayerGroups | None = None
    """The layer groups, where each has a rate of its own."""
    layer_decay: float = 1
    """The factor by which the rate of each layer group is lower than that of the one above."""
    budget: Mapping[str, float] = field(default_factory=dict)
    """How much a measure may rise in a phase before training stops, by its name."""


def phase_settings(config: Config, options: LanguageModelling | Finetune, layers: LayerGroups) -> PhaseSettings:
    """Return the settings of a stage's phases.

    Args:
        layers: The layer groups of the model.
    """
    return PhaseSettings(
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
class TrainingPlan:
    """What a stage trains, on what, and how."""

    model: PreTrainedModel
    phases: Sequence[Phase]
    settings: PhaseSettings
    data: TrainingData

    def ordered(self, place: int) -> ShuffledDataset:
        """Return the rows of a phase, in its order."""
        data, settings = self.phases[place].data or self.data, self.settings
        micro, _ = processes.split(settings.batch_size, settings.micro_batch_size, data.texts)
        together = micro * processes.count() if processes.count() > 1 else 1
        return ShuffledDataset(data.rows, settings.batch_size // data.texts, settings.seed, place, together)


@dataclass(frozen=True)
class PhaseResult:
    """What a phase did."""

    title: str
    before: dict[str, float]
    """The stage's measures before the phase, by their names."""
    after: dict[str, float]
    log: list[dict[str, Any]]
    """One entry of loss, rates and gradient norm every few steps."""


def train(
    plan: TrainingPlan,
    folder: Path,
    measure: Callable[[], dict[str, float]] = dict,
    best: BestState | None = None,
    pruning: Pruning | None = None,
) -> list[PhaseResult]:
    """Train the phases of a plan in place, each from the last weights of the one before, and return what each did.

    A stage that was stopped goes on: finished phases are read back from `folder`, the unfinished one from its
    newest whole checkpoint, bit-identically.

    Args:
        folder: Where checkpoints are kept until the stage is finished.
        measure: What is measured before the first phase and after each, and said.
        best: What chooses the state that the model has in the end; None for the last one.
        pruning: What stops it where it is a trial that falls behind; None where it is none.
    """
    model, settings = plan.model, plan.settings
    model.to(PartialState().device)
    results: list[PhaseResult] = []
    reporting = Reporting(settings.extras.get("report_to", "none"), folder.parent)
    if settings.layers is not None:
        show(_rates(settings.layers, plan.phases[-1].learning_rate, settings.layer_decay))
    steps = [_steps(phase, plan.ordered(place)) for place, phase in enumerate(plan.phases)]
    for place, phase in enumerate(plan.phases):
        if pruning is not None:
            pruning.before, pruning.total = sum(steps[:place]), sum(steps)
        done = folder / f"phase-{place}" / "done"
        if is_whole(done):
            load_model(model, done / "model.safetensors", device=str(model.device))
            results.append(PhaseResult(**read_json(done / "result.json")))
            if best is not None:
                best.load(done)
            say(f"  {phase.title}: was done before")
            continue
        before = results[-1].after if results else measure()
        measuring = Measuring(phase.title, measure, before, settings.budget)
        before_it = sum(result.log[-1]["step"] for result in results)
        reporting.begin(place, before_it, is_last=place == len(plan.phases) - 1)
        others = [reporting, *([] if pruning is None else [pruning])]
        log = _run(plan, place, measuring, others, folder / f"phase-{place}", best)
        results.append(PhaseResult(phase.title, before, measure(), log))
        changes = [
            f"{name.replace('_', ' ')} {number(before[name])} -> {number(value)}"
            for name, value in results[-1].after.items()
        ]
        say(f"  {phase.title}: {', '.join(changes) or 'done'}")
        if processes.is_main():
            done.mkdir(parents=True, exist_ok=True)
            save_model(model, str(done / "model.safetensors"))
            write_json(done / "result.json", asdict(results[-1]))
            if best is not None:
                best.save(done)
            seal(done)
        processes.wait()
    if best is not None:
        best.restore(model)
    return results


def _run(
    plan: TrainingPlan,
    place: int,
    measuring: Measuring,
    others: Sequence[TrainerCallback],
    folder: Path,
    best: BestState | None,
) -> list[dict[str, Any]]:
    """Train one phase in place, from its newest whole checkpoint if there is one, and return its log."""
    phase, settings = plan.phases[place], plan.settings
    best = best if phase.data is None else None  # another data does not bring a better answer to the task
    resumed = newest_whole(folder)
    if resumed is not None:
        say(f"  {phase.title}: goes on from {resumed}")
    if best is not None:
        best.phase = phase.title
        if resumed is not None:
            best.load(resumed)
        if best.over:  # the run was stopped between the end of this phase and its being marked as done
            phase = replace(phase, epochs=best.curve[-1]["epoch"])
    ordered = plan.ordered(place)
    total = _steps(phase, ordered)
    measuring.every = math.ceil(total / settings.measurements)
    done = 0 if resumed is None else int(resumed.name.rpartition("-")[2])
    with progress(phase.title, total, done) as steps, CheckpointKeeper(phase.title, settings.save_minutes) as keeper:
        callbacks: list[TrainerCallback] = [
            Progress(steps, ordered, best),
            Finite(phase.title),
            measuring,
            *([] if best is None else [best]),
            *others,
            keeper,
        ]
        trainer = build_trainer(plan, phase, ordered, folder, callbacks)
        trainer.train(resume_from_checkpoint=None if resumed is None else str(resumed))
    plan.model.zero_grad(set_to_none=True)
    return [entry for entry in trainer.state.log_history if {"loss", "heldout_loss"} & set(entry)]


def build_trainer(
    plan: TrainingPlan, phase: Phase, rows: ShuffledDataset, folder: Path, callbacks: list[TrainerCallback]
) -> RecipeTrainer:
    """Return what trains the model through a phase, whose parameters are thawed, and all others frozen.

    `requires_grad` is set before the model is wrapped: frozen parameters get no gradient, no decay and no optimizer
    state, and the backward pass ends at the lowest thawed layer (ULMFiT, section 3.3). The phase's number enters its
    seed, or every phase would replay the same batches.

    Args:
        rows: Those of its data, in the order of the phase.
        folder: Where checkpoints are kept, if one is asked for.

    Raises:
        UserError: if the batch cannot be split, or several GPUs are visible to one process.
    """
    thawed = {id(parameter) for parameter in phase.thawed}
    for parameter in plan.model.parameters():
        parameter.requires_grad_(id(parameter) in thawed)
    settings, data = plan.settings, phase.data or plan.data
    micro, passes = processes.split(settings.batch_size, settings.micro_batch_size, data.texts)
    trainer = RecipeTrainer(
        model=plan.model,
        objective=data.objective,
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
        collate=data.collate,
        callbacks=callbacks,
    )
    if trainer.args.n_gpu > 1:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", "all")
        raise UserError(f"CUDA_VISIBLE_DEVICES={visible}: one process trains on one GPU; name one")
    return trainer


def _steps(phase: Phase, rows: ShuffledDataset) -> int:
    """Return the optimizer steps of a phase."""
    return math.ceil(math.ceil(len(rows) / rows.batch_size) * phase.epochs)


def _rates(layers: LayerGroups, learning_rate: float, layer_decay: float) -> Table:
    """Return the table of the layer groups' peak rates, the head's first."""
    table = Table(title=f"a rate for each layer group (layer_decay={layer_decay:g})", title_justify="left")
    for column in ("layer group", "weights", "peak rate"):
        table.add_column(column, justify="left" if column == "layer group" else "right")
    whole = [{"params": [parameter for own in layers.values() for parameter in own], "lr": learning_rate}]
    for group in split_by_layer(whole, layers, layer_decay):
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
