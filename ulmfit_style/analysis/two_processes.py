"""Whether two processes on this machine train as one does: a tiny model, a few plain SGD steps.

`python -m ulmfit_style.analysis.two_processes` prints the largest difference of a weight. With a folder as its argument
it is one of the processes that train, and leaves its weights there.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from ulmfit_style import processes
from ulmfit_style.errors import UserError

MODULE = "ulmfit_style.analysis.two_processes"

COMMAND = (sys.executable, "-m", MODULE)

TOLERANCE = 1e-6
"""By how much weights may differ at most: sums are rounded in another order."""

TIMEOUT_SECONDS = 120

STEPS, BATCH_SIZE = 5, 8


def compared() -> str:
    """Say in one line whether they agree. All is done in other processes, so that a crash does not end this one."""
    ended = subprocess.run(COMMAND, capture_output=True, text=True, check=False)
    if ended.returncode != 0:
        how = f"did not end within {TIMEOUT_SECONDS} seconds" if ended.returncode == -signal.SIGALRM else "failed"
        return f"{how}: `python -m {MODULE}` shows more; train with processes=1"
    difference = float(ended.stdout)
    if difference <= TOLERANCE:
        return f"agree with one to {difference:.0e}"
    rounding = f"rounding explains {TOLERANCE:.0e}"
    return f"differ from one by {difference:.0e}, and {rounding}; train with processes=1, and report it"


def main(arguments: Sequence[str]) -> int:
    """Train in one process and in two and print the largest difference; or be one of these. Return the exit code."""
    signal.alarm(TIMEOUT_SECONDS)  # whatever hangs, in whichever library, ends here
    if arguments:
        _train(Path(arguments[0]))
        return 0
    import torch

    if torch.cuda.device_count() < 2:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # two processes cannot share a GPU
    with tempfile.TemporaryDirectory() as folder:
        if subprocess.run([*COMMAND, folder], check=False).returncode != 0:
            return 1
        try:
            processes.start(2, MODULE, [folder])
        except UserError as error:
            print(error, file=sys.stderr)
            return 1
        single, *ranks = (torch.load(Path(folder) / name) for name in ("single", "0", "1"))
    print((torch.stack(ranks) - single).abs().max().item())
    return 0


def _train(folder: Path) -> None:
    """Train on rows of unequal weights, and save the weights of the model in the folder."""
    processes.see_one_gpu()
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
    torch.save(weights, folder / os.environ.get("RANK", "single"))
    processes.leave()


if __name__ == "__main__":
    processes.end(main(sys.argv[1:]))
