"""A checkpoint of an architecture without the head that a stage needs is answered at the door."""

import json
import shutil
from pathlib import Path

import pytest
from transformers.models.auto import modeling_auto

from ulmfit_style.chain import plan
from ulmfit_style.cli.compose import compose
from ulmfit_style.errors import UserError
from ulmfit_style.models import architectures
from ulmfit_style.models.architectures import can_cross_attend, has_head, language_model_class
from ulmfit_style.stages.table import resolve


def test_the_heads_of_every_architecture_of_the_library_are_known():
    table = modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES
    for name in modeling_auto.MODEL_MAPPING_NAMES:
        assert has_head("AutoModelForMaskedLM", name) == (name in table)


def test_the_objective_is_that_of_the_architecture():
    assert {language_model_class(name) for name in ("bert", "modernbert")} == {architectures.MASKED_LM}
    assert {language_model_class(name) for name in ("llama", "gpt2")} == {architectures.CAUSAL_LM}
    for name in ("t5", "mt5", "bart", "marian", "pegasus"):
        assert language_model_class(name) == architectures.ENCODER_DECODER
    with pytest.raises(UserError, match="adapt: a model of type 'vit' has no head for unlabelled text; choose another"):
        language_model_class("vit")


def test_architectures_that_can_be_decoders_with_cross_attention_are_known():
    assert all(map(can_cross_attend, ("bert", "gpt2", "roberta", "bert-generation")))
    assert not any(map(can_cross_attend, ("llama", "distilbert", "t5", "vit")))


@pytest.mark.parametrize(
    ("stage", "model_type", "message"),
    [
        ("adapt", "marian", r"the tokenizer has neither sentinels \(<extra_id_0>\) nor a mask"),
        ("finetune", "vit", "'vit', and TextClassification needs one that AutoModelForSequenceClassification"),
        ("finetune", None, r"its config\.json has no model_type"),
    ],
)
def test_a_model_that_cannot_be_trained_so_is_answered_before_the_data_is_read(
    causal_checkpoint: Path, tmp_path: Path, stage: str, model_type: str | None, message: str
):
    model = shutil.copytree(causal_checkpoint, tmp_path / "model")
    config = {**json.loads((model / "config.json").read_text()), "model_type": model_type}
    (model / "config.json").write_text(json.dumps({name: value for name, value in config.items() if value}))
    data = ["task=text_classification", "task.path=nowhere.csv", *(["adapt=none"] if stage == "finetune" else [])]
    with pytest.raises(UserError, match=message):
        plan(resolve(compose([*data, f"model.checkpoint={model}"])), [stage])
