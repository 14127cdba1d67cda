"""The useful rate of training and answering, beside the best product of matrices: `python bench/utilisation.py`.

Useful are 2 operations (answering) or 6 (training) for each weight of the layers and each token of text, and for each
weight of a language-model head and each predicted token. Attention, padding, and whatever is not a product count
nothing, but cost time. The works are those of `bench/speed.py`, of MiniLM, over `pairs=5` rounds; after each the best
of some products of matrices is found anew, so that both had the machine as it was. On one thread they are rates by CPU
seconds; with `threads=2` by the clock, which an idle machine alone can tell.
"""

import statistics
import sys
import time

import speed
import torch
import transformers

from ulmfit_style.chain import quiet_libraries
from ulmfit_style.console import OUT
from ulmfit_style.models.layers import outer_lists
from ulmfit_style.stages import finetune
from ulmfit_style.training import language_model

SIZES = ((1024, 1024, 1024), (2048, 2048, 2048), (4096, 1024, 1024), (512, 384, 1536), (1024, 1536, 384))
"""Rows, inner width and columns of products, the last two of which are those of MiniLM."""
SECONDS = 0.5
"""How long each product is repeated."""


def best_product() -> float:
    """Return the most operations a second of a product of matrices, in 10^9."""
    clock, found = time.process_time if torch.get_num_threads() == 1 else time.perf_counter, []
    for rows, inner, columns in SIZES:
        left, right, count = torch.randn(rows, inner), torch.randn(inner, columns), 0
        start = clock()
        while (seconds := clock() - start) < SECONDS:
            left @ right
            count += 1
        found.append(2 * rows * inner * columns * count / seconds / 1e9)
    return max(found)


def in_products(module: torch.nn.Module) -> int:
    """Return the weights of the linear layers in a module."""
    return sum(layer.weight.numel() for layer in module.modules() if isinstance(layer, torch.nn.Linear))


def operations() -> dict[str, float]:
    """Return the useful operations of a unit of each work, in 10^9."""
    recipe = speed.resolved("adapt.anchor=0", "adapt.general=null")
    assert recipe.config.adapt is not None
    source = recipe.source_of("adapt").directory
    model = language_model.prepare(recipe.config, recipe.config.adapt, source, recipe.corpus).plan.model
    layers = sum(map(in_products, outer_lists(model.base_model)))
    head = in_products(model) - in_products(model.base_model)
    adapted = 6 * 1000 * (layers + recipe.config.adapt.mask_probability * head)
    recipe = speed.resolved("adapt=none", "finetune=plain", "task.train_samples=96")
    plan, tokenizer = finetune.prepare(recipe)
    rows, texts = plan.data.rows, [row.fields["text"] for row in recipe.rows.test[: speed.ROWS]]
    read = statistics.fmean(map(len, tokenizer(texts, truncation=True, max_length=128)["input_ids"]))
    units = {"adapt": adapted, "finetune": 6 * layers * float(rows.lengths.mean()), "score": 2 * layers * read}
    return {work: unit / 1e9 for work, unit in units.items()}


def main(arguments: list[str]) -> None:
    """Measure adapting, fine-tuning and answering."""
    given = {name: int(value) for name, _, value in (word.partition("=") for word in arguments)}
    torch.set_num_threads(threads := given.get("threads", 1))
    quiet_libraries()
    transformers.logging.set_verbosity_error()
    OUT.quiet = True
    print(f"{threads} thread{'s' * (threads > 1)}")
    print("| work | useful 10^9 operations a second | the best product | share |\n|---|---|---|---|")
    for work, unit in operations().items():
        run, found = speed.WORKS[work][0]()["ours"], []
        for number in range(given.get("pairs", 5) + 1):
            units, _ = run(number)
            found.append((unit * units / speed.SECONDS.pop(), best_product()))
        useful, best = (statistics.median(rates) for rates in zip(*found[1:], strict=True))
        shares = [rate / product for rate, product in found[1:]]
        spread = f"{statistics.median(shares):.0%} ({min(shares):.0%} to {max(shares):.0%})"
        print(f"| {work} | {useful:.0f} | {best:.0f} | {spread} |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
