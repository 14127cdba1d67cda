"""A tokenizer that is trained on text of the user's own."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from ulmfit_style.config.training import NewTokenizer
from ulmfit_style.errors import UserError

ACCENTS = "[\u0300-\u036f]"
"""The accents of Latin, Greek and Cyrillic letters, which BERT's lower case has not."""

DECODER = {"eos_token": "<|endoftext|>", "unk_token": "<|unknown|>"}
"""The special tokens of a new decoder."""


def learn(options: NewTokenizer, option: str, texts: Iterable[Sequence[str]], special: Mapping[str, str]) -> Tokenizer:
    """Train a tokenizer; it has fewer tokens than `vocab_size` where the text makes no more.

    Args:
        option: What the user sets it by, for error messages.
        texts: In batches.
        special: The special tokens, `unk_token` among them, by their names in transformers.

    Raises:
        UserError: if the letters of the text alone are more tokens than are asked for.
    """
    unknown = special["unk_token"]
    trainer: Any
    common: Any = {"vocab_size": options.vocab_size, "special_tokens": [*special.values()], "show_progress": False}
    match options.kind:
        case "wordpiece":
            tokenizer = Tokenizer(models.WordPiece(unk_token=unknown))
            tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.BertPreTokenizer(), decoders.WordPiece()
            # BERT's own takes accents off by taking letters apart: Hangul too, and vowels off Hindi, Thai and Arabic.
            plain = [normalizers.NFD(), normalizers.Replace(Regex(ACCENTS), "")] if options.lowercase else []
            bert = normalizers.BertNormalizer(strip_accents=False, lowercase=options.lowercase)
            tokenizer.normalizer = normalizers.Sequence([*plain, normalizers.NFC(), bert])
            trainer = trainers.WordPieceTrainer(**common)
        case "bpe":
            tokenizer, split = Tokenizer(models.BPE()), pre_tokenizers.ByteLevel(add_prefix_space=False)
            tokenizer.pre_tokenizer, tokenizer.decoder = split, decoders.ByteLevel()
            trainer = trainers.BpeTrainer(initial_alphabet=split.alphabet(), **common)
        case "unigram":
            tokenizer = Tokenizer(models.Unigram())
            tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
            trainer = trainers.UnigramTrainer(unk_token=unknown, **common)
    if options.lowercase and options.kind != "wordpiece":
        tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.train_from_iterator(texts, trainer)
    if (size := tokenizer.get_vocab_size()) > options.vocab_size:
        problem = f"the text to train on makes at least {size:,} tokens; ask for that many"
        raise UserError(f"{option}.vocab_size={options.vocab_size}: {problem}")
    return tokenizer
