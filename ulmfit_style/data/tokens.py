"""Documents as token ids, on disk: made once of a text and a tokenizer, then read where they lie."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import numpy as np

from ulmfit_style import processes
from ulmfit_style.artefacts.directory import Artefact
from ulmfit_style.console import progress
from ulmfit_style.data.corpus import Documents, Texts
from ulmfit_style.errors import UserError

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer
    from transformers import PreTrainedTokenizerBase

TOKENS_VERSION = 1
"""Raised whenever other tokens would be made of the same text."""

COLUMNS = ("input_ids", "words", "bytes")

Integers = np.ndarray[Any, np.dtype[np.int32]]


@final
class Chunks:
    """Documents as rows of tokens: one row a document, or several where it is longer than `max_length`.

    Nothing is dropped. A row is a mapping of `input_ids`; `words`, the number of each token's word as the tokenizer
    sees words, -1 for a special token; and `bytes`, how long each token is in UTF-8. Each is (length,).
    """

    def __init__(self, path: Path) -> None:
        import pyarrow

        self._path = path
        reader = pyarrow.ipc.open_file(pyarrow.memory_map(str(path)))
        batches = [reader.get_batch(number) for number in range(reader.num_record_batches)]
        self._ends = np.cumsum([batch.num_rows for batch in batches])
        self._offsets = [batch["input_ids"].offsets.to_numpy() for batch in batches]
        self._values = [{name: batch[name].values.to_numpy() for name in COLUMNS} for batch in batches]
        self.lengths: Integers = np.concatenate([np.diff(offsets) for offsets in self._offsets])
        """The tokens of each row, special tokens included."""

    def __reduce__(self) -> tuple[type[Chunks], tuple[Path]]:
        return Chunks, (self._path,)

    @property
    def tokens(self) -> int:
        """The number of tokens of all rows, special tokens included."""
        return int(self.lengths.sum())

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        number = int(np.searchsorted(self._ends, index, side="right"))
        place = index - (int(self._ends[number - 1]) if number else 0)
        start, end = self._offsets[number][place : place + 2]
        return {"index": index, **{name: values[start:end] for name, values in self._values[number].items()}}


def load(
    documents: Documents, tokenizer: PreTrainedTokenizerBase, max_length: int, runs: Path
) -> tuple[Chunks, Chunks]:
    """Return the tokens of the documents that are trained on, and of those held out.

    They are made once for the content of a text and of a tokenizer.

    Args:
        max_length: Tokens a row, special tokens included.
        runs: The folder of artefacts, where they are kept.

    Raises:
        UserError: if the tokenizer cannot tell words.
    """
    from tokenizers import Tokenizer

    if not tokenizer.is_fast:
        raise UserError(f"the tokenizer {type(tokenizer).__name__} has no tokenizer.json, and cannot tell words")
    content = tokenizer.backend_tokenizer.to_str()
    backend = Tokenizer.from_str(content)
    backend.no_truncation()
    backend.no_padding()
    determinants = {
        "version": TOKENS_VERSION,
        "documents": documents.identity,
        "tokenizer": hashlib.sha256(backend.to_str().encode()).hexdigest(),
        "max_length": max_length,
    }
    artefact = Artefact("tokens", determinants, runs)
    directory = artefact.make(partial(_tokenise, documents, backend, max_length), {"tokens": determinants})
    return Chunks(directory / "train.arrow"), Chunks(directory / "heldout.arrow")


def _tokenise(documents: Documents, backend: Tokenizer, max_length: int, directory: Path) -> None:
    if not processes.is_main():
        return
    with progress("tokenising documents", None) as steps:  # which may be lines or books
        for name, texts in (("train", documents.train), ("heldout", documents.heldout)):
            _write(directory / f"{name}.arrow", texts, backend, max_length, steps.advance)


def _write(path: Path, texts: Texts, backend: Tokenizer, max_length: int, advance: Any) -> None:
    import pyarrow

    schema = pyarrow.schema([(name, pyarrow.list_(pyarrow.int32())) for name in COLUMNS])
    before, after = _special(backend)
    size = max_length - len(before) - len(after)
    with pyarrow.OSFile(str(path), "wb") as sink, pyarrow.ipc.new_file(sink, schema) as writer:
        for batch in texts.batches():
            rows = [
                (
                    np.concatenate([before, ids[start : start + size], after]),
                    np.pad(words[start : start + size], (len(before), len(after)), constant_values=-1),
                    np.pad(lengths[start : start + size], (len(before), len(after))),
                )
                for text, encoding in zip(batch, backend.encode_batch(batch, add_special_tokens=False), strict=True)
                for ids, words, lengths in [_arrays(text, encoding)]
                for start in range(0, len(ids), size)
            ]
            if rows:
                offsets = pyarrow.array(np.cumsum([0, *(len(row[0]) for row in rows)]), pyarrow.int32())
                columns = [
                    pyarrow.ListArray.from_arrays(offsets, np.concatenate(values).astype(np.int32))
                    for values in zip(*rows, strict=True)
                ]
                writer.write_batch(pyarrow.record_batch(columns, schema=schema))
            advance(len(batch))


def _special(backend: Tokenizer) -> tuple[list[int], list[int]]:
    """Return the special tokens that the tokenizer puts before and after a text."""
    encoding = backend.encode("a")
    inner = [place for place, special in enumerate(encoding.special_tokens_mask) if not special]
    return encoding.ids[: inner[0]], encoding.ids[inner[-1] + 1 :]


def _arrays(text: str, encoding: Encoding) -> tuple[Integers, Integers, Integers]:
    """Return the ids, the numbers of the words and the lengths in bytes of a text's tokens."""
    words = [-1 if word is None else word for word in encoding.word_ids]
    # How many bytes of UTF-8 stand before each character.
    code = np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)
    bytes_before = np.concatenate([[0], np.cumsum(1 + (code > 0x7F) + (code > 0x7FF) + (code > 0xFFFF))])
    offsets = np.array(encoding.offsets, dtype=np.int64).reshape(-1, 2)
    lengths = bytes_before[offsets[:, 1]] - bytes_before[offsets[:, 0]]
    return np.array(encoding.ids, dtype=np.int32), np.array(words, dtype=np.int32), lengths
