"""The library SetFit on the rows of a study, with its own constants: `python bench/beside_setfit.py [key=value ...]`.

For example: python bench/beside_setfit.py study=label_curve task=banking77 'study.seeds=[0,1,2]' 'study.labels=[100]'

It takes the study's seeds and numbers of labels, starts from the plain checkpoint, and is scored on the study's test
rows. It prints every seed, the mean and the standard deviation, and writes setfit.csv beside the study's results.csv.
Its 250 steps take minutes for each seed and number of labels. Needs `pip install setfit`.
"""

import sys
import tempfile
import time
from itertools import product
from statistics import mean, stdev

from datasets import Dataset
from setfit import SetFitModel, Trainer, TrainingArguments

from ulmfit_style.errors import UserError
from ulmfit_style.experiments.study import planned
from ulmfit_style.resolved import Resolved
from ulmfit_style.results import csv
from ulmfit_style.results.parts import Table
from ulmfit_style.stages.table import resolve
from ulmfit_style.tasks.text_classification import TextClassification

PAIRS = 16
"""Pairs of texts in a contrastive step, as in SetFit's own recipe."""

STEPS = 250
"""Contrastive steps. By itself SetFit goes through all pairs once: half a million for a thousand texts."""


def score(resolved: Resolved) -> float:
    """Train SetFit on the labelled rows, and return the task's metric on the test rows."""
    task, rows, config = resolved.task, resolved.rows, resolved.config
    train, test = ([task.texts(row)[0] for row in split] for split in (rows.train, rows.test))
    model = SetFitModel.from_pretrained(str(resolved.source_of("adapt").directory), local_files_only=True)
    model.model_body.max_seq_length = config.finetune.max_length
    dataset = Dataset.from_dict({"text": train, "label": [task.target(row) for row in rows.train]})
    with tempfile.TemporaryDirectory() as folder:
        options = TrainingArguments(
            output_dir=folder,
            batch_size=PAIRS,
            max_steps=STEPS,
            seed=config.finetune.seed,
            report_to="none",
            save_strategy="no",
        )
        Trainer(model=model, args=options, train_dataset=dataset).train()
    answers = [{"label": str(label)} for label in model.predict(test, batch_size=64)]
    measured = task.measure(answers, [task.target(row) for row in rows.test])
    return float(measured["scores"][task.metric])


def main(overrides: list[str]) -> None:
    """Score every sample of the study."""
    plan = planned(overrides)
    task = plan.base.task
    if not isinstance(task, TextClassification) or task.text_pair is not None:
        raise UserError("SetFit learns the classes of single texts: give a text_classification task without text_pair")
    runs = []
    for seed, labels in product(plan.base.study.seeds, plan.labels):
        started = time.monotonic()
        runs.append((labels, seed, score(resolve(plan.at(plan.base, labels, seed))), time.monotonic() - started))
    for labels in plan.labels:
        scores = [run[2] for run in runs if run[0] == labels]
        spread = f" +- {stdev(scores):.3f}" if len(scores) > 1 else ""
        every = " ".join(f"{score:.3f}" for score in scores)
        print(f"SetFit, {labels or task.train_samples} labels: {task.metric} {mean(scores):.3f}{spread} ({every})")
    folder = plan.base.runs / plan.folder
    folder.mkdir(parents=True, exist_ok=True)
    csv.write(folder / "setfit.csv", Table(("labels", "seed", task.metric, "seconds"), runs))


try:
    main(sys.argv[1:])
except UserError as error:
    sys.exit(f"bench/beside_setfit.py: {error}")
