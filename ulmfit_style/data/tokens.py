"""Documents as token ids, on disk: made once of a text and a tokenizer, then read where they lie."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, final

import numpy as np
import pyarrow
import tokenizers

from ulmfit_style.artefacts.directory import Artefact
from ulmfit_style.data import pieces, shards
from ulmfit_style.data.corpus import Documents, Places, Texts, batched
from ulmfit_style.data.shards import Shard, Sharded
from ulmfit_style.errors import UserError
from ulmfit_style.tasks.types import Tokenizer

TOKENS_VERSION = 4
"""Raised whenever other tokens would be made of the same text."""

COLUMNS = ("input_ids", "words", "bytes")

SCHEMA = pyarrow.schema(
    [(name, pyarrow.int32()) for name in ("document", "length")]
    + [(name, pyarrow.list_(pyarrow.int32())) for name in COLUMNS]
)
"""What is kept of rows: `document` is the number of the one that a row is of, in its shard, and `length` its tokens."""

WHOLE = 2**31 - 1
"""Tokens of a row that holds a document of any length."""

Integers = np.ndarray[Any, np.dtype[np.int32]]


@final
class Chunks:
    """Documents as rows of tokens: one row a document, or several where it is longer than `max_length`.

    Nothing is dropped. A row is a mapping of `input_ids`; `words`, the number of each token's word as the tokenizer
    sees words, or where a script has no blanks of the token itself, -1 for a special token; and `bytes`, how long each
    token is in UTF-8. Each is (length,).
    """

    def __init__(self, rows: Sharded, numbers: Places) -> None:
        self._rows, self._numbers = rows, numbers
        self.lengths: Integers = rows.index["length"].to_numpy()[numbers]
        """The tokens of each row, special tokens included."""
        self.ends = np.searchsorted(numbers, rows.starts[1:] if rows.is_streamed else rows.starts[-1:])
        """Where parts of the rows end, each of which is read before the next; all are one part unless streamed."""

    @property
    def tokens(self) -> int:
        """The number of tokens of all rows, special tokens included."""
        return int(self.lengths.sum())

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        row = int(self._numbers[index])
        return {"index": index, **{name: self._rows.value(name, row).values.to_numpy() for name in COLUMNS}}


def load(documents: Documents, tokenizer: Tokenizer, max_length: int, runs: Path) -> tuple[Chunks, Chunks]:
    """Return the tokens of the documents that are trained on, and of those held out.

    They are made once for the content of a text and of a tokenizer.

    Args:
        max_length: Tokens a row, special tokens included.
        runs: The folder of artefacts, where they are kept.

    Raises:
        UserError: if the tokenizer cannot tell words.
    """
    if not tokenizer.is_fast:
        raise UserError(f"the tokenizer {type(tokenizer).__name__} has no tokenizer.json, and cannot tell words")
    backend = tokenizers.Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    backend.no_padding()
    backend.enable_truncation(max_length)
    sha256 = hashlib.sha256(backend.to_str().encode()).hexdigest()
    backend.no_truncation()  # which is done here

    def tokenised(parts: Sequence[tuple[Any, Texts]], *, is_streamed: bool) -> tuple[Sharded, Places]:
        """Return the tokens of texts, and the place of the document of each row."""
        found = []
        for identity, texts in parts:
            determinants = {"version": TOKENS_VERSION, "documents": identity, "tokenizer": sha256}
            rows = partial(_tokenised, texts, backend, max_length)
            found.append(Shard(Artefact("tokens", determinants, runs), SCHEMA, rows, is_streamed))
        table = shards.make(found, "tokenising documents", {"tokenizer": sha256})
        numbers = [shard.index["document"].to_numpy() for shard in found]
        return table, np.concatenate([texts.places[own] for (_, texts), own in zip(parts, numbers, strict=True)])

    is_streamed = documents.train.table.is_streamed
    rows, places = tokenised(documents.parts, is_streamed=is_streamed)
    train = Chunks(rows, np.flatnonzero(np.isin(places, documents.train.places)))
    if is_streamed:  # those that measure are read again and again
        rows, places = tokenised([(documents.identity, documents.heldout)], is_streamed=False)
    return train, Chunks(rows, np.flatnonzero(np.isin(places, documents.heldout.places)))


def _tokenised(texts: Texts, backend: tokenizers.Tokenizer, max_length: int) -> Iterator[pyarrow.RecordBatch]:
    first, begin, around = 0, pieces.beginnings(backend), pieces.around(backend)
    for batch in batched(texts):  # which may be lines or books
        yield _rows(pieces.read(batch, backend, begin), *around, first, max_length)
        first += len(batch)


def _rows(
    texts: pyarrow.LargeListArray, before: Sequence[int], after: Sequence[int], first: int, max_length: int
) -> pyarrow.RecordBatch:
    """Return the tokens of texts, of which the first has a number, in parts with special tokens around each."""
    bounds, (ids, begins, sizes) = texts.offsets.to_numpy(), texts.values.flatten()
    places = np.arange(len(ids)) - np.repeat(bounds[:-1], np.diff(bounds))
    starts = np.flatnonzero(places % (max_length - len(before) - len(after)) == 0)
    ends = np.append(starts, len(ids))[1:]
    words = np.cumsum(begins.to_numpy(zero_copy_only=False))
    words -= np.repeat(words[starts], ends - starts)
    at = np.repeat(np.stack([starts, ends], axis=1), [len(before), len(after)], axis=1).ravel()
    special = np.tile([*before, *after], len(starts))
    columns = np.insert(ids, at, special), np.insert(words, at, -1), np.insert(sizes, at, 0)
    lengths = ends - starts + len(before) + len(after)
    offsets = np.cumsum(np.append(0, lengths))
    lists = [pyarrow.ListArray.from_arrays(offsets, pyarrow.array(values, pyarrow.int32())) for values in columns]
    numbers = first + np.searchsorted(bounds, starts, side="right") - 1  # a control character alone has no token
    return pyarrow.record_batch([numbers, lengths, *lists], schema=SCHEMA)
