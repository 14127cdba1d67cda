"""The files of a task's labelled rows."""

import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, model_serializer, model_validator

from ulmfit_style.config.section import Section, spelled

Files = str | Annotated[tuple[str, ...], Field(min_length=1)]
"""A file, or several whose rows belong together."""

OTHER_NAMES = {"dev": "validation", "val": "validation", "valid": "validation"}
"""What people call a split."""


class Splits(Section):
    """The file of each split that has one."""

    train: Files | None
    """The training rows. Splits without a file of their own are made from them. None: there are no labelled rows."""
    validation: Files | None = None
    """The rows that sweeps choose by."""
    test: Files | None = None
    """The rows that are only scored. They never move."""
    chosen: Files | None = None
    """Rows that are only trained on, for they were chosen, by `select`, and stand for no others. Those without a label
    are left out. Where there are no other rows, they are split as any."""

    @model_validator(mode="before")
    @classmethod
    def _one_file(cls, value: Any) -> Any:
        if isinstance(value, str):
            return _in_folder(value) or {"train": value}
        if value is None or isinstance(value, (list, tuple)):
            return {"train": value}
        if isinstance(value, dict):  # where another split has a file, train needs one
            named = {OTHER_NAMES.get(split, split): path for split, path in value.items() if path is not None}
            return {"train": None, **named} if "chosen" in named else named
        raise ValueError("should be a file, or files by their splits: {train: a.csv, test: b.csv}")

    @model_serializer
    def _as_given(self) -> Any:
        files = self.files()
        return files if files.keys() - {"train"} else self.train

    def files(self) -> dict[str, str | tuple[str, ...]]:
        """Return the file, or the files, of each split that has one."""
        return {split: path for split, path in self if path is not None}

    def all_files(self) -> list[str]:
        """Return all files of all splits."""
        return [file for path in self.files().values() for file in ([path] if isinstance(path, str) else path)]

    def option(self, split: str) -> str:
        """Return the option that names the file of a split."""
        return "task.path" if list(self.files()) == ["train"] else f"task.path.{split}"

    def __str__(self) -> str:
        files = [f"{split}: {named(path)}" for split, path in self.files().items()]
        return f"{{{', '.join(files)}}}" if self.files().keys() - {"train"} else named(self.train)


def named(files: str | Sequence[str] | None) -> str:
    """Return a file or several as they are typed."""
    return spelled(files) if files is None or isinstance(files, str) else f"[{', '.join(files)}]"


def _in_folder(path: str) -> dict[str, str | list[str]] | None:
    """Return the files or folders of the splits in a folder, if it has any of train."""
    found: dict[str, list[str]] = defaultdict(list)
    for member in sorted(Path(path).expanduser().glob("*")):
        if split := re.search("(?<![a-z])(train|dev|valid|val|validation|test)(?![a-z])", member.name.lower()):
            found[OTHER_NAMES.get(split[1], split[1])].append(str(member))
    splits = {name: files[0] if len(files) == 1 else files for name, files in found.items()}
    return splits if "train" in splits else None
