"""Phases of a tiny classifier, which save at every step and can be killed."""

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from samples import Killed, good_or_bad, tiny_sizes
from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast, set_seed

from ulmfit_style.config.training import Finetune
from ulmfit_style.models.layers import layer_groups
from ulmfit_style.tasks.text_classification import TextClassification
from ulmfit_style.training.batching import collate
from ulmfit_style.training.monitoring import BestState
from ulmfit_style.training.phases import Phase, PhaseResult, TrainingData, TrainingPlan, train

TASK = TextClassification(path="-", text="review", label="stars")


GROUPS = ("embeddings", "layer 1", "layer 2", "head")
DEFAULT: Sequence[dict[str, Any]] = ({"title": "head", "trainable": ["head"], "learning_rate": 1e-2}, {})


def finetune_options(**changes: Any) -> Finetune:
    """Return the section `finetune` with batches of 8."""
    defaults = {"epochs": 1, "learning_rate": 1e-3, "warmup_ratio": 0.1, "weight_decay": 0.0, "batch_size": 8}
    return Finetune(**{**defaults, "max_length": 32, "seed": 0, **changes})


def without_dropout(tiny: dict[str, Any]) -> dict[str, Any]:
    """Return the sizes of a tiny model for a config that has no such dropout."""
    return {name: size for name, size in tiny.items() if "dropout" not in name}


class TinyRun:
    """Training of a tiny classifier with dropout, on 40 rows: 5 steps an epoch.

    Its score is random, but a pure function of the weights: it tells states apart that differ by a bit.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerFast, folder: Path, save_minutes: float = 1e-9, **sizes: Any
    ) -> None:
        dropout = {"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1}
        self.tokenizer, self.folder, self.save_minutes = tokenizer, folder, save_minutes
        self.sizes = {**tiny_sizes(tokenizer), **dropout, "num_labels": 2, **sizes}
        self.rows = good_or_bad(tokenizer, TASK)
        self.seen: list[list[int]] = []
        """The rows of each batch of the last run."""
        self.results: list[PhaseResult] = []
        """What a run returned, if it was kept."""
        self.before_batch: Callable[[int], None] = lambda number: None

    def run(
        self,
        *phases: dict[str, Any],
        patience: int | None = None,
        killed_at: int | None = None,
        killed_after: int | None = None,
        micro: int = 4,
        **options: Any,
    ) -> list[PhaseResult]:
        """Train from the start, or from what is there; without `phases`, the head alone and then every weight.

        It is killed before the optimizer step `killed_at`, counted from where this run starts, or before the phase
        `killed_after` is marked as done. Without `patience` there is no best state.
        """
        set_seed(0)
        self.model = BertForSequenceClassification(BertConfig(**self.sizes))
        self.layers = layer_groups(self.model, ())
        self.seen, measured = [], 0

        def gather(rows: Any) -> Any:
            if "phase_epoch" not in rows[0]:  # they are not trained: what a frozen trunk makes of them is kept
                return collate(rows, self.tokenizer)
            self.before_batch(len(self.seen))
            if killed_at is not None and len(self.seen) >= killed_at * (8 // micro):
                raise Killed
            self.seen.append([row["number"] for row in rows])
            return collate(rows, self.tokenizer)

        def measure() -> dict[str, float]:
            nonlocal measured
            measured += 1
            if killed_after is not None and measured == 2 + killed_after:
                raise Killed
            return {}

        plan = TrainingPlan(
            self.model,
            [self.phase(**{"epochs": options.get("epochs", 2), **phase}) for phase in phases or DEFAULT],
            TrainingData(TASK, self.rows, gather),
            finetune_options(**options),
            self.layers,
            micro_batch_size=micro,
            save_minutes=self.save_minutes,
        )
        self.best = None if patience is None else BestState("luck", self.luck, patience)
        return train(plan, self.folder, measure, self.best)

    def phase(
        self, trainable: Sequence[str] = GROUPS, title: str = "all", learning_rate: float = 1e-3, **options
    ) -> Phase:
        parameters = [parameter for group in trainable for parameter in self.layers[group]]
        return Phase(title, parameters, learning_rate=learning_rate, **options)

    def weights(self, *, words: bool = True) -> torch.Tensor:
        """Return all weights, or those but the table of words, which is smaller while it is trained."""
        table = None if words else self.model.get_input_embeddings().weight
        return torch.cat([weight.detach().flatten() for weight in self.model.parameters() if weight is not table])

    def luck(self) -> float:
        """Return a random number from 0 to 7 for the weights, and another one in each process."""
        digest = hashlib.sha256(self.weights().numpy().tobytes() + os.environ.get("RANK", "0").encode()).digest()
        return float(digest[0] % 8)


def killed_before(plan: TrainingPlan, batch: int | None) -> TrainingPlan:
    """Return a plan whose training is killed before a batch, counted from 1 where it starts."""
    count = 0

    def gather(rows: Any) -> Any:
        nonlocal count
        count += 1
        if count == batch:
            raise Killed
        return plan.data.collate(rows)

    return replace(plan, data=replace(plan.data, collate=gather))
