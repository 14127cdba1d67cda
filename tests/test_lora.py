"""Low-rank adapters: what learns, that a plain checkpoint is saved with the same answers, and what is refused."""

import importlib.util
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from samples import Killed, artefact, encoder_decoder, reviews, tiny_sizes, tiny_tokenizer
from tiny_run import finetune_options, killed_before
from transformers import (
    AlbertConfig,
    AlbertForMaskedLM,
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    set_seed,
)

from ulmfit_style import chain
from ulmfit_style.data import labelled
from ulmfit_style.errors import UserError
from ulmfit_style.models.layers import EMBEDDINGS, HEAD, add_adapters, layer_groups, merge_adapters
from ulmfit_style.recipe import Config
from ulmfit_style.stages import finetune
from ulmfit_style.stages.table import resolve
from ulmfit_style.training.monitoring import BestState
from ulmfit_style.training.phases import train
from ulmfit_style.training.scoring import Scorer


def untrained(kind: str, tokenizer: PreTrainedTokenizerFast) -> PreTrainedModel:
    """A tiny model of an architecture: with tied embeddings, with layers of its own kind, or with shared ones."""
    tiny = tiny_sizes(tokenizer)
    set_seed(0)
    if kind == "GPT-2":
        ends = {"bos_token_id": 2, "eos_token_id": 3}
        return GPT2LMHeadModel(GPT2Config(n_embd=16, n_layer=2, n_head=2, vocab_size=len(tokenizer), **ends))
    if kind == "ALBERT":
        return AlbertForMaskedLM(AlbertConfig(**tiny, embedding_size=8))
    if kind == "BERT":
        return BertForSequenceClassification(BertConfig(**tiny, num_labels=2))
    return encoder_decoder(kind, tokenizer)


@pytest.mark.parametrize("kind", ["BERT", "GPT-2", "ALBERT", "T5", "BART"])
def test_the_merged_model_is_a_plain_checkpoint_with_the_same_logits(kind: str, tmp_path: Path):
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
    layers = add_adapters(model, layer_groups(model, ()), finetune_options(lora_rank=4))
    assert torch.equal(logits(model), began)
    for parameters in layers.values():
        for parameter in parameters:
            torch.nn.init.normal_(parameter, std=0.1)
    adapted = logits(model)
    assert not torch.allclose(adapted, began, atol=1e-2)
    if kind == "BERT":
        assert list(layers) == ["layer 1", "layer 2", HEAD]
        learning = {id(parameter) for title in ("layer 1", "layer 2") for parameter in layers[title]}
        assert all("lora_" in name for name, parameter in model.named_parameters() if id(parameter) in learning)
    merge_adapters(model)
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


def test_a_killed_run_with_a_contrastive_phase_ends_with_the_same_best_state(
    compose_tiny: Callable[..., Config], tmp_path: Path
):
    options = ("finetune.epochs=1", "finetune.batch_size=8", "finetune.learning_rate=1e-2", "finetune.unfreeze=[1,all]")
    options += ("finetune.lora_rank=4", "finetune.patience=5", "save_minutes=1e-9")
    config = compose_tiny(*options, "finetune.pooling=mean", "finetune.contrast_steps=4")
    config = config.model_copy(update={"adapt": None})
    task = config.require_task()

    def run(killed_at: int | None, folder: Path) -> torch.Tensor:
        plan, tokenizer = finetune.prepare(resolve(config))
        scorer = Scorer(plan.model, tokenizer, task, 32)
        best = BestState("accuracy", partial(scorer.metric, labelled.load(task).watched[1]), 5)
        train(killed_before(plan, killed_at), folder, best=best)
        merge_adapters(plan.model)
        return torch.cat([parameter.detach().flatten() for parameter in plan.model.parameters()])

    whole = run(None, tmp_path / "whole")
    for killed_at in (2, 4):
        with pytest.raises(Killed):
            run(killed_at, tmp_path / "killed")
    assert torch.equal(run(None, tmp_path / "killed"), whole)


def test_the_adapters_options_are_in_the_fingerprint_where_there_are_any(compose_tiny: Callable[..., Config]):
    def fingerprint(*options: str) -> str:
        return artefact("finetune", compose_tiny(*options)).fingerprint

    assert fingerprint("finetune.lora_alpha=8") == fingerprint()  # there are none
    ranked = fingerprint("finetune.lora_rank=4"), fingerprint("finetune.lora_rank=4", "finetune.lora_alpha=8")
    assert len({fingerprint(), *ranked, fingerprint("adapt.lora_rank=4")}) == 4


def test_without_peft_it_is_said_how_to_get_it_before_anything_is_made(
    compose_tiny: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
):
    there = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if name == "peft" else there(name, *more))
    with pytest.raises(UserError, match=r"finetune\.lora_rank=8: needs peft; install it: pip install peft"):
        chain.plan(resolve(compose_tiny("finetune.lora_rank=8")), ["adapt", "finetune"])
