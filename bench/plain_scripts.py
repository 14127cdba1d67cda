"""Two scripts in a row as the examples of transformers write them: nothing of this project is imported.

`python bench/plain_scripts.py mlm MODEL FOLDER SEED` continues pretraining on FOLDER/train.txt, in blocks of 128
tokens, and measures FOLDER/heldout.txt; `python bench/plain_scripts.py classify MODEL FOLDER SEED` fine-tunes on
FOLDER/train.csv, and scores FOLDER/validation.csv and FOLDER/test.csv. Both save what they trained to FOLDER.
"""

import itertools
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from datasets import load_dataset
from transformers import (
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorForLanguageModeling,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
    set_seed,
)

LENGTH = 128


def mlm(start: str, folder: Path, seed: int) -> None:
    """Continue pretraining: one pass in batches of 8."""
    set_seed(seed)
    tokenizer = AutoTokenizer.from_pretrained(start)
    model = AutoModelForMaskedLM.from_pretrained(start)
    files = {name: str(folder / f"{name}.txt") for name in ("train", "heldout")}
    texts = load_dataset("text", data_files=files, cache_dir=str(folder / "cache"))

    def group(batch: Any) -> Any:
        joined = {name: list(itertools.chain.from_iterable(values)) for name, values in batch.items()}
        total = len(joined["input_ids"]) // LENGTH * LENGTH
        return {name: [values[at : at + LENGTH] for at in range(0, total, LENGTH)] for name, values in joined.items()}

    encoded = texts.map(
        lambda batch: tokenizer(batch["text"], return_special_tokens_mask=True), batched=True, remove_columns=["text"]
    )
    rows = encoded.map(group, batched=True)
    out = folder / "mlm"
    trainer = Trainer(
        model,
        TrainingArguments(str(out), num_train_epochs=1, per_device_train_batch_size=8, seed=seed, report_to="none"),
        data_collator=DataCollatorForLanguageModeling(tokenizer, mlm_probability=0.15),
        train_dataset=rows["train"],
        eval_dataset=rows["heldout"],
    )
    trainer.train()
    trainer.save_model(str(out))
    tokenizer.save_pretrained(out)
    (out / "eval.json").write_text(json.dumps(trainer.evaluate()))


def classify(start: str, folder: Path, seed: int) -> None:
    """Fine-tune: two passes in batches of 16, padded to the longest row of each."""
    set_seed(seed)
    tokenizer = AutoTokenizer.from_pretrained(start)
    files = {name: str(folder / f"{name}.csv") for name in ("train", "validation", "test")}
    rows = load_dataset("csv", data_files=files, cache_dir=str(folder / "cache"))
    labels = sorted(set(map(str, rows["train"]["label"])))
    model = AutoModelForSequenceClassification.from_pretrained(start, num_labels=len(labels))

    def encode(batch: Any) -> Any:
        encoded = tokenizer(batch["text"], truncation=True, max_length=LENGTH)
        return {**encoded, "labels": [labels.index(str(label)) for label in batch["label"]]}

    encoded = rows.map(encode, batched=True, remove_columns=["text", "label"])
    out = folder / "classify"
    arguments = TrainingArguments(
        str(out), num_train_epochs=2, per_device_train_batch_size=16, learning_rate=5e-5, seed=seed, report_to="none"
    )
    trainer = Trainer(
        model,
        arguments,
        data_collator=DataCollatorWithPadding(tokenizer),
        train_dataset=encoded["train"],
        eval_dataset=encoded["validation"],
        compute_metrics=lambda given: {"accuracy": float((given[0].argmax(-1) == given[1]).mean())},
    )
    trainer.train()
    trainer.save_model(str(out))
    tokenizer.save_pretrained(out)
    scores = trainer.evaluate()
    answered = trainer.predict(encoded["test"], metric_key_prefix="test")
    predicted = np.argmax(answered.predictions, axis=1)
    (out / "predictions.txt").write_text("\n".join(labels[number] for number in predicted))
    (out / "eval.json").write_text(json.dumps({**scores, **(answered.metrics or {})}))


if __name__ == "__main__":
    _, work, given, place, number = sys.argv
    {"mlm": mlm, "classify": classify}[work](given, Path(place), int(number))
