"""Training as a short list of phases: which parameters are trainable, for how long, at which peak rate.

A stage decides which phases there are, with `unfreezing.phases` in `finetune`; `train_phase` decides what one does.
"""

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import find_executable_batch_size
from safetensors.torch import load_file
from torch import nn
from transformers import PreTrainedModel, TrainerCallback, TrainerState, TrainingArguments

from ulmfit_style.compute import processes
from ulmfit_style.config.trainer_options import FIXED
from ulmfit_style.config.training import Finetune, LanguageModelling
from ulmfit_style.console import progress, say
from ulmfit_style.models.layers import LayerGroups, split_by_layer
from ulmfit_style.training.batching import Collate, Rows, ShuffledDataset, run_over
from ulmfit_style.training.kept_trunk import kept_trunk
from ulmfit_style.training.monitoring import BestState, Monitor, at_epoch_end, spread
from ulmfit_style.training.objectives import Objective
from ulmfit_style.training.resume import CheckpointKeeper, newest_whole, require_same_weights
from ulmfit_style.training.schedule import rate_factors
from ulmfit_style.training.seen_words import seen_words
from ulmfit_style.training.trainer import SHARES, Progress, RecipeTrainer, Reporting, require_weights, whole

Callbacks = Sequence[TrainerCallback]

Measure = Callable[[], dict[str, float]]
"""Measures the model, and returns the measures by their names."""

Trial = Callable[[int, int], Monitor]
"""From the steps before a phase and those of all phases to what reports scores in it."""

LOGGING_STEPS = 10
"""Optimizer steps between two entries of the log; fewer in a phase that would have fewer than so many entries."""


@dataclass(frozen=True)
class TrainingData:
    """What a model is trained on, and to do what."""

    objective: Objective
    rows: Rows
    collate: Collate
    texts_per_row: int = 1
    """The batch size counts texts."""

    @property
    def by_length(self) -> list[int]:
        """The numbers of the rows, the shortest first."""
        return np.argsort(self.rows.lengths, kind="stable").tolist()

    def run(self, model: PreTrainedModel, rows: Sequence[int]) -> None:
        """Run a model once over rows, in this order and without dropout; its hooks read what they need."""
        loss = self.objective.loss
        run_over(self.rows, rows, model, self.collate, lambda _, batch: loss(model, batch), "frozen layers")


@dataclass(frozen=True)
class Phase:
    """One Trainer run over one set of trainable parameters, with a whole schedule of its own."""

    title: str
    trainable: Sequence[nn.Parameter]
    """What is trained; the rest is frozen."""
    epochs: float
    learning_rate: float
    """Peak rate."""
    max_steps: int = sys.maxsize
    """Optimizer steps at most, however many epochs there are."""
    data: TrainingData | None = None
    """What it is trained on; None for the data of the plan."""
    rows: slice | None = None
    """The rows of each weight that are trained, at the full rate; the others stay, to the bit. None: all."""
    solve: Callable[[PreTrainedModel], None] | None = None
    """What is done instead of gradient steps: the head is solved."""


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
    micro_batch_size: processes.Micro = None
    """Texts per forward pass of a process; None for as many as the batch has for each, "auto" for what memory holds."""
    save_minutes: float = math.inf
    """Minutes between two checkpoints to resume from."""
    shard: bool = False
    """Whether weights, gradients and moments are shared out among the processes where a phase trains the body."""
    fast: bool = True
    """Whether a frozen trunk is run once, and words that do not occur are not trained."""

    def data_of(self, number: int) -> TrainingData:
        """Return what a phase is trained on; phases are numbered from 0."""
        return self.phases[number].data or self.data

    def dataset(self, number: int) -> ShuffledDataset:
        """Return the rows of a phase in its order."""
        data, options = self.data_of(number), self.options
        micro, _ = processes.split(options.batch_size, self.micro_batch_size, data.texts_per_row)
        batch_size = options.batch_size // data.texts_per_row
        return ShuffledDataset(data.rows, batch_size, options.seed, number, micro * processes.count())

    def steps(self, number: int) -> int:
        """Return the optimizer steps of a phase."""
        phase, data = self.phases[number], self.data_of(number)
        steps_per_epoch = math.ceil(len(data.rows) / (self.options.batch_size // data.texts_per_row))
        return math.ceil(min(steps_per_epoch * phase.epochs, phase.max_steps))


class PhaseResult(NamedTuple):
    """What a phase did."""

    title: str
    before: dict[str, float]
    """The stage's measures before the phase, by their names."""
    after: dict[str, float]
    log: list[dict[str, Any]]
    """One entry of loss, rate and gradient norm every few steps."""


def train(
    plan: TrainingPlan, folder: Path, measure: Measure = dict, best: BestState | None = None, trial: Trial | None = None
) -> list[PhaseResult]:
    """Train the phases of a plan in place, each from the last weights of the one before, and return what each did.

    A stage that was stopped resumes: each phase goes on from its newest whole checkpoint, bit-identically; that of a
    finished phase is its end.

    Args:
        folder: Where checkpoints are kept until the stage is finished.
        measure: What is measured before the first phase and after each.
        best: Chooses the state that the model has in the end; None for the last one.
        trial: Reports scores, where the run is a trial of a sweep.
    """
    model, options = plan.model, plan.options
    model.to(PartialState().device)
    say_if_single_precision(options.trainer)
    reporting = Reporting(options.trainer.get("report_to", "none"), folder.parent)
    steps = [plan.steps(number) for number in range(len(plan.phases))]
    task_steps = [0 if phase.data else count for phase, count in zip(plan.phases, steps, strict=True)]
    results: list[PhaseResult] = []
    with seen_words(plan):
        for number, phase in enumerate(plan.phases):
            before = results[-1].after if results else measure()
            reporting.phase, reporting.is_last = number, number == len(plan.phases) - 1
            reporting.steps_before = sum(result.log[-1]["step"] for result in results if result.log)
            callbacks: list[TrainerCallback] = [reporting]
            if before and isinstance(options, LanguageModelling):
                log_measures = partial(_log_measures, phase.title, measure)
                callbacks.append(Monitor(log_measures, spread(options.measurements, steps[number])))
            if trial is not None and phase.data is None:  # before a contrast is over, the head knows nothing
                callbacks.append(trial(sum(task_steps[:number]), sum(task_steps)))
            log = train_phase(plan, number, folder / f"phase-{number}", callbacks, best)
            results.append(PhaseResult(phase.title, before, measure(), log))
            changes = [_format_measure(name, before[name], value) for name, value in results[-1].after.items()]
            say(f"  {phase.title}: {', '.join(changes) or 'done'}")
        if best is not None:
            model.load_state_dict(best.weights)
    require_weights(model, f"after '{results[-1].title}'")  # a head may have been solved, and a best state restored
    return results


def train_phase(
    plan: TrainingPlan, number: int, folder: Path, callbacks: Callbacks = (), best: BestState | None = None
) -> list[dict[str, Any]]:
    """Train one phase in place, from its newest whole checkpoint if there is one, and return its log.

    Args:
        number: Which phase, from 0.
        folder: Where its checkpoints are kept.
    """
    phase, steps = plan.phases[number], plan.steps(number)
    best = best if phase.data is None else None  # other data makes the model no better at the task
    if best is not None:
        best.phase = phase.title
        callbacks = [Monitor(best.look, at_epoch_end), *callbacks]
    if phase.solve is not None:
        phase.solve(plan.model)
        if best is not None:
            best.look(TrainerState(epoch=0), plan.model)
        return []

    # Where it goes on
    resumed, steps_done = newest_whole(folder, any_number=plan.shard), 0
    if resumed is not None:
        say(f"  {phase.title}: goes on from {resumed}")
        require_same_weights(resumed, plan.model)
        state = TrainerState.load_from_json(str(resumed / "trainer_state.json"))
        steps_done = state.global_step
        if best is not None:
            best.load(resumed)
        plan.model.config.use_cache = plan.options.trainer.get("use_cache", False)  # as the Trainer sets it
        if steps_done == steps or (best is not None and best.out_of_patience):  # it was stopped after its end
            plan.model.load_state_dict(load_file(resumed / "model.safetensors"), strict=False)
            return _loss_entries(state)

    # Training
    if plan.micro_batch_size == "auto":
        plan = replace(plan, micro_batch_size=_largest_micro_batch(plan, number, folder))
    rows = plan.dataset(number)
    keeper = CheckpointKeeper(phase.title, plan.save_minutes, best, resumed)
    with kept_trunk(plan, number), progress(phase.title, steps, steps_done) as bar, keeper, ExitStack() as hooks:
        callbacks = [Progress(bar, rows), *callbacks, keeper]
        trainer = keeper.trainer = _trainer(plan, number, rows, folder, callbacks)
        if phase.rows is not None:
            for weights in phase.trainable:
                hooks.enter_context(weights.register_hook(partial(_only, phase.rows)))
        trainer.train(resume_from_checkpoint=None if resumed is None else str(resumed))
    with whole(plan.model):
        SHARES.pop(plan.model, None)  # so it stays whole
    plan.model.zero_grad(set_to_none=True)
    return _loss_entries(trainer.state)


def say_if_single_precision(trainer_options: Mapping[str, Any]) -> None:
    """Say that a GPU has no bf16, unless the user chose the precision."""
    if torch.cuda.is_available() and not torch.cuda.is_bf16_supported() and "bf16" not in trainer_options:
        say("  this GPU has no bf16: training runs in single precision")


def _only(rows: slice, gradient: torch.Tensor) -> torch.Tensor:
    """Return a gradient that is 0 outside some rows; weight decay is 0 then too, so that no other row moves."""
    return torch.zeros_like(gradient).slice_scatter(gradient[rows], 0, rows.start, rows.stop)


def _largest_micro_batch(plan: TrainingPlan, number: int, folder: Path) -> int:
    """Return how many texts of a phase the memory holds in a pass, found by the longest ones, without training on them.

    All processes have the same answer before they wait for each other. Meanwhile so much is taken as an optimizer's
    moments and the exchange of gradients need. The Trainer that is made next seeds anew.
    """
    data, phase = plan.data_of(number), plan.phases[number]
    whole, _ = processes.split(plan.options.batch_size, None, data.texts_per_row)
    trainer = _trainer(plan, number, plan.dataset(number), folder, [])
    taken = [torch.empty_like(weights) for weights in phase.trainable for _ in range(3)]

    def rehearse(micro: int) -> int:
        rows = [{**data.rows[row], "phase_epoch": (1 + number, 0)} for row in data.by_length[-micro:]]
        if micro > 1:
            with trainer.accelerator.autocast():
                trainer.training_step(plan.model, data.collate(rows), 1)
        return micro

    smaller = (part for part in range(whole // 2, 0, -1) if whole % part == 0)
    micro: int = min(processes.from_all(find_executable_batch_size(rehearse, whole, smaller.__next__)()))
    plan.model.zero_grad(set_to_none=True)
    del taken
    if micro < whole:
        passes = f"{whole // micro} passes of {micro} rows make a batch of {whole}"
        say(f"  {phase.title}: {passes} in each process, for more do not fit into memory (micro_batch_size=auto)")
    return micro * data.texts_per_row


def _loss_entries(state: TrainerState) -> list[dict[str, Any]]:
    """Return the entries of the log that hold a loss, in the order of names that those of a checkpoint have."""
    return [dict(sorted(entry.items())) for entry in state.log_history if {"loss", "heldout_loss"} & set(entry)]


def _trainer(
    plan: TrainingPlan, number: int, rows: ShuffledDataset, folder: Path, callbacks: list[TrainerCallback]
) -> RecipeTrainer:
    """Return the trainer of a phase, whose parameters are trainable, and all others frozen.

    `requires_grad` is set before the model is wrapped: frozen parameters get no gradient, no decay and no optimizer
    state, and the backward pass ends at the lowest trainable layer (ULMFiT, section 3.3). The phase's number enters its
    seed, or every phase would draw the same dropout masks.

    Raises:
        UserError: if the batch cannot be split.
    """
    phase, data, options, steps = plan.phases[number], plan.data_of(number), plan.options, plan.steps(number)
    plan.model.requires_grad_(False)
    for parameter in phase.trainable:
        parameter.requires_grad_(True)
    micro, passes = processes.split(options.batch_size, plan.micro_batch_size, data.texts_per_row)
    by_layer = partial(split_by_layer, layers=plan.layers, decay=options.layer_decay)
    on_gpu, trunk = torch.cuda.is_available(), plan.model.base_model
    defaults = {
        "use_cpu": processes.count() > 1 and not on_gpu,  # or the processes would not find each other
        "bf16": on_gpu and torch.cuda.is_bf16_supported(),
        "logging_first_step": True,
        "logging_steps": min(LOGGING_STEPS, math.ceil(steps / LOGGING_STEPS)),
        "dataloader_pin_memory": on_gpu,
    }
    return RecipeTrainer(
        model=plan.model,
        objective=data.objective,
        rates=partial(rate_factors, options.schedule, options.warmup_ratio),
        split=None if options.layer_decay == 1 or phase.rows is not None else by_layer,
        title=phase.title,
        shard=plan.shard and phase.rows is None and any(weights.requires_grad for weights in trunk.parameters()),
        args=TrainingArguments(
            output_dir=str(folder),
            max_steps=steps,
            learning_rate=phase.learning_rate,
            per_device_train_batch_size=micro,
            gradient_accumulation_steps=passes,
            weight_decay=options.weight_decay if phase.rows is None else 0,
            seed=options.seed * 1000 + number,
            **FIXED,
            **{**defaults, **options.trainer, "report_to": "none"},  # `Reporting` reports
        ),
        train_dataset=rows,
        callbacks=callbacks,
        collate=data.collate,
    )


def _log_measures(title: str, measure: Measure, state: TrainerState, model: nn.Module) -> bool:
    """Measure the model in the middle of a phase, and log the measures; training goes on in any case."""
    measures = measure()
    state.log_history.append({"step": state.global_step, **{f"heldout_{key}": measures[key] for key in measures}})
    shown = ", ".join(_format_measure(name, value) for name, value in measures.items())
    say(f"  {title}: at step {state.global_step:,} of {state.max_steps:,}: {shown}")
    return False


def _format_measure(name: str, *values: float) -> str:
    """Return a measure and its values, one after another, as a sentence has them."""
    numbers = [f"{value:.3f}" if value < 1000 else f"{value:,.0f}" for value in values]
    return f"{name.replace('_', ' ')} {' -> '.join(numbers)}"
