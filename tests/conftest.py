"""A tiny tokenizer and tiny models, made in memory: real architectures, no download."""

import os

# No test may ask the Hub: what is not embedded or made here does not exist.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import csv
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from samples import reviews
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import BertConfig, BertForMaskedLM, BertModel, PreTrainedTokenizerFast, set_seed

from ulmfit_style.config import Config, compose

WORDS = "a an the film plot actor scene story is was feels very quite wonderful dreadful moving tedious unforgettable"


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    """A WordPiece tokenizer that splits long words into several tokens."""
    wordpiece = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    wordpiece.normalizer = normalizers.BertNormalizer()
    wordpiece.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    trainer = trainers.WordPieceTrainer(vocab_size=90, special_tokens=special, show_progress=False)
    wordpiece.train_from_iterator([WORDS, *(text for text, _, _ in reviews(40))], trainer)
    ids = {token: wordpiece.token_to_id(token) for token in special}
    wordpiece.post_processor = processors.BertProcessing(("[SEP]", ids["[SEP]"]), ("[CLS]", ids["[CLS]"]))
    return PreTrainedTokenizerFast(
        tokenizer_object=wordpiece,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_max_length=64,
    )


@pytest.fixture(scope="session")
def tiny(tokenizer: PreTrainedTokenizerFast) -> dict[str, object]:
    """The sizes of a tiny model, without dropout, for any architecture's config."""
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "max_position_embeddings": 64,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "pad_token_id": tokenizer.pad_token_id,
    }


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, tokenizer: PreTrainedTokenizerFast, tiny: dict) -> Path:
    """A directory like the embedded model's: a BERT body without a language-model head."""
    set_seed(0)
    directory = tmp_path_factory.mktemp("checkpoint")
    BertModel(BertConfig(**tiny)).save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


@pytest.fixture
def masked_lm(tiny: dict) -> BertForMaskedLM:
    """A tiny BERT with its masked language-model head, in evaluation mode."""
    set_seed(0)
    return BertForMaskedLM(BertConfig(**tiny)).eval()


@pytest.fixture
def write_csv(tmp_path: Path) -> Callable[..., Path]:
    """Write rows to a csv file of the test's folder."""

    def write(rows: Sequence[Sequence[str]], header: Sequence[str] = ("review", "stars", "film")) -> Path:
        path = tmp_path / "reviews.csv"
        with path.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([header, *rows])
        return path

    return write


@pytest.fixture
def reviews_csv(write_csv: Callable[..., Path]) -> Path:
    """A csv file of 120 reviews."""
    return write_csv(reviews(120))


@pytest.fixture
def compose_tiny(tmp_path: Path, checkpoint: Path, reviews_csv: Path) -> Callable[..., Config]:
    """Compose a config over the tiny checkpoint and the tiny reviews, in the test's folder."""

    def make(*overrides: str) -> Config:
        return compose(
            [
                "task=text_classification",
                f"task.path={reviews_csv}",
                "task.text=review",
                "task.label=stars",
                "task.train_samples=20",
                f"model.checkpoint={checkpoint}",
                "model.sha256=null",
                f"runs={tmp_path / 'runs'}",
                "adapt.epochs=1",
                "adapt.head_epochs=1",
                "finetune.epochs=2",
                *overrides,
            ]
        )

    return make


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Tiny models are faster, and sums the same, on one thread."""
    torch.set_num_threads(1)
