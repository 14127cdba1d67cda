"""finetune: train the task on its labelled rows, from the adapted model or the plain checkpoint, and score it."""

from __future__ import annotations

from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Any

from ulmfit_style import lineage, predictions, processes
from ulmfit_style.config import Config
from ulmfit_style.console import say
from ulmfit_style.data import labelled
from ulmfit_style.run import CHECKPOINTS, METRICS, write_json


def run(config: Config) -> Path:
    """Fine-tune, unless it was done, and return the directory of the fine-tuned model."""
    return lineage.finetune(config).make(partial(_finetune, config), config.recipe())


def _finetune(config: Config, directory: Path) -> None:
    import torch
    import transformers
    from transformers import AutoTokenizer, set_seed

    from ulmfit_style.training.answers import collate
    from ulmfit_style.training.batching import Encoded
    from ulmfit_style.training.best import Best
    from ulmfit_style.training.phases import Phase, settings, train
    from ulmfit_style.training.scoring import metric, score

    options, task = config.finetune, lineage.required_task(config)

    # Data
    rows = labelled.load(task)
    trained, watched = (rows.train, []) if options.patience is None else labelled.watched(task)
    label2id = {label: index for index, label in enumerate(rows.classes)}
    source = lineage.init(config).directory
    tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    features = Encoded(
        {**feature, "weight": weight}
        for row, weight in zip(trained, task.weights(trained), strict=True)
        for feature in task.encode(row, tokenizer, options.max_length, label2id)
    )
    cut = sum(feature["cut"] for feature in features)
    longer = f"{cut:,} ({cut / len(features):.0%}) are longer than {options.max_length} tokens, and are cut"
    say(f"  {len(trained):,} labelled rows, of which {longer} (finetune.max_length)")
    if watched:
        say(f"  {len(watched):,} others are watched: the state that scores best on them is kept (finetune.patience)")

    # Model
    set_seed(options.seed)
    auto_class = getattr(transformers, task.auto_class)
    model = auto_class.from_pretrained(
        source,
        **task.head(rows.classes),
        pad_token_id=tokenizer.pad_token_id,  # by which a causal model finds the last token of a text
        dtype=torch.float32,  # or the weights of a checkpoint in bf16 would be trained in bf16
        use_safetensors=True,
        trust_remote_code=False,
    )
    task.start(model, trained)

    # Train
    phase = Phase("every weight", None, options.epochs, options.learning_rate)
    gather = partial(collate, tokenizer=tokenizer)
    best = None
    if options.patience is not None:
        watch = partial(metric, model, tokenizer, task, watched, options.max_length)
        best = Best(task.metric, watch, options.patience)
    (outcome,) = train(
        model, [phase], settings(config, options), task, features, gather, directory / CHECKPOINTS, best=best
    )
    if best is not None:
        kept, last = best.kept, best.curve[-1]
        score_there = f"{task.metric} {kept[task.metric]:.3f} on the watched rows"
        say(f"  kept: the state after epoch {kept['epoch']:g} of {last['epoch']:g} ({score_there})")

    # Score
    scores, found = {}, []
    for split in ("validation", "test"):
        scores[split], answered = score(model, tokenizer, task, rows.split(split), options.max_length, split)
        found += answered

    # Finish
    if not processes.is_main():
        return
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    predictions.write(directory, found)
    metrics: dict[str, Any] = {
        "task": type(task).__name__,
        "metric": task.metric,
        "train": {"rows": len(rows.train), "classes": rows.classes},
        **scores,
        "log": outcome.log,
    }
    if best is not None:
        metrics["kept"] = {**best.kept, "rows": len(watched)}
        metrics["log"] = sorted([*outcome.log, *best.curve], key=itemgetter("step"))
    write_json(directory / METRICS, metrics)
