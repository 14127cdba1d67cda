"""The one Trainer subclass: it divides the summed loss by the global count, as one big batch would.

Where weights, gradients and moments are shared out among the processes (FSDP2; Zhao et al. 2023), what is sharded and
trained is a copy of the model's structure: phases, layer groups and whoever measures or saves the model know it by its
parameters. These hold nothing meanwhile, but where `whole` fills them; all processes have to call it together.
"""

import copy
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, final

import torch
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim.lr_scheduler import LambdaLR
from torch.utils._pytree import tree_map_only
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainerControl, TrainerState
from transformers.integrations import get_reporting_integration_callbacks  # type: ignore[attr-defined]

from ulmfit_style.console import ProgressReport
from ulmfit_style.errors import UserError, listed, reworded
from ulmfit_style.models.layers import outer_lists
from ulmfit_style.training.batching import ShuffledDataset, without_blanks
from ulmfit_style.training.objectives import Objective

REMEDY = "try a lower learning_rate or a longer warmup_ratio"
"""What may help where numbers are not finite."""

SHARES: dict[Any, dict[Any, Any]] = {}
"""The models that are sharded now: for each parameter, that of the copy, of which each process has its share."""


@contextmanager
def whole(model: Any) -> Iterator[None]:
    """Fill the parameters of a model while the block runs, if it is sharded; of one that is not, they are there anyway.

    If it is sharded when the block ends, one number of each is left, which is finite, as `require_weights` wants it.
    """
    for weights, share in SHARES.get(model, {}).items():
        weights.data = share.detach().full_tensor()
    yield
    for weights in SHARES.get(model, ()):
        weights.data = weights.new_zeros(1)


def _share(model: Any, optimizer: Any) -> Any:
    """Return the sharded copy of a model, whose shares the optimizer steps from now on; what it saves stays whole."""
    copied = copy.deepcopy(model, {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())})
    for module in (*(layer for layers in outer_lists(copied) for layer in layers), copied):
        fully_shard(module)
    with whole(model):
        shares = SHARES[model] = dict(zip(model.parameters(), copied.parameters(), strict=True))
    for group in optimizer.param_groups:
        group["params"] = [shares[weights] for weights in group["params"]]
    optimizer.register_state_dict_post_hook(lambda _, saved: tree_map_only(DTensor, _gathered, saved))
    optimizer.register_load_state_dict_post_hook(_share_state)
    return copied


def _gathered(share: Any) -> torch.Tensor:
    """Return a whole moment: its numbers are in the main process alone, which saves it."""
    return share.full_tensor().to("cpu" if share.device_mesh.get_rank() == 0 else "meta")


def _share_state(optimizer: Any) -> None:
    """Keep this process's share of the moments that an optimizer has loaded; its count of steps is a scalar."""
    for weights, state in optimizer.state.items():
        place = weights.device_mesh, weights.placements
        state.update({name: distribute_tensor(value, *place) for name, value in state.items() if value.dim()})


@final
class RecipeTrainer(Trainer):
    """A Trainer whose loss comes from an objective, exact under accumulation and several processes.

    The stock Trainer believes that any model whose forward takes keyword arguments divides by the batch's item count;
    most encoder heads do not, and their loss and gradients come out multiplied by the accumulation steps
    (transformers#47688). `test_accumulation_and_two_processes_equal_one_big_batch` tells when the two overrides can go.

    Args:
        rates: Returns the rate of each of so many optimizer steps, as a factor of the peak.
        split: Splits the optimizer's parameter groups by layer groups, where each of these has a rate of its own.
        title: Begins the messages of what goes wrong.
        shard: Whether weights, gradients and moments are shared out; `SHARES` has them after training.
    """

    def __init__(
        self,
        *,
        objective: Objective,
        rates: Callable[[int], Sequence[float]],
        split: Callable[[Sequence[dict[str, Any]]], Iterable[dict[str, Any]]] | None = None,
        collate: Callable[[Sequence[Any]], dict[str, Any]],
        title: str = "training",
        shard: bool = False,
        **arguments: Any,
    ) -> None:
        super().__init__(data_collator=partial(without_blanks, collate), **arguments)
        self.objective: Objective = objective
        self.rates, self.split, self.title, self.shard = rates, split, title, shard
        self.model_accepts_loss_kwargs = False
        self.loss_is_scaled_for_ga = True
        self.remove_callback(PrinterCallback)

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Make the Trainer's own optimizer, with its parameter groups split by layer groups.

        The Trainer has one rate for all layers. What is needed here is shown by
        `test_frozen_parameters_stay_and_the_rates_are_those_that_the_thawed_ones_move_by`.
        """
        optimizer = super().create_optimizer(model)
        if self.split is not None:
            optimizer.param_groups[:] = self.split(optimizer.param_groups)
        if self.shard:  # the Trainer leaves what is wrapped already to itself; here Accelerate adds autocast alone
            self.model_wrapped = self.accelerator.prepare_model(_share(self.model, optimizer), evaluation_mode=True)
        return optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None) -> LambdaLR:
        """Let the rate of every parameter group rise and fall alike, each step with the rate of its middle.

        transformers' schedules begin and end at 0: a phase of one step would not be trained at all.
        """
        optimizer = optimizer or self.optimizer
        assert optimizer is not None  # it was made before
        factors = self.rates(num_training_steps)
        # Torch asks for the rate after the last step too.
        self.lr_scheduler = LambdaLR(optimizer, lambda step: factors[min(step, num_training_steps - 1)])
        return self.lr_scheduler

    def training_step(self, model: nn.Module, inputs: dict[str, Any], *arguments: Any) -> torch.Tensor:
        """Run a batch forward and backward; what goes wrong is told with its size."""
        try:
            return super().training_step(model, inputs, *arguments)
        except Exception as error:
            *texts, length = inputs["input_ids"].shape
            remedy = "a smaller micro_batch_size, or auto on a GPU, splits it and changes nothing else"
            error.add_note(f"{self.title}: in a pass of {math.prod(texts)} texts of {length} tokens; {remedy}")
            raise

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
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Return this batch's part of the mean loss over the optimizer step."""
        blank, places = inputs.pop("blank", False), inputs.pop("places", ())
        loss = self.objective.loss(model, inputs) * (not blank) / num_items_in_batch
        # The stock Trainer waits for the device here too, to leave such losses out of its log.
        if not loss.isfinite():
            step = self.state.global_step + 1
            require_weights(self.model, f"{self.title}: before step {step}")
            rows = f" on {listed(places)}; look at these rows, or" if places else ";"
            raise UserError(f"{self.title}: the loss is {loss.item()} at step {step}{rows} {REMEDY}")
        # Gradients are averaged over the processes, and this is a sum.
        loss = loss * self.accelerator.num_processes
        return (loss, None) if return_outputs else loss

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """Save a checkpoint, unless the last update made weights that are not finite.

        It holds two moments of each, but for that at the end of a phase.
        """
        self.args.save_only_model = self.control.should_training_stop  # no step follows that would need the moments
        try:
            with whole(self.model):
                require_weights(self.model, f"{self.title}: after step {self.state.global_step}")
                super()._save_checkpoint(model, trial)
            if not (self.args.should_save or self.args.save_only_model):
                self.optimizer.state_dict()  # type: ignore[union-attr]  # gathers the moments; the main process saves them
        except Exception as error:
            sizes = [weights.nbytes * (3 if weights.requires_grad else 1) for weights in model.parameters()]
            error.add_note(f"a checkpoint takes {sum(sizes) / 1e6:,.0f} MB, and there are up to three at a time")
            raise


@final
class Progress(TrainerCallback):
    """Shows loss and rate, starts the epochs of the dataset, and stops where gradients are not finite."""

    def __init__(self, bar: ProgressReport, rows: ShuffledDataset) -> None:
        self.bar, self.rows, self.loss = bar, rows, ""
        self._started, self._trained = time.monotonic(), 0

    def on_epoch_begin(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Give the rows the order and the masks of the epoch."""
        self.rows.start_epoch(int(state.epoch or 0))

    def on_log(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Note the loss.

        Raises:
            UserError: if the gradient norm is infinite or not a number; fp16 looks for its scale by such steps.
        """
        entry: Any = state.log_history[-1]
        if "loss" not in entry:
            return
        if not (math.isfinite(norm := entry.get("grad_norm", 0)) or args.fp16):
            raise UserError(f"{self.bar.title}: the gradient norm is {norm} at step {state.global_step}; {REMEDY}")
        self.loss = f"loss {entry['loss']:.3f}, "

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Advance the bar, and have the last step logged, whatever its number."""
        control.should_log |= state.global_step == state.max_steps
        self._trained += 1
        rate = kwargs["lr_scheduler"].get_last_lr()[0]
        speed = self._trained * self.rows.tokens_per_batch / (time.monotonic() - self._started)
        self.bar.advance(notes=f"{self.loss}rate {rate:.1e}, {speed:,.0f} tokens/s")


@final
class Reporting(TrainerCallback):
    """Reports all phases as one run to TensorBoard, Weights & Biases and the like: their steps are numbered through.

    A Trainer's own callbacks would start again in every phase, and write into the phase's folder of checkpoints, which
    is removed in the end.

    Args:
        names: The integrations, as `TrainingArguments.report_to` takes them.
        folder: Where they write, unless they are configured otherwise.

    Raises:
        UserError: if there is no such integration, or its library is not installed.
    """

    def __init__(self, names: str | Sequence[str], folder: Path) -> None:
        with reworded(f"trainer.report_to={names}: ", ValueError, RuntimeError, ImportError):
            self._callbacks = [callback() for callback in get_reporting_integration_callbacks(names)]
        # The number of the phase from 0, the optimizer steps of those before it, and whether none comes after it.
        self.folder, self.phase, self.steps_before, self.is_last = folder, 0, 0, False

    def on_train_begin(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Begin the run; where it was begun by an earlier phase, the integrations go on with it."""
        self._forward("on_train_begin", args, state, control, **kwargs)

    def on_log(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Report what is logged, and the number of the phase, from 1."""
        kwargs["logs"] = {**kwargs["logs"], "phase": self.phase + 1}
        self._forward("on_log", args, state, control, **kwargs)

    def on_train_end(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """End the run with its last phase."""
        if self.is_last:
            self._forward("on_train_end", args, state, control, **kwargs)

    def _forward(self, event: str, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Forward an event to all integrations, with the folder and the step of the whole run."""
        args, state = copy.copy(args), copy.copy(state)
        args.output_dir, state.global_step = str(self.folder), self.steps_before + state.global_step
        args.run_name = args.run_name or self.folder.name  # or some would make a name up
        for callback in self._callbacks:
            getattr(callback, event)(args, state, control, **kwargs)


def require_weights(model: Any, when: str) -> None:
    """Check all weights of a model; `when` begins the message.

    Raises:
        UserError: if some are infinite or not a number.
    """
    # By their extremes: torch.isfinite is slower by a factor of 20.
    weights = dict(model.named_parameters())
    if bad := [name for name, weight in weights.items() if not all(map(math.isfinite, weight.detach().aminmax()))]:
        raise UserError(f"{when}: {len(bad)} of {len(weights)} weight tensors are not finite ({bad[0]}); {REMEDY}")
