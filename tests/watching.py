"""Two phases of a tiny classifier of which the best state is kept; they save at every step, and can be killed.

`python watching.py FOLDER`, started as one of several processes, runs them once in one go and once with a break, and
saves how both ended in the folder that holds the tokenizer.
"""

import hashlib
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from samples import Killed, good_or_bad, tiny_sizes
from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast, set_seed

from ulmfit_style import processes
from ulmfit_style.tasks.text_classification import TextClassification
from ulmfit_style.training.batching import collate
from ulmfit_style.training.best import BestState
from ulmfit_style.training.phases import Phase, PhaseSettings, TrainingData, TrainingPlan, train

TASK = TextClassification(path="-", text="review", label="stars")


class Watching:
    """A stage whose score is random, but a pure function of the weights: it tells states apart that differ by a bit."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, tiny: dict, folder: Path) -> None:
        self.tokenizer, self.folder = tokenizer, folder
        self.sizes = {**tiny, "hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1}
        self.rows = good_or_bad(tokenizer, TASK)

    def run(
        self,
        *,
        patience: int | None = 2,
        epochs: float = 6,
        killed_at: int | None = None,
        killed_after: int | None = None,
    ) -> tuple[Any, torch.Tensor]:
        """Train from the start or from what is there, and return what was watched and the final weights.

        Args:
            patience: None for a run that nobody watches.
            killed_at: The optimizer step, counted from where this run starts, before which it is killed.
            killed_after: The phase after whose last step, and before it is marked as done, it is killed.
        """
        set_seed(0)
        self.model = BertForSequenceClassification(BertConfig(**self.sizes, num_labels=2))
        batches = measured = 0

        def gather(rows: Any) -> Any:
            nonlocal batches
            batches += 1
            if killed_at is not None and batches > 2 * killed_at:
                raise Killed
            return collate(rows, self.tokenizer)

        def measure() -> dict[str, float]:
            nonlocal measured
            measured += 1
            if killed_after is not None and measured == 2 + killed_after:
                raise Killed
            return {}

        head = list(self.model.classifier.parameters())
        phases = [Phase("head", head, epochs, 1e-2), Phase("all", list(self.model.parameters()), epochs, 1e-3)]
        settings = PhaseSettings(8, 0.1, 0.01, 0, 4, 1, 1e-9, {})
        best = None if patience is None else BestState("luck", self.luck, patience)
        train(
            TrainingPlan(self.model, phases, settings, TrainingData(TASK, self.rows, gather)),
            self.folder,
            measure,
            best,
        )
        return best, self.weights()

    def weights(self) -> torch.Tensor:
        return torch.cat([parameter.detach().flatten() for parameter in self.model.parameters()])

    def luck(self) -> float:
        """Return a random number from 0 to 7 for the weights, and in another process than the main one another."""
        told = hashlib.sha256(self.weights().numpy().tobytes() + os.environ.get("RANK", "0").encode()).digest()
        return float(told[0] % 8)


if __name__ == "__main__":
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    processes.join()
    stages = [Watching(tokenizer, tiny_sizes(tokenizer), folder / name) for name in ("whole", "killed")]
    with suppress(Killed):
        stages[1].run(killed_at=4)
    ends = [stage.run() for stage in stages]
    torch.save([(best.curve, weights) for best, weights in ends], folder / f"ends.{os.environ['RANK']}")
    processes.leave()
