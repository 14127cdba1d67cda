import pytest
import transformers
from tiny_run import without_dropout
from transformers import (
    BertForMaskedLM,
    BertForSequenceClassification,
    PreTrainedModel,
)

from ulmfit_style.models.layers import layer_groups, split_by_layer


def names(model: PreTrainedModel, missing=()) -> dict[str, set[str]]:
    """Return the names of the parameters of each group."""
    name_of = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = layer_groups(model, missing)
    return {title: {name_of[id(parameter)] for parameter in parameters} for title, parameters in groups.items()}


def test_a_pooler_belongs_to_the_last_layer_or_if_the_checkpoint_lacked_it_to_the_head(
    masked_lm: BertForMaskedLM, tmp_path
):
    masked_lm.save_pretrained(tmp_path)
    pooler = {"bert.pooler.dense.weight", "bert.pooler.dense.bias"}
    model, loading = BertForSequenceClassification.from_pretrained(tmp_path, output_loading_info=True)
    assert names(model, loading["missing_keys"])["head"] == pooler | {"classifier.weight", "classifier.bias"}
    assert names(model)["layer 2"] > pooler
    assert names(model)["head"] == {"classifier.weight", "classifier.bias"}


TWO = ["embeddings", "layer 1", "layer 2", "head"]
RELATIVE = {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "norm_rel_ebd": "layer_norm"}
SEQ2SEQ = {"d_model": 16, "encoder_layers": 2, "decoder_layers": 2, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32}
SEQ2SEQ |= {"encoder_attention_heads": 2, "decoder_attention_heads": 2}


# What lies in the embeddings and in the last layer beside what nobody doubts.
@pytest.mark.parametrize(
    ("name", "sizes", "titles", "embeddings", "last"),
    [
        ("Bert", {}, TWO, "bert.embeddings.word_embeddings.weight", "bert.pooler.dense.weight"),
        ("Electra", {"embedding_size": 8}, TWO, "electra.embeddings_project.weight", "electra.encoder.layer.1"),
        ("DebertaV2", RELATIVE, TWO, "deberta.encoder.rel_embeddings.weight", "deberta.encoder.layer.1"),
        (
            *("Albert", {"embedding_size": 8, "num_hidden_layers": 4}, ["embeddings", "layer 1", "head"]),
            *("albert.encoder.embedding_hidden_mapping_in.weight", "albert.pooler.weight"),
        ),
        ("ModernBert", {}, TWO, "model.embeddings.norm.weight", "model.final_norm.weight"),
        ("GPT2", {"n_embd": 16, "n_layer": 2, "n_head": 2}, TWO, "transformer.wpe.weight", "transformer.ln_f.weight"),
        ("Llama", {}, TWO, "model.embed_tokens.weight", "model.norm.weight"),
        (
            *("T5", {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2}),
            *([*TWO[:3], "layer 3", "layer 4", "head"], "transformer.shared.weight"),
            "transformer.decoder.final_layer_norm.weight",
        ),
        (
            *("Bart", SEQ2SEQ, [*TWO[:3], "layer 3", "layer 4", "head"]),
            *("model.decoder.embed_positions.weight", "model.decoder.layers.1"),
        ),
    ],
)
def test_the_groups_hold_every_parameter_once_embeddings_first_and_head_last(
    name: str, sizes: dict, titles: list[str], embeddings: str, last: str, tiny: dict
):
    sizes = {**tiny, **sizes, **{f"{kind}_token_id": 0 for kind in ("bos", "eos", "cls", "sep", "pad")}}
    model = getattr(transformers, f"{name}ForSequenceClassification")(getattr(transformers, f"{name}Config")(**sizes))
    groups = names(model)
    assert sorted(name for group in groups.values() for name in group) == sorted(dict(model.named_parameters()))
    assert list(groups) == titles
    assert any(parameter.startswith(embeddings) for parameter in groups["embeddings"])
    assert any(parameter.startswith(last) for parameter in groups[titles[-2]])
    body = f"{model.base_model_prefix}."
    assert not any(parameter.startswith(body) for parameter in groups["head"])
    norms = {parameter for parameter in groups["embeddings"] if "layernorm" in parameter.lower()}
    assert not any(".layer" in parameter or ".block." in parameter for parameter in groups["embeddings"] - norms)


def test_what_is_tied_to_the_embeddings_belongs_to_them(tiny: dict, masked_lm: BertForMaskedLM):
    assert masked_lm.cls.predictions.decoder.weight is masked_lm.bert.embeddings.word_embeddings.weight
    assert len(names(masked_lm)["head"]) == 5  # two layers and a bias
    sizes = without_dropout(tiny)
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**sizes, tie_word_embeddings=True))
    assert list(layer_groups(model, ())) == TWO[:-1]
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**sizes, tie_word_embeddings=False))
    assert names(model)["head"] == {"lm_head.weight"}


def test_each_group_below_the_head_learns_more_slowly_and_the_optimizer_still_holds_every_parameter_once(
    masked_lm: BertForMaskedLM,
):
    spared = [parameter for parameter in masked_lm.parameters() if parameter.ndim == 1]
    decayed = [parameter for parameter in masked_lm.parameters() if parameter.ndim > 1]
    whole = [{"params": decayed, "weight_decay": 0.1, "lr": 0.8}, {"params": spared, "weight_decay": 0, "lr": 0.8}]
    groups = list(split_by_layer(whole, layer_groups(masked_lm, ()), 2))
    rates = [("head", 0.8), ("layer 2", 0.4), ("layer 1", 0.2), ("embeddings", 0.1)]
    assert [(group["layer"], group["lr"]) for group in groups] == [rate for rate in rates for _ in "ab"]
    assert [group["weight_decay"] for group in groups] == [0.1, 0] * 4
    assert all((parameter.ndim > 1) == bool(group["weight_decay"]) for group in groups for parameter in group["params"])
    held = [id(parameter) for group in groups for parameter in group["params"]]
    assert sorted(held) == sorted(id(parameter) for parameter in masked_lm.parameters())
