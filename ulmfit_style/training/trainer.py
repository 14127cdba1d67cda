"""The one Trainer subclass: it divides the summed loss by the global count, as one big batch would."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, final

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR
from transformers import (
    PrinterCallback,
    ProgressCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.integrations import get_reporting_integration_callbacks  # type: ignore[attr-defined]

from ulmfit_style.config.stages import Schedule
from ulmfit_style.console import ProgressReport, say
from ulmfit_style.errors import UserError
from ulmfit_style.models import layers
from ulmfit_style.training import schedule
from ulmfit_style.training.batching import ShuffledDataset, without_blanks
from ulmfit_style.training.best import BestState
from ulmfit_style.training.objectives import Objective


@final
class RecipeTrainer(Trainer):
    """A Trainer whose loss comes from an objective, exact under accumulation and several processes.

    The stock Trainer believes that any model whose forward takes keyword arguments divides by the batch's item count;
    most encoder heads do not, and their loss and gradients come out multiplied by the accumulation steps
    (transformers#47688). `test_accumulation_equals_one_big_batch` tells when the two overrides can go.

    Args:
        layer_groups: The layer groups, where each has a rate of its own.
        layer_decay: The factor by which the rate of each is lower than that of the one above.
    """

    def __init__(
        self,
        *,
        objective: Objective,
        shape: Schedule | schedule.ExponentialSchedule = "linear",
        layer_groups: layers.LayerGroups | None = None,
        layer_decay: float = 1,
        collate: Callable[[Sequence[Any]], dict[str, Any]],
        **arguments: Any,
    ) -> None:
        super().__init__(data_collator=partial(without_blanks, collate), **arguments)
        self.objective: Objective = objective
        self.shape, self.layer_groups, self.layer_decay = shape, layer_groups, layer_decay
        self.model_accepts_loss_kwargs = False
        self.loss_is_scaled_for_ga = True
        self.remove_callback(ProgressCallback)
        self.remove_callback(PrinterCallback)

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Make the Trainer's own optimizer, with its parameter groups split by layer groups."""
        made = self.optimizer is not None
        optimizer = super().create_optimizer(model)
        if self.layer_groups is not None and not made:
            split = list(layers.split_by_layer(optimizer.param_groups, self.layer_groups, self.layer_decay))
            optimizer.param_groups.clear()
            for group in split:
                optimizer.add_param_group(group)
        return optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None) -> LambdaLR:
        """Let the rate of every parameter group rise and fall alike."""
        optimizer = optimizer or self.optimizer
        assert optimizer is not None  # it was made before
        shares = schedule.shares(self.shape, self.args.warmup_steps, num_training_steps)
        # Torch asks for the rate after the last step too.
        self.lr_scheduler = LambdaLR(optimizer, lambda step: shares[min(step, num_training_steps - 1)])
        return self.lr_scheduler

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], torch.Tensor | None]:
        """Fetch the batches of one optimizer step, and count what their losses are divided by, over all processes."""
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        if not batches:
            return batches, None
        counts = [self.objective.count(batch) for batch in batches if "blank" not in batch]
        count = torch.stack(counts).sum().float().to(device) if counts else torch.zeros((), device=device)
        return batches, self.accelerator.gather(count).sum()

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """Return this batch's part of the mean loss over the optimizer step."""
        assert num_items_in_batch is not None  # get_batch_samples counted
        blank = inputs.pop("blank", False)
        loss = self.objective.loss(model, inputs) * (not blank) / num_items_in_batch
        # Gradients are averaged over the processes, and this is a sum.
        loss = loss * self.accelerator.num_processes
        return (loss, None) if return_outputs else loss


@final
class Progress(TrainerCallback):
    """Shows loss, rate and score, and tells the rows which epoch it is."""

    def __init__(self, steps: ProgressReport, rows: ShuffledDataset, best: BestState | None = None) -> None:
        self.steps, self.rows, self.best, self.loss = steps, rows, best, math.nan
        self._started, self._trained = time.monotonic(), 0
        self._rates: dict[str, float] = {}

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Give the rows the order and the masks of the epoch."""
        self.rows.start_epoch(int(state.epoch or 0))

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Look at the rates of the layer groups, from the head down, where they have their own."""
        self._rates = {group["layer"]: group["lr"] for group in kwargs["optimizer"].param_groups if "layer" in group}

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Keep the last loss, and the rates of the layer groups in the log: the Trainer knows one rate only."""
        if self._rates and "loss" in (logs or {}):
            history: list[Any] = list(state.log_history)
            history[-1]["rates"] = self._rates
        self.loss = (logs or {}).get("loss", self.loss)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Advance the bar, and have the last step logged, whatever its number."""
        control.should_log |= state.global_step == state.max_steps
        rate = kwargs["lr_scheduler"].get_last_lr()[0]
        self._trained += 1
        speed = self._trained * self.rows.tokens_per_batch / (time.monotonic() - self._started)
        note = self.best.note if self.best else ""
        loss = "" if math.isnan(self.loss) else f"loss {self.loss:.3f}, "  # the first one is logged after its step
        self.steps.advance(notes=f"{loss}rate {rate:.1e}, {speed:,.0f} tokens/s{note}")


@final
class Reporting(TrainerCallback):
    """Tells TensorBoard, Weights & Biases and the like of all phases as one run: their steps go on from each other.

    A Trainer's own callbacks would begin anew in every phase, know one rate only, and write into the phase's folder of
    checkpoints, which is removed in the end.

    Args:
        names: Those of the integrations, as `TrainingArguments.report_to` takes them.
        folder: Where what they write goes, unless they are told otherwise.

    Raises:
        UserError: if there is no such integration, or its library is not installed.
    """

    def __init__(self, names: str | Sequence[str], folder: Path) -> None:
        try:
            self._told: list[TrainerCallback] = [made() for made in get_reporting_integration_callbacks(names)]
        except (ValueError, RuntimeError, ImportError) as error:
            raise UserError(f"report_to={names}: {error}") from error
        self.folder = folder
        self.phase, self.before, self.is_last, self.has_begun = 0, 0, False, False

    def begin(self, phase: int, before: int, *, is_last: bool) -> None:
        """Go on to another phase, by its number; `before` are the optimizer steps of those before it."""
        self.phase, self.before, self.is_last = phase, before, is_last

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Begin the run, with the first phase that is trained; they go on with the others."""
        if not self.has_begun:
            self._tell("on_train_begin", args, state, control, **kwargs)
        self.has_begun = True

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Tell the loss, the rate of each layer group, and the number of the phase, from 1."""
        history: list[Any] = list(state.log_history)
        more = {f"learning_rate/{layer}": rate for layer, rate in history[-1].get("rates", {}).items()}
        self._tell("on_log", args, state, control, logs={**(logs or {}), **more, "phase": self.phase + 1}, **kwargs)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Tell of a checkpoint."""
        self._tell("on_save", args, state, control, **kwargs)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """End the run with its last phase."""
        if self.is_last:
            self._tell("on_train_end", args, state, control, **kwargs)

    def _tell(
        self, event: str, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Tell all of them of an event, with the folder and the step of the whole run."""
        args, state = copy.copy(args), copy.copy(state)
        args.output_dir, state.global_step = str(self.folder), self.before + state.global_step
        for callback in self._told:
            getattr(callback, event)(args, state, control, **kwargs)


@final
class Finite(TrainerCallback):
    """Stops at a loss that is not a number."""

    def __init__(self, title: str) -> None:
        self.title = title

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Look at the loss.

        Raises:
            UserError: if it is infinite or not a number.
        """
        if logs and not math.isfinite(logs.get("loss", 0.0)):
            raise UserError(
                f"{self.title}: the loss is {logs['loss']} at step {state.global_step}; "
                "try a lower learning_rate or a longer warmup_ratio"
            )


@final
class Measuring(TrainerCallback):
    """Measures the model now and then, says it, keeps it in the log, and stops where a measure has risen too much.

    Args:
        before: The measures before the phase.
        budget: How much each may rise.
    """

    def __init__(
        self,
        title: str,
        measure: Callable[[], dict[str, float]],
        before: Mapping[str, float],
        budget: Mapping[str, float],
    ) -> None:
        self.title, self.measure, self.before, self.budget = title, measure, before, budget
        self.every = 0
        """Steps between two measurements."""

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Measure, unless it is the last step, after which the phase does so by itself."""
        if state.global_step % self.every or state.global_step == state.max_steps:
            return
        measures = self.measure()
        state.log_history.append(
            {"step": state.global_step, **{f"heldout_{name}": measures[name] for name in measures}}
        )
        told = ", ".join(f"{name.replace('_', ' ')} {number(value)}" for name, value in measures.items())
        say(f"  {self.title}: at step {state.global_step:,} of {state.max_steps:,}: {told}")
        for name, most in self.budget.items():
            if (risen := measures[name] - self.before[name]) > most:
                say(f"  {self.title}: stops here, for {name.replace('_', ' ')} has risen by {risen:.3f}, over {most:g}")
                control.should_training_stop = True


def number(value: float) -> str:
    """Return a measure as it is told."""
    return f"{value:.3f}" if value < 1000 else f"{value:,.0f}"
