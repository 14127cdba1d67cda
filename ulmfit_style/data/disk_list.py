"""A list that lies on the disk: in memory is only where each of its items begins."""

import os
import pickle
import sys
from array import array
from collections.abc import Iterable, Sequence
from itertools import accumulate
from tempfile import TemporaryFile
from typing import Any
from weakref import finalize


class DiskList(Sequence[Any]):
    """Items that are pickled one by one into a file without a name, and read from it whenever they are asked for."""

    def __init__(self, items: Iterable[Any]) -> None:
        self._file = TemporaryFile()  # noqa: SIM115, closed with the list
        finalize(self, self._file.close)
        self._starts = array("q", accumulate(map(self._file.write, map(pickle.dumps, items)), initial=0))
        self._file.flush()

    def __len__(self) -> int:
        return len(self._starts) - 1

    def __getitem__(self, index: Any) -> Any:  # a number gives an item; slices are not asked for
        number = range(len(self))[index]
        start, end = self._starts[number : number + 2]
        if sys.platform == "win32":  # which cannot read at a place that processes do not share
            self._file.seek(start)
            return pickle.load(self._file)
        # Only this process can have written there. It is not mapped into memory, which would grow after all.
        return pickle.loads(os.pread(self._file.fileno(), end - start, start))
