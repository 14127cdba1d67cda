"""Put a pretrained mini-en where the package finds it: weights in half precision, and a card made from its manifest.

python bench/embed_mini_en.py runs/mini_en/pretrain FOLDER     FOLDER is the general text that it was trained on
"""

import shutil
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from ulmfit_style.run import METRICS, RECIPE, file_digest, read_json

TARGET = Path(__file__).parents[1] / "ulmfit_style" / "weights" / "mini_en"
MOST_BYTES = 12_000_000

CARD = """\
---
language: en
license: apache-2.0
library_name: transformers
pipeline_tag: fill-mask
---

# mini-en

A small English encoder with its masked-language-model head: EuroBERT architecture, {layers} layers of {hidden},
{weights:,} weights, {vocabulary:,} lower-case WordPiece tokens, rows of {max_length} tokens. It is there so that the
whole recipe, language model included, runs in minutes on a laptop without any network: `model=mini_en`. The weights
are stored in half precision.

## How it was made

    {command}

with ulmfit-style {version} on {device} ({machine}), {processes} process, torch {torch}, transformers {transformers},
in {hours:.1f} hours beside other work: one pass over {tokens:,} tokens in {rows:,} packed rows, from random weights,
{masked:.0%} of the words masked whole. All options are in `recipe.yaml`.

On {heldout:,} held-out documents, nats a masked token and bits a byte of the masked text:

| after | loss | bits per byte |
| --- | ---: | ---: |
{stations}

## Data

17 million words of general English, none of which is here:

| file | what | licence | SHA-256 |
| --- | --- | --- | --- |
{files}

How to assemble the like: `docs/how-to/pretraining.md`.

## Limits

It has read a ten-thousandth of what common checkpoints have: old books, speeches, definitions and descriptions of
software, and nothing of the last years. It knows few names and facts, no other language, no case, and no text longer
than {max_length} tokens. What its sources say of people and peoples as their time saw them, it may have learnt. It
is made to be adapted and fine-tuned, and to be measured before it is used: how it compares with other models stands in
`docs/how-to/choosing-a-model.md`.
"""

SOURCES = {
    "books": ("48 books of Standard Ebooks", "public domain, the editions CC0"),
    "state_of_the_union": ("addresses of the presidents of the United States, 1790 to 2021", "public domain"),
    "wordnet_glosses": ("nouns, verbs and adjectives of WordNet 3.0 with their definitions", "WordNet 3.0 licence"),
    "debian_descriptions": ("descriptions of Debian's packages", "those of the packages, all free"),
}

source, text = Path(sys.argv[1]).resolve(), Path(sys.argv[2])
manifest, metrics = read_json(source / "manifest.json"), read_json(source / METRICS)
config = read_json(source / "config.json")
TARGET.mkdir(parents=True, exist_ok=True)
for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
    shutil.copy(source / name, TARGET)
recipe = (
    (source / RECIPE).read_text(encoding="utf-8").replace(str(text), "general_en").replace(str(source.parent), "runs")
)
(TARGET / RECIPE).write_text(recipe, encoding="utf-8")
weights = {name: tensor.to(torch.float16) for name, tensor in load_file(source / "model.safetensors").items()}
save_file(weights, TARGET / "model.safetensors", {"format": "pt"})
if (size := (TARGET / "model.safetensors").stat().st_size) > MOST_BYTES:
    sys.exit(f"the weights are {size:,} bytes; {MOST_BYTES:,} are the most that the package should carry")
options = manifest["determinants"]["pretrain"]
card = CARD.format(
    layers=config["num_hidden_layers"],
    hidden=config["hidden_size"],
    weights=sum(tensor.numel() for tensor in weights.values()),
    vocabulary=config["vocab_size"],
    max_length=options["max_length"],
    command="make pretrain experiment=mini_en corpus.path=general_en/",
    version=manifest["versions"]["ulmfit-style"],
    torch=manifest["versions"]["torch"],
    transformers=manifest["versions"]["transformers"],
    device=manifest["device"],
    machine=manifest["machine"],
    processes=manifest["processes"],
    hours=manifest["seconds"] / 3600,
    tokens=metrics["tokens"],
    rows=metrics["rows"],
    masked=options["mask_probability"],
    heldout=metrics["documents"]["heldout"],
    stations="\n".join(
        f"| {entry['after']} | {entry['loss']:.3f} | {entry['bits_per_byte']:.3f} |" for entry in metrics["heldout"]
    ),
    files="\n".join(
        f"| `{path.name}` | {' | '.join(SOURCES[path.name.partition('.')[0]])} | `{file_digest(path)}` |"
        for path in sorted(text.iterdir())
    ),
)
(TARGET / "README.md").write_text(card, encoding="utf-8")
print(f"{TARGET}: {size:,} bytes of weights, sha256 {file_digest(TARGET / 'model.safetensors')}")
