"""A tokenizer that is trained on text of the user's own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ulmfit_style.config.training import NewTokenizer
from ulmfit_style.errors import UserError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

DECODER = {"eos_token": "<|endoftext|>", "unk_token": "<|unknown|>"}
"""The special tokens of a new decoder."""


def learn(
    options: NewTokenizer, option: str, texts: Iterable[Sequence[str]], count: int, special: Mapping[str, str]
) -> Tokenizer:
    """Train a tokenizer; it has fewer tokens than `vocab_size` where the text makes no more.

    Args:
        option: What the user sets it by, for error messages.
        texts: In batches.
        count: How many they are.
        special: The special tokens, `unk_token` among them, by their names in transformers.

    Raises:
        UserError: if the letters of the text alone are more tokens than are asked for.
    """
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    unknown = special["unk_token"]
    common: dict[str, Any] = {
        "vocab_size": options.vocab_size,
        "special_tokens": [*special.values()],
        "show_progress": False,
    }
    model: Any
    splitter: Any
    decoder: Any
    trainer: Any
    match options.kind:
        case "wordpiece":
            model, splitter = models.WordPiece(unk_token=unknown), pre_tokenizers.BertPreTokenizer()
            decoder, trainer = decoders.WordPiece(), trainers.WordPieceTrainer(**common)
        case "bpe":
            model, splitter = models.BPE(), pre_tokenizers.ByteLevel(add_prefix_space=False)
            alphabet = pre_tokenizers.ByteLevel.alphabet()
            decoder, trainer = decoders.ByteLevel(), trainers.BpeTrainer(initial_alphabet=alphabet, **common)
        case "unigram":
            model, splitter = models.Unigram(), pre_tokenizers.Metaspace()
            decoder, trainer = decoders.Metaspace(), trainers.UnigramTrainer(unk_token=unknown, **common)
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer, tokenizer.decoder = splitter, decoder
    if options.kind == "wordpiece":
        tokenizer.normalizer = normalizers.BertNormalizer(lowercase=options.lowercase)
    elif options.lowercase:
        tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.train_from_iterator(texts, trainer, length=count)
    if (size := tokenizer.get_vocab_size()) > options.vocab_size:
        problem = f"the text to train on makes at least {size:,} tokens; ask for that many"
        raise UserError(f"{option}.vocab_size={options.vocab_size}: {problem}")
    return tokenizer
