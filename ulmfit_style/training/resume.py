"""Checkpoints to resume from: saved every few minutes and on a signal, trusted only when they are whole."""

import shutil
import signal
import time
from contextlib import ExitStack
from pathlib import Path
from types import FrameType
from typing import Any, Self, final

from safetensors import safe_open
from transformers import PreTrainedModel, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ulmfit_style.artefacts import seal
from ulmfit_style.artefacts.directory import read_json, write_json
from ulmfit_style.compute import processes
from ulmfit_style.console import say
from ulmfit_style.errors import Interrupted, UserError
from ulmfit_style.training.monitoring import BestState
from ulmfit_style.training.streaming import StreamedLM

SEAL = "whole.json"
"""Lists a folder's files with their digests. It is written last, so a folder without a correct one is not whole."""

WINDOW = "window.json"
"""For each process, the sum of the losses since the last entry of the log, and the step of that entry."""

KEPT = 2
"""Whole checkpoints of a phase that are kept, lest the newest one is damaged later."""

AGREED_STEPS = 10
"""Several processes agree on saving and stopping at every so many steps."""


def damage(folder: Path) -> str | None:
    """Return why a checkpoint is not what was sealed; None if it is."""
    return seal.damage(folder, SEAL, "*") if (folder / SEAL).exists() else "the run ended while it was saved"


def newest_whole(folder: Path, *, any_number: bool = False) -> Path | None:
    """Return the newest whole checkpoint of a phase's folder, or None, and say which are passed over.

    Args:
        any_number: Whether it may be that of another number of processes, which resumes with other random numbers.

    Raises:
        UserError: if it was sealed by another number of processes, and may not be.
    """
    for checkpoint in _newest_first(folder):
        if reason := damage(checkpoint):
            say(f"  {checkpoint} is passed over: {reason}")
            continue
        count = read_json(checkpoint / SEAL)["processes"]
        if count != processes.count() and not any_number:
            problem = f"{checkpoint}: was saved by {count} processes, and these are {processes.count()}"
            raise UserError(f"{problem}; go on with processes={count}, or remove {folder.parent} to start again")
        return checkpoint
    return None


def require_same_weights(checkpoint: Path, model: PreTrainedModel) -> None:
    """Check that a checkpoint names its weights as the model does: the Trainer passes over all others without an error.

    Raises:
        UserError: if transformers renames the weights of this architecture when it saves them, or sizes differ.
    """
    with safe_open(checkpoint / "model.safetensors", framework="pt") as file:
        saved = {name: file.get_slice(name).get_shape() for name in set(file.keys())}
    weights = model.state_dict()
    # Tied weights are saved once.
    known = {weight.data_ptr() for name, weight in weights.items() if name in saved}
    missing = {name for name, weight in weights.items() if weight.data_ptr() not in known}
    missing -= set(model._keys_to_ignore_on_save or ())
    problem, remedy = "", f"remove {checkpoint.parents[1]} to start again"
    if missing or set(saved) - set(weights):
        problem = f"it names its weights in another way than the model ({min(missing or set(saved) - set(weights))})"
    elif others := sorted(name for name, shape in saved.items() if list(weights[name].shape) != shape):
        problem, remedy = f"{others[0]} has another size there", f"give the other value of fast, or {remedy}"
    if problem:
        raise UserError(f"{checkpoint}: cannot be resumed, because {problem}; {remedy}")


def _newest_first(folder: Path) -> list[Path]:
    return sorted(folder.glob("checkpoint-*"), key=lambda path: -int(path.name.rpartition("-")[2]))


@final
class CheckpointKeeper(TrainerCallback):
    """Saves a checkpoint every few minutes, at the end of the phase, and before the run stops on Ctrl-C or SIGTERM.

    The stock Trainer saves by steps, takes any folder for a checkpoint, rotates by file times before the new one is
    known to be whole, and on SIGTERM ends with exit code 0 (`test_resume.py` shows each of them answered).
    """

    trainer: Any
    """The Trainer that it is a callback of."""

    def __init__(self, title: str, minutes: float, best: BestState | None = None, resumed: Path | None = None) -> None:
        self.title, self.seconds, self.best, self.resumed = title, 60 * minutes, best, resumed
        self._saved = time.monotonic()
        self._signal: int | None = None
        self._stopping = False
        self._handlers = ExitStack()

    def __enter__(self) -> Self:
        """Take over Ctrl-C and SIGTERM; a second one ends the process at once."""
        self._handlers.enter_context(processes.handled_by(self._request))
        return self

    def __exit__(self, *error: object) -> None:
        """Give the signals back."""
        self._handlers.close()

    def _request(self, number: int, frame: FrameType | None) -> None:
        self._signal = number
        self.__exit__()

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: Any, **kwargs: Any) -> None:
        """Go on with the mean loss that the next entry of the log is to hold, which the Trainer would begin again."""
        if self.resumed is not None:
            saved = read_json(self.resumed / WINDOW)
            self.trainer._globalstep_last_logged = saved[0][1]
            # Logged is the mean over the processes, of which there may have been more or fewer.
            self.trainer._tr_loss += sum(loss for loss, _ in processes.share(saved)) * (processes.count() / len(saved))
            if isinstance(self.trainer.objective, StreamedLM):
                self.trainer.objective.load(self.resumed)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Ask for a checkpoint when one is due, and at the end of the phase, in every process at the same step."""
        ends = control.should_training_stop
        if processes.count() > 1 and state.global_step % AGREED_STEPS and not ends:
            return
        due = ends or time.monotonic() - self._saved >= self.seconds
        self._stopping = any(processes.from_all(self._signal is not None))
        control.should_save = self._stopping or processes.from_main(due)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Seal the checkpoint with the best state in it, remove older ones, and stop if a signal asked for it.

        Raises:
            Interrupted: after a signal.
        """
        folder = Path(str(args.output_dir))
        checkpoint = folder / f"checkpoint-{state.global_step}"
        if isinstance(self.trainer.objective, StreamedLM):
            self.trainer.objective.save(checkpoint)
        windows = processes.from_all((float(self.trainer._tr_loss), self.trainer._globalstep_last_logged))
        if processes.is_main():
            if self.best is not None:
                self.best.save(checkpoint)
            write_json(checkpoint / WINDOW, windows)
            write_json(checkpoint / SEAL, seal.signed(checkpoint, {"processes": processes.count()}, [SEAL]))
            for old in [one for one in _newest_first(folder) if not damage(one)][KEPT:]:
                shutil.rmtree(old)
        processes.wait()
        self._saved = time.monotonic()
        if self._stopping:
            step = f"step {state.global_step} of {state.max_steps}"
            raise Interrupted(self._signal or signal.SIGTERM, f"{self.title}: stopped and saved at {step}")
