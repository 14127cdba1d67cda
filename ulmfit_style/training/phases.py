"""Training as a short list of phases: which parameters are thawed, for how long, at which peak rate."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils.data import Dataset
from transformers import PreTrainedModel, TrainingArguments

from ulmfit_style.console import progress
from ulmfit_style.errors import UserError
from ulmfit_style.training.objectives import Objective
from ulmfit_style.training.trainer import Progress, RecipeTrainer

LOGGING_STEPS = 10


@dataclass(frozen=True)
class Phase:
    """One Trainer run over one set of thawed parameters, with a whole schedule of its own."""

    title: str
    thawed: Sequence[nn.Parameter] | None
    """What is trained; None for every parameter. The rest is frozen."""
    epochs: float
    learning_rate: float
    """Peak rate."""


@dataclass(frozen=True)
class Settings:
    """What the phases of a stage share."""

    batch_size: int
    """Rows per optimizer step."""
    warmup_ratio: float
    weight_decay: float
    seed: int


def run_phase(
    model: PreTrainedModel,
    phase: Phase,
    number: int,
    settings: Settings,
    objective: Objective,
    rows: Dataset[Any] | Sequence[Any],
    collate: Callable[[Sequence[Any]], dict[str, torch.Tensor]],
) -> list[dict[str, float]]:
    """Train one phase in place and return its log: one entry of loss and rate every few steps.

    `requires_grad` is set before the model is wrapped: frozen parameters get no gradient, no decay and no optimizer
    state, and the backward pass ends at the lowest thawed layer (ULMFiT, section 3.3).

    Args:
        number: The phase's place in its stage, from 0. It enters the seed, or every phase would replay the same order.
    """
    thawed = None if phase.thawed is None else {id(parameter) for parameter in phase.thawed}
    for parameter in model.parameters():
        parameter.requires_grad_(thawed is None or id(parameter) in thawed)
    size = len(rows)  # type: ignore[arg-type]
    total = math.ceil(math.ceil(size / settings.batch_size) * phase.epochs)
    # The Trainer insists on a folder, though nothing is saved in it.
    with tempfile.TemporaryDirectory() as folder, progress(phase.title, total) as steps:
        trainer = RecipeTrainer(
            model=model,
            objective=objective,
            args=TrainingArguments(
                output_dir=folder,
                num_train_epochs=phase.epochs,
                learning_rate=phase.learning_rate,
                per_device_train_batch_size=settings.batch_size,
                warmup_steps=settings.warmup_ratio,
                weight_decay=settings.weight_decay,
                lr_scheduler_type="linear",
                seed=settings.seed * 1000 + number,
                train_sampling_strategy="group_by_length",
                bf16=torch.cuda.is_available() and torch.cuda.is_bf16_supported(),
                logging_first_step=True,
                logging_steps=LOGGING_STEPS,
                logging_nan_inf_filter=False,
                save_strategy="no",
                report_to="none",
                disable_tqdm=True,
                remove_unused_columns=False,
                dataloader_pin_memory=torch.cuda.is_available(),
            ),
            train_dataset=rows,
            data_collator=collate,
            callbacks=[Progress(steps, rows, number)],
        )
        if trainer.args.n_gpu > 1:
            visible = os.environ.get("CUDA_VISIBLE_DEVICES", "all")
            raise UserError(f"CUDA_VISIBLE_DEVICES={visible}: one process trains on one GPU; name one")
        trainer.train()
    return [entry for entry in trainer.state.log_history if "loss" in entry]
