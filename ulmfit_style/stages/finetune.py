"""finetune: train the task on its labelled rows, from the adapted model or the plain checkpoint, and score it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ulmfit_style import lineage
from ulmfit_style.config import Config
from ulmfit_style.console import progress, say
from ulmfit_style.data import labelled
from ulmfit_style.errors import UserError
from ulmfit_style.metrics import interval
from ulmfit_style.run import METRICS, PREDICTIONS, write_json
from ulmfit_style.tasks.base import Answer, Row, Task

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def run(config: Config) -> Path:
    """Fine-tune, unless it was done, and return the directory of the fine-tuned model.

    Raises:
        UserError: if the adapted model that the config starts from was not made.
    """
    made = lineage.finetune(config)
    if config.adapt is not None and not made.finished and not lineage.adapt(config).finished:
        raise UserError(
            f"finetune: there is no adapted model for this config ({lineage.adapt(config).directory}); "
            "run `adapt finetune` with the same options, or finetune the plain checkpoint with adapt=none"
        )
    return made.make(partial(_finetune, config), config.recipe())


def _finetune(config: Config, directory: Path) -> None:
    import transformers
    from transformers import AutoTokenizer, set_seed

    from ulmfit_style.training.answers import collate
    from ulmfit_style.training.phases import Phase, Settings, run_phase

    options, task = config.finetune, lineage.required_task(config)

    # Data
    rows = labelled.load(task)
    label2id = {label: index for index, label in enumerate(rows.classes)}
    source = lineage.init(config).directory
    tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    features = [feature for row in rows.train for feature in task.encode(row, tokenizer, options.max_length, label2id)]
    cut = sum(len(feature["input_ids"]) >= options.max_length for feature in features)
    say(f"  {len(rows.train):,} labelled rows, {cut} of them cut at {options.max_length} tokens")

    # Model
    set_seed(options.seed)
    auto_class = getattr(transformers, task.auto_class)
    model = auto_class.from_pretrained(
        source,
        num_labels=len(rows.classes),
        id2label=dict(enumerate(rows.classes)),
        label2id=label2id,
        use_safetensors=True,
        trust_remote_code=False,
    )

    # Train
    phase = Phase("every weight", None, options.epochs, options.learning_rate)
    settings = Settings(options.batch_size, options.warmup_ratio, options.weight_decay, options.seed)
    log = run_phase(model, phase, 0, settings, task, features, partial(collate, tokenizer=tokenizer))

    # Score
    scores, predictions = {}, []
    for split in ("validation", "test"):
        scored: list[Row] = getattr(rows, split)
        found = _answers(model, tokenizer, task, scored, options.max_length, split)
        scores[split] = _score(task, found, scored)
        predictions += [
            {"split": split, "row": row.number, "target": task.target(row), **answer}
            for row, answer in zip(scored, found, strict=True)
        ]

    # Finish
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    lines = (json.dumps(prediction, ensure_ascii=False) + "\n" for prediction in predictions)
    (directory / PREDICTIONS).write_text("".join(lines), encoding="utf-8")
    metrics = {
        "task": type(task).__name__,
        "metric": task.metric,
        "train": {"rows": len(rows.train), "classes": rows.classes},
        **scores,
        "log": log,
    }
    write_json(directory / METRICS, metrics)


def _answers(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    task: Task,
    rows: Sequence[Row],
    max_length: int,
    split: str,
) -> list[Answer]:
    from ulmfit_style.training.answers import answers

    with progress(f"scoring {split}", len(rows)) as steps:
        return list(answers(model, tokenizer, task, rows, max_length, steps.advance))


def _score(task: Task, found: Sequence[Answer], rows: Sequence[Row]) -> dict[str, Any]:
    targets = [task.target(row) for row in rows]
    return {
        "rows": len(rows),
        "scores": task.score(found, targets),
        "interval": interval(task.points(found, targets)),
    }
