"""A whole chain beside two plain scripts in a row: `python bench/chain.py [pairs=3] [documents=200] [labels=128]`.

`adapt finetune` against bench/plain_scripts.py, each in whole processes that take turns, from start-up to the saved
model and its scores: on the same documents and labelled rows of Rotten Tomatoes, from the same weights, with the same
batch sizes, passes and rates. What plain scripts have not is off: general text, anchor, references, the arm without
adaptation. Both answer the same 200 validation and 400 test rows. It prints a Markdown table, and writes
`runs/chain.json`.
"""

import csv
import json
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import transformers
from scaling import costs

from ulmfit_style.chain import quiet_libraries
from ulmfit_style.cli.compose import compose
from ulmfit_style.console import OUT
from ulmfit_style.resolved import Resolved
from ulmfit_style.stages.table import resolve
from ulmfit_style.training import language_model

SCRIPTS = str(Path(__file__).with_name("plain_scripts.py"))
NOTHING_MORE = ("adapt.anchor=0", "adapt.general=null", "compare=false", "finetune=plain", "finetune.epochs=2")


def write(folder: Path, documents: int, labels: int) -> list[str]:
    """Write the weights to start from, documents and labelled rows, and return the options that name them."""
    recipe = resolve(compose([*NOTHING_MORE, "runs=runs", f"corpus.max_documents={documents}"]))
    assert recipe.config.adapt is not None
    prepared = language_model.prepare(
        recipe.config, recipe.config.adapt, recipe.source_of("adapt").directory, recipe.corpus
    )
    prepared.plan.model.save_pretrained(folder / "start")
    prepared.objective.tokenizer.save_pretrained(folder / "start")
    files = {"train": recipe.rows.train[:labels], "validation": recipe.rows.validation[:200]}
    for name, rows in {**files, "test": recipe.rows.test[:400]}.items():
        with (folder / f"{name}.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(("text", "label"))
            writer.writerows((row.fields["text"], row.fields["label"]) for row in rows)
    texts = [" ".join(recipe.corpus.train[number].split()) for number in range(len(recipe.corpus.train))]
    (folder / "all.txt").write_text("\n".join(texts) + "\n")
    paths = ", ".join(f"{name}: {folder / name}.csv" for name in ("train", "validation", "test"))
    own = ["task=text_classification", f"task.path={{{paths}}}", f"corpus.path={folder / 'all.txt'}"]
    return [
        *NOTHING_MORE,
        *own,
        f"model.checkpoint={folder / 'start'}",
        "model.license=null",
        f"runs={folder / 'runs'}",
    ]


def write_sides(recipe: Resolved, folder: Path) -> None:
    """Write the documents that we train on and those that we hold out, for the plain script."""
    for name, texts in (("train", recipe.corpus.train), ("heldout", recipe.corpus.heldout)):
        (folder / f"{name}.txt").write_text("".join(f"{texts[number]}\n" for number in range(len(texts))))


def heldout_loss(recipe: Resolved, directory: Path) -> float:
    """Return the loss of a language model on the documents that are held out."""
    assert recipe.config.adapt is not None
    prepared = language_model.prepare(recipe.config, recipe.config.adapt, directory, recipe.corpus)
    return float(prepared.measure()["loss"])


def ours(options: Sequence[str], folder: Path, seed: int) -> dict[str, float]:
    """Run the chain, and return what it cost and how good it is."""
    own = [*options, f"runs={folder / f'runs-{seed}'}", f"adapt.seed={seed}", f"finetune.seed={seed}"]
    cost, _ = costs(["-m", "ulmfit_style", "adapt", "finetune", *own])
    made = folder / f"runs-{seed}" / "default"
    scores = json.loads((made / "finetune" / "metrics.json").read_text())["test"]["scores"]
    loss = heldout_loss(resolve(compose(own)), (made / "adapt").resolve())
    return {**cost, "accuracy": scores["accuracy"], "loss": loss}


def scripts(options: Sequence[str], folder: Path, seed: int) -> dict[str, float]:
    """Run the two scripts, and return what they cost together, and how good they are."""
    with tempfile.TemporaryDirectory(dir=folder) as name:
        own = Path(name)
        for file in folder.glob("*.*"):
            if file.is_file():
                (own / file.name).symlink_to(file)
        parts = [costs([SCRIPTS, "mlm", str(folder / "start"), str(own), str(seed)])[0]]
        parts.append(costs([SCRIPTS, "classify", str(own / "mlm"), str(own), str(seed)])[0])
        scores = json.loads((own / "classify" / "eval.json").read_text())
        loss = heldout_loss(resolve(compose([*options, f"adapt.seed={seed}"])), own / "mlm")
    cost = {name: sum(part[name] for part in parts) for name in ("cpu", "seconds")}
    most = max(part["megabytes"] for part in parts)
    return {**cost, "megabytes": most, "accuracy": scores["test_accuracy"], "loss": loss}


def spread(values: Sequence[float], digits: int = 2) -> str:
    """Return the median of values, with the lowest and the highest."""
    return f"{statistics.median(values):,.{digits}f} ({min(values):,.{digits}f} to {max(values):,.{digits}f})"


def main(arguments: Sequence[str]) -> None:
    """Let the two take turns."""
    given: dict[str, int] = {"pairs": 3, "documents": 200, "labels": 128}
    given |= {name: int(value) for name, _, value in (word.partition("=") for word in arguments)}
    quiet_libraries()
    transformers.logging.set_verbosity_error()
    OUT.quiet = True
    arms = {"ours": ours, "two scripts": scripts}
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in arms}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        options = write(folder, given["documents"], given["labels"])
        write_sides(resolve(compose(options)), folder)
        for seed in range(given["pairs"]):
            for arm, run in arms.items():
                found[arm].append(run(options, folder, seed))
                Path("runs/chain.json").write_text(json.dumps(found, indent=1))
    print("| arm | CPU s | times ours | MB at most | loss on held-out text | accuracy |\n|---|---|---|---|---|---|")
    for arm, measured in found.items():
        ratios = [one["cpu"] / own["cpu"] for one, own in zip(measured, found["ours"], strict=True)]
        columns = {name: [one[name] for one in measured] for name in ("cpu", "megabytes", "loss", "accuracy")}
        cells = [spread(columns["cpu"], 1), spread(ratios), f"{max(columns['megabytes']):,.0f}"]
        print(f"| {arm} | {' | '.join([*cells, spread(columns['loss'], 3), spread(columns['accuracy'], 3)])} |")


if __name__ == "__main__":
    main(sys.argv[1:])
