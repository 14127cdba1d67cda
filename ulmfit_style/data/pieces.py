"""Tokens of many texts at once: what stands in them again and again is tokenised once."""

import json
from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate, chain, pairwise
from typing import Any

import numpy as np
import pyarrow
import regex
from tokenizers import Encoding, Tokenizer

from ulmfit_style.models.new_tokenizer import ACCENTS
from ulmfit_style.words import UNSPACED

Array = np.ndarray[Any, np.dtype[Any]]

BLANK, STOP = 1, 2
"""What may begin a piece of a text, as bits."""

STOPS = set(",.;:!?)'\"-/")

WHITE = "\x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u2028\u2029\u202f\u205f\u3000"
"""White space beyond ASCII."""

AFTER = np.array([(byte > 32) * BLANK | (byte < 128 and chr(byte).isalnum()) * STOP for byte in range(256)], np.uint8)
"""What may begin a piece after each byte: a blank unless white space or a control character may end with it, and a stop
after a letter or a digit of ASCII."""
AFTER[[127, *(character.encode()[-1] for character in WHITE)]] = 0

NORMALIZERS = {
    ("BertPreTokenizer",): {"Sequence", "NFC", "NFD", "Lowercase", "StripAccents", "BertNormalizer"},
    ("ByteLevel",): (kept := {"Sequence", "NFC", "NFD", "Lowercase"}),
    ("Sequence", "Digits", "ByteLevel"): kept,
}
"""For ways to split a text, the normalizers that look at letters and their marks alone, which blanks and stops keep
apart. GPT-2's way looks at white space, next to which nothing may be removed. After NFKC the library errs in where a
token is."""

KIND = regex.compile('"type": "(.*?)"')
NO_ACCENTS = json.dumps({"type": "Replace", "pattern": {"Regex": ACCENTS}, "content": ""})

AT_ONCE = 2**10
"""Pieces that are one text to the tokenizer at most, so that several cores have several texts."""


@lru_cache(1)  # a large vocabulary takes a while
def beginnings(backend: Tokenizer) -> Array:
    """Return what begins a piece, by its first byte: nothing where a rule of the tokenizer may look over that place.

    The tokens of a text are those of its pieces, because BERT's and GPT-2's rules end a word before a blank after other
    than white space, and before a stop after a letter or a digit.
    """
    begin, parts = np.zeros(256, np.uint8), json.loads(backend.to_str())
    normalizer, split, after = (json.dumps(parts[name]) for name in ("normalizer", "pre_tokenizer", "post_processor"))
    kinds = tuple(KIND.findall(split))
    normalizers = set(KIND.findall(normalizer.replace(NO_ACCENTS, '"type": "StripAccents"')))
    normalise = backend.normalizer.normalize_str if backend.normalizer else str
    added = parts["added_tokens"]
    held = {character for token in added for character in token["content"] + normalise(token["content"])}
    if (
        kinds in NORMALIZERS
        and normalizers <= NORMALIZERS[kinds]
        # What is done at the beginning of a text would be done at that of a piece.
        and not regex.search('"add_prefix_space": true|"use_regex": false', split)
        and not ('"add_prefix_space": true' in after and '"trim_offsets": true' in after)
        and not any(token["rstrip"] or (token["lstrip"] and "BertPreTokenizer" in kinds) for token in added)
        and " " not in held
        and not parts["model"].get("dropout")  # which reads a word in another way each time
    ):
        begin[[*map(ord, STOPS - held)]] = STOP
        begin[ord(" ")] = BLANK
    return begin


@lru_cache(1)
def around(backend: Tokenizer) -> tuple[Sequence[int], Sequence[int]]:
    """Return the special tokens before and after each text."""
    probe = Tokenizer.from_str(backend.to_str())
    probe.add_special_tokens(["a"])
    whole = probe.encode("a")
    own = whole.special_tokens_mask.index(0)
    return whole.ids[:own], whole.ids[own + 1 :]


def read(texts: Sequence[str], backend: Tokenizer, begin: Array) -> pyarrow.LargeListArray:
    """Return the tokens of texts, without special ones around them.

    Args:
        backend: It truncates and pads nothing.
        begin: What begins a piece, from `beginnings`.

    Returns:
        A list for each text of the `ids`; `begins`, which is 1 where a word begins; and `bytes`, the length in UTF-8.
    """
    data, bounds = _buffers(pyarrow.array(texts, pyarrow.large_string()))
    is_start = _are_cuts(data, begin)
    is_start[bounds] = True
    starts = np.flatnonzero(is_start)
    pieces = _strings(data, starts).dictionary_encode()
    tokens = _read_once(pieces.dictionary, backend, begin).take(pieces.indices)
    return pyarrow.LargeListArray.from_arrays(tokens.offsets.take(np.searchsorted(starts, bounds)), tokens.values)


def _read_once(pieces: pyarrow.LargeStringArray, backend: Tokenizer, begin: Array) -> pyarrow.LargeListArray:
    """Return the tokens of pieces, which are joined where a text would be cut so: a few long texts cost less."""
    data, starts = _buffers(pieces)
    is_joined = _are_cuts(data, begin)[starts]
    is_joined[::AT_ONCE] = False
    bounds = starts[~is_joined]
    texts = _strings(data, bounds).to_pylist()
    encodings = backend.encode_batch(texts, add_special_tokens=False)
    columns = (
        (encoding.ids for encoding in encodings),
        map(_words, texts, encodings),
        (chain.from_iterable(encoding.offsets) for encoding in encodings),
    )
    ids, words, offsets = (np.fromiter(chain.from_iterable(column), np.int32) for column in columns)
    of_text = np.repeat(np.arange(len(texts)), [len(encoding) for encoding in encodings])
    characters = np.append(np.flatnonzero(data & 0xC0 != 0x80), len(data))
    spans = characters[offsets.reshape(-1, 2) + np.searchsorted(characters, bounds)[of_text, None]]
    # A blank that is trimmed off at the end of a text would stand where the next one begins.
    piece = np.searchsorted(starts, np.minimum(spans[:, 0], bounds[of_text + 1] - 1), side="right") - 1
    begins = (np.diff(words, prepend=-1) != 0) | (np.diff(piece, prepend=-1) != 0)
    tokens = pyarrow.StructArray.from_arrays([ids, begins, spans[:, 1] - spans[:, 0]], ["ids", "begins", "bytes"])
    return pyarrow.LargeListArray.from_arrays(np.searchsorted(piece, np.arange(len(starts))), tokens)


def _are_cuts(data: Array, begin: Array) -> Array:
    """Return whether a piece begins at each byte, and behind the last one."""
    are_cuts = np.zeros(len(data) + 1, bool)
    are_cuts[1:-1] = begin[data[1:]] & AFTER[data[:-1]]
    return are_cuts


def _buffers(texts: pyarrow.LargeStringArray) -> tuple[Array, Array]:
    """Return the bytes of texts, and where each begins and the last one ends."""
    _, bounds, data = texts.buffers()
    return np.frombuffer(data, np.uint8), np.frombuffer(bounds, np.int64)[: len(texts) + 1]


def _strings(data: Array, bounds: Array) -> pyarrow.LargeStringArray:
    """Return what stands between bounds, without copying it."""
    return pyarrow.LargeStringArray.from_buffers(len(bounds) - 1, *map(pyarrow.py_buffer, (bounds, data)))


def _words(text: str, encoding: Encoding) -> Sequence[Any]:
    """Return a number for each token, the same as its neighbour's if they are of one word.

    To a tokenizer, Chinese or Thai between two signs is often one word: it would be masked as a whole.
    """
    words = encoding.word_ids
    if text.isascii() or not UNSPACED.search(text):
        return words
    places = [start if UNSPACED.search(text, start, end) else -1 for start, end in encoding.offsets]
    return [*accumulate(before != own for before, own in pairwise([None, *zip(words, places, strict=True)]))]
