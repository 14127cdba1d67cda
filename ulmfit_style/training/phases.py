"""Training as a short list of phases: which parameters are thawed, for how long, at which peak rate."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from safetensors.torch import load_model, save_model
from torch import nn
from transformers import PreTrainedModel, TrainerCallback, TrainerState, TrainingArguments

from ulmfit_style import processes
from ulmfit_style.artefacts.directory import read_json, write_json
from ulmfit_style.config.stages import Adapt, Finetune, LanguageModelling
from ulmfit_style.console import progress, say
from ulmfit_style.errors import UserError
from ulmfit_style.models.layers import LayerGroups, split_by_layer
from ulmfit_style.results import terminal
from ulmfit_style.results.model import Table
from ulmfit_style.training import monitoring
from ulmfit_style.training.batching import Rows, ShuffledDataset
from ulmfit_style.training.monitoring import BestState, Monitor, TrialScores
from ulmfit_style.training.objectives import Objective
from ulmfit_style.training.resume import CheckpointKeeper, is_whole, newest_whole, seal
from ulmfit_style.training.schedule import ExponentialSchedule
from ulmfit_style.training.trainer import Progress, RecipeTrainer, Reporting

LOGGING_STEPS = 10
"""Optimizer steps between two entries of the log; fewer in a phase that would have fewer than so many entries."""

GENERAL = "general_loss"
"""The measure of forgetting: the loss on general text."""


@dataclass(frozen=True)
class TrainingData:
    """What a model is trained on, and to do what."""

    objective: Objective
    rows: Rows
    collate: Callable[[Sequence[Any]], dict[str, torch.Tensor]]
    texts_per_row: int = 1
    """The batch size counts texts."""


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
class TrainingPlan:
    """What a stage trains, on what, and how."""

    model: PreTrainedModel
    phases: Sequence[Phase]
    data: TrainingData
    options: LanguageModelling | Finetune
    """The section of the stage."""
    layers: LayerGroups
    """The layer groups of the model, each of which has its own rate where `options.layer_decay` is not 1."""
    micro_batch_size: int | None = None
    """Texts per forward pass of a process; None for as many as the batch has for each."""
    save_minutes: float = math.inf
    """Minutes between two checkpoints to resume from."""

    def split(self, data: TrainingData) -> tuple[int, int]:
        """Return the rows of a forward pass and the passes of an optimizer step, for each process."""
        return processes.split(self.options.batch_size, self.micro_batch_size, data.texts_per_row)

    def dataset(self, number: int) -> ShuffledDataset:
        """Return the rows of a phase in its order; phases are numbered from 0."""
        data = self.phases[number].data or self.data
        together = self.split(data)[0] * processes.count() if processes.count() > 1 else 1
        batch_size = self.options.batch_size // data.texts_per_row
        return ShuffledDataset(data.rows, batch_size, self.options.seed, number, together)


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
    trial: TrialScores | None = None,
) -> list[PhaseResult]:
    """Train the phases of a plan in place, each from the last weights of the one before, and return what each did.

    A stage that was stopped resumes: finished phases are read back from `folder`, the unfinished one goes on from its
    newest whole checkpoint, bit-identically.

    Args:
        folder: Where checkpoints are kept until the stage is finished.
        measure: Measures the model before the first phase and after each.
        best: Chooses the state that the model has in the end; None for the last one.
        trial: Reports scores, where the run is a trial of a sweep.
    """
    model, options = plan.model, plan.options
    model.to(PartialState().device)
    say_precision(options.trainer)
    reporting = Reporting(options.trainer.get("report_to", "none"), folder.parent)
    if options.layer_decay != 1:
        terminal.show(_rates(plan.layers, plan.phases[-1].learning_rate, options.layer_decay))
    measurements = options.measurements if isinstance(options, LanguageModelling) else 1
    budget = {GENERAL: options.max_forgetting} if isinstance(options, Adapt) and options.max_forgetting else {}
    steps = [_steps(phase, plan.dataset(number)) for number, phase in enumerate(plan.phases)]
    results: list[PhaseResult] = []
    for number, phase in enumerate(plan.phases):
        phase_folder = folder / f"phase-{number}"
        done = phase_folder / "done"
        if is_whole(done):
            load_model(model, done / "model.safetensors", device=str(model.device))
            results.append(PhaseResult(**read_json(done / "result.json")))
            if best is not None:
                best.load(done)
            say(f"  {phase.title}: was done before")
            continue
        before = results[-1].after if results else measure()
        steps_before = sum(result.log[-1]["step"] for result in results)
        reporting.begin(number, steps_before, is_last=number == len(plan.phases) - 1)
        callbacks: list[TrainerCallback] = [Monitor(partial(_check_loss, phase.title)), reporting]
        if before:
            heldout = monitoring.HeldoutMeasures(phase.title, measure, before, budget)
            interval = math.ceil(steps[number] / measurements)
            callbacks.append(Monitor(heldout.look, monitoring.every(interval)))
        if trial is not None:
            callbacks.append(trial.monitor(sum(steps[:number]), sum(steps)))
        log = _run(plan, number, callbacks, phase_folder, best)
        results.append(PhaseResult(phase.title, before, measure(), log))
        changes = [
            f"{monitoring.spoken(name)} {monitoring.formatted(before[name])} -> {monitoring.formatted(value)}"
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
    plan: TrainingPlan, number: int, callbacks: Sequence[TrainerCallback], folder: Path, best: BestState | None
) -> list[dict[str, Any]]:
    """Train one phase in place, from its newest whole checkpoint if there is one, and return its log."""
    phase = plan.phases[number]
    best = best if phase.data is None else None  # other data makes the model no better at the task
    resumed = newest_whole(folder)
    if resumed is not None:
        say(f"  {phase.title}: goes on from {resumed}")
    if best is not None:
        best.phase = phase.title
        if resumed is not None:
            best.load(resumed)
        if best.out_of_patience:  # the run was stopped between the end of this phase and its being marked as done
            phase = replace(phase, epochs=best.curve[-1]["epoch"])
    rows = plan.dataset(number)
    done = 0 if resumed is None else int(resumed.name.rpartition("-")[2])
    watching = [] if best is None else [Monitor(best.look, monitoring.at_epoch_end)]
    keeper = CheckpointKeeper(phase.title, plan.save_minutes, best)
    with progress(phase.title, _steps(phase, rows), done) as steps, keeper:
        callbacks = [Progress(steps, rows, best), *watching, *callbacks, keeper]
        trainer = build_trainer(plan, phase, rows, folder, callbacks)
        trainer.train(resume_from_checkpoint=None if resumed is None else str(resumed))
    plan.model.zero_grad(set_to_none=True)
    return [entry for entry in trainer.state.log_history if {"loss", "heldout_loss"} & set(entry)]


def say_precision(extras: Mapping[str, Any]) -> None:
    """Say that training falls back to single precision, where a GPU has no bf16 and the user did not choose."""
    if torch.cuda.is_available() and not torch.cuda.is_bf16_supported() and "bf16" not in extras:
        say("  this GPU has no bf16: training runs in single precision")


def _check_loss(title: str, state: TrainerState, model: nn.Module) -> bool:
    """Raise a UserError if the loss is infinite or not a number."""
    loss = state.log_history[-1]["loss"]
    if not math.isfinite(loss):
        remedy = "try a lower learning_rate or a longer warmup_ratio"
        raise UserError(f"{title}: the loss is {loss} at step {state.global_step}; {remedy}")
    return False


def build_trainer(
    plan: TrainingPlan,
    phase: Phase,
    rows: ShuffledDataset,
    folder: Path,
    callbacks: list[TrainerCallback],
    schedule: ExponentialSchedule | None = None,
) -> RecipeTrainer:
    """Return the trainer of a phase, whose parameters are thawed, and all others frozen.

    `requires_grad` is set before the model is wrapped: frozen parameters get no gradient, no decay and no optimizer
    state, and the backward pass ends at the lowest thawed layer (ULMFiT, section 3.3). The phase's number enters its
    seed, or every phase would replay the same batches.

    Args:
        rows: The rows of the phase, in its order.
        folder: Where checkpoints are kept, if one is asked for.
        schedule: Another schedule than that of the options; every step is then logged.

    Raises:
        UserError: if the batch cannot be split, or several GPUs are visible to one process.
    """
    thawed = {id(parameter) for parameter in phase.thawed}
    for parameter in plan.model.parameters():
        parameter.requires_grad_(id(parameter) in thawed)
    options, data = plan.options, phase.data or plan.data
    micro, passes = plan.split(data)
    on_gpu = torch.cuda.is_available()
    defaults = {
        "use_cpu": processes.count() > 1 and not on_gpu,  # or the processes would not find each other
        "bf16": on_gpu and torch.cuda.is_bf16_supported(),
        "logging_first_step": True,
        "logging_steps": min(LOGGING_STEPS, math.ceil(_steps(phase, rows) / LOGGING_STEPS)),
        "dataloader_pin_memory": on_gpu,
    }
    every_step = {} if schedule is None else {"logging_strategy": "steps", "logging_steps": 1}
    trainer = RecipeTrainer(
        model=plan.model,
        objective=data.objective,
        rate_schedule=schedule or options.schedule,
        layer_groups=None if options.layer_decay == 1 else plan.layers,
        layer_decay=options.layer_decay,
        args=TrainingArguments(
            output_dir=str(folder),
            num_train_epochs=phase.epochs,
            learning_rate=phase.learning_rate,
            per_device_train_batch_size=micro,
            gradient_accumulation_steps=passes,
            warmup_steps=options.warmup_ratio,
            weight_decay=options.weight_decay,
            seed=options.seed * 1000 + rows.phase,
            train_sampling_strategy="sequential",  # the dataset brings its order along
            save_strategy="no",  # `CheckpointKeeper` asks for it
            disable_tqdm=True,
            remove_unused_columns=False,
            logging_nan_inf_filter=False,
            **{**defaults, **options.trainer, **every_step, "report_to": "none"},  # `Reporting` reports
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
    every_parameter = [parameter for parameters in layers.values() for parameter in parameters]
    rows = [
        (group["layer"], sum(parameter.numel() for parameter in group["params"]), f"{group['lr']:.1e}")
        for group in split_by_layer([{"params": every_parameter, "lr": learning_rate}], layers, layer_decay)
    ]
    title = f"a rate for each layer group (layer_decay={layer_decay:g})"
    return Table(("layer group", "weights", "peak rate"), rows, title)
