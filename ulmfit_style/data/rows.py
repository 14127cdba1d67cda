"""Labelled rows on the disk: each is read when it is needed; in memory is what they are divided by.

So memory hardly grows with the rows, and they are split without their texts.
"""

import hashlib
import struct
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

from ulmfit_style.data.disk_list import DiskList
from ulmfit_style.tasks.base import Row, Task

Numbers = np.ndarray[Any, np.dtype[Any]]

TRAITS = np.dtype([("split", "i1"), ("wanted", "?"), ("key", "u8"), ("unit", "u8"), ("kind", "i4")])
"""What is in memory of a row: the number of its split, whether it belongs to the task, hashes of what makes it equal to
others and of what it stays together with, and the number of its kind."""

Kind = tuple[Sequence[str], str | None]
"""The labels of a row, and its `Task.stratum`."""


@dataclass(frozen=True, eq=False)
class Rows(Sequence[Row]):
    """Some of the rows that were read, in any order."""

    every: DiskList
    """What makes each row that was read: a plain tuple is unpickled in half the time of a `Row`."""
    traits: np.ndarray[Any, Any]
    """The `TRAITS` of each of them."""
    kinds: Sequence[Kind]
    places: Numbers
    """Which of all rows these are."""

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: Any) -> Any:  # a number gives a row, and several or a slice give rows
        if isinstance(index, int):
            return Row(*self.every[self.places[index]])
        return replace(self, places=self.places[index])

    def __add__(self, others: Self) -> Self:
        return replace(self, places=np.concatenate([self.places, others.places]))

    def column(self, name: str) -> Any:
        """Return one of the `TRAITS` of each row."""
        return self.traits[name][self.places]

    @property
    def labels(self) -> Iterator[Sequence[str]]:
        """The labels of each row."""
        return (self.kinds[kind][0] for kind in self.column("kind"))

    @property
    def one_of_each(self) -> Self:
        """The first row of each kind."""
        return self[np.sort(np.unique(self.column("kind"), return_index=True)[1])]


def normalised(text: str) -> str:
    """Return the text by which two documents count as equal: NFKC, blanks collapsed."""
    return " ".join(unicodedata.normalize("NFKC", text).split())


def position(seed: int, text: str) -> int:
    """Return a text's place in the random order of `seed`: it depends on no other text."""
    return int.from_bytes(hashlib.blake2b(f"{seed}\0{text}".encode(), digest_size=8).digest(), "big")


def stored(task: Task, rows: Iterable[tuple[Row, int, bool]]) -> Rows:
    """Keep rows on the disk.

    Args:
        rows: Each row with the number of its split, and whether it belongs to the task.
    """
    traits, kinds = bytearray(), dict[Kind, int]()

    def described() -> Iterator[tuple[Any, ...]]:
        for row, split, is_wanted in rows:
            group, text = row.fields.get("group"), "\n".join(map(normalised, task.documents([row])))
            key = position(task.split_seed, text)
            unit = key if group in (None, "") else position(task.split_seed, str(group))
            kind = tuple(task.labels_of(row)), task.stratum(row)
            traits.extend(struct.pack("=b?QQi", split, is_wanted, key, unit, kinds.setdefault(kind, len(kinds))))
            yield row.file, row.number, row.fields

    every = DiskList(described())
    return Rows(every, np.frombuffer(traits, TRAITS), list(kinds), np.arange(len(every), dtype=np.int32))
