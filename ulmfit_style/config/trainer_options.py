"""What `adapt.trainer` and `finetune.trainer` may hold: fields of transformers' TrainingArguments.

The library is imported only where there are such options.
"""

import dataclasses
from collections.abc import Mapping
from fnmatch import fnmatch
from functools import cache
from typing import Any, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError

from ulmfit_style.config.section import spelled
from ulmfit_style.errors import nearest

OURS = {
    "learning_rate": "use {stage}.learning_rate",
    "num_train_epochs": "use {stage}.epochs",
    "max_steps": "use {stage}.epochs",
    "per_device_train_batch_size": "use {stage}.batch_size",
    "auto_find_batch_size": "use micro_batch_size, which only splits {stage}.batch_size",
    "gradient_accumulation_steps": "use micro_batch_size, which only splits {stage}.batch_size",
    "weight_decay": "use {stage}.weight_decay",
    "warmup_steps": "use {stage}.warmup_ratio",
    "lr_scheduler_*": "use {stage}.schedule",
    "*seed": "use {stage}.seed",
    "output_dir": "use runs, the folder of all artefacts",
    "hub_token": "set HF_TOKEN in the environment",
    "*hub*": "use the command push and hub.repo",
}
"""What to use instead of fields that the recipe has an option for, named or by patterns; the first one counts."""

SET_BY_THE_STAGE = (
    *("accelerator_config", "average_tokens_across_devices", "dataloader_drop_last", "disable_tqdm", "do_*", "*eval*"),
    *("enable_jit_checkpoint", "greater_is_better", "ignore_data_skip", "include_for_metrics", "label_names"),
    *("label_smoothing_factor", "length_column_name", "load_best_model_at_end", "local_rank", "logging_nan_inf_filter"),
    *("metric_for_best_model", "prediction_loss_only", "remove_unused_columns", "restore_callback_*"),
    *("resume_from_checkpoint", "save_*", "train_sampling_strategy"),
)
"""Fields that the stage, its task or the launcher sets."""


def problems(stage: str, options: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with the names and values of `<stage>.trainer`."""
    return [problem for name, value in options.items() if (problem := _problem(stage, name, value)) is not None]


def _problem(stage: str, name: str, value: Any) -> str | None:
    """Return what is wrong with one option, if anything; only a wrong type is shown with its value, no token ever."""
    key = f"{stage}.trainer.{name}"
    for pattern, remedy in OURS.items():
        if fnmatch(name, pattern):
            return f"{key}: cannot be set here; {remedy.format(stage=stage)}"
    if any(fnmatch(name, pattern) for pattern in SET_BY_THE_STAGE):
        return f"{key}: cannot be set here; the stage sets it"
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

    types = get_type_hints(TrainingArguments)
    return {field.name: types[field.name] for field in dataclasses.fields(TrainingArguments) if field.init}
