"""Speed beside what a user would write with plain transformers: `python bench/speed.py [WORK ...] [pairs=5]`.

Works: adapt, finetune, contrast, frozen, score, tokenise; and if they are named adapt-768 and finetune-768, of a BERT
of 6 layers of 768 with random weights, finetune-480, of more labels, finetune-70-8 and finetune-70-32, of rows of some
70 tokens in batches of 8 and 32, and words and words-250k, of fine-tuning with the words of its rows alone and with
all, 30,522 or 250,000.

The arms of a work take turns (A B C A B C ...) in one process on one thread, from the same weights and on the same
texts, and CPU seconds for a unit of work are compared, so that other programs on the machine disturb little. With
`threads=2` they are seconds by the clock, which an idle machine alone can tell. A ratio is the median over the rounds,
with the lowest and the highest. Beside it stands what tells whether an arm did the same: a figure of quality, as the
last column calls it. It prints a Markdown table, and writes `runs/speed.json` with every measurement.
"""

import itertools
import json
import os
import platform
import random
import statistics
import sys
import tempfile
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from datasets import Dataset, disable_caching, disable_progress_bars
from transformers import (
    BertConfig,
    BertForMaskedLM,
    DataCollatorForLanguageModeling,
    DataCollatorWithPadding,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    pipeline,
    set_seed,
)

from ulmfit_style.chain import quiet_libraries
from ulmfit_style.cli.compose import compose
from ulmfit_style.console import OUT
from ulmfit_style.data import corpus, shards, tokens
from ulmfit_style.data.corpus import Documents, Texts
from ulmfit_style.resolved import Resolved
from ulmfit_style.stages import finetune
from ulmfit_style.stages.table import resolve
from ulmfit_style.training import contrast, kept_trunk, language_model
from ulmfit_style.training.batching import EncodedDataset
from ulmfit_style.training.packing import PackedDataset
from ulmfit_style.training.phases import TrainingPlan, train_phase
from ulmfit_style.training.scoring import Scorer
from ulmfit_style.training.seen_words import seen_words

RUNS = Path("runs")
ROWS = 128
"""Rows that are scored."""

Arm = Callable[[int], tuple[float, float | None]]
"""Does its work in a round, by its number; returns the units that it did, and a figure of quality."""


def trained(plan: TrainingPlan, steps: int, seed: int, callbacks: Sequence[TrainerCallback] = ()) -> None:
    """Train the first phase of a plan for a few steps."""
    phases = [replace(plan.phases[0], max_steps=steps)]
    plan = replace(plan, phases=phases, options=plan.options.model_copy(update={"seed": seed}))
    with tempfile.TemporaryDirectory() as folder, seen_words(plan):
        train_phase(plan, 0, Path(folder), callbacks)


def stock(
    model: Any,
    rows: Dataset,
    collate: Any,
    steps: int,
    seed: int,
    batch_size: int,
    callbacks: Sequence[TrainerCallback] = (),
    **options: Any,
) -> None:
    """Train as the example scripts of transformers do, and save the weights, as they and we do in the end."""
    with tempfile.TemporaryDirectory() as folder:
        common: dict[str, Any] = {"report_to": "none", "save_strategy": "no", "logging_steps": 10, "disable_tqdm": True}
        arguments = TrainingArguments(
            folder, max_steps=steps, per_device_train_batch_size=batch_size, seed=seed, **common, **options
        )
        trainer = Trainer(model, arguments, data_collator=collate, train_dataset=rows, callbacks=list(callbacks))
        trainer.remove_callback(transformers.PrinterCallback)
        trainer.train()
        trainer.save_model()


def resolved(*overrides: str) -> Resolved:
    """Resolve the shipped recipe with overrides."""
    return resolve(compose([f"runs={RUNS}", *overrides]))


def joined() -> list[str]:
    """Return the options of a task whose texts are two to four review sentences of one class: some 70 tokens."""
    of_class, chance = defaultdict[str, list[str]](list), random.Random(0)
    for row in resolved().rows.pool:
        of_class[row.fields["label"]].append(row.fields["text"])
    path = RUNS / "speed-rows.jsonl"
    with path.open("w") as file:
        for label, texts in of_class.items():
            for at in range(0, len(texts) - 4, 4):
                text = " ".join(texts[at : at + chance.randint(2, 4)])
                file.write(json.dumps({"text": text, "label": label}) + "\n")
    return ["task=text_classification", f"task.path={path}"]


def bert(name: str, words: int = 30522, width: int = 768) -> list[str]:
    """Return the options of a BERT of 6 layers with random weights, and the tokenizer of MiniLM."""
    folder = RUNS / f"speed-{name}"
    set_seed(0)
    tokenizer = transformers.AutoTokenizer.from_pretrained(resolved().source_of("adapt").directory)
    sizes = BertConfig(vocab_size=words, num_hidden_layers=6, hidden_size=width, intermediate_size=4 * width)
    BertForMaskedLM(sizes).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return [f"model.checkpoint={folder}", "model.license=null"]


def adapt(steps: int, *overrides: str) -> dict[str, Arm]:
    """Masked language modelling of review sentences, batches of 8 rows; a unit is 1,000 tokens of text."""
    recipe = resolved("adapt.anchor=0", "adapt.general=null", *overrides)
    assert recipe.config.adapt is not None
    source = recipe.source_of("adapt").directory
    prepared = language_model.prepare(recipe.config, recipe.config.adapt, source, recipe.corpus)
    model, tokenizer = prepared.plan.model, prepared.objective.tokenizer
    weights = {name: weight.clone() for name, weight in model.state_dict().items()}
    texts = [recipe.corpus.train[place] for place in range(2000)]
    lines = Dataset.from_list(
        [{"input_ids": ids} for ids in tokenizer(texts, truncation=True, max_length=128)["input_ids"]]
    )
    stream = list(itertools.chain.from_iterable(lines["input_ids"]))

    def blocks(size: int) -> Dataset:
        return Dataset.from_list([{"input_ids": stream[at : at + size]} for at in range(0, len(stream) - size, size)])

    heldout = EncodedDataset(prepared.heldout[row] for row in range(0, len(prepared.heldout), 24))

    def loss() -> float:
        return prepared.objective.measure(model, heldout)["loss"]

    def product(seed: int) -> tuple[float, float]:
        with timed():
            trained(prepared.plan, steps, seed)
        return steps * prepared.plan.dataset(0).tokens_per_batch / 1000, loss()

    def arm(rows: Dataset, steps: int, **padding: Any) -> Arm:
        def run(seed: int) -> tuple[float, float]:
            collate = DataCollatorForLanguageModeling(tokenizer, mlm_probability=0.15, **padding)
            with timed():
                stock(model, rows, collate, steps, seed, 8, learning_rate=5e-5)
            return steps * 8 * float(np.mean([len(ids) for ids in rows["input_ids"]])) / 1000, loss()

        return run

    arms = {
        "ours": product,
        "blocks of 512": arm(blocks(512), 1),
        "blocks of 128": arm(blocks(128), steps),
        "line by line": arm(lines, 2 * steps),
    }
    return {name: from_weights(model, weights, run) for name, run in arms.items()}


def classifiers(samples: int, batch_size: int, *overrides: str) -> dict[str, Arm]:
    """Classification, every weight, one pass over the rows: in parts of one, orders of their own have other lengths.

    A unit is a row, and the figure is a loss of the first weights.
    """
    recipe = resolved(
        "adapt=none", "finetune=plain", f"task.train_samples={samples}", f"finetune.batch_size={batch_size}", *overrides
    )
    plan, tokenizer = finetune.prepare(recipe)
    model, features, steps = plan.model, plan.data.rows, samples // batch_size
    weights = {name: weight.clone() for name, weight in model.state_dict().items()}
    names = [*tokenizer.model_input_names, "labels"]
    rows = Dataset.from_list([{name: features[row][name] for name in names} for row in range(len(features))])
    padded = rows.map(lambda row: tokenizer.pad({n: row[n] for n in names[:-1]}, padding="max_length", max_length=128))
    some = [features[row] for row in range(16)]

    def product(micro: int) -> Arm:
        @torch.no_grad()
        def run(seed: int) -> tuple[float, float]:
            with timed(), torch.enable_grad():
                trained(replace(plan, micro_batch_size=micro), steps, seed)
            model.load_state_dict(weights)
            return samples, float(plan.data.objective.loss(model.eval(), plan.data.collate(some))) / 16

        return run

    def arm(rows: Dataset, steps: int, **options: Any) -> Arm:
        @torch.no_grad()
        def run(seed: int) -> tuple[float, float]:
            collate = DataCollatorWithPadding(tokenizer)
            with timed(), torch.enable_grad():
                stock(model, rows, collate, steps, seed, batch_size, learning_rate=5e-5, **options)
            model.load_state_dict(weights)
            return steps * batch_size, float(model.eval()(**collate([rows[row] for row in range(16)])).loss)

        return run

    arms = {
        "ours": product(batch_size),
        "ours, micro_batch_size=8": product(8),
        "padded to 128": arm(padded, 2),
        "dynamic padding": arm(rows, steps),
        "grouped by length": arm(rows, steps, train_sampling_strategy="group_by_length"),
    }
    return {name: from_weights(model, weights, run) for name, run in arms.items()}


def words(*overrides: str) -> dict[str, Arm]:
    """Classification, every weight, one pass over 96 rows; a unit is a row, and the figure a loss in the end."""
    plan, _ = finetune.prepare(resolved("adapt=none", "finetune=plain", "task.train_samples=96", *overrides))
    weights = {name: weight.clone() for name, weight in plan.model.state_dict().items()}
    some = plan.data.collate([plan.data.rows[row] for row in range(16)])

    def arm(*, fast: bool) -> Arm:
        @torch.no_grad()
        def run(seed: int) -> tuple[float, float]:
            with timed(), torch.enable_grad():
                trained(replace(plan, fast=fast), 6, seed)
            return 96, float(plan.data.objective.loss(plan.model.eval(), some)) / 16

        return run

    arms = {"ours": arm(fast=True), "all words": arm(fast=False)}
    return {name: from_weights(plan.model, weights, run) for name, run in arms.items()}


def contrasted() -> dict[str, Arm]:
    """The contrastive phase of few labels, batches of 16 texts; a unit is a step."""
    plan, _ = finetune.prepare(resolved("adapt=none"))
    weights = {name: weight.clone() for name, weight in plan.model.state_dict().items()}
    data, parts, steps = plan.data_of(0), contrast.PARTS, 6

    def arm(parts: int) -> Arm:
        def run(seed: int) -> tuple[float, float]:
            own = replace(data, objective=contrast.ContrastiveObjective(parts))
            with timed():
                trained(replace(plan, phases=[replace(plan.phases[0], data=own)]), steps, seed)
            plan.model.load_state_dict(weights)
            with torch.no_grad():
                drawn = data.collate([{"phase_epoch": (1, 0), "index": 0}, {"phase_epoch": (1, 0), "index": 1}])
                return steps, float(data.objective.loss(plan.model.eval(), drawn))

        return run

    return {
        name: from_weights(plan.model, weights, arm(number))
        for name, number in (("ours", parts), ("one padded batch", 1))
    }


def frozen() -> dict[str, Arm]:
    """Three passes over 96 rows with a frozen trunk; a unit is a pass."""
    options = ("adapt=none", "finetune=plain", "task.train_samples=96", "finetune.unfreeze=[1]", "finetune.epochs=3")
    plan, _ = finetune.prepare(resolved(*options, "finetune.pooling=mean", "finetune.learning_rate=1e-3"))
    weights, most = {name: weight.clone() for name, weight in plan.model.state_dict().items()}, kept_trunk.MAX_BYTES

    def arm(most: int) -> Arm:
        @torch.no_grad()
        def run(seed: int) -> tuple[float, float]:
            kept_trunk.MAX_BYTES = most
            with timed(), torch.enable_grad():
                trained(plan, plan.steps(0), seed)
            some = plan.data.collate([plan.data.rows[row] for row in range(96)])
            return 3, float(plan.data.objective.loss(plan.model.eval(), some)) / 96

        return run

    return {
        name: from_weights(plan.model, weights, arm(size))
        for name, size in (("ours", most), ("trunk run each time", 0))
    }


def score() -> dict[str, Arm]:
    """Answering test rows; a unit is a row, and the figure is the mean score of the answers."""
    recipe = resolved("adapt=none", "finetune=plain", "task.train_samples=100")
    plan, tokenizer = finetune.prepare(recipe)
    rows, model = recipe.rows.test[:ROWS], plan.model.eval()
    texts = [row.fields["text"] for row in rows]
    ask: Any = pipeline("text-classification", model=model, tokenizer=tokenizer, device=-1)  # type: ignore[call-overload]

    def product(_: int) -> tuple[float, float]:
        with timed():
            answers = list(Scorer(model, tokenizer, recipe.task, 128).answers(rows))
        return len(rows), statistics.fmean(answer["score"] for answer in answers)

    def pipe(batch_size: int) -> Arm:
        def run(_: int) -> tuple[float, float]:
            with timed():
                answers = ask(texts, batch_size=batch_size, truncation=True, max_length=128)
            return len(rows), statistics.fmean(answer["score"] for answer in answers)

        return run

    @torch.inference_mode()
    def loop(_: int) -> tuple[float, float]:
        with timed():
            encoded = tokenizer(texts, truncation=True, max_length=128)
            order = sorted(range(len(texts)), key=lambda row: len(encoded["input_ids"][row]))
            scores = np.zeros(len(texts))
            for at in range(0, len(order), 32):
                part = order[at : at + 32]
                batch = tokenizer.pad(
                    {name: [values[row] for row in part] for name, values in encoded.items()}, return_tensors="pt"
                )
                scores[part] = model(**batch).logits.softmax(-1).amax(-1).numpy()
        return len(rows), float(scores.mean())

    return {"ours": product, "pipeline": pipe(1), "pipeline, 32 at once": pipe(32), "sorted loop, 32 at once": loop}


def tokenise() -> dict[str, Arm]:
    """Tokenising and packing 2 MB of review sentences; a unit is 1 MB, and the figure is the number of tokens."""
    recipe = resolved()
    tokenizer = transformers.AutoTokenizer.from_pretrained(recipe.source_of("adapt").directory)
    once = [recipe.corpus.train[place] for place in range(len(recipe.corpus.train))]
    size = sum(len(text.encode()) for text in once)
    texts = once * round(2e6 / size)
    units = len(texts) / len(once) * size / 1e6

    def product(round: int) -> tuple[float, float]:
        with tempfile.TemporaryDirectory() as folder:
            table = shards.make([corpus.of_texts(texts, Path(folder))], "reading", {})
            train, heldout = Texts(table, np.arange(len(texts))), Texts(table, np.arange(1))
            with timed():
                documents = Documents(train, heldout, [(round, train)], round)
                packed = PackedDataset(tokens.load(documents, tokenizer, 128, Path(folder))[0], 128, 0)
        return units, float(packed.lengths.sum())

    def group(batch: Any) -> Any:
        joined = {name: list(itertools.chain.from_iterable(values)) for name, values in batch.items()}
        total = len(joined["input_ids"]) // 128 * 128
        return {name: [values[at : at + 128] for at in range(0, total, 128)] for name, values in joined.items()}

    def mapped(_: int) -> tuple[float, float]:
        with timed():
            lines = Dataset.from_dict({"text": texts})
            encoded = lines.map(
                lambda batch: tokenizer(batch["text"], return_special_tokens_mask=True),
                batched=True,
                remove_columns=["text"],
            )
            rows = encoded.map(group, batched=True)
        return units, float(128 * len(rows))

    return {"ours": product, "map + group_texts": mapped}


WORKS: dict[str, tuple[Callable[[], dict[str, Arm]], str]] = {
    "adapt": (lambda: adapt(4), "loss on held-out text"),
    "finetune": (lambda: classifiers(96, 16), "loss, same rows"),
    "contrast": (contrasted, "loss, same rows"),
    "frozen": (frozen, "training loss at the end"),
    "score": (score, "mean score"),
    "tokenise": (tokenise, "tokens"),
    "adapt-768": (lambda: adapt(4, *bert("768")), "loss on held-out text"),
    "finetune-768": (lambda: classifiers(96, 16, *bert("768")), "loss, same rows"),
    "finetune-480": (lambda: classifiers(480, 16), "loss, same rows"),
    "finetune-70-8": (lambda: classifiers(32, 8, *joined()), "loss, same rows"),
    "finetune-70-32": (lambda: classifiers(64, 32, *joined()), "loss, same rows"),
    "words": (words, "loss at the end"),
    "words-250k": (lambda: words(*bert("250k", 250_000, width=384)), "loss at the end"),
}
USUAL = list(WORKS)[:6]
"""What is measured where nothing is named."""

SECONDS: list[float] = []


@contextmanager
def timed() -> Iterator[None]:
    """Note the CPU seconds of a block on one thread, or its seconds by the clock on several."""
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    start = clock()
    yield
    SECONDS.append(clock() - start)


def from_weights(model: torch.nn.Module, weights: dict[str, torch.Tensor], run: Arm) -> Arm:
    """Return an arm that begins with these weights, all of them trainable."""

    def begun(seed: int) -> tuple[float, float | None]:
        model.load_state_dict(weights)
        model.requires_grad_(True)
        set_seed(seed)
        return run(seed)

    return begun


def rounds(arms: dict[str, Arm], pairs: int) -> dict[str, list[tuple[float, float | None]]]:
    """Let the arms take turns; the first round warms up, and is not counted. Return CPU seconds a unit and figures."""
    found: dict[str, list[tuple[float, float | None]]] = {name: [] for name in arms}
    for number in range(pairs + 1):
        for name, run in arms.items():
            units, figure = run(number)
            found[name].append((SECONDS.pop() / units, figure))
    return {name: measured[1:] for name, measured in found.items()}


def lines(work: str, measured: dict[str, list[tuple[float, float | None]]], quality: str) -> Iterator[str]:
    """Return the lines of the table."""
    ours = [seconds for seconds, _ in measured["ours"]]
    for name, rows in measured.items():
        ratios = [seconds / own for (seconds, _), own in zip(rows, ours, strict=True)]
        figures = [figure for _, figure in rows if figure is not None]
        spread = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        cost = f"{1000 * statistics.median(seconds for seconds, _ in rows):,.1f}"
        figure = f"{quality} {statistics.median(figures):,.4f} ({min(figures):,.4f} to {max(figures):,.4f})"
        yield f"| {work} | {name} | {cost} | {spread} | {figure} |"


def main(arguments: list[str]) -> None:
    """Measure the works that are named, or all."""
    given = {name: int(value) for name, _, value in (word.partition("=") for word in arguments) if value}
    pairs, threads = given.get("pairs", 5), given.get("threads", 1)
    named = [word for word in arguments if "=" not in word] or USUAL
    os.environ["RAYON_NUM_THREADS"] = str(threads)  # of the tokenizers
    torch.set_num_threads(threads)
    quiet_libraries()
    transformers.logging.set_verbosity_error()
    warnings.filterwarnings("ignore", ".*pin_memory.*")
    disable_caching()
    disable_progress_bars()
    OUT.quiet = True
    file = RUNS / "speed.json"
    RUNS.mkdir(exist_ok=True)
    everything = json.loads(file.read_text()) if file.exists() else {}
    versions = {module.__name__: module.__version__ for module in (torch, transformers)}
    print(f"{platform.machine()}, {threads} thread{'s' * (threads > 1)}, {versions}, {pairs} rounds")
    cost = "CPU ms" if threads == 1 else "ms"
    print(f"| work | arm | {cost} a unit | times ours (lowest to highest) | the same? |\n|---|---|---|---|---|")
    for work in named:
        make, quality = WORKS[work]
        measured = rounds(make(), pairs)
        print("\n".join(lines(work, measured, quality)), flush=True)
        everything[work if threads == 1 else f"{work}, {threads} threads"] = {"versions": versions, "arms": measured}
        file.write_text(json.dumps(everything, indent=1))


if __name__ == "__main__":
    main(sys.argv[1:])
