import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from samples import jsonl, reviews
from transformers import AutoModel, AutoTokenizer

from ulmfit_style import load
from ulmfit_style.__main__ import main
from ulmfit_style.artefacts.directory import METRICS

ENCODER = "{model_type: bert, hidden_size: 16, num_hidden_layers: 2, num_attention_heads: 2, intermediate_size: 32}"
DECODER = "{model_type: llama, hidden_size: 16, num_hidden_layers: 2, num_attention_heads: 2, intermediate_size: 32}"
BART = "{model_type: bart, d_model: 16, encoder_layers: 1, decoder_layers: 1, encoder_attention_heads: 2, "
BART += "decoder_attention_heads: 2, encoder_ffn_dim: 32, decoder_ffn_dim: 32, max_position_embeddings: 128}"


@pytest.fixture
def text(tmp_path: Path) -> Path:
    return jsonl(tmp_path / "text.jsonl", [{"text": text} for text, _, _ in reviews(300, seed=3)])


@pytest.fixture
def run(tmp_path: Path, text: Path, write_csv: Callable[..., Path]) -> Callable[..., int]:
    """Run a chain of a tiny new encoder on tiny data."""
    labelled_rows = write_csv(reviews(120))

    def run(*arguments: str, architecture: str = ENCODER) -> int:
        left_out = tuple(f"{argument.removesuffix('=none')}." for argument in arguments if argument.endswith("=none"))
        overrides = [
            "model=mini_bert",
            "~model.architecture",  # or fields of that of mini_bert would stay
            f"+model.architecture={architecture}",
            "model.tokenizer.vocab_size=300",
            f"pretrain.path={text}",
            "pretrain.batch_size=4",
            "pretrain.max_length=32",
            "pretrain.measurements=3",
            "adapt.max_length=32",
            "adapt.batch_size=4",
            "finetune.epochs=1",
            "task=text_classification",
            f"task.path={labelled_rows}",
            "task.label=stars",
            "task.folds=0",
            "compare=false",
            f"runs={tmp_path / 'runs'}",
        ]
        commands = [argument for argument in arguments if "=" not in argument]
        own = [argument for argument in arguments if "=" in argument]
        fitting = [override for override in overrides if not left_out or not override.startswith(left_out)]
        return main([*commands, *fitting, *own])

    return run


def test_the_whole_chain_runs_from_random_weights(run: Callable[..., int], tmp_path: Path, capsys):
    assert run("pretrain", "adapt", "finetune") == 0
    runs = tmp_path / "runs/default"
    metrics = json.loads((runs / "pretrain" / METRICS).read_text())
    assert metrics["heldout"][0]["loss"] > metrics["heldout"][1]["loss"] + 0.1
    assert len([entry for entry in metrics["log"] if "heldout_bits_per_byte" in entry]) == 2
    manifest = json.loads((runs / "adapt/manifest.json").read_text())
    assert manifest["determinants"]["init"] == {
        "pretrain": (runs / "pretrain").resolve().name.removeprefix("pretrain-")
    }
    assert "label" in load(runs / "finetune")("the film is wonderful")
    capsys.readouterr()
    assert run("adapt", "finetune") == 0  # what was pretrained is there
    assert "up to date" in capsys.readouterr().out


def test_a_decoder_is_trained_from_scratch_with_its_own_tokenizer(run: Callable[..., int], tmp_path: Path):
    kind = "model.tokenizer={kind: bpe, vocab_size: 300, lowercase: false}"
    assert run("finetune", "pretrain=none", "adapt=none", kind, architecture=DECODER) == 0
    manifest = json.loads((tmp_path / "runs/default/finetune/manifest.json").read_text())
    assert list(manifest["determinants"]["init"]) == ["scratch"]
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "runs/default/finetune")
    text = "The film, unforgettable: 감동! 🙂"
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_an_encoder_decoder_learns_to_restore_text_from_random_weights(run: Callable[..., int], tmp_path: Path):
    forgetting = [f"adapt.general={tmp_path / 'text.jsonl'}", "adapt.epochs=2"]
    options = ["adapt.learning_rate=1e-2", "pretrain.epochs=2"]
    assert run("pretrain", "adapt", *forgetting, *options, architecture=BART) == 0
    metrics = json.loads((tmp_path / "runs/default/adapt" / METRICS).read_text())
    before, after = metrics["heldout"]
    assert after["loss"] < before["loss"] - 0.1
    assert after["general_loss"] < before["general_loss"]
    assert metrics["per"] == "target token"


@pytest.mark.parametrize(("kind", "size"), [("wordpiece", 300), ("unigram", 80)])
def test_a_new_encoders_tokenizer_marks_texts_and_pairs_and_knows_words(
    kind: str, size: int, run: Callable[..., int], tmp_path: Path
):
    options = [f"model.tokenizer={{kind: {kind}, vocab_size: {size}}}", "pretrain.epochs=0.1"]
    assert run("pretrain", *options) == 0
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "runs/default/scratch")
    encoded = tokenizer("the film", "the plot")
    tokens = tokenizer.convert_ids_to_tokens(encoded["input_ids"])
    assert tokens[0] == "[CLS]"
    assert tokens.count("[SEP]") == 2
    assert encoded["token_type_ids"][-1] == 1
    assert len(set(encoded.word_ids()) - {None}) == 2
    body = AutoModel.from_pretrained(tmp_path / "runs/default/scratch")
    assert body.get_input_embeddings().num_embeddings == len(tokenizer)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["adapt"], r"there is no pretrained model for this config .* run `pretrain adapt`"),
        (["adapt", "finetune", "pretrain=none"], "there is no language model to adapt"),
        (["pretrain", "pretrain.max_length=5000"], r"tokens to train on do not fill a row of 5000; give more text"),
        (["pretrain", "+model.architecture.hidden_sizes=8"], "has no such field; did you mean 'hidden_size'"),
        (["pretrain", "+model.architecture.direction=backward"], "a bert has no such field; leave it out"),
        (["pretrain", "model.checkpoint=bert-base-uncased"], "whose architecture and tokenizer are taken"),
    ],
)
def test_what_cannot_be_pretrained_is_refused(arguments: list[str], message: str, run: Callable[..., int], capsys):
    assert run(*arguments) == 2
    assert re.search(message, capsys.readouterr().err)
