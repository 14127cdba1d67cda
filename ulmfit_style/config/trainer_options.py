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
    "use {stage}.learning_rate": ["learning_rate"],
    "use {stage}.epochs": ["num_train_epochs", "max_steps"],
    "use {stage}.batch_size": ["per_device_train_batch_size", "auto_find_batch_size"],
    "use micro_batch_size, which only splits {stage}.batch_size": ["gradient_accumulation_steps"],
    "use {stage}.weight_decay": ["weight_decay"],
    "use {stage}.warmup_ratio": ["warmup_steps"],
    "use {stage}.schedule": ["lr_scheduler_*"],
    "use {stage}.seed": ["seed", "data_seed"],
    "use runs, the folder of all artefacts": ["output_dir"],
    "a token is never an option; set HF_TOKEN in the environment": ["hub_token"],
    "use the command push and hub.private": ["hub_private_repo"],
    "use the command push and hub.repo": ["push_to_hub", "hub_*"],
    "the same command goes on where it was stopped": [
        "resume_from_checkpoint",
        "ignore_data_skip",
        "restore_callback_*",
    ],
    "a stage saves by itself, and the same command goes on from there": ["save_*", "enable_jit_checkpoint"],
    "the last state is kept, or with finetune.patience the best": ["load_best_model_at_end"],
    "the task says which metric ranks models": ["metric_for_best_model", "greater_is_better"],
    "a stage trains and scores by itself": ["do_*", "*eval*", "prediction_loss_only", "include_for_metrics"],
    "the task knows its labels": ["label_names"],
    "the task computes its own loss": ["label_smoothing_factor"],
    "the loss is always divided by the count over all devices": ["average_tokens_across_devices"],
    "a loss that is not a number always stops the run": ["logging_nan_inf_filter"],
    "progress is shown by the stage": ["disable_tqdm"],
    "the stage batches its own rows": ["remove_unused_columns", "train_sampling_strategy", "length_column_name"],
    "the stage makes its own batches": ["dataloader_drop_last", "accelerator_config"],
    "the launcher sets it": ["local_rank"],
}
"""What to use instead of fields that belong to the project's own schema, named or by patterns; the first one counts."""

WITHOUT_EFFECT = (
    *("dataloader_multiprocessing_context", "dataloader_num_workers", "dataloader_persistent_workers"),
    *("dataloader_pin_memory", "dataloader_prefetch_factor", "skip_memory_metrics", "include_num_input_tokens_seen"),
    *("log_*", "logging_*", "project", "report_to", "run_name", "trackio_*"),
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
    for remedy, patterns in OURS.items():
        if any(fnmatch(name, pattern) for pattern in patterns):
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
