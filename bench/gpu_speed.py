"""What training models of some sizes takes on this device; `python bench/gpu.py` starts it, a process for each size.

The weights are random, for speed does not know them, and the text is made up of the general text that ships. A stage is
trained by arms, from the same weights and with the same batches, precision and optimizer:

adapt, padded: each document is a row, padded to the longest of its batch.
adapt, unpadded: what `adapt` does: documents packed into rows, where they attend to themselves alone.
finetune, unpadded: what `finetune` does: rows of like length share a batch.
compiled: the unpadded arm with `torch_compile`, through Inductor; `--tiny` takes a backend that compiles nothing.
Trainer: as the example scripts of transformers have it: for adapt, blocks of the text as long as a row; for finetune,
    rows padded to the maximum.

Each arm ends in a line of JSON. Its first steps warm up; of the others the clock is read when the device has finished.
Tokens are those of texts: no padding counts.
"""

import argparse
import itertools
import json
import random
import resource
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
import transformers
from datasets import Dataset, disable_progress_bars
from speed import stock, trained
from transformers import (
    DataCollatorForLanguageModeling,
    DataCollatorWithPadding,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from ulmfit_style.chain import quiet_libraries
from ulmfit_style.cli.compose import compose
from ulmfit_style.console import OUT
from ulmfit_style.data import tokens
from ulmfit_style.models.embedded import locate
from ulmfit_style.models.layers import HEAD, layer_groups
from ulmfit_style.resolved import Resolved, Step
from ulmfit_style.stages import finetune, scratch
from ulmfit_style.stages.table import STAGES, resolve
from ulmfit_style.training import language_model
from ulmfit_style.training.phases import TrainingPlan

TEXT = "package:ulmfit_style/general/state_of_the_union.txt"


class Model(NamedTuple):
    """A size of model."""

    preset: str
    """Of conf/model: its architecture and kind of tokenizer."""
    vocabulary: int
    sizes: dict[str, int]


BERT = {"num_hidden_layers": 6, "num_attention_heads": 12, "max_position_embeddings": 512}
MODELS = {
    "encoder, 6 x 384": Model("mini_bert", 30522, {**BERT, "hidden_size": 384, "intermediate_size": 1536}),
    "encoder, 12 x 768": Model(
        "mini_bert", 30522, {**BERT, "num_hidden_layers": 12, "hidden_size": 768, "intermediate_size": 3072}
    ),
    "decoder, 30 x 576": Model(  # SmolLM2 135M
        "mini_llama",
        49152,
        {
            "num_hidden_layers": 30,
            "num_attention_heads": 9,
            "num_key_value_heads": 3,
            "hidden_size": 576,
            "intermediate_size": 1536,
            "max_position_embeddings": 8192,
        },
    ),
}
TINY = {"num_hidden_layers": 2, "hidden_size": 32, "intermediate_size": 64}


COMPILED = "compiled"


class Scale(NamedTuple):
    """How much is trained."""

    documents: int
    batch_size: int
    adapt_length: int
    finetune_length: int
    warm: int
    """Steps that are not timed; a compiled model is compiled in them."""
    steps: int


WHOLE, SMALL = Scale(8000, 64, 512, 128, 5, 20), Scale(120, 4, 64, 32, 1, 2)


class Measured(TrainerCallback):
    """Times the steps after the first ones, and counts the tokens that they are given."""

    def __init__(self, warm: int, collate: Callable[[Sequence[Any]], dict[str, Any]]) -> None:
        self.warm, self._collate = warm, collate
        self._counts: list[tuple[int, int, int]] = []
        self._times: list[float] = []
        forget_peak()

    def collate(self, rows: Sequence[Any]) -> dict[str, Any]:
        """Make a batch, and count its tokens, its places with padding, and the tokens that are predicted."""
        batch = self._collate(rows)
        mask = batch["attention_mask"]
        predicted = batch["labels"].ne(-100).sum() if batch["labels"].dim() == 2 else 0
        self._counts.append((int(mask.sum()), mask.numel(), int(predicted)))
        return batch

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Look at the clock."""
        if state.global_step in (self.warm, state.max_steps):
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            self._times.append(time.perf_counter())

    def found(self, body: int, head: int) -> dict[str, float]:
        """Return what was measured.

        Args:
            body: The weights that each token is multiplied by.
            head: Those that each predicted token is.
        """
        start, end = self._times
        steps = self._counts[self.warm :]  # a batch is a step, and they are made in turn
        read, places, predicted = (sum(each) for each in zip(*steps, strict=True))
        return {
            "tokens_per_second": read / (end - start),
            "flops": 6 * (body * read + head * predicted) / (end - start),
            "padding": 1 - read / places,
            "peak_mb": peak_mb(),
            "step_ms": 1000 * (end - start) / len(steps),
        }


def forget_peak() -> None:
    """Begin to look anew for the most memory."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    else:
        Path("/proc/self/clear_refs").write_text("5")


def peak_mb() -> float:
    """Return the most memory that was taken: the GPU's, or that of this process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 1e6
    status = Path("/proc/self/status").read_text()
    held = next((line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")), None)
    return int(held or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * 1024 / 1e6


def write_text(folder: Path, scale: Scale) -> None:
    """Write documents and labelled rows of 8 to 400 words, as many short ones as long ones by the logarithm."""
    chance, words = random.Random(0), locate(TEXT).read_text().split()
    documents = []
    for _ in range(scale.documents):
        size = round(8 * 50 ** chance.random())
        start = chance.randrange(len(words) - size)
        documents.append(" ".join(words[start : start + size]))
    (folder / "text.txt").write_text("\n".join(documents))
    rows = [{"text": text, "label": "even" if len(text) % 2 == 0 else "odd"} for text in documents]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


class Bench:
    """The arms of a model, in a folder of its own."""

    def __init__(self, name: str, folder: Path, *, tiny: bool) -> None:
        self.model, self.scale = MODELS[name], SMALL if tiny else WHOLE
        self.folder, self.tiny = folder / name.replace(" ", "").replace(",", "-"), tiny
        checkpoint = self.folder / "checkpoint"
        if not (self.folder / "text.txt").exists():
            checkpoint.mkdir(parents=True)
            write_text(self.folder, self.scale)
        if not (checkpoint / "config.json").exists():
            self._make(checkpoint)
        self.arms: dict[tuple[str, str], Callable[[], dict[str, float]]] = {
            ("adapt", "padded"): partial(self._adapt, packed=False),
            ("adapt", "unpadded"): self._adapt,
            ("adapt", "Trainer"): self._stock_adapt,
            ("finetune", "unpadded"): self._finetune,
            ("finetune", "Trainer"): self._stock_finetune,
            ("adapt", COMPILED): partial(self._adapt, *self._compiling("adapt")),
            ("finetune", COMPILED): partial(self._finetune, *self._compiling("finetune")),
        }
        """What measures each arm, by its stage and name."""

    def _make(self, checkpoint: Path) -> None:
        """Make random weights and a tokenizer."""
        sizes = {**self.model.sizes, **(TINY if self.tiny else {})}
        if self.tiny:
            sizes |= {name: 2 for name in sizes if name.endswith("heads")}
        options = [f"model.architecture.{name}={size}" for name, size in sizes.items()]
        recipe = self._resolved(f"model={self.model.preset}", *options, "pretrain=plain")
        scratch.run(Step(STAGES["scratch"], recipe, "random weights"), checkpoint)
        if not self.tiny:
            auto_class = transformers.AutoModelForCausalLM if "llama" in self.model.preset else None
            model: Any = (auto_class or transformers.AutoModelForMaskedLM).from_pretrained(checkpoint)
            model.resize_token_embeddings(self.model.vocabulary, mean_resizing=False)
            model.save_pretrained(checkpoint)

    def _resolved(self, *overrides: str) -> Resolved:
        text, rows = self.folder / "text.txt", self.folder / "rows.jsonl"
        data = ["corpus=file", f"corpus.path={text}", "corpus.document=line"]
        task = ["task=text_classification", f"task.path={rows}", "task.folds=0", f"runs={self.folder / 'runs'}"]
        return resolve(compose([*data, *task, "compare=false", *overrides]))

    def _recipe(self, stage: str, length: int, *overrides: str) -> Resolved:
        sizes = [f"{stage}.batch_size={self.scale.batch_size}", f"{stage}.max_length={length}", f"{stage}.epochs=1000"]
        return self._resolved(f"model.checkpoint={self.folder / 'checkpoint'}", *sizes, *overrides)

    def _compiling(self, stage: str) -> list[str]:
        backend = [f"{stage}.trainer.torch_compile_backend=eager"] if self.tiny else []
        return [f"{stage}.trainer.torch_compile=true", *backend]

    def _prepared(self, *overrides: str) -> tuple[Resolved, language_model.Prepared]:
        recipe = self._recipe("adapt", self.scale.adapt_length, "adapt.general=null", *overrides)
        assert recipe.config.adapt is not None
        source = recipe.source_of("adapt").directory
        return recipe, language_model.prepare(recipe.config, recipe.config.adapt, source, recipe.corpus)

    def _adapt(self, *overrides: str, packed: bool = True) -> dict[str, float]:
        recipe, prepared = self._prepared(*overrides)
        plan = prepared.plan
        if not packed:
            tokenizer, length = prepared.objective.tokenizer, self.scale.adapt_length
            chunks, _ = tokens.load(recipe.corpus, tokenizer, length, recipe.config.runs)
            plan = replace(plan, data=replace(plan.data, rows=chunks))
        return self._train(plan)

    def _finetune(self, *overrides: str) -> dict[str, float]:
        plan, _ = finetune.prepare(self._recipe("finetune", self.scale.finetune_length, *FINETUNE, *overrides))
        return self._train(plan)

    def _train(self, plan: TrainingPlan) -> dict[str, float]:
        measured = Measured(self.scale.warm, plan.data.collate)
        plan = replace(plan, data=replace(plan.data, collate=measured.collate))
        trained(plan, self.scale.warm + self.scale.steps, 0, [measured])
        return measured.found(*weights_used(plan.model))

    def _stock_adapt(self) -> dict[str, float]:
        recipe, prepared = self._prepared()
        tokenizer, length = prepared.objective.tokenizer, self.scale.adapt_length
        texts = [recipe.corpus.train[place] for place in range(len(recipe.corpus.train))]
        stream = list(itertools.chain.from_iterable(tokenizer(texts)["input_ids"]))
        places = range(0, len(stream) - length, length)
        rows = Dataset.from_list([{"input_ids": stream[at : at + length]} for at in places])
        masked = not prepared.objective.causal
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        collate = DataCollatorForLanguageModeling(tokenizer, mlm=masked, mlm_probability=0.15 if masked else None)
        return self._stock(prepared.plan.model, rows, collate)

    def _stock_finetune(self) -> dict[str, float]:
        plan, tokenizer = finetune.prepare(self._recipe("finetune", self.scale.finetune_length, *FINETUNE))
        names, length = [*tokenizer.model_input_names, "labels"], self.scale.finetune_length
        rows = Dataset.from_list(
            [{name: row[name] for name in names} for row in map(plan.data.rows.__getitem__, range(len(plan.data.rows)))]
        )
        collate = DataCollatorWithPadding(tokenizer, padding="max_length", max_length=length)
        return self._stock(plan.model, rows, collate)

    def _stock(self, model: Any, rows: Dataset, collate: Callable[[Any], Any]) -> dict[str, float]:
        measured, options = Measured(self.scale.warm, collate), {"bf16": torch.cuda.is_available()}
        steps, size = self.scale.warm + self.scale.steps, self.scale.batch_size
        model.requires_grad_(True)
        common: dict[str, Any] = {"learning_rate": 5e-5, "remove_unused_columns": False, **options}
        stock(model, rows, measured.collate, steps, 0, size, [measured], **common)
        return measured.found(*weights_used(model))


FINETUNE = ("adapt=none", "finetune=plain", "task.labels=[even,odd]")


def weights_used(model: Any) -> tuple[int, int]:
    """Return how many weights of matrices a token is multiplied by, and how many a predicted one is."""
    groups = layer_groups(model, ())
    layers = {name: sum(weights.numel() for weights in group if weights.dim() == 2) for name, group in groups.items()}
    output = model.get_output_embeddings()
    body = sum(size for name, size in layers.items() if name.startswith("layer"))
    return body, 0 if output is None else output.weight.numel() + layers.get(HEAD, 0)


def main() -> None:
    """Measure the arms of some models until the time is over."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("models", nargs="+", choices=MODELS)
    parser.add_argument("--arms", choices=["all", "plain", COMPILED], default="all")
    parser.add_argument("--until", type=float, required=True, help="seconds of the clock after which none begins")
    parser.add_argument("--tiny", action="store_true")
    given = parser.parse_args()
    quiet_libraries()
    transformers.logging.set_verbosity_error()
    disable_progress_bars()
    warnings.filterwarnings("ignore", ".*pin_memory.*")
    OUT.quiet = True
    for name in given.models:
        bench = Bench(name, given.folder, tiny=given.tiny)
        for (stage, arm), measure in bench.arms.items():
            if given.arms != "all" and (arm == COMPILED) != (given.arms == COMPILED):
                continue
            found: dict[str, Any] = {"model": name, "stage": stage, "arm": arm}
            if time.time() > given.until:
                found["missing"] = "no time was left"
            else:
                try:
                    found |= measure()
                except Exception as error:  # the other arms are measured all the same
                    found["missing"] = f"{type(error).__name__}: {error}".splitlines()[0]
            print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
