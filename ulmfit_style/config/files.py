"""How a file is read, where that is not found out of the file itself."""

from typing import Annotated, Any

from pydantic import Field, model_validator

from ulmfit_style.config.section import Section


class FileFormat(Section):
    """How a file is read; what is left open is found out of it, and said where it is unusual."""

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
