"""Unlabelled documents for adapt: read, freed of the task's test texts, and divided into trained and held out.

They lie in Arrow files and are read where they lie, so that memory does not grow with the corpus; of each document
only a hash, its size and its place are held.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache, partial
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple, final

import numpy as np
import pyarrow.compute

from ulmfit_style.artefacts.directory import Artefact
from ulmfit_style.artefacts.fingerprint import digest, file_digest
from ulmfit_style.config.section import FileFormat
from ulmfit_style.config.training import Corpus
from ulmfit_style.console import say_once
from ulmfit_style.data import labelled, reading, remote, shards
from ulmfit_style.data.formats import RUNNING_TEXT, nfc
from ulmfit_style.data.rows import normalised, position
from ulmfit_style.data.shards import Shard, Sharded
from ulmfit_style.errors import UserError
from ulmfit_style.tasks.base import Row, Several, Task

MOST_HELDOUT = 1000
"""Documents that are enough to measure a language model."""

FEWEST = 20
"""Documents below which there is nothing to adapt to, and nothing to measure it by."""

READING_VERSION = 3
"""Raised whenever other documents would be read from the same files."""

Places = np.ndarray[Any, np.dtype[np.int64]]

SHARD = 2**24
"""Bytes from which on a file is a shard by itself; smaller ones share one of about so many, or a few times that."""

SCHEMA = pyarrow.schema([("text", pyarrow.large_string()), ("key", pyarrow.uint64()), ("bytes", pyarrow.int64())])
"""What is kept of documents: `key` is the hash of what makes one equal to others, `bytes` its size in UTF-8."""

AT_ONCE = 2**20
"""Characters of text that are in memory at once, but for a longer document."""


@final
class Texts(Sequence[str]):
    """Some documents of a table, in its order."""

    def __init__(self, table: Sharded, places: Places) -> None:
        self.table, self.places = table, places

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: Any) -> Any:  # an int gives a text; slices are not asked for
        return self.table.value("text", int(self.places[index])).as_py()

    @property
    def bytes(self) -> int:
        """The bytes of the texts in UTF-8."""
        return pyarrow.compute.sum(self.table.index["bytes"].take(self.places)).as_py()


@dataclass(frozen=True)
class Documents:
    """The documents that a language model is trained on, and those that it is measured on."""

    train: Texts
    heldout: Texts
    parts: Sequence[tuple[Any, Texts]]
    """The documents of each shard, those that are left out among them, and what stands for them in a fingerprint."""
    identity: Any
    """What stands for them in a fingerprint, as JSON: what was read, what was taken out, and how the rest is divided.

    It is the same for all tasks whose test texts the corpus does not hold.
    """
    removed: int = 0
    """Documents that were left out because they are validation or test texts."""


@cache
def load(corpus: Corpus, task: Task | None, runs: Path, option: str = "corpus.path") -> Documents:
    """Read a corpus, and take out what stands in the validation and test rows of the task.

    It is done once a process, whichever few of the task's rows are used.

    Args:
        task: Its training split is the corpus where that has no path.
        runs: The folder of artefacts, where what was read from files is kept.
        option: The config field that names the files, for messages.

    Raises:
        UserError: if the file cannot be read, or holds too few documents.
    """
    if task is not None and task != task.unsampled():
        return load(corpus, task.unsampled(), runs, option)
    if corpus.stream and corpus.path is None:
        raise UserError(f"corpus.stream=true: streams files; name them by {option}, or take corpus.stream=false")
    title = option.removesuffix(".path")
    rows = None if task is None else labelled.load(task)
    if corpus.path is not None:
        found, text_identity, source = _of_files(corpus, corpus.path, runs, option)
    elif rows is not None and rows.pool:
        texts = rows.task.documents(rows.pool)
        found, text_identity = [of_texts(texts, runs)], digest(texts)
        source = f"the training split of {rows.task.path}"
    else:
        raise UserError(f"{option}=null: there is no task with rows whose text could be read; give {option}=<file>")
    table = shards.make(found, "reading documents", {"corpus": corpus.model_dump(mode="json")})
    keys: np.ndarray[Any, np.dtype[np.uint64]] = table.index["key"].to_numpy()
    is_empty = keys == _key("")
    if is_empty.any():
        say_once(f"{title}: {is_empty.sum():,} empty documents are left out")
    held = [_key(text) for row in rows.scored for text in rows.task.texts(row)] if rows is not None else []
    is_held = np.isin(keys, np.array(held, dtype=np.uint64))
    if is_held.any():
        say_once(f"{title}: {is_held.sum():,} documents are left out because they are validation or test texts")
    kept = ~(is_empty | is_held)
    count, highest = int(kept.sum()), keys.max(initial=0)
    if corpus.max_documents is not None and corpus.max_documents < count:
        say_once(f"{title}: {corpus.max_documents:,} of {count:,} documents are used (corpus.max_documents)")
        highest = np.sort(keys[kept])[corpus.max_documents - 1]
        kept &= keys <= highest
        count = int(kept.sum())
    if count < FEWEST:
        cut = "; cut them smaller with corpus.document=paragraph" if corpus.document == "file" else ""
        raise UserError(f"{title}: {source} has {count} documents; adapt needs at least {FEWEST}{cut}")

    # By content, so that equal documents are on one side, and a document stays there when others come.
    distinct = np.unique(keys[kept])
    last_heldout = distinct[min(MOST_HELDOUT, max(1, round(corpus.heldout_ratio * len(distinct)))) - 1]
    train, heldout = (np.flatnonzero(kept & side) for side in (keys > last_heldout, keys <= last_heldout))
    say_once(f"{title}: {len(train):,} documents to train on and {len(heldout):,} held out, from {source}")
    options = {"max_documents": corpus.max_documents, "heldout_ratio": corpus.heldout_ratio}
    identity = {"text": text_identity, "removed": digest(np.unique(keys[is_held]).tolist()), **options}
    upto = {} if highest == keys.max() else {"highest_key": int(highest)}
    used = [first + np.flatnonzero(keys[first:end] <= highest) for first, end in pairwise(table.starts)]
    parts = [({"text": of.artefact.determinants, **upto}, Texts(table, at)) for of, at in zip(found, used, strict=True)]
    return Documents(Texts(table, train), Texts(table, heldout), parts, identity, int(is_held.sum()))


def of_texts(texts: Sequence[str], runs: Path) -> Shard:
    """Return texts as the documents of a corpus."""
    artefact = Artefact("corpus", {"version": READING_VERSION, "texts": digest(list(texts))}, runs)
    return Shard(artefact, SCHEMA, partial(map, _hashed, list(batched(texts))), is_streamed=False)


def _of_files(corpus: Corpus, references: Sequence[str], runs: Path, option: str) -> tuple[list[Shard], Any, str]:
    """Return the documents of files, folders and globs, what stands for them, and where they come from, in words."""
    files: dict[str, File] = {}  # in order, and each once, whichever reference names it
    for reference in references:
        files |= _files(corpus, reference, option)
    parts = []
    for names in _together(files):
        some = {name: files[name] for name in names}
        artefact = Artefact("corpus", {"columns": SCHEMA.names, **_determinants(corpus, some.values())}, runs)
        parts.append(Shard(artefact, SCHEMA, partial(_read, corpus, some, option), corpus.stream))
    identity = _determinants(corpus, files.values())
    count = f" ({len(files):,} files)" if len(files) > 1 else ""
    units = " or a ".join(identity["document"])
    each = f"; in txt and md files a document is a {units} (corpus.document)" if units else ""
    return parts, identity, ", ".join(references) + count + each


class File(NamedTuple):
    """A file of a corpus."""

    size: int
    """In bytes."""
    identity: list[Any]
    """Its kind, the digest of its content or of its version at an address, and how it is written, if that is told."""


def _determinants(corpus: Corpus, files: Iterable[File]) -> dict[str, Any]:
    """Return all that determines which documents are read from files, and whether they are kept."""
    read = [file.identity for file in files]
    kinds = {kind for kind, *_ in read}
    units = sorted({corpus.document or usual for kind, usual in RUNNING_TEXT.items() if kind in kinds})
    streamed = {"stream": SHARD} if corpus.stream else {}
    return {"version": READING_VERSION, "files": read, "text": corpus.text, "document": units, **streamed}


def _files(corpus: Corpus, reference: str, option: str) -> dict[str, File]:
    """Return the files that a reference means: those at an address are listed if they are streamed, and else copied."""
    files = {}
    if corpus.stream and reading.is_address(reference):
        listed, form = remote.listed(option, reference), corpus.format
        for name in reading.readable(option, reference, list(listed), form):
            files[name] = _file(*listed[name], reading.kind(name, form), form)
        return files
    for name in reading.files(option, reference, corpus.format):
        path, form = reading.locate(option, name, corpus.format)
        files[name] = _file(path.stat().st_size, file_digest(path), reading.kind(path, form), form)
    return files


def _file(size: int, version: str, kind: str, form: FileFormat) -> File:
    return File(size, [kind, version, *filter(None, [form.determinants()])])


def _together(files: Mapping[str, File]) -> Collection[Sequence[str]]:
    """Return the names of files that share a shard, in their order.

    A large file has one for itself; the digest of a small one tells whether it is the last of its shard. So a new file
    changes that in which it lies, and no other.
    """
    names, number, is_last = defaultdict[int, list[str]](list), 0, False
    for name, file in files.items():
        number += is_last or file.size >= SHARD
        names[number].append(name)
        is_last = file.size >= int(file.identity[1][:8], 16) / 2**32 * SHARD
    return names.values()


def _read(corpus: Corpus, files: Mapping[str, File], option: str) -> Iterator[pyarrow.RecordBatch]:
    """Read the documents of files.

    Raises:
        UserError: if one cannot be read, or is no longer what it was when the command began and it is streamed.
    """
    with ExitStack() as copies:
        paths = []
        for name, file in files.items():
            if corpus.stream and _files(corpus, name, option) != {name: file}:
                raise UserError(f"{option}: {name} has changed meanwhile; give the same command to begin anew")
            is_far = reading.is_address(name)
            paths.append(copies.enter_context(remote.borrowed(option, name)) if is_far else name)
        found = reading.read(option, paths, lambda _: {"text": corpus.text}, corpus.document, corpus.format)
        yield from map(_hashed, batched(_text(row) for row, _ in found))


def _text(row: Row) -> str:
    """Return a document in NFC; a column that holds no text is an error.

    Raises:
        UserError: naming the row.
    """
    text = row.fields["text"]
    if isinstance(text, (list, dict)) and not isinstance(text, Several):
        kind = type(text).__name__
        raise UserError(f"{row.place}: the text is a {kind}, not a text; name another column with corpus.text=<column>")
    return "" if text is None else nfc(text)


def _hashed(texts: Sequence[str]) -> pyarrow.RecordBatch:
    """Return documents as `SCHEMA` has them."""
    columns = [list(texts), [_key(text) for text in texts], [len(text.encode()) for text in texts]]
    return pyarrow.record_batch(columns, schema=SCHEMA)


def _key(text: str) -> int:
    return position(0, normalised(text))


def batched(texts: Iterable[str]) -> Iterator[list[str]]:
    """Gather texts to lists of about `AT_ONCE` characters."""
    batch, characters = [], 0
    for text in texts:
        batch.append(text)
        characters += len(text)
        if characters >= AT_ONCE:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch
