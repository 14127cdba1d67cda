"""Looking at a model now and then while it is trained: its best state is kept, and training may stop early."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, final

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ulmfit_style.artefacts.directory import read_json, write_json
from ulmfit_style.compute import processes
from ulmfit_style.errors import Pruned
from ulmfit_style.training.trainer import whole

CURVE = "best.json"
WEIGHTS = "best.safetensors"

When = Callable[[TrainerState], bool]


@final
class Monitor(TrainerCallback):
    """Looks at the model after some optimizer steps, and stops the phase when `look` says so.

    Args:
        look: Takes the state and the model, and returns whether to stop.
        when: After which optimizer steps.
    """

    def __init__(self, look: Callable[[TrainerState, nn.Module], bool], when: When) -> None:
        self.look, self.when = look, when

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Look at the model, if it is time."""
        if self.when(state):
            with whole(kwargs["model"]):
                control.should_training_stop |= self.look(state, kwargs["model"])


def at_epoch_end(state: TrainerState) -> bool:
    """Tell whether an epoch ends, or the phase, whose last epoch may be a part of one."""
    return float(state.epoch or 0).is_integer() or state.global_step >= state.max_steps


def spread(times: int, steps: int, steps_before: int = 0) -> When:
    """Tell when to measure so many times, evenly spread over steps; the last time, at their end, is left to the stage.

    Args:
        steps_before: The steps that were taken before the phase.
    """

    def is_due(state: TrainerState) -> bool:
        step = steps_before + state.global_step
        return times * (step - 1) // steps < times * step // steps < times

    return is_due


@final
class BestState:
    """The state that scored best at the end of an epoch, over all phases; a phase without a better one is stopped.

    The scores and the state are saved with each checkpoint, so that a resumed run chooses among all epochs.
    """

    def __init__(self, metric: str, score: Callable[[], float], patience: int) -> None:
        self.metric, self.score, self.patience = metric, score, patience
        self.phase = ""
        """The title of the phase that is trained."""
        self.curve: list[dict[str, Any]] = []
        """The score after each epoch of each phase."""
        self.weights: dict[str, torch.Tensor] = {}

    @property
    def kept(self) -> dict[str, Any]:
        """The entry of the curve whose state is kept: the best score, and the earliest of equal ones."""
        return max(self.curve, key=lambda entry: float(entry[self.metric]))

    @property
    def out_of_patience(self) -> bool:
        """Whether the phase has had no better state for `patience` epochs."""
        if not self.curve:
            return False
        since = self.curve[self.curve.index(self.kept) + 1 :]
        return len([entry for entry in since if entry["phase"] == self.phase]) >= self.patience

    def look(self, state: TrainerState, model: nn.Module) -> bool:
        """Score the model, keep its state if it is the best, and return whether to stop; the main process decides."""
        score = processes.from_main(self.score())
        self.curve.append({"phase": self.phase, "epoch": state.epoch, "step": state.global_step, self.metric: score})
        if self.kept is self.curve[-1]:
            self.weights = {name: tensor.to("cpu", copy=True) for name, tensor in model.state_dict().items()}
        return self.out_of_patience

    def save(self, folder: Path) -> None:
        """Write the curve and the best state into a folder."""
        write_json(folder / CURVE, self.curve)
        save_file(self.weights, folder / WEIGHTS)

    def load(self, folder: Path) -> None:
        """Read the curve and the best state from a folder."""
        self.curve, self.weights = read_json(folder / CURVE), load_file(folder / WEIGHTS)


def of_trial(reporter: Any, score: Callable[[], float], steps_before: int, steps: int) -> Monitor:
    """Return what scores a trial of a sweep while it is trained, and stops it when it falls behind.

    Args:
        reporter: Its `measurements`, evenly spread over the steps of all phases, of which the stage makes the last; and
            `report`, which takes the number of one, from 1, and its score, and returns whether to stop the trial.
        steps_before: The steps of the phases before this one.
        steps: The steps of all phases.
    """

    def look(state: TrainerState, model: nn.Module) -> bool:
        measured, measurement = score(), reporter.measurements * (steps_before + state.global_step) // steps
        if processes.from_main(processes.is_main() and reporter.report(measurement, measured)):
            raise Pruned(f"stopped at measurement {measurement} of {reporter.measurements}")
        return False

    return Monitor(look, spread(reporter.measurements, steps, steps_before))
