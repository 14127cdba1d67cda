"""Labelled rows on the disk: their fields are Arrow arrays that are read where they lie; in memory is what is small.

So memory hardly grows with the rows, and they are split without their texts.
"""

from __future__ import annotations

import json
import mmap
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any, final

import numpy as np

from ulmfit_style.data import splits
from ulmfit_style.data.splits import Numbers
from ulmfit_style.tasks.base import Row, Several, Task

if TYPE_CHECKING:
    import pyarrow

AT_ONCE = 10_000
"""Rows that are read or written at once."""

MARK = "\0"
"""What begins a cell that is no text, and has its value in JSON after it."""

SMALL = np.dtype([("file", "i4"), ("number", "i8"), ("split", "i1"), ("key", "u8"), ("unit", "u8"), ("labels", "i4")])
"""What is in memory of a row: where it stands, hashes of what makes it equal to others and of what it stays with, and
the numbers of its split and of its labels."""

UNWANTED = -1
"""The number of the labels of rows that do not belong to the task."""


@dataclass(frozen=True, eq=False)
class Rows(Sequence[Row]):
    """Some of the rows that were read, in any order; each is read again when it is asked for."""

    fields: Mapping[str, pyarrow.LargeStringArray]
    """The values of each field, as texts on the disk, of all rows that were read."""
    small: np.ndarray[Any, Any]
    """A `SMALL` of each of them."""
    files: Sequence[str]
    kinds: Sequence[Sequence[str]]
    """Each list of labels that there is."""
    places: Numbers
    """Which of all rows these are."""

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: Any) -> Any:  # a number gives a row, and several or a slice give rows
        if isinstance(index, int):
            return next(self._read(self.places[[index]]))
        return replace(self, places=self.places[index])

    def __iter__(self) -> Iterator[Row]:
        for start in range(0, len(self), AT_ONCE):
            yield from self._read(self.places[start : start + AT_ONCE])

    def __add__(self, others: Rows) -> Rows:
        return replace(self, places=np.concatenate([self.places, others.places]))

    def column(self, name: str) -> Numbers:
        """Return what `SMALL` has by a name of each row."""
        values: Numbers = self.small[name][self.places]
        return values

    @property
    def labels(self) -> list[Sequence[str]]:
        """The labels of each row."""
        return [self.kinds[number] for number in self.column("labels")]

    @property
    def one_of_each(self) -> Rows:
        """The first of the rows with the same labels, of each kind."""
        return self[np.sort(np.unique(self.column("labels"), return_index=True)[1])]

    def _read(self, places: Numbers) -> Iterator[Row]:
        files, numbers = (self.small[name][places].tolist() for name in ("file", "number"))
        columns = [map(_value, _taken(column, places).to_pylist()) for column in self.fields.values()]
        for file, number, *values in zip(files, numbers, *columns, strict=True):
            yield Row(self.files[file], number, dict(zip(self.fields, values, strict=True)))


def _taken(column: pyarrow.LargeStringArray, places: Numbers) -> pyarrow.LargeStringArray:
    import pyarrow

    # By its memory: to take an array of numpy's, pyarrow loads pandas.
    buffer = pyarrow.py_buffer(np.ascontiguousarray(places, np.int64))
    return column.take(pyarrow.Array.from_buffers(pyarrow.int64(), len(places), [None, buffer]))


def stored(task: Task, names: Sequence[str], rows: Iterable[tuple[Row, int, bool]]) -> Rows:
    """Keep rows on the disk.

    Args:
        names: The fields of a row; those that it lacks are None.
        rows: Each row with the number of its split, and whether it belongs to the task.
    """
    columns, files, kinds = {name: TextColumn() for name in names}, dict[str, int](), dict[tuple[str, ...], int]()

    def described() -> Iterator[tuple[Any, ...]]:
        for row, split, is_wanted in rows:
            for name, column in columns.items():
                column.add(_cell(row.fields.get(name)))
            group, unit = row.fields.get("group"), splits.position(task.split_seed, splits.key(task, row))
            together = unit if group in (None, "") else splits.position(task.split_seed, str(group))
            kind = kinds.setdefault(tuple(task.labels_of(row)), len(kinds)) if is_wanted else UNWANTED
            yield files.setdefault(row.file, len(files)), row.number, split, unit, together, kind

    small = np.fromiter(described(), SMALL)
    fields = {name: column.array() for name, column in columns.items()}
    return Rows(fields, small, list(files), list(kinds), np.arange(len(small)))


@final
class TextColumn:
    """Texts that are written to a file without a name, which is gone when nothing needs them any more."""

    def __init__(self) -> None:
        self._file = TemporaryFile()  # noqa: SIM115  # `__del__` closes it, even where a row is wrong
        self._ends = array("q", [0])

    def __del__(self) -> None:
        self._file.close()

    def add(self, text: str) -> None:
        """Write a text."""
        self._ends.append(self._ends[-1] + self._file.write(text.encode()))

    def array(self) -> pyarrow.LargeStringArray:
        """Return all texts as one array that lies in the file: to take some of several would copy all."""
        import pyarrow

        self._file.flush()
        data = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ) if self._ends[-1] else b""
        buffers = [None, pyarrow.py_buffer(self._ends), pyarrow.py_buffer(data)]
        return pyarrow.Array.from_buffers(pyarrow.large_string(), len(self._ends) - 1, buffers)


def _cell(value: Any) -> str:
    value = str(value) if isinstance(value, Several) else value
    is_plain = isinstance(value, str) and not value.startswith(MARK)
    return value if is_plain else MARK + json.dumps(value, default=str)  # dates and the like are read as text anyway


def _value(cell: str) -> Any:
    return json.loads(cell[1:]) if cell.startswith(MARK) else cell
