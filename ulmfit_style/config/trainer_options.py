"""What `adapt.trainer` and `finetune.trainer` may hold: fields of transformers' TrainingArguments.

The library is imported only where there are such options and none of them belongs to our own schema.
"""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatch
from functools import cache
from typing import Any, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError

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


def problems(stage: str, options: Mapping[str, Any]) -> dict[str, str]:
    """Return what is wrong with the names and values of `<stage>.trainer`, by name."""
    found = {name: _problem(stage, name, value) for name, value in options.items()}
    return {name: problem for name, problem in found.items() if problem is not None}


def _problem(stage: str, name: str, value: Any) -> str | None:
    """Return what is wrong with one option, if anything; only a wrong type is shown with its value, no token ever."""
    key = f"{stage}.trainer.{name}"
    for pattern, remedy in OURS.items():
        if fnmatch(name, pattern):
            return f"{key}: cannot be set here; {remedy.format(stage=stage)}"
    if name not in fields():
        known = (f"{stage}.trainer.{field}" for field in fields())
        return f"{key}: TrainingArguments has no such field{nearest(key, known)}"
    try:
        TypeAdapter(fields()[name], config=ConfigDict(strict=True, arbitrary_types_allowed=True)).validate_python(value)
    except ValidationError as error:
        expected = " or ".join(details["msg"].removeprefix("Input should be ") for details in error.errors())
        return f"{key}={spelled(value)}: should be {expected}"
    return None


@cache
def fields() -> dict[str, Any]:
    """Return the types of TrainingArguments' fields by their names."""
    from transformers import TrainingArguments

    names = [name for name, field in TrainingArguments.__dataclass_fields__.items() if field.init]
    types = get_type_hints(TrainingArguments)
    return {name: types[name] for name in names}
