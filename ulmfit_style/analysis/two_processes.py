"""Whether two processes on this machine train as one does: a tiny model, a few plain SGD steps.

`python -m ulmfit_style.analysis.two_processes <folder>` is one of the processes, and leaves its weights in the folder.
"""

import os
import signal
import sys
import tempfile
from pathlib import Path

from ulmfit_style.compute import devices, processes
from ulmfit_style.errors import UserError

MODULE = "ulmfit_style.analysis.two_processes"

TOLERANCE = 1e-6
"""By how much weights may differ at most: sums are rounded in another order."""

TIMEOUT_SECONDS = 120

STEPS, BATCH_SIZE = 5, 8


def compared() -> str:
    """Train in one process and in two, and say in a line whether the weights are the same."""
    import torch

    if torch.cuda.device_count() < 2:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # two processes cannot share a GPU
    with tempfile.TemporaryDirectory() as folder:
        try:
            for count in (1, 2):
                processes.start(count, MODULE, [folder])
        except UserError as error:
            return f"failed ({error}); train with processes=1"
        single, *ranks = (torch.load(Path(folder) / name) for name in ("0-of-1", "0-of-2", "1-of-2"))
    return verdict((torch.stack(ranks) - single).abs().max().item())


def verdict(difference: float) -> str:
    """Say what the largest difference of a weight tells."""
    if difference <= TOLERANCE:
        return f"agree with one to {difference:.0e}"
    rounding = f"rounding explains {TOLERANCE:.0e}"
    return f"differ from one by {difference:.0e}, and {rounding}; train with processes=1, and report it"


def train(folder: Path) -> None:
    """Train on rows of unequal weights, and save the weights of the model in the folder."""
    signal.alarm(TIMEOUT_SECONDS)  # whatever hangs, in whichever library, ends here
    devices.see_one_gpu()
    processes.join()
    import torch
    from transformers import LlamaConfig, LlamaForSequenceClassification, TrainingArguments, set_seed

    from ulmfit_style.tasks.text_classification import TextClassification
    from ulmfit_style.training.batching import EncodedDataset, ShuffledDataset
    from ulmfit_style.training.trainer import RecipeTrainer

    set_seed(0)
    config = LlamaConfig(
        vocab_size=100, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, pad_token_id=0
    )
    model = LlamaForSequenceClassification(config)
    ids = torch.randint(1, 100, (STEPS * BATCH_SIZE, 16)).tolist()  # (rows, length)
    rows = ({"input_ids": row, "labels": place % 2, "weight": 1.0 + place % 3} for place, row in enumerate(ids))
    trainer = RecipeTrainer(
        model=model,
        objective=TextClassification(path="-"),
        rates=lambda steps: [1] * steps,
        args=TrainingArguments(
            output_dir=str(folder),
            max_steps=STEPS,
            per_device_train_batch_size=BATCH_SIZE // processes.count(),
            learning_rate=0.1,
            optim="sgd",
            max_grad_norm=0.0,
            train_sampling_strategy="sequential",
            save_strategy="no",
            remove_unused_columns=False,
            use_cpu=not torch.cuda.is_available(),
        ),
        train_dataset=ShuffledDataset(EncodedDataset(rows), BATCH_SIZE, seed=0, phase=0),
        collate=lambda batch: {name: torch.tensor([row[name] for row in batch]) for name in batch[0]},
    )
    trainer.train()
    weights = torch.cat([parameter.detach().cpu().flatten() for parameter in model.parameters()])
    torch.save(weights, folder / f"{os.environ['RANK']}-of-{processes.count()}")
    processes.leave()


if __name__ == "__main__":
    train(Path(sys.argv[1]))
    processes.end(0)
