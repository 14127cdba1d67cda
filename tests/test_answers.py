import pytest
import torch
from samples import reviews
from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast, set_seed

from ulmfit_style.tasks.text_classification import TextClassification
from ulmfit_style.training import scoring
from ulmfit_style.training.scoring import Scorer

TASK = TextClassification(path="-", text="review", label="stars")
TEXTS = [text + " film" * (number % 7) for number, (text, _, _) in enumerate(reviews(20))]


@pytest.fixture
def model(tiny: dict, tokenizer: PreTrainedTokenizerFast) -> BertForSequenceClassification:
    """An untrained classifier, its bias set so that it answers these texts in both ways."""
    set_seed(0)
    model = BertForSequenceClassification(BertConfig(**tiny, id2label={0: "bad", 1: "good"}, initializer_range=1.0))
    with torch.no_grad():
        logits = torch.cat([model.eval()(**tokenizer(text, return_tensors="pt")).logits for text in TEXTS])
        model.classifier.bias -= logits.mean(0)
    return model


@pytest.mark.parametrize("window", [3, 2048])
def test_answers_come_in_the_order_of_the_rows_and_padding_does_not_change_them(
    model: BertForSequenceClassification,
    tokenizer: PreTrainedTokenizerFast,
    window: int,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(scoring, "WINDOW", window)
    monkeypatch.setattr(scoring, "BATCH", 4)
    found = list(Scorer(model, tokenizer, TASK, 32).answers(map(TASK.row, TEXTS)))
    model.eval()
    for text, answer in zip(TEXTS, found, strict=True):
        with torch.no_grad():
            alone = model(**tokenizer(text, return_tensors="pt")).logits.softmax(-1)[0]
        assert answer["label"] == model.config.id2label[int(alone.argmax())]
        assert answer["score"] == pytest.approx(float(alone.max()), abs=1e-5)
    assert len({answer["label"] for answer in found}) == 2  # or the test would say nothing


def test_every_row_is_counted_as_done(model: BertForSequenceClassification, tokenizer: PreTrainedTokenizerFast):
    done = []
    texts = ["a film"] * 130 + ["film " * 40] * 3
    list(Scorer(model, tokenizer, TASK, 32).answers(map(TASK.row, texts), lambda *counts: done.append(counts)))
    assert [sum(counts) for counts in zip(*done, strict=True)] == [133, 3]
    assert len(done) == 3  # batches
