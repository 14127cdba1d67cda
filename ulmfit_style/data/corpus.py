"""Unlabelled documents for adapt: read, freed of the task's test texts, and divided into trained and held out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from ulmfit_style.config import Corpus
from ulmfit_style.console import say
from ulmfit_style.data import labelled, reading
from ulmfit_style.data.labelled import normalised, position
from ulmfit_style.errors import UserError
from ulmfit_style.run import digest
from ulmfit_style.tasks.base import Row, Task

MOST_HELDOUT = 1000
"""Documents that are enough to measure a language model."""

FEWEST = 20
"""Documents below which there is nothing to adapt to, and nothing to measure it by."""


@dataclass(frozen=True)
class Documents:
    """The documents that a language model is trained on, and those that it is measured on."""

    train: list[str]
    heldout: list[str]

    def digest(self) -> str:
        """Return the digest of the text in its order."""
        return digest([self.train, self.heldout])


@cache
def load(corpus: Corpus, task: Task | None) -> Documents:
    """Read a corpus, and take out what stands in the task's validation and test rows. It is read once a process.

    Raises:
        UserError: if the file cannot be read, or holds too few documents.
    """
    if corpus.path is None:
        assert task is not None  # the config was checked
        source = f"the training split of {task.path}"
        documents = [text for row in labelled.load(task).pool for text in task.texts(row)]
    else:
        documents, source = _read(corpus, corpus.path)
    filled = [document for document in documents if document.strip()]
    if len(filled) < len(documents):
        say(f"corpus: {len(documents) - len(filled):,} empty documents are left out")
    if task is not None:
        held = labelled.load(task).held
        clean = [document for document in filled if normalised(document) not in held]
        if len(clean) < len(filled):
            say(f"corpus: {len(filled) - len(clean):,} documents are left out that are validation or test texts")
        filled = clean
    if corpus.max_documents is not None and corpus.max_documents < len(filled):
        say(f"corpus: {corpus.max_documents:,} of {len(filled):,} documents are used (corpus.max_documents)")
        last = sorted(position(0, normalised(document)) for document in filled)[corpus.max_documents - 1]
        filled = [document for document in filled if position(0, normalised(document)) <= last]
    if len(filled) < FEWEST:
        raise UserError(f"corpus: {source} holds {len(filled)} documents; adapt needs {FEWEST} at least")

    # By content, so that equal documents are on one side, and a document stays there when others come.
    places = sorted({position(1, normalised(document)) for document in filled})
    heldout_size = min(MOST_HELDOUT, max(1, round(corpus.heldout_ratio * len(places))))
    heldout = set(places[:heldout_size])
    sides: tuple[list[str], list[str]] = ([], [])
    for document in filled:
        sides[position(1, normalised(document)) in heldout].append(document)
    say(f"corpus: {len(sides[0]):,} documents to train on and {len(sides[1]):,} held out, from {source}")
    return Documents(*sides)


def _read(corpus: Corpus, references: Sequence[str]) -> tuple[list[str], str]:
    """Return the documents of files, folders and globs, and where they come from, in words."""
    files: dict[str, None] = {}  # in order, and each once, whichever reference names it
    for reference in references:
        found, others = reading.files("corpus.path", reference)
        files |= dict.fromkeys(found)
        if others:
            kinds = ", ".join(sorted(others))
            say(f"corpus: {others.total():,} files of {reference} are of other kinds, and are not read ({kinds})")
    documents = []
    for file in files:
        rows = reading.rows("corpus.path", file, [corpus.text], corpus.document)
        documents += [_text(row, corpus.text) for row in rows]
    units = sorted({reading.unit(file, corpus.document) for file in files if reading.kind(file) in (".txt", ".md")})
    whole = f" ({len(files):,} files)" if len(files) > 1 else ""
    each = f"; in txt and md files a document is a {' or a '.join(units)} (corpus.document)" if units else ""
    return documents, ", ".join(references) + whole + each


def _text(row: Row, column: str) -> str:
    """Return a document; a column that holds no text is an error.

    Raises:
        UserError: naming the row.
    """
    text = row.fields[column]
    if isinstance(text, (list, dict)):
        raise UserError(
            f"{row.place}: '{column}' is a {type(text).__name__}, and no text; name another: corpus.text=..."
        )
    return "" if text is None else str(text)
