"""A tiny checkpoint of each preset of conf/model: its own config class, its own kind of tokenizer, random weights."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import transformers
from samples import reviews, tiny_tokenizer
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    AutoConfig,
    BartTokenizer,
    BertTokenizer,
    DistilBertTokenizer,
    GPT2Tokenizer,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    RobertaTokenizer,
    T5Tokenizer,
    XLMRobertaTokenizer,
    set_seed,
)

TEXTS = [f"{text}; summarize: TL;DR: English -> German. {label}" for text, label, _ in reviews(60)]
LAYERS = {"num_hidden_layers": 2, "num_attention_heads": 2}
WIDTHS = {"hidden_size": 16, "intermediate_size": 32}
BERT = {"model_type": "bert", **LAYERS, **WIDTHS}
LLAMA = {"model_type": "llama", **LAYERS, **WIDTHS, "num_key_value_heads": 1, "tie_word_embeddings": True}


@dataclass(frozen=True)
class Tiny:
    """What a preset is made of here."""

    tokenizer: Callable[[], PreTrainedTokenizerBase]
    config: Mapping[str, Any]
    """Of the model; the numbers of special tokens are those of the tokenizer."""
    head: str = "AutoModelForMaskedLM"
    """The auto class of the checkpoint on the Hub."""
    unlike: Mapping[str, Any] = field(default_factory=dict)
    """Special tokens that the config does not take from the tokenizer."""

    def save(self, folder: Path) -> Path:
        """Write the checkpoint."""
        set_seed(0)
        tokenizer = self.tokenizer()
        names = ("pad", "bos", "eos", "cls", "sep")
        numbers = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in names}
        config = AutoConfig.for_model(**{**self.config, **numbers, "vocab_size": len(tokenizer), **self.unlike})
        getattr(transformers, self.head).from_config(config).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return folder


def _byte_level(special: list[str]) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Train a byte-level BPE, and return its tokens and its merges."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(
        TEXTS,
        trainers.BpeTrainer(vocab_size=330, special_tokens=special, initial_alphabet=alphabet, show_progress=False),
    )
    model = json.loads(made.to_str())["model"]
    return model["vocab"], [tuple(pair) for pair in model["merges"]]


def _unigram(special: list[str]) -> list[tuple[str, float]]:
    """Train a unigram model, and return its pieces and their scores, special ones first."""
    made = Tokenizer(models.Unigram())
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.train_from_iterator(
        TEXTS,
        trainers.UnigramTrainer(vocab_size=120, special_tokens=special, unk_token="<unk>", show_progress=False),
    )
    return [tuple(piece) for piece in json.loads(made.to_str())["model"]["vocab"]]


def bert(kind: type[PreTrainedTokenizerBase] = BertTokenizer) -> PreTrainedTokenizerBase:
    return kind(vocab=tiny_tokenizer().get_vocab(), model_max_length=512)


def roberta(kind: type[PreTrainedTokenizerBase] = RobertaTokenizer) -> PreTrainedTokenizerBase:
    vocabulary, merges = _byte_level(["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
    return kind(vocab=vocabulary, merges=merges, model_max_length=512)


def gpt2(**special: Any) -> PreTrainedTokenizerBase:
    """Of GPT-2: it has no padding token."""
    vocabulary, merges = _byte_level(["<|endoftext|>", *special.values()])
    return GPT2Tokenizer(vocab=vocabulary, merges=merges, model_max_length=1024, **special)


def smollm2_instruct() -> PreTrainedTokenizerBase:
    return gpt2(bos_token="<|im_start|>", eos_token="<|im_end|>", pad_token="<|im_pad|>")


def modernbert() -> PreTrainedTokenizerBase:
    special = {f"{name}_token": f"[{name.upper()}]" for name in ("unk", "cls", "sep", "pad", "mask")}
    vocabulary, merges = _byte_level([*special.values()])
    made = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    ends = [(token, vocabulary[token]) for token in ("[CLS]", "[SEP]")]
    made.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", "[CLS] $A [SEP] $B [SEP]", ends)
    inputs = ["input_ids", "attention_mask"]
    return PreTrainedTokenizerFast(tokenizer_object=made, model_input_names=inputs, model_max_length=8192, **special)


def t5() -> PreTrainedTokenizerBase:
    return T5Tokenizer(vocab=_unigram(["<pad>", "</s>", "<unk>"]), model_max_length=512)


def xlm_roberta() -> PreTrainedTokenizerBase:
    pieces = _unigram(["<s>", "<pad>", "</s>", "<unk>"])
    return XLMRobertaTokenizer(vocab=[*pieces, ("<mask>", 0.0)], model_max_length=512)


PRESETS: dict[str, Tiny] = {
    "bert": Tiny(bert, BERT),
    "distilbert": Tiny(
        lambda: bert(DistilBertTokenizer),
        {"model_type": "distilbert", "dim": 16, "hidden_dim": 32, "n_layers": 2, "n_heads": 2},
    ),
    "minilm": Tiny(bert, BERT, "AutoModel"),
    "roberta": Tiny(
        roberta,
        {"model_type": "roberta", **LAYERS, **WIDTHS, "max_position_embeddings": 514, "type_vocab_size": 1},
    ),
    "modernbert": Tiny(
        modernbert,
        {"model_type": "modernbert", **LAYERS, **WIDTHS, "local_attention": 16, "num_hidden_layers": 4},
    ),
    # Its config calls it BERT, whose padding is 0; its tokenizer is that of XLM-R.
    "multilingual_e5_small": Tiny(xlm_roberta, BERT, "AutoModel", {"pad_token_id": 0}),
    "gpt2": Tiny(
        gpt2,
        {"model_type": "gpt2", "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 1024},
        "AutoModelForCausalLM",
    ),
    "smollm2": Tiny(gpt2, LLAMA, "AutoModelForCausalLM"),
    "smollm2_135m": Tiny(smollm2_instruct, LLAMA, "AutoModelForCausalLM"),
    "t5_small": Tiny(
        t5,
        {"model_type": "t5", "d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2},
        "AutoModelForSeq2SeqLM",
        {"decoder_start_token_id": 0},
    ),
    "bart_base": Tiny(
        lambda: roberta(BartTokenizer),
        {
            "model_type": "bart",
            "d_model": 16,
            **{f"{side}_{what}": 2 for side in ("encoder", "decoder") for what in ("layers", "attention_heads")},
            **{f"{side}_ffn_dim": 32 for side in ("encoder", "decoder")},
        },
        "AutoModelForSeq2SeqLM",
        {"decoder_start_token_id": 2, "forced_eos_token_id": 2},
    ),
}
"""Those that are checkpoints."""

SCRATCH: dict[str, dict[str, int]] = {
    "mini_bert": {**LAYERS, **WIDTHS},
    "mini_eurobert": {**LAYERS, **WIDTHS, "num_key_value_heads": 2, "head_dim": 8},
    "mini_llama": {**LAYERS, **WIDTHS, "num_key_value_heads": 2},
    "awd_lstm": {"hidden_size": 16, "lstm_size": 24},
    "awd_lstm_backward": {"hidden_size": 16, "lstm_size": 24},
    "rnn_attention": {"hidden_size": 16},
    "rnn_seq2seq": {"hidden_size": 16},
}
"""Those with random weights, and the sizes that make them tiny."""
