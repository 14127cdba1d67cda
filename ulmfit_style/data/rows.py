"""Labelled rows on the disk: their fields lie in a file and are read when they are needed; in memory is what is small.

So memory hardly grows with the rows, and they are split without their texts.
"""

from __future__ import annotations

import mmap
import pickle
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from tempfile import TemporaryFile
from typing import Any

import numpy as np

from ulmfit_style.data import splits
from ulmfit_style.data.splits import Numbers
from ulmfit_style.tasks.base import Row, Task

AT_ONCE = 10_000
"""Rows that are looked up at once."""

SMALL = np.dtype("i4,i8,i8,i8,i1,u8,u8,i4")
SMALL.names = ("file", "number", "start", "end", "split", "key", "unit", "labels")
"""What is in memory of a row: where it stands in its file, and where in ours; the number of its split, hashes of what
makes it equal to others and of what it stays with, and the number of its labels."""

UNWANTED = -1
"""The number of the labels of rows that do not belong to the task."""


@dataclass(frozen=True, eq=False)
class Rows(Sequence[Row]):
    """Some of the rows that were read, in any order; each is read again when it is asked for."""

    fields: mmap.mmap | bytes
    """The pickled fields of all rows that were read."""
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
            return next(iter(self[[index]]))
        return replace(self, places=self.places[index])

    def __iter__(self) -> Iterator[Row]:
        for first in range(0, len(self), AT_ONCE):
            small = self.small[["file", "number", "start", "end"]][self.places[first : first + AT_ONCE]]
            for file, number, start, end in small.tolist():
                # Only this process has written there, and the file has no name.
                yield Row(self.files[file], number, pickle.loads(self.fields[start:end]))

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


def stored(task: Task, rows: Iterable[tuple[Row, int, bool]]) -> Rows:
    """Keep rows on the disk.

    Args:
        rows: Each row with the number of its split, and whether it belongs to the task.
    """
    files, kinds = dict[str, int](), dict[tuple[str, ...], int]()
    with TemporaryFile() as file:

        def described() -> Iterator[tuple[Any, ...]]:
            end = 0
            for row, split, is_wanted in rows:
                start, end = end, end + file.write(pickle.dumps(row.fields))
                group, key = row.fields.get("group"), splits.position(task.split_seed, splits.key(task, row))
                unit = key if group in (None, "") else splits.position(task.split_seed, str(group))
                kind = kinds.setdefault(tuple(task.labels_of(row)), len(kinds)) if is_wanted else UNWANTED
                yield files.setdefault(row.file, len(files)), row.number, start, end, split, key, unit, kind

        small = np.fromiter(described(), SMALL)
        file.flush()
        fields = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if len(small) else b""
    return Rows(fields, small, list(files), list(kinds), np.arange(len(small)))
