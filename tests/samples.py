"""Small data, and a tiny tokenizer and the sizes of tiny models, for the tests."""

import json
import random
import string
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hypothesis import strategies
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    BertConfig,
    BertModel,
    LlamaConfig,
    LlamaForCausalLM,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

from ulmfit_style.artefacts import seal
from ulmfit_style.artefacts.directory import MANIFEST, NOT_SEALED, Artefact, read_json, write_json
from ulmfit_style.data import corpus, shards, tokens
from ulmfit_style.data.corpus import Documents, Texts
from ulmfit_style.data.tokens import Chunks
from ulmfit_style.models.awd_lstm import AwdLstmConfig, AwdLstmForCausalLM
from ulmfit_style.recipe import Config
from ulmfit_style.stages.table import resolve
from ulmfit_style.tasks.base_text import TextTask
from ulmfit_style.tasks.values import Architecture
from ulmfit_style.training.batching import EncodedDataset

WORDS = "the film plot story is very number wonderful moving dreadful tedious actor scene"
ENCODER, DECODER = Architecture("bert", "encoder"), Architecture("llama", "decoder")
ENCODER_DECODER = Architecture("t5", "encoder-decoder")

GOOD, BAD = ("wonderful", "moving", "unforgettable"), ("dreadful", "tedious")


def reviews(count: int, seed: int = 0) -> list[tuple[str, str, str]]:
    """Return (text, label, film) rows whose label is in the text."""
    chance = random.Random(seed)
    rows = []
    for number in range(count):
        label = ("bad", "good")[number % 2]
        start = f"{chance.choice(['a', 'the'])} {chance.choice(['film', 'plot', 'story'])} number {number}"
        rows.append((f"{start} is {chance.choice(GOOD if label == 'good' else BAD)}", label, f"film {number // 4}"))
    return rows


def artefact(stage: str, config: Config) -> Artefact:
    """Return the artefact that a stage of a config makes."""
    return resolve(config).artefact(stage)


def reseal(directory: Path, **changes: object) -> None:
    """Write the manifest of an artefact anew, as if it had been finished with what it holds now, and with changes."""
    manifest = {name: value for name, value in read_json(directory / MANIFEST).items() if name != "sha256"}
    write_json(directory / MANIFEST, seal.signed(directory, {**manifest, **changes}, NOT_SEALED))


def jsonl(path: Path, rows: Sequence[object]) -> Path:
    """Write rows as JSON lines."""
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


PLAIN_LSTM = {f"{part}_dropout": 0.0 for part in ("embedding", "input", "weight", "hidden", "output")}
"""An AWD-LSTM without its dropouts."""


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """Make a WordPiece tokenizer of 90 tokens, which splits all words but a few into letters.

    It is not trained: of two trained ones each numbers its tokens differently.
    """
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    letters = string.ascii_lowercase + string.digits
    vocabulary = [*special, *WORDS.split(), *letters, *(f"##{letter}" for letter in letters)]
    wordpiece = Tokenizer(models.WordPiece({token: index for index, token in enumerate(vocabulary)}, unk_token="[UNK]"))
    wordpiece.normalizer = normalizers.BertNormalizer()
    wordpiece.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    ids = {token: wordpiece.token_to_id(token) for token in special}
    wordpiece.post_processor = processors.BertProcessing(("[SEP]", ids["[SEP]"]), ("[CLS]", ids["[CLS]"]))
    return PreTrainedTokenizerFast(
        tokenizer_object=wordpiece,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_max_length=128,
    )


def with_sentinels(tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    """Return a tokenizer like T5's: with sentinels, without a mask, and with an end of each text alone."""
    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    ends = [("[SEP]", backend.token_to_id("[SEP]"))]
    backend.post_processor = processors.TemplateProcessing("$A [SEP]", "$A [SEP] $B:1 [SEP]:1", ends)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="[PAD]",
        unk_token="[UNK]",
        eos_token="[SEP]",
        sep_token="[SEP]",
        additional_special_tokens=[f"<extra_id_{number}>" for number in range(10)],
    )


def tiny_sizes(tokenizer: PreTrainedTokenizerFast) -> dict[str, object]:
    """Return the sizes of a tiny model, without dropout, for any architecture's config."""
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "max_position_embeddings": 128,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "pad_token_id": tokenizer.pad_token_id,
    }


def encoder_decoder(name: str, tokenizer: PreTrainedTokenizerFast) -> PreTrainedModel:
    """Make a tiny T5 or BART, without dropout."""
    if name == "T5":
        return T5ForConditionalGeneration(tiny_t5(tiny_sizes(tokenizer)))
    ends = {"pad_token_id": 0, "eos_token_id": 3, "vocab_size": len(tokenizer)}
    layers = {f"{part}_{what}": 2 for part in ("encoder", "decoder") for what in ("layers", "attention_heads")}
    widths = {"d_model": 16, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "max_position_embeddings": 128}
    tokens = {"bos_token_id": 2, "decoder_start_token_id": 3, "forced_eos_token_id": 3}
    return BartForConditionalGeneration(BartConfig(**layers, **widths, **ends, **tokens, dropout=0.0))


def tiny_t5(tiny: dict[str, object]) -> T5Config:
    """Return the config of a tiny encoder-decoder, without dropout, of the vocabulary of other tiny models."""
    return T5Config(
        vocab_size=tiny["vocab_size"],
        d_model=32,
        d_kv=16,
        d_ff=64,
        num_layers=2,
        num_heads=2,
        dropout_rate=0.0,
        pad_token_id=tiny["pad_token_id"],
        eos_token_id=3,
        decoder_start_token_id=tiny["pad_token_id"],
    )


def save_bert(folder: Path, **sizes: float) -> Path:
    """Save a BERT body without a language-model head."""
    return _saved(BertModel(BertConfig(**{**tiny_sizes(tiny_tokenizer()), **sizes})), tiny_tokenizer(), folder)


def save_llama(folder: Path) -> Path:
    """Save a causal language model with its head, and a tokenizer without a padding token."""
    wordpiece = tiny_tokenizer()
    sizes = {name: size for name, size in tiny_sizes(wordpiece).items() if "dropout" not in name}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=wordpiece.backend_tokenizer, unk_token="[UNK]", bos_token="[CLS]", eos_token="[SEP]"
    )
    return _saved(LlamaForCausalLM(LlamaConfig(**sizes, num_key_value_heads=2)), tokenizer, folder)


def save_awd_lstm(folder: Path) -> Path:
    """Save an AWD-LSTM of two layers with its head, and a tokenizer whose texts end in nothing."""
    wordpiece = tiny_tokenizer()
    sizes = {"vocab_size": len(wordpiece), "hidden_size": 16, "lstm_size": 24, "num_hidden_layers": 2}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=wordpiece.backend_tokenizer, unk_token="[UNK]", pad_token="[PAD]", eos_token="[SEP]"
    )
    return _saved(AwdLstmForCausalLM(AwdLstmConfig(**sizes, **PLAIN_LSTM)), tokenizer, folder)


def save_t5(folder: Path, tokenizer: PreTrainedTokenizerFast) -> Path:
    """Save an encoder-decoder, a tiny T5, whose texts end in [SEP]."""
    return _saved(T5ForConditionalGeneration(tiny_t5(tiny_sizes(tokenizer))), tokenizer, folder)


def _saved(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, folder: Path) -> Path:
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def articles(path: Path, count: int = 160) -> Path:
    """Write reviews, whose summary is what they are about and how it is."""
    rows = []
    for text, _, _ in reviews(count):
        words = text.split()
        rows.append({"document": text, "summary": f"{words[1]} is {'moving' if words[-1] in GOOD else 'dreadful'}"})
    return jsonl(path, rows)


def tag(words: Sequence[str]) -> list[str]:
    """Return the IOB2 tags of words: films are things, and what is wonderful or very wonderful is a quality."""
    tags = []
    for number, word in enumerate(words):
        before = words[number - 1] if number else ""
        if word in ("film", "plot", "story"):
            tags.append("B-thing")
        elif word in (*GOOD, *BAD):
            tags.append("I-quality" if before == "very" else "B-quality")
        else:
            tags.append("B-quality" if word == "very" else "O")
    return tags


def sentences(count: int, seed: int = 0) -> list[list[str]]:
    """Return the words of reviews, some of which are very much so."""
    chance = random.Random(seed)
    return [text.replace(" is ", chance.choice([" is ", " is very "])).split() for text, _, _ in reviews(count, seed)]


def conll(path: Path, rows: Sequence[Sequence[str]]) -> Path:
    """Write sentences and their tags as a CoNLL file."""
    lines = ["".join(f"{word}\t{label}\n" for word, label in zip(words, tag(words), strict=True)) for words in rows]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def questions(count: int, seed: int = 0) -> list[dict]:
    """Return questions about reviews, as rows of the Hub: how a film is, or the plot; of another thing nothing is told.

    Two questions are about each context, and three contexts of a title.
    """
    rows = []
    for number, (text, _, _) in enumerate(reviews(count, seed)):
        words = text.split()
        context = f"{text}, and the scene {number} was {BAD[number % 2]}"
        asked = {words[1]: words[-1], ("actor" if number % 3 == 0 else "scene"): BAD[number % 2]}
        for thing, word in asked.items():
            starts = [] if thing == "actor" else [context.rindex(word) if thing == "scene" else context.index(word)]
            answers = {"text": [word] * len(starts), "answer_start": starts}
            row = {"question": f"the {thing} is very what", "context": context, "answers": answers}
            rows.append({"id": str(len(rows)), "title": f"reviews {number // 3}", **row})
    return rows


def squad(path: Path, rows: Sequence[dict]) -> Path:
    """Write questions as a file in the form of SQuAD v2, each with a paragraph of its own."""
    articles: dict[str, list] = {}
    for row in rows:
        pairs = zip(row["answers"]["text"], row["answers"]["answer_start"], strict=True)
        answers = [{"text": text, "answer_start": start} for text, start in pairs]
        asked = {"id": row["id"], "question": row["question"], "answers": answers, "is_impossible": not answers}
        articles.setdefault(row["title"], []).append({"context": row["context"], "qas": [asked]})
    data = [{"title": title, "paragraphs": paragraphs} for title, paragraphs in articles.items()]
    path.write_text(json.dumps({"version": "v2.0", "data": data}, ensure_ascii=False), encoding="utf-8")
    return path


def tokenizer_of(family: str, texts: Sequence[str]) -> PreTrainedTokenizerFast:
    """Make a tokenizer of a family that reads all of some texts.

    A byte-level one tells where its tokens stand with the blank before them, as that of GPT-2, or without, as that of
    RoBERTa, and has no special tokens.
    """
    if family == "WordPiece":
        return tiny_tokenizer()
    if family == "metaspace":
        made = Tokenizer(models.Unigram())
        made.pre_tokenizer = pre_tokenizers.Metaspace()
        trainer = trainers.UnigramTrainer(
            vocab_size=90, special_tokens=["<s>", "</s>", "<unk>"], unk_token="<unk>", show_progress=False
        )
        made.train_from_iterator(texts, trainer)
        ends = [("<s>", 0), ("</s>", 1)]
        made.post_processor = processors.TemplateProcessing("<s> $A </s>", "<s> $A </s> $B:1 </s>:1", ends)
        return PreTrainedTokenizerFast(tokenizer_object=made, pad_token="</s>", unk_token="<unk>")
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=["</s>"], initial_alphabet=alphabet, show_progress=False
    )
    made.train_from_iterator(texts, trainer)
    made.post_processor = processors.ByteLevel(trim_offsets=family == "byte-level, trimmed")
    return PreTrainedTokenizerFast(tokenizer_object=made, pad_token="</s>")


TRICKY = (
    *("a", "é", "e\u0301", "İ", "ß", "ﬁ", "𝔘", "№", "'", ".", "-", " ", "\t", "\n", "\u200b", "\x1f", "한국", "नमस्ते"),
    *("שָׁלוֹם", "\u202eمرحبا", "日本", "🏴", "👩\u200d👩\u200d👧"),
)
UNICODE = strategies.lists(
    strategies.sampled_from(TRICKY) | strategies.characters(exclude_categories=["Cs"]), max_size=40
).map("".join)
"""Texts in any Unicode: combining marks, emoji of several characters, right to left, and what looks like nothing."""

FAMILIES = ("WordPiece", "byte-level", "byte-level, trimmed", "metaspace")
TEXT = "Zoë (from St. Gallen)  visited New-York's 北京 office;\n서울에서 😀 e\u0301t U.S."


@dataclass
class Alone:
    """A model that sees each token alone, so that it says the same of it in any window."""

    config: PretrainedConfig
    output: Callable[[torch.Tensor], Any]
    """What it makes of the numbers of tokens."""
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def eval(self) -> None:
        """It has no other mode."""

    def register_forward_hook(self, hook: Callable[..., None]) -> nullcontext[None]:
        """Nothing of it is looked at."""
        return nullcontext()

    def __call__(self, input_ids: torch.Tensor, **others: torch.Tensor) -> Any:
        return self.output(input_ids)


class Killed(Exception):
    """A run ends here, as if by SIGKILL: nothing is cleaned up."""


def good_or_bad(tokenizer: PreTrainedTokenizerFast, task: TextTask) -> EncodedDataset:
    """Return 40 encoded reviews with their labels as numbers."""
    rows = []
    for number, (text, label, _) in enumerate(reviews(40)):
        (feature,) = task.encode(task.row(text), tokenizer, 32, None)
        rows.append({**feature, "labels": int(label == "good"), "number": number})
    return EncodedDataset(rows)


def chunks(texts: Sequence[str], tokenizer: PreTrainedTokenizerFast, max_length: int, folder: Path) -> Chunks:
    """Return the tokens of texts, kept in a folder."""
    documents = Texts(shards.make([corpus.of_texts(texts, folder)], "reading", {}), np.arange(len(texts)))
    identity = list(texts)
    return tokens.load(
        Documents(documents, documents, [(identity, documents)], identity), tokenizer, max_length, folder
    )[0]
