"""Low-rank adapters: what learns, that what is saved is a plain checkpoint with the same answers, and what is refused."""

import importlib.util
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from samples import Killed, encoder_decoder, good_or_bad, reviews, tiny_sizes
from test_generation import articles
from transformers import (
    AlbertConfig,
    AlbertForMaskedLM,
    AutoModel,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    set_seed,
)

from ulmfit_style import lineage
from ulmfit_style.__main__ import main
from ulmfit_style.composing import compose
from ulmfit_style.errors import ConfigError
from ulmfit_style.options import Finetune
from ulmfit_style.run import METRICS
from ulmfit_style.stages import finetune
from ulmfit_style.tasks.text_classification import TextClassification
from ulmfit_style.training import phases
from ulmfit_style.training.answers import collate
from ulmfit_style.training.layers import HEAD, groups
from ulmfit_style.training.lora import merge, with_adapters
from ulmfit_style.training.phases import Course, Lesson, Phase, Settings, train

TASK = TextClassification(path="-", text="review", label="stars")
BOTH = ("adapt.lora_rank=4", "finetune.lora_rank=4", "adapt.learning_rate=1e-2", "finetune.learning_rate=1e-2")
ADAPTERS = "adapters and head"


@pytest.fixture
def options() -> Finetune:
    return compose(["finetune.lora_rank=4"]).finetune


def untrained(kind: str, tokenizer: PreTrainedTokenizerFast) -> PreTrainedModel:
    """A tiny model of an architecture: with tied embeddings, with layers of its own kind, or with shared ones."""
    tiny = tiny_sizes(tokenizer)
    sizes = {name: size for name, size in tiny.items() if "dropout" not in name}
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
def test_the_merged_model_is_a_plain_checkpoint_with_the_same_logits(
    kind: str, tokenizer: PreTrainedTokenizerFast, options: Finetune, tmp_path: Path
):
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
    layers = with_adapters(model, groups(model, ()), options)
    assert torch.equal(logits(model), began)
    for own in layers.values():
        for parameter in own:
            torch.nn.init.normal_(parameter, std=0.1)
    adapted = logits(model)
    assert not torch.allclose(adapted, began, atol=1e-2)
    merge(model)
    assert list(model.state_dict()) == names
    model.save_pretrained(tmp_path)
    assert not (tmp_path / "adapter_config.json").exists()
    loaded, found = type(model).from_pretrained(tmp_path, output_loading_info=True)
    assert not any(found.values())
    assert torch.allclose(logits(loaded.eval()), adapted, atol=1e-5)
    same = [name for name, weights in loaded.state_dict().items() if torch.equal(weights, before[name])]
    assert {"embed", "norm", "bias"} & {word for name in same for word in ("embed", "norm", "bias") if word in name.lower()}
    assert all(torch.equal(loaded.get_input_embeddings().weight, before[name]) for name in names if "word_emb" in name)
