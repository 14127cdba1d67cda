"""Encoder-decoders from an encoder: with its own weights once more, with another checkpoint, or with a new decoder."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from samples import Killed, artefact, articles, jsonl, reviews
from tiny_run import killed_before
from transformers import (
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    BertForMaskedLM,
    GPT2Config,
    GPT2LMHeadModel,
    ModernBertConfig,
    ModernBertModel,
    PreTrainedTokenizerFast,
    set_seed,
)
from transformers.utils import logging

from ulmfit_style import load
from ulmfit_style.__main__ import main
from ulmfit_style.artefacts.directory import METRICS
from ulmfit_style.cli.compose import compose
from ulmfit_style.config.training import Model
from ulmfit_style.errors import UserError
from ulmfit_style.models.layers import HEAD, layer_groups
from ulmfit_style.stages.finetune import prepare
from ulmfit_style.stages.table import resolve
from ulmfit_style.training import checks, phases
from ulmfit_style.training.warm_start import pair_tokenizers

SCRATCH = ("model.decoder=scratch", "model.decoder_layers=1", "model.decoder_tokenizer.vocab_size=300")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tokenizer: PreTrainedTokenizerFast) -> Path:
    """A folder with articles, and a tiny GPT-2 that may become a decoder."""
    path = tmp_path_factory.mktemp("warm")
    articles(path / "articles.jsonl")
    set_seed(0)
    sizes = {"n_embd": 24, "n_layer": 1, "n_head": 2, "n_positions": 64, "vocab_size": len(tokenizer)}
    GPT2LMHeadModel(GPT2Config(**sizes, bos_token_id=2, eos_token_id=3)).save_pretrained(path / "gpt2")
    tokenizer.save_pretrained(path / "gpt2")
    return path


@pytest.fixture
def recipe(folder: Path, checkpoint: Path) -> Callable[..., list[str]]:
    """The overrides that summarise with an encoder and a decoder of some kind."""

    def make(*overrides: str) -> list[str]:
        return [
            "task=summarization",
            f"task.path={folder / 'articles.jsonl'}",
            "task.max_target_length=16",
            f"model.checkpoint={checkpoint}",
            f"runs={folder / 'runs'}",
            "compare=false",
            "finetune.epochs=5",
            "finetune.learning_rate=3e-3",
            "finetune.new_epochs=10",
            "finetune.new_learning_rate=1e-2",
            "finetune.max_length=32",
            *(override.format(folder=folder) for override in overrides),
        ]

    return make


@pytest.mark.parametrize("decoder", [("model.decoder=same",), ("model.decoder={folder}/gpt2",), SCRATCH])
def test_an_encoder_is_given_a_decoder_that_learns_and_is_read_back(
    decoder: tuple[str, ...], recipe: Callable[..., list[str]], caplog: pytest.LogCaptureFixture, capsys
):
    overrides = recipe("adapt=none", *decoder)
    assert main(["finetune", *overrides]) == 0
    directory = artefact("finetune", compose(overrides)).directory
    test = json.loads((directory / METRICS).read_text())["test"]
    assert test["scores"]["loss"] < 3  # of one that knows nothing it would be 4.5 at least
    logging.enable_propagation()
    caplog.clear()
    model = load(directory)
    assert isinstance(model("a film number 5 is wonderful")["summary_text"], str)
    assert [record.message for record in caplog.records if record.name.startswith("transformers")] == []
    _, found = AutoModelForSeq2SeqLM.from_pretrained(directory, output_loading_info=True)
    assert not any(found.values())
    target = AutoTokenizer.from_pretrained(directory / "decoder_tokenizer")
    ids = target("the film is moving")["input_ids"]
    assert ids[-1] == model.model.config.eos_token_id == model.model.generation_config.eos_token_id
    assert ids[0] != model.model.config.decoder_start_token_id  # that one is put there by the model
    assert str(directory.parent) not in (directory / "config.json").read_text()
    capsys.readouterr()
    assert main(["push", *overrides, "hub.repo=summaries", "hub.dry_run=true"]) == 0
    assert "decoder_tokenizer/tokenizer.json" in capsys.readouterr().out
    assert main(["evaluate", *overrides]) == 0
    evaluated = json.loads((artefact("evaluate", compose(overrides)).directory / METRICS).read_text())
    assert evaluated["test"]["scores"] == pytest.approx(test["scores"])


def test_the_chain_adapts_the_encoder_first_and_both_parts_begin_with_what_it_learnt(
    recipe: Callable[..., list[str]],
):
    overrides = recipe("model.decoder=same", "adapt.head_epochs=1", "adapt.learning_rate=1e-2", "adapt.general=null")
    assert main(["adapt", *overrides]) == 0
    config = compose(overrides)
    plan, _ = prepare(resolve(config))
    adapted = artefact("adapt", config).directory
    whole = BertForMaskedLM.from_pretrained(adapted).state_dict()
    parts = plan.model.state_dict()
    for name in ("bert.encoder.layer.1.output.dense.weight", "cls.predictions.transform.dense.weight"):
        assert torch.equal(parts[f"decoder.{name}"], whole[name])
    name = "encoder.layer.1.output.dense.weight"
    assert torch.equal(parts[f"encoder.{name}"], whole[f"bert.{name}"])


@pytest.mark.parametrize("decoder", [("model.decoder=same",), ("model.decoder={folder}/gpt2",), SCRATCH])
def test_what_is_new_is_trained_first_and_alone_and_every_parameter_is_in_one_group(
    decoder: tuple[str, ...], recipe: Callable[..., list[str]]
):
    plan, _ = prepare(resolve(compose(recipe("adapt=none", *decoder))))
    names = {id(parameter): name for name, parameter in plan.model.named_parameters()}
    first, last = plan.phases
    assert (first.title, last.title) == ("what is new", "every weight")
    assert (first.epochs, first.learning_rate) == (10, 1e-2)
    new = {names[id(parameter)] for parameter in first.thawed}
    assert any("crossattention" in name for name in new)
    assert not any(name.startswith("encoder.") for name in new)
    whole = "scratch" in decoder[0]
    old = {name for name in names.values() if name.startswith("decoder.")} - new
    assert bool(old) != whole
    assert any("enc_to_dec_proj" in name for name in new) == ("gpt2" in decoder[0])  # it is wider than the encoder
    layers = layer_groups(plan.model, new)
    assert sorted(names[id(parameter)] for own in layers.values() for parameter in own) == sorted(names.values())
    assert {names[id(parameter)] for parameter in layers[HEAD]} == new


def test_a_run_that_was_killed_goes_on_to_the_same_weights(recipe: Callable[..., list[str]], tmp_path: Path):
    sizes = ("adapt=none", "finetune.new_epochs=1", "finetune.epochs=1", "save_minutes=1e-9", f"runs={tmp_path}")
    config = compose(recipe(*SCRATCH, *sizes))

    def train(killed_at: int | None, folder: Path) -> torch.Tensor:
        plan, _ = prepare(resolve(config))
        phases.train(killed_before(plan, killed_at), folder)
        return torch.cat([parameter.detach().flatten() for parameter in plan.model.parameters()])

    whole = train(None, tmp_path / "whole")
    for killed_at in (5, 6):  # in each of the phases, of 7 steps each
        with pytest.raises(Killed):
            train(killed_at, tmp_path / "killed")
    assert torch.equal(train(None, tmp_path / "killed"), whole)


def test_a_new_tokenizer_is_made_of_the_right_answers_of_the_training_rows_alone(
    recipe: Callable[..., list[str]], tmp_path: Path
):
    words = {"train": "zebra", "validation": "giraffe", "test": "walrus"}
    for split, word in words.items():
        rows = [{"document": f"elephant {text} {split}", "summary": f"{word} {text}"} for text, _, _ in reviews(60)]
        jsonl(tmp_path / f"{split}.jsonl", rows)
    files = ", ".join(f"{split}: {tmp_path / split}.jsonl" for split in words)
    overrides = recipe("adapt=none", *SCRATCH, f"task.path={{{{{files}}}}}", f"runs={tmp_path}")
    _, tokenizer = prepare(resolve(compose(overrides)))
    vocabulary = tokenizer.target.get_vocab()  # type: ignore[attr-defined]  # it is a pair
    assert {"zebra", "Ġfilm"} <= set(vocabulary)
    assert not {word for word in vocabulary if word.strip("Ġ") in ("giraffe", "walrus", "elephant")}


def test_a_decoder_and_its_first_phase_are_in_the_fingerprint_and_without_one_nothing_is(
    recipe: Callable[..., list[str]], folder: Path
):
    def fingerprint(*overrides: str) -> str:
        return artefact("finetune", compose(recipe("adapt=none", *overrides))).fingerprint

    same = fingerprint("model.decoder=same")
    kinds = {same, fingerprint("model.decoder={folder}/gpt2"), fingerprint(*SCRATCH), fingerprint()}
    assert len(kinds | {fingerprint("model.decoder=same", "finetune.new_epochs=2")}) == 5
    assert fingerprint(*SCRATCH, "model.decoder_layers=2") not in kinds
    assert "decoder" not in artefact("finetune", compose(recipe("adapt=none"))).determinants


def check(overrides: list[str]) -> None:
    config = compose(overrides)
    assert config.task is not None
    checks.classifier(config, config.task)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["task=text_classification"],
            "model.decoder=same: needs an encoder and a task that writes text, not a 'bert' and a TextClassification",
        ),
        (["model.checkpoint={folder}/gpt2"], "needs an encoder and a task that writes text, not a 'gpt2'"),
        (
            ["model.decoder=null"],
            "Summarization needs one that AutoModelForSeq2SeqLM knows; give it a decoder",
        ),
        (
            ["model.decoder={folder}/modernbert"],
            "a model of type 'modernbert' has no cross-attention",
        ),
        (
            ["model.decoder={folder}/nowhere/at/all"],
            "model.decoder={folder}/nowhere/at/all: is no directory, and cannot",
        ),
        (
            ["task.max_target_length=100", "model.decoder={folder}/gpt2"],
            "writes 64 tokens at most",
        ),
        (["finetune.pooling=mean"], "finetune.pooling=mean: Summarization does not score whole texts"),
        (["model.decoder_revision=main"], "decoder_revision goes with a checkpoint, and decoder is same"),
    ],
)
def test_a_decoder_that_cannot_be_is_refused(
    overrides: list[str], message: str, recipe: Callable[..., list[str]], folder: Path
):
    modern = folder / "modernbert"
    if not modern.exists():
        sizes = {"vocab_size": 90, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
        ModernBertModel(ModernBertConfig(**sizes, intermediate_size=16, pad_token_id=0)).save_pretrained(modern)
    given = recipe("adapt=none", "model.decoder=same", *overrides)
    if "task=text_classification" in overrides:
        given = [override for override in given if not override.startswith("task.max_target")]
    with pytest.raises(UserError, match=re.escape(message.format(folder=folder))):
        check(given)


def test_a_finished_encoder_decoder_is_trained_on_with_both_its_tokenizers(recipe, tmp_path: Path, capsys):
    overrides = recipe("adapt=none", *SCRATCH, f"runs={tmp_path}", "finetune.epochs=1", "finetune.new_epochs=0")
    assert main(["finetune", *overrides]) == 0
    made = artefact("finetune", compose(overrides)).directory
    model, tokenizer = load(made).model, load(made).tokenizer
    again = recipe("adapt=none", f"model.checkpoint={made}", f"runs={tmp_path}")
    plan, pair = prepare(resolve(compose(again)))
    assert pair("the film", verbose=False)["input_ids"] == tokenizer("the film")["input_ids"]
    assert pair(text_target="the film")["input_ids"] == tokenizer(text_target="the film")["input_ids"]
    assert torch.equal(plan.model.state_dict()["decoder.lm_head.weight"], model.state_dict()["decoder.lm_head.weight"])
    assert main(["adapt", *recipe(f"model.checkpoint={made}", f"runs={tmp_path}", "adapt.general=null")]) == 2
    assert "writes with another tokenizer than it reads with" in capsys.readouterr().err


def test_a_decoder_whose_texts_have_no_end_is_refused(recipe, folder: Path, tokenizer: PreTrainedTokenizerFast):
    endless = folder / "endless"
    PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer, unk_token="[UNK]").save_pretrained(endless)
    message = f"model.decoder={endless}: its tokenizer has no token that ends a text"
    with pytest.raises(UserError, match=re.escape(message)):
        pair_tokenizers(Model(checkpoint="-", decoder=str(endless)), tokenizer, endless)
