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
    PreTrainedTokenizerFast,
    set_seed,
)

from ulmfit_style import load
from ulmfit_style.__main__ import main
from ulmfit_style.artefacts.directory import METRICS
from ulmfit_style.cli.compose import compose
from ulmfit_style.config.training import Model
from ulmfit_style.errors import UserError
from ulmfit_style.models.checkpoints import load_pooled
from ulmfit_style.models.layers import HEAD, layer_groups
from ulmfit_style.models.warm_start import pair_tokenizers
from ulmfit_style.stages.finetune import prepare
from ulmfit_style.stages.table import resolve
from ulmfit_style.training import checks, phases

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
            "task.folds=0",
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


def test_a_decoder_of_its_own_learns_is_read_back_and_trained_on(
    recipe: Callable[..., list[str]], capsys: pytest.CaptureFixture[str]
):
    overrides = recipe("adapt=none", *SCRATCH)
    assert main(["finetune", *overrides]) == 0
    directory = artefact("finetune", compose(overrides)).directory
    test = json.loads((directory / METRICS).read_text())["test"]
    assert test["scores"]["loss"] < 3  # of one that knows nothing it would be 4.5 at least
    model = load(directory)
    assert isinstance(model("a film number 5 is wonderful")["summary_text"], str)
    _, loading = AutoModelForSeq2SeqLM.from_pretrained(directory, output_loading_info=True)
    assert not any(loading.values())
    ids = AutoTokenizer.from_pretrained(directory / "decoder_tokenizer")("the film is moving")["input_ids"]
    assert ids[-1] == model.model.config.eos_token_id == model.model.generation_config.eos_token_id
    assert ids[0] != model.model.config.decoder_start_token_id  # that one is put there by the model
    capsys.readouterr()
    assert main(["push", *overrides, "hub.repo=summaries", "hub.dry_run=true"]) == 0
    assert "decoder_tokenizer/tokenizer.json" in capsys.readouterr().out
    # What it makes may be the checkpoint of another model, but not of a language model.
    plan, pair = prepare(resolve(compose(recipe("adapt=none", f"model.checkpoint={directory}"))))
    assert pair("the film", verbose=False)["input_ids"] == model.tokenizer("the film")["input_ids"]
    assert pair(text_target="the film")["input_ids"] == model.tokenizer(text_target="the film")["input_ids"]
    name = "decoder.lm_head.weight"
    assert torch.equal(plan.model.state_dict()[name], model.model.state_dict()[name])
    assert main(["adapt", *recipe(f"model.checkpoint={directory}", "adapt.general=null")]) == 2
    assert "writes with another tokenizer than it reads with" in capsys.readouterr().err


def test_both_parts_begin_with_what_the_adapted_encoder_learnt(recipe: Callable[..., list[str]]):
    overrides = recipe("model.decoder=same", "adapt.learning_rate=1e-2", "adapt.general=null")
    assert main(["adapt", *overrides]) == 0
    config = compose(overrides)
    parts = prepare(resolve(config))[0].model.state_dict()
    adapted = BertForMaskedLM.from_pretrained(artefact("adapt", config).directory).state_dict()
    for name in ("bert.encoder.layer.1.output.dense.weight", "cls.predictions.transform.dense.weight"):
        assert torch.equal(parts[f"decoder.{name}"], adapted[name])
    name = "encoder.layer.1.output.dense.weight"
    assert torch.equal(parts[f"encoder.{name}"], adapted[f"bert.{name}"])


def test_both_parts_can_be_the_body_of_a_pooled_model(
    recipe: Callable[..., list[str]], checkpoint: Path, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
):
    pooled, *_ = load_pooled(checkpoint, "mean", {"num_labels": 2})
    pooled.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    config = compose(recipe("adapt=none", "model.decoder=same", f"model.checkpoint={tmp_path}"))
    checks.finetune(config, config.require_task())
    parts = prepare(resolve(config))[0].model.state_dict()
    name = "encoder.layer.1.output.dense.weight"
    for part in ("encoder", "decoder.bert"):
        assert torch.equal(parts[f"{part}.{name}"], pooled.state_dict()[f"body.{name}"])


@pytest.mark.parametrize(
    ("decoder", "stack"), [(("model.decoder=same",), 4), (("model.decoder={folder}/gpt2",), 3), (SCRATCH, 2)]
)
def test_what_is_new_is_trained_first_and_alone_and_a_killed_run_goes_on_to_the_same_weights(
    decoder: tuple[str, ...], stack: int, recipe: Callable[..., list[str]], tmp_path: Path
):
    options = ("adapt=none", "finetune.new_epochs=1", "finetune.epochs=1", "save_minutes=1e-9", f"runs={tmp_path}")
    config = compose(recipe(*decoder, *options))

    def train(killed_at: int | None, folder: Path) -> torch.Tensor:
        plan, _ = prepare(resolve(config))
        phases.train(killed_before(plan, killed_at), folder)
        return torch.cat([parameter.detach().flatten() for parameter in plan.model.parameters()])

    plan, _ = prepare(resolve(config))
    names = {id(parameter): name for name, parameter in plan.model.named_parameters()}
    first, last = plan.phases
    assert (first.title, first.learning_rate, last.title) == ("new parameters", 1e-2, "every weight")
    new = {names[id(parameter)] for parameter in first.trainable}
    assert any("crossattention" in name for name in new)
    assert not any(name.startswith("encoder.") for name in new)
    old = {name for name in names.values() if name.startswith("decoder.")} - new
    assert bool(old) == (decoder != SCRATCH)
    assert any("enc_to_dec_proj" in name for name in new) == ("gpt2" in decoder[0])  # it is wider than the encoder
    layers = layer_groups(plan.model, new)
    assert sorted(names[id(parameter)] for group in layers.values() for parameter in group) == sorted(names.values())
    assert {names[id(parameter)] for parameter in layers[HEAD]} == new
    assert list(layers) == ["embeddings", *(f"layer {number + 1}" for number in range(stack)), HEAD]
    if decoder == SCRATCH:
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


def test_a_decoder_and_its_first_phase_are_in_the_fingerprint(recipe: Callable[..., list[str]]):
    options = [(), ("model.decoder=same",), ("model.decoder=same", "finetune.new_epochs=2"), SCRATCH]
    options += [("model.decoder={folder}/gpt2",), (*SCRATCH, "model.decoder_layers=2")]
    made = [artefact("finetune", compose(recipe("adapt=none", *chosen))) for chosen in options]
    assert len({each.fingerprint for each in made}) == len(options)
    assert "decoder" not in made[0].determinants


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model.checkpoint={folder}/gpt2"], "needs an encoder and a task that writes text, not a 'gpt2'"),
        (["model.decoder=null"], "Summarization needs one that AutoModelForSeq2SeqLM knows; give it a decoder"),
        (["model.decoder={folder}/modernbert"], "a model of type 'modernbert' has no cross-attention"),
        (["task.max_target_length=100", "model.decoder={folder}/gpt2"], "writes 64 tokens at most"),
        (["model.decoder_revision=main"], "decoder_revision goes with a checkpoint, and decoder is same"),
    ],
)
def test_a_decoder_that_cannot_be_is_refused(
    overrides: list[str], message: str, recipe: Callable[..., list[str]], folder: Path
):
    ModernBertConfig(vocab_size=90, pad_token_id=0).save_pretrained(folder / "modernbert")
    (folder / "modernbert/model.safetensors").touch()
    with pytest.raises(UserError, match=re.escape(message)):  # noqa: PT012
        config = compose(recipe("adapt=none", "model.decoder=same", *overrides))
        checks.finetune(config, config.require_task())


def test_a_decoder_whose_texts_have_no_end_is_refused(folder: Path, tokenizer: PreTrainedTokenizerFast):
    endless = folder / "endless"
    PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer, unk_token="[UNK]").save_pretrained(endless)
    with pytest.raises(UserError, match="its tokenizer has no token that ends a text"):
        pair_tokenizers(Model(checkpoint="-", decoder=str(endless)), tokenizer, endless)
