"""Tables in parts: each is an artefact, or made anew whenever it is opened; the columns of numbers are always at hand.

So a new file costs its own time alone, and processes share the work.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, final

import numpy as np
import pyarrow

from ulmfit_style.artefacts.directory import Artefact, fresh
from ulmfit_style.compute import processes
from ulmfit_style.console import progress

TABLE = "table.arrow"

OPEN = 2
"""Shards that are on the disk at a time where they are streamed: a batch may have rows of one and of the next."""


@final
@dataclass(frozen=True, eq=False)
class Shard:
    """Some rows of a table."""

    artefact: Artefact
    schema: pyarrow.Schema
    rows: Callable[[], Iterator[pyarrow.RecordBatch]]
    """Makes them."""
    is_streamed: bool
    """Whether the columns of numbers alone are kept, and the others are made whenever they are opened."""

    @cached_property
    def index(self) -> pyarrow.Table:
        """What is kept: the columns of numbers at least."""
        return _mapped(self.artefact.directory / TABLE)

    def table(self) -> pyarrow.Table:
        """Open all columns."""
        if not self.is_streamed:
            return self.index
        path = fresh(self.artefact.directory.with_suffix(".arrow"))
        try:
            self._write(self.schema, bool, path)
            return _mapped(path)
        finally:
            with suppress(OSError):  # what is mapped outlives its file, but on Windows
                path.unlink()

    def make(self, recipe: Mapping[str, Any], count: Callable[[int], object]) -> None:
        """Make what is kept, if it is missing, and count the rows."""
        numbers = pyarrow.schema(field for field in self.schema if pyarrow.types.is_integer(field.type))
        kept = numbers if self.is_streamed else self.schema
        self.artefact.make(lambda directory: self._write(kept, count, directory / TABLE), recipe, alone=True)

    def _write(self, schema: pyarrow.Schema, count: Callable[[int], object], path: Path) -> None:
        with pyarrow.ipc.new_file(str(path), schema) as writer:
            for batch in self.rows():
                writer.write_batch(batch.select(schema.names))
                count(len(batch))


@final
class Sharded:
    """The rows of shards, one after another."""

    def __init__(self, shards: Sequence[Shard]) -> None:
        self._shards = shards
        self.is_streamed = any(shard.is_streamed for shard in shards)
        self.index = pyarrow.concat_tables([shard.index for shard in shards])
        """The columns of numbers at least."""
        self.starts = np.cumsum([0, *(len(shard.index) for shard in shards)])
        """The number of the first row of each shard, and of all rows."""
        self._table = lru_cache(OPEN if self.is_streamed else None)(lambda number: shards[number].table())

    def __reduce__(self) -> tuple[Any, tuple[Sequence[Shard]]]:
        return Sharded, (self._shards,)  # a table that is mapped would be copied

    def value(self, column: str, row: int) -> Any:
        """Return what a row has in a column, as pyarrow gives it."""
        number = int(np.searchsorted(self.starts, row, side="right")) - 1
        return self._table(number)[column][row - int(self.starts[number])]


def make(shards: Sequence[Shard], title: str, recipe: Mapping[str, Any]) -> Sharded:
    """Return shards as one table, and make those that are missing.

    Several processes share the work: each begins with its part of it, and waits for what others make.
    """
    with progress(title, None) as steps:
        for shard in dict.fromkeys([*processes.share(shards), *shards]):
            shard.make(recipe, steps.advance)
    return Sharded(shards)


def _mapped(path: Path) -> pyarrow.Table:
    return pyarrow.ipc.open_file(pyarrow.memory_map(str(path))).read_all()
