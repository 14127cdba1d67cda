"""What `adapt.trainer` and `finetune.trainer` may hold: fields of transformers' TrainingArguments.

The library is imported only where there are such options.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from fnmatch import fnmatch
from functools import cache
from pathlib import Path
from typing import Any, get_type_hints

import yaml
from pydantic import ConfigDict, TypeAdapter, ValidationError

from ulmfit_style.config.section import spelled
from ulmfit_style.errors import nearest

TABLE: Mapping[str, Any] = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
OURS: Mapping[str, str] = TABLE["ours"]
"""What to use instead of fields that the recipe has an option for, named or by patterns; the first one counts."""
FIXED: Mapping[str, Any] = TABLE["fixed"]
"""Fields that always have one value."""
SET_BY_THE_STAGE: Sequence[str] = [*TABLE["set_by_the_stage"], *FIXED]
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
