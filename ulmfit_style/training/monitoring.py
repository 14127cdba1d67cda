"""Looking at a model now and then while it is trained: its best state is kept, and training may stop early."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ulmfit_style import processes
from ulmfit_style.artefacts.directory import read_json, write_json
from ulmfit_style.console import say
from ulmfit_style.errors import Pruned

CURVE = "best.json"
WEIGHTS = "best.safetensors"

When = Callable[[TrainerState], bool]
Look = Callable[[TrainerState, nn.Module], bool]


@final
class Monitor(TrainerCallback):
    """Looks at the model after some optimizer steps, or at each logged loss, and stops the phase when `look` says so.

    Args:
        look: Takes the state and the model, and returns whether to stop.
        when: After which optimizer steps; None for after each logged loss, which is the last entry of the log.
    """

    def __init__(self, look: Look, when: When | None = None) -> None:
        self.look, self.when = look, when

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Look at the model, if it is time."""
        if self.when is not None and self.when(state) and self.look(state, kwargs["model"]):
            control.should_training_stop = True

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Look at the loss."""
        if self.when is None and "loss" in state.log_history[-1] and self.look(state, kwargs["model"]):
            control.should_training_stop = True


def at_epoch_end(state: TrainerState) -> bool:
    """Tell whether an epoch ends, or the phase, whose last epoch may be a part of one."""
    return float(state.epoch or 0).is_integer() or state.global_step >= state.max_steps


def every(steps: int) -> When:
    """Tell at every so many steps, but not at the last of the phase."""
    return lambda state: state.global_step % steps == 0 and state.global_step != state.max_steps


@dataclass(frozen=True)
class HeldoutMeasures:
    """Measures the model in the middle of a phase, logs the measures, and stops when one has risen over its budget."""

    title: str
    """The title of the phase."""
    measure: Callable[[], dict[str, float]]
    before: Mapping[str, float]
    """The measures before the phase."""
    budget: Mapping[str, float]
    """How much each measure may rise."""

    def look(self, state: TrainerState, model: nn.Module) -> bool:
        """Measure the model, and return whether a measure has risen too much."""
        measures = self.measure()
        state.log_history.append({"step": state.global_step, **{f"heldout_{key}": measures[key] for key in measures}})
        shown = ", ".join(f"{spoken(name)} {formatted(value)}" for name, value in measures.items())
        say(f"  {self.title}: at step {state.global_step:,} of {state.max_steps:,}: {shown}")
        rises = {name: measures[name] - self.before[name] for name in self.budget}
        over = {name: rise for name, rise in rises.items() if rise > self.budget[name]}
        for name, rise in over.items():
            say(f"  {self.title}: stops here: {spoken(name)} has risen by {rise:.3f}, more than {self.budget[name]:g}")
        return bool(over)


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

    @property
    def note(self) -> str:
        """The text beside the progress bar."""
        if not self.curve:
            return ""
        return f", {self.metric} {self.curve[-1][self.metric]:.3f} (best {self.kept[self.metric]:.3f})"

    def look(self, state: TrainerState, model: nn.Module) -> bool:
        """Score the model, keep its state if it is the best, and return whether to stop; the main process decides."""
        score = processes.from_main(self.score())
        self.curve.append({"phase": self.phase, "epoch": state.epoch, "step": state.global_step, self.metric: score})
        if self.kept is self.curve[-1]:
            self.weights = {name: tensor.to("cpu", copy=True) for name, tensor in model.state_dict().items()}
        return self.out_of_patience

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


@dataclass(frozen=True)
class TrialScores:
    """Scores of a trial of a sweep, reported while it is trained, so that it can be stopped when it falls behind."""

    score: Callable[[], float]
    report: Callable[[int, float], bool]
    """Takes the number of the measurement, from 1, and the score; returns whether to stop the trial."""
    measurements: int
    """How many there are, evenly spread over the steps of all phases; the stage itself makes the last one."""

    def monitor(self, before: int, total: int) -> Monitor:
        """Return the callback of a phase.

        Args:
            before: The steps of the phases before it.
            total: The steps of all phases.
        """

        def number(step: int) -> int:
            return self.measurements * (before + step) // total

        def is_due(state: TrainerState) -> bool:
            return number(state.global_step - 1) < number(state.global_step) < self.measurements

        def look(state: TrainerState, model: nn.Module) -> bool:
            score, measurement = self.score(), number(state.global_step)
            if processes.from_main(processes.is_main() and self.report(measurement, score)):
                raise Pruned(f"stopped at measurement {measurement} of {self.measurements}")
            return False

        return Monitor(look, is_due)


def spoken(name: str) -> str:
    """Return the name of a measure as a sentence has it."""
    return name.replace("_", " ")


def formatted(value: float) -> str:
    """Return a measure as text."""
    return f"{value:.3f}" if value < 1000 else f"{value:,.0f}"
