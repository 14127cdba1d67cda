"""New tokens: words of the corpus that a checkpoint's tokenizer cuts into pieces, which are read whole from now on.

All other words keep their tokens, also those that begin like a new one (`docs/adr/0046-new-tokens.md`).
"""

import copy
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import regex
import torch
from tokenizers import AddedToken, models
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from ulmfit_style.artefacts.directory import read_json, write_json
from ulmfit_style.errors import UserError, listed, reworded
from ulmfit_style.tasks.entities import WORD
from ulmfit_style.tasks.types import Tokenizer

OPTION = "adapt.new_tokens"

IS_WORD = regex.compile(rf" ?(?=.*\p{{L}})(?:{WORD})")
"""A word with a letter in it, and the blank that a byte-level tokenizer leaves before it."""


class NewTokens(NamedTuple):
    """Words that a tokenizer was given."""

    tokenizer: Tokenizer
    """With the new tokens, which come after all others."""
    ids: slice
    """Those of the new tokens."""
    words: Sequence[str]
    """The new tokens, as the tokenizer spells them."""
    pieces: Sequence[list[int]]
    """The tokens that stood for each of them before."""

    def grow(self, model: PreTrainedModel) -> None:
        """Give a model a row for each new token, which begins as the mean of those of its pieces.

        So do a decoder's outputs and their biases: the logit of a new token begins as the mean of those of its pieces,
        which is never more than the highest of them.

        Raises:
            UserError: if the model has other weights for each token, which would not fit.
        """
        if not self.words:
            return
        before = len(next(iter(model.get_input_embeddings().parameters())))
        if self.ids.stop > before:
            model.resize_token_embeddings(self.ids.stop, mean_resizing=False)
            if left := [name for name, weights in model.named_parameters() if before in weights.shape[:1]]:
                problem = f"the model has weights for {before:,} tokens that cannot grow ({listed(left, 3)})"
                raise UserError(f"{OPTION}: {problem}; take {OPTION}=0, or another model")
        for weights in self.trained(model):
            weights.data[self.ids] = torch.stack([weights.data[pieces].mean(0) for pieces in self.pieces])

    def trained(self, model: PreTrainedModel) -> list[torch.nn.Parameter]:
        """Return the weights of a model that have a row for each token: those that are tied once."""
        layers = torch.nn.ModuleList(filter(None, [model.get_input_embeddings(), model.get_output_embeddings()]))
        return list(layers.parameters())


def add(asked: int | str, tokenizer: Tokenizer, texts: Iterable[str]) -> NewTokens:
    """Give a copy of a tokenizer new tokens, if any are asked for.

    Args:
        asked: How many: those that save the most tokens of the texts; or a file that has one word a line.

    Raises:
        UserError: if the tokenizer cannot be extended, or there are not so many words that it cuts into pieces.
    """
    if not asked:
        return NewTokens(tokenizer, slice(0), (), ())
    words = check(asked, tokenizer) or _most_worth(int(asked), tokenizer, texts)
    first = max(tokenizer.get_vocab().values()) + 1
    new = {word: first + number for number, word in enumerate(words)}
    if isinstance(tokenizer.backend_tokenizer.model, models.WordPiece):
        extended = copy.deepcopy(tokenizer)
        # In the vocabulary itself, a word would begin longer ones too.
        extended.add_tokens([AddedToken(word, single_word=True, normalized=True) for word in words])
    else:
        extended = _with_whole_words(tokenizer, new)
    if extended.convert_tokens_to_ids(words) != list(new.values()):
        raise UserError(f"{OPTION}={asked}: the numbers of the tokenizer's tokens have gaps; take {OPTION}=0")
    return NewTokens(extended, slice(first, first + len(new)), words, [_pieces(tokenizer, word) for word in words])


def lines(path: str) -> list[str]:
    """Return the words of a file, a line each.

    Raises:
        UserError: if it cannot be read.
    """
    remedy = "); name a UTF-8 file with one word a line"
    with reworded(f"{OPTION}={path}: cannot be read (", OSError, UnicodeDecodeError, after=remedy):
        text = unicodedata.normalize("NFC", Path(path).expanduser().read_text(encoding="utf-8-sig"))
    return list(dict.fromkeys(filter(None, map(str.strip, text.splitlines()))))


def check(asked: int | str, tokenizer: Tokenizer) -> list[str]:
    """Check that a tokenizer can read a word whole and leave all other words as they are; return those of a file.

    Args:
        asked: As in `add`.

    Raises:
        UserError: if it cannot, or the file has other lines than words that it cuts into pieces.
    """
    backend: Any = tokenizer.backend_tokenizer if tokenizer.is_fast else None
    kind = type(tokenizer if backend is None else backend.model).__name__
    split = None if backend is None or backend.pre_tokenizer is None else backend.pre_tokenizer.pre_tokenize_str
    if kind not in ("WordPiece", "BPE") or split is None or len(split("a b")) < 2:
        problem = f"a tokenizer that is {kind} and does not give each word its own tokens"
    elif kind == "BPE" and not backend.model.ignore_merges and (never := _never_used(tokenizer)):
        problem = f"a tokenizer with words that it never uses ({listed(never, 3)})"
    else:
        return _of_file(asked, tokenizer) if isinstance(asked, str) else []
    remedy = "take a model with WordPiece (BERT) or byte-level BPE (GPT-2, RoBERTa)"
    raise UserError(f"{OPTION}: {problem} cannot be extended; {remedy}, or {OPTION}=0")


def _never_used(tokenizer: Tokenizer) -> list[str]:
    """Return the words of the vocabulary that merges do not lead to: they would be read whole too."""
    others, split = tokenizer.get_added_vocab(), tokenizer.backend_tokenizer.pre_tokenizer.pre_tokenize_str
    cut = [token for token in tokenizer.get_vocab() if token not in others and len(_pieces(tokenizer, token)) > 1]
    return [token for token in cut if len(split(tokenizer.convert_tokens_to_string([token]))) == 1]


def _with_whole_words(tokenizer: Tokenizer, new: dict[str, int]) -> Tokenizer:
    """Return a tokenizer of byte-pair encoding that looks each word up before it merges its pieces, as Llama 3's does.

    Merges that lead to a new word would begin longer ones too. The tokenizers of single architectures are made anew of
    their merges when they are loaded, and would lose this: the copy is of no architecture.
    """
    kept = {name: getattr(tokenizer, name) for name in ("model_input_names", "padding_side", "truncation_side")}
    with TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        path = Path(folder, "tokenizer.json")
        saved = read_json(path)
        # Special tokens are numbered anew when they are loaded, unless the vocabulary numbers them.
        special = {token["content"]: token["id"] for token in saved["added_tokens"]}
        saved["model"] |= {"vocab": {**saved["model"]["vocab"], **special, **new}, "ignore_merges": True}
        write_json(path, saved)
        return PreTrainedTokenizerFast.from_pretrained(folder, **kept)


def _words(tokenizer: Tokenizer, text: str) -> Iterator[str]:
    """Yield the words of a text as the tokenizer has them: to a byte-level one, `Ġword` has a blank before it."""
    backend = tokenizer.backend_tokenizer
    normalised = text if backend.normalizer is None else backend.normalizer.normalize_str(text)
    parts = backend.pre_tokenizer.pre_tokenize_str(normalised)
    yield from (word for word, (start, end) in parts if IS_WORD.fullmatch(normalised[start:end]))


def _pieces(tokenizer: Tokenizer, word: str) -> list[int]:
    return [token.id for token in tokenizer.backend_tokenizer.model.tokenize(word)]


def _most_worth(count: int, tokenizer: Tokenizer, texts: Iterable[str]) -> list[str]:
    """Return the words whose pieces beyond the first are the most tokens of the texts.

    Raises:
        UserError: if fewer words have several.
    """
    counts, known = Counter(word for text in texts for word in _words(tokenizer, text)), tokenizer.get_vocab()
    saved = {word: counts[word] * (len(_pieces(tokenizer, word)) - 1) for word in counts if word not in known}
    cut = sorted(filter(saved.get, saved), key=lambda word: (-saved[word], word))
    if len(cut) < count:
        problem = f"the corpus has {len(cut):,} words that the tokenizer cuts into pieces"
        raise UserError(f"{OPTION}={count}: {problem}; ask for no more, or give more text")
    return cut[:count]


def _of_file(path: str, tokenizer: Tokenizer) -> list[str]:
    """Return the words of a file as the tokenizer has them; a byte-level one has each in two forms.

    Raises:
        UserError: if it cannot be read, or a line is no word, or one that the tokenizer has.
    """
    given, known = lines(path), tokenizer.get_vocab()
    forms = {word: [*_words(tokenizer, word), *_words(tokenizer, f" {word}")] for word in given}
    wrong = [word for word in given if len(forms[word]) != 2 or set(forms[word]) <= set(known)]
    if wrong or not given:
        problem = f"is no single word, or a token already: {listed(wrong, 3)}" if wrong else "has no word"
        raise UserError(f"{OPTION}={path}: {problem}; give one word a line that the tokenizer cuts into pieces")
    return list(dict.fromkeys(form for word in given for form in forms[word] if form not in known))
