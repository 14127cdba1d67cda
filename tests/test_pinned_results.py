"""Small recipes give, to the digit, the metrics and predictions that `pinned_results.json` holds.

A change of these is a change of results. Where it is meant, record them anew, look at the difference, and say why in
the commit: `python tests/test_pinned_results.py --record`, with names of recipes for these alone.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
import samples
from samples import articles, conll, jsonl, questions, reviews, save_bert, save_llama, sentences, squad
from transformers import set_seed

from ulmfit_style.__main__ import main

PINS = Path(__file__).with_name("pinned_results.json")

Recipe = Callable[[Path], list[str]]


def bert(folder: Path) -> list[str]:
    return [f"model.checkpoint={save_bert(folder / 'checkpoint', initializer_range=0.2)}"]


def llama(folder: Path) -> list[str]:
    return [f"model.checkpoint={save_llama(folder / 'checkpoint')}"]


def t5(folder: Path) -> list[str]:
    checkpoint = samples.save_t5(folder / "checkpoint", samples.with_sentinels(samples.tiny_tokenizer()))
    return [f"model.checkpoint={checkpoint}"]


def reviewed(folder: Path, task: str = "text_classification", **columns: Callable[[int, str, str], Any]) -> list[str]:
    """Reviews with a label, or other columns; one good review in five is called bad, so that no score is perfect."""
    rows = []
    for number, (text, name, _) in enumerate(reviews(120)):
        label = "bad" if number % 10 == 3 else name
        values = {column: value(number, text, label) for column, value in columns.items()}
        rows.append({"text": text, "label": label} | values)
    return [f"task={task}", f"task.path={jsonl(folder / 'rows.jsonl', rows)}"]


def contrast(folder: Path) -> list[str]:
    few = ["task.train_samples=24", "finetune=few_labels", "finetune.contrast_steps=18"]
    rates = ["finetune.contrast_learning_rate=2e-3", "finetune.max_length=32", "adapt.learning_rate=5e-3"]
    return ["adapt", "finetune", *bert(folder), *reviewed(folder), *few, *rates]


def two_ranks(folder: Path) -> list[str]:
    options = ["processes=2", "compare=false", "adapt.learning_rate=5e-3", "adapt.mask_probability=0.3"]
    return ["adapt", "finetune", *bert(folder), *reviewed(folder), *options, *LEARNT]


def decoder(folder: Path) -> list[str]:
    nouns = [noun for noun in ("film", "plot", "story") for _ in range(40)]
    pairs = [{"prompt": f"the {noun} number {n} is", "completion": f"a {noun}"} for n, noun in enumerate(nouns)]
    task = ["task=text_generation", f"task.path={jsonl(folder / 'pairs.jsonl', pairs)}", "task.max_target_length=8"]
    return ["adapt", "finetune", *llama(folder), *task, "compare=false", "adapt.learning_rate=5e-3", *LEARNT]


def patience(folder: Path) -> list[str]:
    options = ["finetune=ulmfit", "finetune.patience=2", "task.shots=20", "task.class_weights=balanced", "adapt=none"]
    return ["finetune", *bert(folder), *reviewed(folder), *options, *LEARNT[1:], "finetune.epochs=12"]


def summaries(folder: Path) -> list[str]:
    options = ["task.num_beams=2", "task.label_smoothing=0.1", "compare=false", "adapt.learning_rate=5e-3"]
    return ["adapt", "finetune", *t5(folder), *summarized(folder), *options, *LEARNT]


def grown_decoder(folder: Path) -> list[str]:
    grown = ["model.decoder=scratch", "model.decoder_layers=1", "model.decoder_tokenizer.vocab_size=300"]
    rates = ["finetune.new_epochs=4", "finetune.new_learning_rate=1e-2", "adapt=none", "compare=false"]
    return ["finetune", *bert(folder), *summarized(folder), *grown, *rates, *LEARNT]


def summarized(folder: Path) -> list[str]:
    return ["task=summarization", f"task.path={articles(folder / 'rows.jsonl', 120)}", "task.max_target_length=8"]


def windows(folder: Path) -> list[str]:
    filler = "the plot number seven is a story"
    long = {"text": lambda number, text, _: " ".join([*[filler] * (number % 4), text])}
    read = ["task.long_documents=windows", "task.overlap=0.5", "finetune.max_length=24"]
    options = ["finetune.layer_decay=2", "finetune.schedule=constant", "finetune.pooling=concat", "adapt=none"]
    return ["finetune", *bert(folder), *reviewed(folder, **long), *read, *options, *LEARNT[:-1]]


def lora(folder: Path) -> list[str]:
    labels = {"label": lambda number, text, label: [label, text.split()[1]][: 1 + number % 2]}
    ranks = ["adapt.lora_rank=4", "finetune.lora_rank=4", "compare=false", "adapt.learning_rate=5e-3"]
    task = reviewed(folder, "multi_label_classification", **labels)
    return ["adapt", "finetune", *bert(folder), *task, *ranks, *LEARNT]


def chain_thaw(folder: Path) -> list[str]:
    values = {"label": lambda number, _, label: number % 3 + 2.5 * (label == "good")}
    options = ["finetune.unfreeze=chain_thaw", "finetune.schedule=cosine", "finetune.max_steps=30", "adapt=none"]
    return ["finetune", *bert(folder), *reviewed(folder, "text_regression", **values), *options, *LEARNT]


def entities(folder: Path) -> list[str]:
    task = ["task=token_classification", f"task.path={conll(folder / 'rows.conll', sentences(120))}"]
    adapt = ["adapt=ulmfit", "adapt.learning_rate=5e-3", "micro_batch_size=4"]
    return ["adapt", "finetune", *bert(folder), *task, *adapt, "compare=false", *LEARNT[:-1], "finetune.max_length=20"]


def answers(folder: Path) -> list[str]:
    task = ["task=question_answering", f"task.path={squad(folder / 'rows.json', questions(90))}"]
    return ["finetune", *bert(folder), *task, "adapt=none", *LEARNT[:-1], "finetune.max_length=40"]


LEARNT = ["finetune=plain", "finetune.epochs=4", "finetune.learning_rate=5e-3", "finetune.max_length=32"]

RECIPES: list[Recipe] = [
    *(contrast, two_ranks, decoder, patience, summaries, grown_decoder),
    *(windows, lora, chain_thaw, entities, answers),
]


def results(recipe: Recipe, folder: Path) -> dict[str, Any]:
    """Run a recipe; return what each stage measured, and the answers to the test rows."""
    set_seed(0)
    assert main([*recipe(folder), f"runs={folder / 'runs'}", "task.folds=0"]) == 0
    made: dict[str, Any] = {}
    for link in sorted((folder / "runs/default").iterdir()):
        metrics = json.loads((link / "metrics.json").read_text())
        made[link.name] = {name: metrics[name] for name in ("kept", "train", "heldout") if name in metrics}
        made[link.name] |= {split: metrics[split] for split in ("validation", "test") if split in metrics}
        made[link.name]["losses"] = [entry["loss"] for entry in metrics.get("log", ()) if "loss" in entry]
        made[link.name]["rates"] = [entry["learning_rate"] for entry in metrics.get("log", ()) if "loss" in entry]
    table = pyarrow.parquet.read_table(folder / "runs/default/finetune/predictions.parquet")
    rows = [row for row in table.to_pylist() if row.pop("split") == "test"]
    made["predictions"] = [{name: row[name] for name in row if name != "near"} for row in rows]
    rounded: dict[str, Any] = to_six_digits(made)
    return rounded


def to_six_digits(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: to_six_digits(part) for name, part in value.items()}
    if isinstance(value, list):
        return [to_six_digits(part) for part in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value


def differences(ours: Any, pinned: Any, where: str = "") -> list[str]:
    """Say where two results differ by more than processors do."""
    if isinstance(ours, dict) and isinstance(pinned, dict) and ours.keys() == pinned.keys():
        return [line for name in ours for line in differences(ours[name], pinned[name], f"{where}/{name}")]
    if isinstance(ours, list) and isinstance(pinned, list) and len(ours) == len(pinned):
        pairs = enumerate(zip(ours, pinned, strict=True))
        return [line for number, (one, other) in pairs for line in differences(one, other, f"{where}/{number}")]
    equal = ours == (pytest.approx(pinned, rel=1e-4, abs=1e-5) if isinstance(pinned, float) else pinned)
    return [] if equal else [f"{where}: {ours!r}, pinned {pinned!r}"]


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.__name__)
def test_a_small_recipe_gives_the_pinned_metrics_and_predictions(recipe: Recipe, tmp_path: Path):
    pinned = json.loads(PINS.read_text(encoding="utf-8"))[recipe.__name__]
    assert differences(results(recipe, tmp_path), pinned) == []


def record(names: list[str]) -> None:
    import tempfile

    pinned = json.loads(PINS.read_text(encoding="utf-8")) if PINS.exists() else {}
    for recipe in RECIPES:
        if not names or recipe.__name__ in names:
            with tempfile.TemporaryDirectory() as folder:
                pinned[recipe.__name__] = results(recipe, Path(folder))
    lines = [f' "{recipe.__name__}": {json.dumps(pinned[recipe.__name__], ensure_ascii=False)}' for recipe in RECIPES]
    PINS.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    record([argument for argument in sys.argv[1:] if argument != "--record"])
