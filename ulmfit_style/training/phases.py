"""Training as a short list of phases: which parameters are thawed, for how long, at which peak rate."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
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
from ulmfit_style.config.stages import Finetune, LanguageModelling
from ulmfit_style.console import progress, say
from ulmfit_style.models.layers import LayerGroups
from ulmfit_style.training.batching import Rows, ShuffledDataset
from ulmfit_style.training.monitoring import BestState, Monitor, TrialScores, at_epoch_end, spread
from ulmfit_style.training.objectives import Objective
from ulmfit_style.training.resume import CheckpointKeeper, checkpoint_step, is_whole, newest_whole, seal
from ulmfit_style.training.schedule import rate_factors
from ulmfit_style.training.trainer import Progress, Rates, RecipeTrainer, Reporting

LOGGING_STEPS = 10
"""Optimizer steps between two entries of the log; fewer in a phase that would have fewer than so many entries."""


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
    max_steps: int = sys.maxsize
    """Optimizer steps at most, however many epochs there are."""
    data: TrainingData | None = None
    """What it is trained on; None for the data of the plan."""
    rates: Rates | None = None
    """The rates of a range test, whose every step is logged; None for those of the schedule in the options."""


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

    def steps(self, number: int) -> int:
        """Return the optimizer steps of a phase; phases are numbered from 0."""
        phase = self.phases[number]
        data = phase.data or self.data
        steps_per_epoch = math.ceil(len(data.rows) / (self.options.batch_size // data.texts_per_row))
        return math.ceil(min(steps_per_epoch * phase.epochs, phase.max_steps))


@dataclass(frozen=True)
class PhaseResult:
    """What a phase did."""

    title: str
    before: dict[str, float]
    """The stage's measures before the phase, by their names."""
    after: dict[str, float]
    log: list[dict[str, Any]]
    """One entry of loss, rate and gradient norm every few steps."""


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
    steps = [plan.steps(number) for number in range(len(plan.phases))]
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
        callbacks: list[TrainerCallback] = [reporting]
        if before and isinstance(options, LanguageModelling):
            log_measures = partial(_log_measures, phase.title, measure)
            callbacks.append(Monitor(log_measures, spread(options.measurements, steps[number])))
        if trial is not None:
            callbacks.append(trial.monitor(sum(steps[:number]), sum(steps)))
        log = train_phase(plan, number, phase_folder, callbacks, best)
        results.append(PhaseResult(phase.title, before, measure(), log))
        changes = [_described(name, before[name], value) for name, value in results[-1].after.items()]
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


def train_phase(
    plan: TrainingPlan,
    number: int,
    folder: Path,
    callbacks: Sequence[TrainerCallback] = (),
    best: BestState | None = None,
) -> list[dict[str, Any]]:
    """Train one phase in place, from its newest whole checkpoint if there is one, and return its log.

    `requires_grad` is set before the model is wrapped: frozen parameters get no gradient, no decay and no optimizer
    state, and the backward pass ends at the lowest thawed layer (ULMFiT, section 3.3). The phase's number enters its
    seed, or every phase would replay the same batches.

    Args:
        number: Which phase, from 0.
        folder: Where its checkpoints are kept.
    """
    phase, options, steps = plan.phases[number], plan.options, plan.steps(number)
    data = phase.data or plan.data
    micro, passes = processes.split(options.batch_size, plan.micro_batch_size, data.texts_per_row)
    batch_size = options.batch_size // data.texts_per_row
    rows = ShuffledDataset(data.rows, batch_size, options.seed, number, micro * processes.count())
    best = best if data is plan.data else None  # other data makes the model no better at the task
    resumed = newest_whole(folder)
    if resumed is not None:
        say(f"  {phase.title}: goes on from {resumed}")
    watching = []
    if best is not None:
        best.phase = phase.title
        watching = [Monitor(best.look, at_epoch_end)]
        if resumed is not None:
            best.load(resumed)
        if best.out_of_patience:  # the run was stopped between the end of this phase and its being marked as done
            steps = best.curve[-1]["step"]
    plan.model.requires_grad_(False)
    for parameter in phase.thawed:
        parameter.requires_grad_(True)
    on_gpu = torch.cuda.is_available()
    defaults = {
        "use_cpu": processes.count() > 1 and not on_gpu,  # or the processes would not find each other
        "bf16": on_gpu and torch.cuda.is_bf16_supported(),
        "logging_first_step": True,
        "logging_steps": min(LOGGING_STEPS, math.ceil(steps / LOGGING_STEPS)),
        "dataloader_pin_memory": on_gpu,
    }
    every_step = {} if phase.rates is None else {"logging_strategy": "steps", "logging_steps": 1}
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=steps,
        learning_rate=phase.learning_rate,
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=passes,
        weight_decay=options.weight_decay,
        seed=options.seed * 1000 + number,
        train_sampling_strategy="sequential",  # the dataset brings its order along
        save_strategy="no",  # `CheckpointKeeper` asks for it
        disable_tqdm=True,
        remove_unused_columns=False,
        logging_nan_inf_filter=False,
        **{**defaults, **options.trainer, **every_step, "report_to": "none"},  # `Reporting` reports
    )
    steps_done = 0 if resumed is None else checkpoint_step(resumed)
    keeper = CheckpointKeeper(phase.title, plan.save_minutes, best)
    with progress(phase.title, steps, steps_done) as bar, keeper:
        trainer = RecipeTrainer(
            model=plan.model,
            objective=data.objective,
            rates=phase.rates or partial(rate_factors, options.schedule, options.warmup_ratio),
            layer_groups=None if options.layer_decay == 1 else plan.layers,
            layer_decay=options.layer_decay,
            args=arguments,
            train_dataset=rows,
            collate=data.collate,
            callbacks=[Progress(bar, rows, best), *watching, *callbacks, keeper],
        )
        trainer.train(resume_from_checkpoint=None if resumed is None else str(resumed))
    plan.model.zero_grad(set_to_none=True)
    return [entry for entry in trainer.state.log_history if {"loss", "heldout_loss"} & set(entry)]


def say_precision(extras: Mapping[str, Any]) -> None:
    """Say that training falls back to single precision, where a GPU has no bf16 and the user did not choose."""
    if torch.cuda.is_available() and not torch.cuda.is_bf16_supported() and "bf16" not in extras:
        say("  this GPU has no bf16: training runs in single precision")


def _log_measures(title: str, measure: Callable[[], dict[str, float]], state: TrainerState, model: nn.Module) -> bool:
    """Measure the model in the middle of a phase, and log the measures; training goes on in any case."""
    measures = measure()
    state.log_history.append({"step": state.global_step, **{f"heldout_{key}": measures[key] for key in measures}})
    shown = ", ".join(_described(name, value) for name, value in measures.items())
    say(f"  {title}: at step {state.global_step:,} of {state.max_steps:,}: {shown}")
    return False


def _described(name: str, *values: float) -> str:
    """Return a measure and its values, one after another, as a sentence has them."""
    numbers = [f"{value:.3f}" if value < 1000 else f"{value:,.0f}" for value in values]
    return f"{name.replace('_', ' ')} {' -> '.join(numbers)}"
