import pytest
import transformers
from transformers import BertForMaskedLM, BertForSequenceClassification

from ulmfit_style.training.layers import head


def names(model, missing=()) -> set[str]:
    chosen = {id(parameter) for parameter in head(model, missing)}
    return {name for name, parameter in model.named_parameters() if id(parameter) in chosen}


def test_the_head_of_a_masked_language_model_leaves_the_tied_decoder_to_the_embeddings(masked_lm: BertForMaskedLM):
    assert masked_lm.cls.predictions.decoder.weight is masked_lm.bert.embeddings.word_embeddings.weight
    assert names(masked_lm) == {
        "cls.predictions.bias",
        "cls.predictions.transform.dense.weight",
        "cls.predictions.transform.dense.bias",
        "cls.predictions.transform.LayerNorm.weight",
        "cls.predictions.transform.LayerNorm.bias",
    }


def test_a_pooler_that_the_checkpoint_lacked_belongs_to_the_head(masked_lm: BertForMaskedLM, tmp_path):
    masked_lm.save_pretrained(tmp_path)
    model, loaded = BertForSequenceClassification.from_pretrained(tmp_path, output_loading_info=True)
    assert names(model, loaded["missing_keys"]) == {
        "bert.pooler.dense.weight",
        "bert.pooler.dense.bias",
        "classifier.weight",
        "classifier.bias",
    }


@pytest.mark.parametrize("name", ["Bert", "Roberta", "Electra", "DebertaV2"])
def test_head_and_body_cover_every_parameter_once(name: str, tiny: dict):
    model = getattr(transformers, f"{name}ForSequenceClassification")(getattr(transformers, f"{name}Config")(**tiny))
    parts = [id(parameter) for parameter in [*model.base_model.parameters(), *head(model, ())]]
    assert sorted(parts) == sorted(id(parameter) for parameter in model.parameters())
