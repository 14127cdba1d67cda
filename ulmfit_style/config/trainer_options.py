"""What `adapt.trainer` and `finetune.trainer` may hold: fields of transformers' TrainingArguments.

They are read from the library's source, for importing it would import torch.
"""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Mapping
from fnmatch import fnmatch
from functools import cache
from pathlib import Path
from typing import Any

from ulmfit_style.config.schema import spelled
from ulmfit_style.errors import nearest

OURS = {
    "learning_rate": "use {stage}.learning_rate",
    "num_train_epochs": "use {stage}.epochs",
    "max_steps": "use {stage}.epochs",
    "per_device_train_batch_size": "use {stage}.batch_size",
    "auto_find_batch_size": "use {stage}.batch_size",
    "gradient_accumulation_steps": "use micro_batch_size, which only splits {stage}.batch_size",
    "weight_decay": "use {stage}.weight_decay",
    "warmup_steps": "use {stage}.warmup_ratio",
    "lr_scheduler_*": "use {stage}.schedule",
    "seed": "use {stage}.seed",
    "data_seed": "use {stage}.seed",
    "output_dir": "use runs, the folder of all artefacts",
    "push_to_hub": "use the command push and hub.repo",
    "hub_private_repo": "use the command push and hub.private",
    "hub_token": "a token is never an option; set HF_TOKEN in the environment",
    "hub_*": "use the command push and hub.repo",
    "save_*": "a stage saves by itself, and the same command goes on from there",
    "enable_jit_checkpoint": "a stage saves by itself, and the same command goes on from there",
    "resume_from_checkpoint": "the same command goes on where it was stopped",
    "ignore_data_skip": "the same command goes on where it was stopped",
    "restore_callback_states_from_checkpoint": "the same command goes on where it was stopped",
    "load_best_model_at_end": "the last state is kept, or with finetune.patience the best",
    "metric_for_best_model": "the task says which metric ranks models",
    "greater_is_better": "the task says which metric ranks models",
    "*eval*": "a stage scores by itself",
    "do_*": "a stage trains and scores by itself",
    "prediction_loss_only": "a stage scores by itself",
    "include_for_metrics": "a stage scores by itself",
    "label_names": "the task knows its labels",
    "label_smoothing_factor": "the task computes its own loss",
    "average_tokens_across_devices": "the loss is always divided by the count over all devices",
    "logging_nan_inf_filter": "a loss that is not a number always stops the run",
    "disable_tqdm": "progress is shown by the stage",
    "remove_unused_columns": "the stage batches its own rows",
    "train_sampling_strategy": "the stage batches its own rows",
    "length_column_name": "the stage batches its own rows",
    "dataloader_drop_last": "the stage batches its own rows",
    "accelerator_config": "the stage batches its own rows",
    "local_rank": "the launcher sets it",
}
"""Fields, or patterns of them, that belong to the project's own schema, and what to use instead; the first counts."""

WITHOUT_EFFECT = (
    "dataloader_multiprocessing_context",
    "dataloader_num_workers",
    "dataloader_persistent_workers",
    "dataloader_pin_memory",
    "dataloader_prefetch_factor",
    "include_num_input_tokens_seen",
    "log_*",
    "logging_*",
    "project",
    "report_to",
    "run_name",
    "skip_memory_metrics",
    "trackio_*",
)
"""Fields that cannot change a result, and so are in no fingerprint. All others are."""


def determining(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that can change a result."""
    return {
        name: value for name, value in options.items() if not any(fnmatch(name, pattern) for pattern in WITHOUT_EFFECT)
    }


def name_problem(stage: str, name: str) -> str | None:
    """Return what is wrong with the key `<stage>.trainer.<name>`, if anything; never its value: that may be a token."""
    key = f"{stage}.trainer.{name}"
    if name not in _fields():
        return f"{key}: TrainingArguments has no such field{nearest(key, (f'{stage}.trainer.{f}' for f in _fields()))}"
    remedy = next((remedy for pattern, remedy in OURS.items() if fnmatch(name, pattern)), None)
    if remedy is not None:
        return f"{key}: is not for the trainer to say; {remedy.format(stage=stage)}"
    return None


def problems(stage: str, options: Mapping[str, Any]) -> dict[str, str]:
    """Return what is wrong with the names and types of `<stage>.trainer`, by name."""
    found = {}
    for name, value in options.items():
        problem = name_problem(stage, name)
        if problem is None and not _fits(value, expected := _fields()[name]):
            problem = f"{stage}.trainer.{name}={spelled(value)}: should be {' or '.join(expected)}"
        if problem is not None:
            found[name] = problem
    return found


@cache
def _fields() -> dict[str, list[str]]:
    """Return the names of TrainingArguments' fields, and of the types that each takes."""
    package = importlib.util.find_spec("transformers")
    assert package is not None  # a dependency
    assert package.origin is not None
    source = Path(package.origin).with_name("training_args.py").read_text(encoding="utf-8")
    body = next(
        node.body
        for node in ast.parse(source).body
        if isinstance(node, ast.ClassDef) and node.name == "TrainingArguments"
    )
    return {
        line.target.id: [kind.partition("[")[0] for kind in ast.unparse(line.annotation).split(" | ")]
        for line in body
        if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name)
    }


def _fits(value: Any, kinds: list[str]) -> bool:
    """Tell whether a value from a YAML is of one of the named types; an int is a float, a bool is neither."""
    kind = "None" if value is None else type(value).__name__
    return kind in kinds or (kind == "int" and "float" in kinds)
