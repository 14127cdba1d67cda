"""Unlabelled documents for adapt: read, freed of the task's test texts, and divided into trained and held out.

They lie in an Arrow file and are read where they lie, so that memory does not grow with the corpus; of each document
only a hash and its place are held.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, final

import numpy as np
import pyarrow.compute

from ulmfit_style.artefacts.directory import Artefact
from ulmfit_style.artefacts.fingerprint import digest, file_digest
from ulmfit_style.config.files import FileFormat
from ulmfit_style.config.training import Corpus
from ulmfit_style.console import progress, say_once
from ulmfit_style.data import labelled, reading
from ulmfit_style.data.formats import RUNNING_TEXT, nfc
from ulmfit_style.data.rows import normalised, position
from ulmfit_style.errors import UserError
from ulmfit_style.tasks.base import Row, Several, Task

MOST_HELDOUT = 1000
"""Documents that are enough to measure a language model."""

FEWEST = 20
"""Documents below which there is nothing to adapt to, and nothing to measure it by."""

READING_VERSION = 3
"""Raised whenever other documents would be read from the same files."""

TABLE = "documents.arrow"

AT_ONCE = 2**20
"""Characters of text that are in memory at once, but for a longer document."""


@final
class Texts(Sequence[str]):
    """Some documents of a table, in its order."""

    def __init__(self, column: pyarrow.ChunkedArray, places: np.ndarray[Any, np.dtype[np.int64]]) -> None:
        self._column, self._places = column, places

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: Any) -> Any:  # an int gives a text; slices are not asked for
        return self._column[int(self._places[index])].as_py()

    @property
    def bytes(self) -> int:
        """The bytes of the texts in UTF-8."""
        return pyarrow.compute.sum(pyarrow.compute.binary_length(self._column).take(self._places)).as_py()


@dataclass(frozen=True)
class Documents:
    """The documents that a language model is trained on, and those that it is measured on."""

    train: Texts
    heldout: Texts
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
    title = option.removesuffix(".path")
    rows = None if task is None else labelled.load(task)
    if corpus.path is not None:
        table, text_identity, source = _of_files(corpus, corpus.path, runs, option)
    elif rows is not None and rows.pool:
        texts = rows.task.documents(rows.pool)
        table, text_identity = _hashed(texts), digest(texts)
        source = f"the training split of {rows.task.path}"
    else:
        raise UserError(f"{option}=null: there is no task with rows whose text could be read; give {option}=<file>")
    keys: np.ndarray[Any, np.dtype[np.uint64]] = table["key"].to_numpy()
    is_empty = keys == _key("")
    if is_empty.any():
        say_once(f"{title}: {is_empty.sum():,} empty documents are left out")
    held = [_key(text) for row in rows.scored for text in rows.task.texts(row)] if rows is not None else []
    is_held = np.isin(keys, np.array(held, dtype=np.uint64))
    if is_held.any():
        say_once(f"{title}: {is_held.sum():,} documents are left out because they are validation or test texts")
    kept = ~(is_empty | is_held)
    count = int(kept.sum())
    if corpus.max_documents is not None and corpus.max_documents < count:
        say_once(f"{title}: {corpus.max_documents:,} of {count:,} documents are used (corpus.max_documents)")
        kept &= keys <= np.sort(keys[kept])[corpus.max_documents - 1]
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
    return Documents(Texts(table["text"], train), Texts(table["text"], heldout), identity, int(is_held.sum()))


def _of_files(corpus: Corpus, references: Sequence[str], runs: Path, option: str) -> tuple[pyarrow.Table, Any, str]:
    """Return the documents of files, folders and globs, what stands for them, and where they come from, in words."""
    files: dict[str, tuple[Path, FileFormat]] = {}  # in order, and each once, whichever reference names it
    for reference in references:
        for file in reading.files(option, reference, corpus.format):
            files[file] = reading.locate(option, file, corpus.format)
    kinds = [reading.kind(*file) for file in files.values()]
    units = sorted({corpus.document or usual for kind, usual in RUNNING_TEXT.items() if kind in kinds})
    described = zip(kinds, files.values(), strict=True)
    read = [[kind, file_digest(path), *filter(None, [form.determinants()])] for kind, (path, form) in described]
    determinants = {"version": READING_VERSION, "files": read, "text": corpus.text, "document": units}
    artefact = Artefact("corpus", determinants, runs)
    # Alone, for the processes plan each by itself: in one of them a file may be missing.
    recipe = {"corpus": corpus.model_dump(mode="json")}
    directory = artefact.make(partial(_gather, corpus, list(files), option), recipe, alone=True)
    table = pyarrow.ipc.open_file(pyarrow.memory_map(str(directory / TABLE))).read_all()
    count = f" ({len(files):,} files)" if len(files) > 1 else ""
    each = f"; in txt and md files a document is a {' or a '.join(units)} (corpus.document)" if units else ""
    return table, determinants, ", ".join(references) + count + each


def _gather(corpus: Corpus, files: Sequence[str], option: str, directory: Path) -> None:
    """Read files into a table in a directory."""
    found = reading.read(option, files, lambda _: {"text": corpus.text}, corpus.document, corpus.format)
    path, schema, bar = str(directory / TABLE), _hashed([]).schema, progress("reading documents", None)
    with pyarrow.OSFile(path, "wb") as sink, pyarrow.ipc.new_file(sink, schema) as writer, bar as steps:
        for texts in batched(_text(row) for row, _ in found):
            writer.write_batch(_hashed(texts))
            steps.advance(len(texts))


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
    """Return documents, each with the hash of what makes it equal to others."""
    schema = pyarrow.schema([("text", pyarrow.large_string()), ("key", pyarrow.uint64())])
    return pyarrow.record_batch([list(texts), [_key(text) for text in texts]], schema=schema)


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
