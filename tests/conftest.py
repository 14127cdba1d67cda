"""A tiny tokenizer and tiny models, made in memory: real architectures, no download."""

import os

# No test may ask the Hub: what is not embedded or made here does not exist.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
# Tiny models are faster on one thread, and several workers do not wait for each other's.
os.environ["OMP_NUM_THREADS"] = "1"

import csv
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path

import pytest
from huggingface_hub import close_session, constants
from hypothesis import HealthCheck, settings
from recipes import RECIPES, Trained, compared, recipe
from samples import (
    FAMILIES,
    TEXT,
    reviews,
    save_awd_lstm,
    save_bert,
    save_llama,
    save_t5,
    tiny_sizes,
    tiny_tokenizer,
    tokenizer_of,
)
from transformers import BertConfig, BertForMaskedLM, PreTrainedTokenizerFast, set_seed

from tests.hub_server import Hub, serve
from ulmfit_style.__main__ import main
from ulmfit_style.cli.compose import compose
from ulmfit_style.publishing import hub_commit
from ulmfit_style.recipe import Config

for profile, examples in (("quick", 25), ("slow", 1000)):
    settings.register_profile(
        profile, max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let the tests of GPUs be tried without one: `-m gpu --device cpu`."""
    parser.addoption("--device", choices=["cuda", "cpu"], default="cuda", help="what tests marked gpu run on")


def pytest_configure(config: pytest.Config) -> None:
    """Give the properties that hypothesis tries more examples where the slow tests are asked for."""
    if config.getoption("--device") == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    settings.load_profile("slow" if config.option.markexpr == "slow" else "quick")


def pytest_itemcollected(item: pytest.Item) -> None:
    """Count these among the slow tests then."""
    is_property = getattr(getattr(item, "obj", None), "is_hypothesis_test", False)
    if is_property and item.config.option.markexpr == "slow":
        item.add_marker("slow")


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    """A WordPiece tokenizer that splits long words into several tokens."""
    return tiny_tokenizer()


@pytest.fixture(scope="session", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> PreTrainedTokenizerFast:
    """A tokenizer of each family, which gives most words of `samples.TEXT` several tokens."""
    return tokenizer_of(request.param, [TEXT])


@pytest.fixture(scope="session")
def tiny(tokenizer: PreTrainedTokenizerFast) -> dict[str, object]:
    """The sizes of a tiny model, without dropout, for any architecture's config."""
    return tiny_sizes(tokenizer)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory like the embedded model's: a BERT body without a language-model head."""
    set_seed(0)
    return save_bert(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(scope="session")
def causal_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A causal language model with its head, and a tokenizer without a padding token."""
    set_seed(0)
    return save_llama(tmp_path_factory.mktemp("causal"))


@pytest.fixture(scope="session")
def stateful_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A language model that carries its state from one part of a text to the next, a tiny AWD-LSTM."""
    set_seed(0)
    return save_awd_lstm(tmp_path_factory.mktemp("stateful"))


@pytest.fixture(scope="session")
def seq2seq_checkpoint(tmp_path_factory: pytest.TempPathFactory, tokenizer: PreTrainedTokenizerFast) -> Path:
    """An encoder-decoder, a tiny T5, whose texts end in [SEP]."""
    set_seed(0)
    return save_t5(tmp_path_factory.mktemp("seq2seq"), tokenizer)


@pytest.fixture
def assets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the Hub's cache in which programs keep what they made, for this test alone."""
    folder = tmp_path / "assets"
    monkeypatch.setattr(constants, "HF_ASSETS_CACHE", str(folder))
    return folder


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


@pytest.fixture(scope="session")
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Trained]:
    """Return the recipe of one of `recipes.KINDS` that `finetune` has run, once in a session."""

    @cache
    def train(kind: str) -> Trained:
        folder = tmp_path_factory.mktemp(kind.replace(" ", "-"))
        overrides = recipe(kind, folder, request.getfixturevalue(RECIPES[kind][0]))
        assert main(["finetune", *overrides]) == 0
        return Trained(kind, overrides, folder, next(folder.glob("rows.*")))

    return train


@pytest.fixture(scope="session")
def chain(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path) -> Trained:
    """A recipe that was adapted, fine-tuned, compared and evaluated by groups, and fine-tuned with `finetune.seed=1`.

    The second run is called `second`.
    """
    folder = tmp_path_factory.mktemp("chain")
    overrides = compared(folder, checkpoint)
    assert main(["adapt", "finetune", "evaluate", *overrides, "evaluate.slices=[country]"]) == 0
    assert main(["finetune", *overrides, "name=second", "finetune.seed=1", "compare=false"]) == 0
    return Trained("text classification", overrides, folder, folder / "reviews.jsonl")


@pytest.fixture(scope="session")
def finetuned(trained: Callable[[str], Trained]) -> list[str]:
    """The overrides of a recipe of text classification that `finetune` has run."""
    return trained("text classification").overrides


@pytest.fixture
def tiny_overrides(tmp_path: Path, checkpoint: Path, reviews_csv: Path) -> list[str]:
    """A recipe over the tiny checkpoint and the tiny reviews, in the test's folder."""
    return [
        "task=text_classification",
        f"task.path={reviews_csv}",
        "task.text=review",
        "task.label=stars",
        "task.train_samples=20",
        f"model.checkpoint={checkpoint}",
        f"runs={tmp_path / 'runs'}",
        "adapt.epochs=1",
        "adapt.batch_size=4",
        "adapt.head_epochs=1",
        "finetune=plain",
        "finetune.epochs=2",
    ]


@pytest.fixture
def not_adapted(tiny_overrides: list[str]) -> list[str]:
    """The tiny recipe without adaptation and comparison."""
    finetuning = [override for override in tiny_overrides if not override.startswith("adapt.")]
    return [*finetuning, "adapt=none", "compare=false"]


@pytest.fixture
def compose_tiny(tiny_overrides: list[str]) -> Callable[..., Config]:
    """Compose the tiny recipe with further overrides."""
    return lambda *overrides: compose([*tiny_overrides, *overrides])


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """A Hub, whose client is ours, with the token of `me`."""
    for name in ("HF_HUB_CACHE", "HF_TOKEN_PATH"):
        monkeypatch.setattr(constants, name, str(tmp_path / name))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # it would send large files by another protocol
    monkeypatch.setattr(hub_commit, "WAITS", (0.05, 0.05, 0.05))
    monkeypatch.setattr(hub_commit, "SILENCE_SECONDS", 2)
    monkeypatch.setenv("HF_TOKEN", "hf_mine")
    with serve() as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        resolved = server.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", resolved)
        yield server
    close_session()
