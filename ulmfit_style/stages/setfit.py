"""setfit: the library SetFit on the same rows, with its own constants, for studies where it is installed."""

from __future__ import annotations

import tempfile
from contextlib import redirect_stderr, redirect_stdout
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from ulmfit_style import lineage, processes
from ulmfit_style.artefacts.directory import LOG, METRICS, write_json
from ulmfit_style.console import say
from ulmfit_style.data import labelled
from ulmfit_style.recipe import Config
from ulmfit_style.tasks.base import Answer
from ulmfit_style.tasks.text_classification import TextClassification

NAME = "SetFit"

TEXTS = 32
"""Those of a contrastive step: 16 pairs, as in its own recipe."""

STEPS = 250
"""Contrastive steps. By itself SetFit goes through all pairs once: half a million for a thousand texts."""


def is_possible(config: Config) -> bool:
    """Tell whether the library is installed, and the task one of a single text and its class."""
    task = config.task
    return isinstance(task, TextClassification) and task.text_pair is None and find_spec("setfit") is not None


def run(config: Config) -> Path:
    """Train and score SetFit on the plain checkpoint, unless it was done, and return the directory of its scores."""
    return lineage.setfit(config).make(partial(_setfit, config), config.recipe())


def _setfit(config: Config, directory: Path) -> None:
    if not processes.is_main():
        return
    task = lineage.required_task(config)
    rows = labelled.load(task)
    texts, unseen = ([task.texts(row)[0] for row in split] for split in (rows.train, rows.test))
    with (directory / LOG).open("a", encoding="utf-8") as log, redirect_stdout(log), redirect_stderr(log):
        answers = _answers(config, texts, [task.target(row) for row in rows.train], unseen)
    found = task.measure(answers, [task.target(row) for row in rows.test])
    low, high = found["interval"]
    say(f"  {NAME}: {task.metric} {found['scores'][task.metric]:.3f} (95 % interval {low:.3f} to {high:.3f})")
    write_json(directory / METRICS, {"metric": task.metric, "test": {NAME: found}})


def _answers(config: Config, texts: list[str], labels: list[str], unseen: list[str]) -> list[Answer]:
    """Train SetFit on texts and their labels, and return what it makes of unseen texts."""
    from datasets import Dataset
    from setfit import SetFitModel, Trainer, TrainingArguments

    model = SetFitModel.from_pretrained(str(lineage.start(config).directory), local_files_only=True)
    model.model_body.max_seq_length = config.finetune.max_length
    with tempfile.TemporaryDirectory() as thrown_away:
        options = TrainingArguments(
            output_dir=thrown_away,
            batch_size=TEXTS // 2,
            max_steps=STEPS,
            seed=config.finetune.seed,
            report_to="none",
            save_strategy="no",
            show_progress_bar=False,
        )
        Trainer(model=model, args=options, train_dataset=Dataset.from_dict({"text": texts, "label": labels})).train()
    return [{"label": str(label)} for label in model.predict(unseen, batch_size=64, show_progress_bar=False)]
