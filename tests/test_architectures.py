"""A checkpoint of an architecture without the head that a stage needs is answered at the door."""

import json
from pathlib import Path

import pytest
from transformers.models.auto import modeling_auto

from ulmfit_style.__main__ import main
from ulmfit_style.errors import UserError
from ulmfit_style.models.architectures import can_cross_attend, has_head, objective


@pytest.mark.parametrize(
    ("auto_class", "table"),
    [
        ("AutoModelForMaskedLM", modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES),
        ("AutoModelForCausalLM", modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES),
        ("AutoModelForSeq2SeqLM", modeling_auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES),
        ("AutoModelForSequenceClassification", modeling_auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES),
        ("AutoModelForTokenClassification", modeling_auto.MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES),
    ],
)
def test_every_architecture_of_the_library_is_known(auto_class: str, table: dict):
    assert len(table) > 30
    assert [name for name in modeling_auto.MODEL_MAPPING_NAMES if has_head(auto_class, name) != (name in table)] == []


def test_the_objective_is_that_of_the_architecture():
    assert [objective(name) for name in ("bert", "modernbert", "llama", "gpt2")] == ["mlm", "mlm", "clm", "clm"]
    assert {objective(name) for name in ("t5", "mt5", "bart", "marian", "pegasus")} == {"denoising"}
    with pytest.raises(UserError, match="adapt: a model of type 'vit' has no head for unlabelled text; choose another"):
        objective("vit")


def test_architectures_that_can_be_decoders_with_cross_attention_are_known():
    assert all(map(can_cross_attend, ("bert", "gpt2", "roberta", "bert-generation")))
    assert not any(map(can_cross_attend, ("llama", "distilbert", "t5", "vit")))


def test_a_model_without_an_objective_is_answered_before_the_data_is_read(
    checkpoint: Path, tiny_overrides, tmp_path: Path, capsys
):
    options = [option for option in renamed(checkpoint, tmp_path / "model", model_type="vit") if option != "adapt=none"]
    for stages in (["adapt"], ["adapt", "finetune"], ["plan"]):
        assert main([*stages, *tiny_overrides, *options]) == 2
        printed = capsys.readouterr()
        assert "adapt: a model of type 'vit' has no head for unlabelled text; choose another" in printed.err
        assert printed.out == ""
    assert not (tmp_path / "runs").exists()


def test_an_encoder_decoder_that_can_take_no_text_out_is_answered_before_anything_is_trained(
    causal_checkpoint: Path, tiny_overrides, tmp_path: Path, capsys
):
    options = [f"model.checkpoint={tmp_path / 'model'}"]
    renamed(causal_checkpoint, tmp_path / "model", model_type="marian")
    assert main(["adapt", *tiny_overrides, *options]) == 2
    assert "the tokenizer has neither sentinels (<extra_id_0>) nor a mask" in capsys.readouterr().err
    assert not list((tmp_path / "runs").glob("adapt-*"))


def renamed(checkpoint: Path, folder: Path, **changes: str | None) -> list[str]:
    """Copy a checkpoint with another config.json, and return the options that fine-tune it."""
    folder.mkdir()
    for path in checkpoint.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    config = {**json.loads((folder / "config.json").read_text()), **changes}
    (folder / "config.json").write_text(json.dumps({name: value for name, value in config.items() if value}))
    return [f"model.checkpoint={folder}", "adapt=none", "task.path=nowhere.csv"]


@pytest.mark.parametrize(
    ("model_type", "message"),
    [
        ("vit", ": is of type 'vit', and TextClassification needs one that AutoModelForSequenceClassification knows"),
        (None, ": its config.json has no model_type"),
    ],
)
def test_a_model_that_the_task_cannot_use_is_answered_before_the_data_is_read(
    checkpoint: Path, tiny_overrides, tmp_path: Path, capsys, model_type: str | None, message: str
):
    options = renamed(checkpoint, tmp_path / "model", model_type=model_type)
    own = [override for override in tiny_overrides if not override.startswith("adapt.")]
    assert main(["finetune", *own, *options]) == 2
    assert f"model.checkpoint={tmp_path / 'model'}{message}" in capsys.readouterr().err
