"""What adaptation is worth over several seeds: each seed draws other labelled rows, another head and another order.

python bench/adaptation.py SEEDS [key=value ...]     for example: python bench/adaptation.py 5 task.train_samples=100

All seeds share one adapted model. Prints every seed, and for each model the mean and the standard deviation.
"""

import statistics
import sys

from ulmfit_style import chain, lineage
from ulmfit_style.analysis.comparison import without_adaptation
from ulmfit_style.artefacts.directory import METRICS, read_json
from ulmfit_style.cli.compose import compose

seeds, overrides = int(sys.argv[1]), sys.argv[2:]
if seeds < 2:
    sys.exit("one seed tells no spread: python bench/adaptation.py 2")
table: dict[str, list[float]] = {}
for seed in range(seeds):
    config = compose([f"finetune.seed={seed}", f"task.sample_seed={seed}", *overrides])
    metric = lineage.required_task(config).metric
    chain.make(chain.plan(config, ["adapt", "finetune"]), config.name)
    tested = dict(read_json(lineage.references(config).directory / METRICS)["test"])
    tested["fine-tuned, not adapted"] = read_json(lineage.finetune(without_adaptation(config)).directory / METRICS)[
        "test"
    ]
    tested["adapted + fine-tuned"] = read_json(lineage.finetune(config).directory / METRICS)["test"]
    for name, result in tested.items():
        table.setdefault(name, []).append(result["scores"][metric])

gains = [
    after - before
    for before, after in zip(table["fine-tuned, not adapted"], table["adapted + fine-tuned"], strict=True)
]
print()
for name, scores in {**table, "gain by adaptation": gains}.items():
    spread = f"{statistics.mean(scores):+.3f} +- {statistics.stdev(scores):.3f}"
    print(f"{name:38} {spread}   {' '.join(f'{score:.3f}' for score in scores)}")
