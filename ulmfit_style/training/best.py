"""The state that is kept: the one that scored best on watched rows, over all phases."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, final

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ulmfit_style import processes
from ulmfit_style.artefacts.directory import read_json, write_json

CURVE = "best.json"
WEIGHTS = "best.safetensors"


@final
class BestState(TrainerCallback):
    """Scores the model after every epoch, keeps the best state, and ends a phase that brings no better one.

    The curve and the best state lie in every checkpoint, or a run that goes on would choose among its last epochs. So
    it has to come before the keeper, who asks for checkpoints at the step that ends an epoch, and seals them.
    """

    def __init__(self, metric: str, score: Callable[[], float], patience: int) -> None:
        self.metric, self.score, self.patience = metric, score, patience
        self.phase = ""
        self.curve: list[dict[str, Any]] = []
        """The score after each epoch of each phase."""
        self.weights: dict[str, torch.Tensor] = {}

    @property
    def kept(self) -> dict[str, Any]:
        """The entry of the curve whose state is kept: the best score, and of equal ones the earliest."""
        return max(self.curve, key=lambda entry: float(entry[self.metric]))

    @property
    def over(self) -> bool:
        """Whether the phase has brought nothing better for too long."""
        if not self.curve:
            return False
        since = self.curve[self.curve.index(self.kept) + 1 :]
        return len([entry for entry in since if entry["phase"] == self.phase]) >= self.patience

    @property
    def note(self) -> str:
        """What stands beside the progress bar."""
        if not self.curve:
            return ""
        return f", {self.metric} {self.curve[-1][self.metric]:.3f} (best {self.kept[self.metric]:.3f})"

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Score the model where an epoch ends; the other processes take the main one's word."""
        if not float(state.epoch or 0).is_integer() and state.global_step < state.max_steps:
            return
        score = processes.from_main(self.score())
        place = {"phase": self.phase, "epoch": state.epoch, "step": state.global_step}
        self.curve.append({**place, self.metric: score})
        if self.kept is self.curve[-1]:
            model: nn.Module = kwargs["model"]
            self.weights = {name: tensor.to("cpu", copy=True) for name, tensor in model.state_dict().items()}
        if self.over:
            control.should_training_stop = True

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Lay the best state into the checkpoint."""
        self.save(Path(str(args.output_dir)) / f"checkpoint-{state.global_step}")

    def save(self, folder: Path) -> None:
        """Write the curve and the best state into a folder."""
        if processes.is_main():
            write_json(folder / CURVE, self.curve)
            save_file(self.weights, folder / WEIGHTS)

    def load(self, folder: Path) -> None:
        """Read the curve and the best state from a folder."""
        self.curve, self.weights = read_json(folder / CURVE), load_file(folder / WEIGHTS)

    def restore(self, model: nn.Module) -> None:
        """Give the model its best state."""
        model.load_state_dict(self.weights)
