"""Documents as token ids, on disk: made once of a text and a tokenizer, then read where they lie."""

import hashlib
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import accumulate, chain, pairwise
from pathlib import Path
from typing import Any, final

import numpy as np
import pyarrow.compute
import tokenizers
from tokenizers import Encoding

from ulmfit_style.artefacts.directory import Artefact
from ulmfit_style.compute import processes
from ulmfit_style.console import progress
from ulmfit_style.data.corpus import Documents, batched
from ulmfit_style.errors import UserError
from ulmfit_style.tasks.types import Tokenizer
from ulmfit_style.words import UNSPACED

TOKENS_VERSION = 3
"""Raised whenever other tokens would be made of the same text."""

COLUMNS = ("input_ids", "words", "bytes")

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

    def __init__(self, path: Path) -> None:
        self._path = path
        self._table = pyarrow.ipc.open_file(pyarrow.memory_map(str(path))).read_all()
        self.lengths: Integers = pyarrow.compute.list_value_length(self._table["input_ids"]).to_numpy()
        """The tokens of each row, special tokens included."""

    def __reduce__(self) -> tuple[Any, tuple[Path]]:
        return Chunks, (self._path,)

    @property
    def tokens(self) -> int:
        """The number of tokens of all rows, special tokens included."""
        return int(self.lengths.sum())

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        return {"index": index, **{name: self._table[name][index].values.to_numpy() for name in COLUMNS}}


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
    determinants = {"version": TOKENS_VERSION, "documents": documents.identity, "tokenizer": sha256}
    artefact = Artefact("tokens", determinants, runs)
    directory = artefact.make(partial(_tokenise, documents, backend), {"tokens": determinants})
    return Chunks(directory / "train.arrow"), Chunks(directory / "heldout.arrow")


def _tokenise(documents: Documents, backend: tokenizers.Tokenizer, directory: Path) -> None:
    if not processes.is_main():
        return
    schema = pyarrow.schema([(name, pyarrow.list_(pyarrow.int32())) for name in COLUMNS])
    with progress("tokenising documents", None) as steps:  # which may be lines or books
        for name, texts in (("train", documents.train), ("heldout", documents.heldout)):
            path = str(directory / f"{name}.arrow")
            with pyarrow.OSFile(path, "wb") as sink, pyarrow.ipc.new_file(sink, schema) as writer:
                for batch in batched(texts):
                    writer.write_batch(_rows(batch, backend.encode_batch(batch), schema))
                    steps.advance(len(batch))


def _rows(texts: Sequence[str], encodings: Sequence[Encoding], schema: pyarrow.Schema) -> pyarrow.RecordBatch:
    """Return the ids, the numbers of the words and the lengths in bytes of the tokens of texts, in their parts."""
    parts = [
        (text, part)
        for text, encoding in zip(texts, encodings, strict=True)
        for part in [encoding, *encoding.overflowing]
        if 0 in part.special_tokens_mask  # a control character alone gives no token
    ]
    starts = np.cumsum([0, *(len(part) for _, part in parts)], dtype=np.int32)
    columns = (
        (part.ids for _, part in parts),
        (_words(text, part) for text, part in parts),
        ([len(text[start:end].encode()) for start, end in part.offsets] for text, part in parts),
    )
    flat = (np.fromiter(chain.from_iterable(column), np.int32) for column in columns)
    return pyarrow.record_batch([pyarrow.ListArray.from_arrays(starts, values) for values in flat], schema=schema)


def _words(text: str, part: Encoding) -> list[int]:
    """Return the number of each token's word, -1 for none.

    To a tokenizer, Chinese or Thai between two signs is often one word: it would be masked as a whole.
    """
    words = [-1 if word is None else word for word in part.word_ids]
    if text.isascii() or not UNSPACED.search(text):
        return words
    places = [start if UNSPACED.search(text, start, end) else -1 for start, end in part.offsets]
    differ = (before != own for before, own in pairwise([None, *zip(words, places, strict=True)]))
    return [number if word >= 0 else -1 for word, number in zip(words, accumulate(differ), strict=True)]
