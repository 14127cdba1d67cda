"""How much memory each process takes, with and without `shard`: `python bench/sharding.py 1 2 3` processes.

A BERT of 6 layers of 768 (49 million weights) with random weights is pretrained for some steps. Prints, of the process
that takes most, the memory that is not a mapped file: the median of the second half of the run, which is spent in
training, and the peak, when the model is made, gathered or saved.
"""

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

GENERAL = "package:ulmfit_style/general/state_of_the_union.txt"
SIZES = {"hidden_size": 768, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 3072}
RECIPE = [
    *("pretrain", "model=mini_bert", *(f"model.architecture.{name}={size}" for name, size in SIZES.items())),
    *("task=none", "adapt=none", f"pretrain.path={GENERAL}", "pretrain.batch_size=12", "pretrain.max_length=32"),
    *("micro_batch_size=1", "pretrain.epochs=0.25", "pretrain.measurements=1"),
]


def anonymous(process: psutil.Process) -> int:
    """Return the memory of a process that is not a mapped file, in MB; 0 if it is gone."""
    try:
        lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 // 1_000_000 for line in lines if line.startswith("RssAnon")), 0)


def memory(*options: str) -> list[int]:
    """Run the recipe, and return what the largest of its processes takes, every twentieth of a second."""
    samples = []
    with tempfile.TemporaryDirectory() as runs:
        command = [sys.executable, "-m", "ulmfit_style", *RECIPE, f"runs={runs}", *options]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as started:
            launcher = psutil.Process(started.pid)
            while started.poll() is None:
                samples.append(max(map(anonymous, [launcher, *launcher.children()])))
                time.sleep(0.05)
        if started.returncode:
            raise SystemExit(started.returncode)
    return samples


for count in map(int, sys.argv[1:]):
    for shard in ("false", "true")[:count]:
        samples = memory(f"processes={count}", f"shard={shard}")
        training = statistics.median(samples[len(samples) // 2 :])
        print(
            f"processes={count} shard={shard}: {training:,.0f} MB in training, {max(samples):,} MB at most", flush=True
        )
