"""How many tokens a model reads for each token of text, by how rows are put into batches: `python bench/padding.py`.

It bounds what batches of like length can win in training. The rows are those of `bench/speed.py`; an order at random is
drawn 500 times.
"""

import random
import statistics

import speed

from ulmfit_style.chain import quiet_libraries
from ulmfit_style.console import OUT
from ulmfit_style.stages import finetune
from ulmfit_style.training.batching import ShuffledDataset


def read(lengths: list[int], batch_size: int) -> int:
    """Return the tokens of batches that are padded to their longest row."""
    batches = [lengths[at : at + batch_size] for at in range(0, len(lengths), batch_size)]
    return sum(len(batch) * max(batch) for batch in batches)


def main() -> None:
    """Print a Markdown table."""
    quiet_libraries()
    OUT.quiet = True
    print("| rows | batches of | tokens a row | padded to 128 | dynamic padding | ours |\n|---|---|---|---|---|---|")
    joined, chance = speed.joined(), random.Random(0)
    for samples, batch_size, options in ((96, 16, []), (480, 16, []), (960, 16, []), (32, 8, joined), (64, 32, joined)):
        rows = finetune.prepare(
            speed.resolved("adapt=none", "finetune=plain", f"task.train_samples={samples}", *options)
        )[0].data.rows
        lengths = rows.lengths.tolist()
        drawn = [read(chance.sample(lengths, len(lengths)), batch_size) for _ in range(500)]
        order = ShuffledDataset(rows, batch_size, seed=0, phase=0).order(0)
        ours, all_tokens = read([lengths[row] for row in order], batch_size), sum(lengths)
        cells = (128 * samples, statistics.fmean(drawn), ours)
        ratios = " | ".join(f"{cell / all_tokens:.2f}" for cell in cells)
        print(f"| {samples} | {batch_size} | {all_tokens / samples:.0f} | {ratios} |")


if __name__ == "__main__":
    main()
