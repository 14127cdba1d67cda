"""The base of every config section: frozen, typed, and aware of which fields determine a result."""

import json
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

MODEL_SECTIONS = ("model", "corpus", "pretrain", "adapt", "task", "finetune")
"""The sections of a config that determine a fine-tuned model, each after those that it builds on."""


ANSWERING = ("ensemble", "finetune")
"""The stages that make what answers a task, the last one of a chain first."""


def sections_of(stage: str) -> tuple[str, ...]:
    """Return the sections whose options determine the artefact of a stage."""
    sections = (*MODEL_SECTIONS, "ensemble")
    return sections[: sections.index(stage) + 1] if stage in sections else (*sections, "evaluate", "export")


class Unhashed:
    """Marks a field that is in no fingerprint: it cannot change a result, or it acts through hashed content."""


class Answering:
    """Marks a field of a task that says how its models answer: it can be changed when they have been trained."""


@dataclass(frozen=True)
class Needs:
    """Marks a field that has no effect while another field of its section is 0, and then is in no fingerprint."""

    field: str


class Section(BaseModel):
    """A frozen group of options. The docstring under a field is its documentation, with its unit."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, validate_default=True)

    def determinants(self) -> dict[str, Any]:
        """Return the fields that determine a result and differ from their defaults, as plain JSON values.

        So a new option changes no fingerprint. A default that changes raises the version of the stage's results.
        """
        left_out = set()
        for name, field in type(self).model_fields.items():
            is_default = getattr(self, name) == field.get_default(call_default_factory=True)
            is_idle = any(isinstance(mark, Needs) and not getattr(self, mark.field) for mark in field.metadata)
            if is_default or is_idle or Unhashed in field.metadata:
                left_out.add(name)
        return self.model_dump(mode="json", exclude=left_out)


Rate = Annotated[float, Field(gt=0, lt=1)]
"""A learning rate."""

Seed = Annotated[int, Field(ge=0, le=999_999)]
"""A seed; each phase makes its own of it, of which numpy takes no more than 32 bits."""


def _distinct(values: tuple[Any, ...]) -> tuple[Any, ...]:
    if len(set(values)) < len(values):
        raise ValueError("should be distinct")
    return values


Distinct = AfterValidator(_distinct)
"""Marks a list in which nothing may stand twice."""

Seeds = Annotated[tuple[Seed, ...], Field(min_length=1), Distinct]
"""One seed or several, each another one."""

Count = Annotated[int, Field(ge=1)]
"""A number of things, at least one."""


def spelled(value: Any) -> str:
    """Return a plain value as one types it after `key=`."""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def one_or_several(value: Any) -> Any:
    """Make a tuple of a single name."""
    return (value,) if isinstance(value, str) else value


class FileFormat(Section):
    """How a file is read, in whichever section names one; what is left open is found out of it, and said if unusual."""

    kind: str | None = None
    """The ending that a file of this kind has: csv, jsonl, xlsx, conll, txt ...; null: that of its name."""
    encoding: str | None = None
    """The encoding of a text file, such as cp1252."""
    delimiter: Annotated[str, Field(min_length=1, max_length=1)] | None = None
    """What stands between the columns of a csv or tsv file."""
    quotes: bool | None = None
    """Whether quotation marks enclose the cells of a csv or tsv file, or are parts of its texts."""
    sheet: str | None = None
    """The sheet of a spreadsheet."""
    field: str | None = None
    """The field of a json file that holds the list of rows."""
    query: str | None = None
    """The query of an sqlite file, or the name of its table."""

    @model_validator(mode="before")
    @classmethod
    def _kind_alone(cls, value: Any) -> Any:
        return {"kind": value} if isinstance(value, str) else value


AS_FOUND = FileFormat()
"""All is found out of the file."""
