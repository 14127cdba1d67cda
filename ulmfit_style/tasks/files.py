"""The files of a task's labelled rows."""

from typing import Any

from pydantic import model_serializer, model_validator

from ulmfit_style.config.section import Section, spelled


class Splits(Section):
    """The file of each split that has one."""

    train: str | None
    """The training rows. Splits without a file of their own are made from them. None: there are no labelled rows."""
    validation: str | None = None
    """The rows that sweeps choose by."""
    test: str | None = None
    """The rows that are only scored. They never move."""

    @model_validator(mode="before")
    @classmethod
    def _one_file(cls, value: Any) -> Any:
        if value is None or isinstance(value, str):
            return {"train": value}
        if isinstance(value, dict):  # where another split has a file, train needs one
            return {split: path for split, path in value.items() if path is not None}
        raise ValueError("should be a file, or files by their splits: {train: a.csv, test: b.csv}")

    @model_serializer
    def _as_given(self) -> str | dict[str, str] | None:
        files = self.files()
        return files if len(files) > 1 else self.train

    def files(self) -> dict[str, str]:
        """Return the file of each split that has one."""
        return {split: path for split, path in self if path is not None}

    def option(self, split: str) -> str:
        """Return the option that names the file of a split."""
        return "task.path" if list(self.files()) == ["train"] else f"task.path.{split}"

    def __str__(self) -> str:
        files = [f"{split}: {path}" for split, path in self.files().items()]
        return f"{{{', '.join(files)}}}" if len(files) > 1 else spelled(self.train)
