"""Low-rank adapters: what learns, that a plain checkpoint is saved with the same answers, and what is refused."""

import importlib.util
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from samples import Killed, artefact, encoder_decoder, reviews, tiny_sizes, tiny_tokenizer
from tiny_run import finetune_options, killed_before, without_dropout
from transformers import (
    AlbertConfig,
    AlbertForMaskedLM,
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    SqueezeBertConfig,
    SqueezeBertForMaskedLM,
    set_seed,
)

from ulmfit_style.__main__ import main
from ulmfit_style.artefacts.directory import METRICS, read_json
from ulmfit_style.config.training import Finetune
from ulmfit_style.data import labelled
from ulmfit_style.errors import UserError
from ulmfit_style.models.layers import EMBEDDINGS, HEAD, layer_groups
from ulmfit_style.models.lora import add_adapters, merge
from ulmfit_style.recipe import Config
from ulmfit_style.stages import finetune
from ulmfit_style.stages.table import resolve
from ulmfit_style.tasks.text_classification import TextClassification
from ulmfit_style.training import unfreezing
from ulmfit_style.training.monitoring import BestState
from ulmfit_style.training.phases import train
from ulmfit_style.training.scoring import Scorer

TASK = TextClassification(path="-", text="review", label="stars")
BOTH = ("adapt.lora_rank=4", "finetune.lora_rank=4", "adapt.learning_rate=1e-2", "finetune.learning_rate=1e-2")
ADAPTERS = "adapters and head"


@pytest.fixture
def options() -> Finetune:
    return finetune_options(lora_rank=4)


def untrained(kind: str, tokenizer: PreTrainedTokenizerFast) -> PreTrainedModel:
    """A tiny model of an architecture: with tied embeddings, with layers of its own kind, or with shared ones."""
    tiny = tiny_sizes(tokenizer)
    sizes = without_dropout(tiny)
    set_seed(0)
    if kind == "GPT-2":
        return GPT2LMHeadModel(
            GPT2Config(n_embd=16, n_layer=2, n_head=2, vocab_size=len(tokenizer), bos_token_id=2, eos_token_id=3)
        )
    if kind == "Llama":
        return LlamaForCausalLM(LlamaConfig(**sizes))
    if kind == "ALBERT":
        return AlbertForMaskedLM(AlbertConfig(**tiny, embedding_size=8))
    if kind == "BERT":
        return BertForSequenceClassification(BertConfig(**tiny, num_labels=2))
    return encoder_decoder(kind, tokenizer)


@pytest.mark.parametrize("kind", ["BERT", "GPT-2", "Llama", "ALBERT", "T5", "BART"])
def test_the_merged_model_is_a_plain_checkpoint_with_the_same_logits(kind: str, options: Finetune, tmp_path: Path):
    tokenizer = tiny_tokenizer()  # of its own, for padding is kept in it
    model = untrained(kind, tokenizer).eval()
    names, before = list(model.state_dict()), {n: w.clone() for n, w in model.state_dict().items()}
    inputs = dict(tokenizer([text for text, _, _ in reviews(4)], padding=True, return_tensors="pt"))
    inputs.pop("token_type_ids", None)
    if model.config.is_encoder_decoder:
        inputs["decoder_input_ids"] = inputs["input_ids"]

    def logits(some: PreTrainedModel) -> torch.Tensor:
        with torch.inference_mode():
            return some(**inputs).logits

    began = logits(model)
    layers = add_adapters(model, layer_groups(model, ()), options)
    assert torch.equal(logits(model), began)
    for parameters in layers.values():
        for parameter in parameters:
            torch.nn.init.normal_(parameter, std=0.1)
    adapted = logits(model)
    assert not torch.allclose(adapted, began, atol=1e-2)
    merge(model)
    assert list(model.state_dict()) == names
    model.save_pretrained(tmp_path)
    assert not (tmp_path / "adapter_config.json").exists()
    loaded, loading = type(model).from_pretrained(tmp_path, output_loading_info=True)
    assert not any(loading.values())
    assert torch.allclose(logits(loaded.eval()), adapted, atol=1e-5)
    kept = {name for name, weights in loaded.named_parameters() if torch.equal(weights, before[name])}
    groups = layer_groups(loaded, ())
    titles = {id(parameter): title for title, parameters in groups.items() for parameter in parameters}
    for name, parameter in loaded.named_parameters():
        title = titles[id(parameter)]
        matrix = parameter.ndim == 2 and "relative_attention_bias" not in name
        assert (name in kept) == (title != HEAD and (title == EMBEDDINGS or not matrix)), name


def test_a_body_without_linear_layers_is_refused(tokenizer: PreTrainedTokenizerFast, options: Finetune):
    model = SqueezeBertForMaskedLM(SqueezeBertConfig(**tiny_sizes(tokenizer), embedding_size=16))
    model.transformer.pooler = None
    with pytest.raises(UserError, match=r"lora_rank=4: no layer of the model is linear; take lora_rank=0"):
        add_adapters(model, layer_groups(model, ()), options)


def test_the_chain_hands_on_plain_checkpoints(tiny_overrides: list[str], checkpoint: Path, tmp_path: Path, capsys):
    assert main(["adapt", "finetune", *tiny_overrides, *BOTH, "compare=false", "adapt.general=null"]) == 0
    counts = re.findall(r"LoRA: (\S+) M of (\S+) M parameters are trained", capsys.readouterr().out)
    assert [float(whole) > 3 * float(trained) for trained, whole in counts] == [True, True]
    adapted, tuned = (tmp_path / "runs/default" / stage for stage in ("adapt", "finetune"))
    measured = read_json(adapted / METRICS)
    assert [entry["after"] for entry in measured["heldout"]] == ["untrained head", "new head", ADAPTERS]
    assert measured["heldout"][2]["loss"] < measured["heldout"][1]["loss"] < measured["heldout"][0]["loss"]
    assert measured["drift"]["embeddings"] == 0
    assert min(measured["drift"][title] for title in ("layer 1", "layer 2", "head")) > 0.01
    before, between, after = (load_file(folder / "model.safetensors") for folder in (checkpoint, adapted, tuned))
    for name, weights in before.items():
        same = "embeddings" in name or weights.ndim == 1
        if "pooler" not in name:  # a masked language model has none
            assert torch.equal(weights, between[f"bert.{name}"]) == same, name
            assert torch.equal(between[f"bert.{name}"], after[f"bert.{name}"]) == same, name
    for folder in (adapted, tuned):
        assert not list(folder.glob("adapter*"))
        assert "lora" not in (folder / "config.json").read_text()


def test_phases_thaw_the_adapters_of_their_layer_groups(tokenizer: PreTrainedTokenizerFast, options: Finetune):
    model = untrained("BERT", tokenizer)
    layers = add_adapters(model, layer_groups(model, ()), options)
    assert list(layers) == ["layer 1", "layer 2", "head"]
    chained = options.model_copy(update={"unfreeze": "chain_thaw"})
    planned = {phase.title: phase.trainable for phase in unfreezing.phases(chained, layers, 20)}
    assert list(planned) == ["head alone", "layer 1 alone", "layer 2 alone", ADAPTERS]
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    for title in ("layer 1 alone", "layer 2 alone"):
        assert {"lora_" in names[id(parameter)] for parameter in planned[title]} == {True}
    assert len(planned[ADAPTERS]) == sum(map(len, layers.values()))


def test_a_killed_run_with_a_contrastive_phase_ends_with_the_same_best_state(
    compose_tiny: Callable[..., Config], tmp_path: Path
):
    options = ("finetune.epochs=1", "finetune.batch_size=8", "finetune.learning_rate=1e-2", "finetune.unfreeze=[1,all]")
    options += ("finetune.lora_rank=4", "finetune.patience=5", "save_minutes=1e-9")
    config = compose_tiny(*options, "finetune.pooling=mean", "finetune.contrast_epochs=1")
    config = config.model_copy(update={"adapt": None})
    task = config.require_task()

    def run(killed_at: int | None, folder: Path) -> torch.Tensor:
        plan, tokenizer = finetune.prepare(resolve(config))
        scorer = Scorer(plan.model, tokenizer, task, 32)
        best = BestState("accuracy", partial(scorer.metric, labelled.load(task).watched[1]), 5)
        train(killed_before(plan, killed_at), folder, best=best)
        merge(plan.model)
        return torch.cat([parameter.detach().flatten() for parameter in plan.model.parameters()])

    whole = run(None, tmp_path / "whole")
    for killed_at in (2, 4):
        with pytest.raises(Killed):
            run(killed_at, tmp_path / "killed")
    assert torch.equal(run(None, tmp_path / "killed"), whole)


def test_the_adapters_options_are_in_the_fingerprint_where_there_are_any(compose_tiny: Callable[..., Config]):
    def fingerprints(*options: str) -> tuple[str, str]:
        config = compose_tiny(*options)
        return artefact("adapt", config).fingerprint, artefact("finetune", config).fingerprint

    plain = fingerprints()
    assert fingerprints("finetune.lora_alpha=8") == plain  # there are none
    ranked = fingerprints("finetune.lora_rank=4")
    assert ranked[0] == plain[0]
    assert len({plain[1], ranked[1], fingerprints("finetune.lora_rank=4", "finetune.lora_alpha=8")[1]}) == 3
    assert fingerprints("adapt.lora_rank=4")[0] != plain[0]


def test_without_peft_it_is_said_how_to_get_it_before_anything_is_made(
    tiny_overrides: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
):
    there = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if name == "peft" else there(name, *more))
    assert main(["adapt", "finetune", *tiny_overrides, "finetune.lora_rank=8"]) == 2
    assert "finetune.lora_rank=8: needs peft; install it: pip install peft" in capsys.readouterr().err
    assert not list((tmp_path / "runs").glob("adapt-*"))
