from collections.abc import Sequence
from functools import partial
from typing import Any

import pytest
import torch
from samples import reviews
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    PreTrainedTokenizerFast,
    TrainingArguments,
    set_seed,
)

from ulmfit_style.errors import UserError
from ulmfit_style.tasks.text_classification import TextClassification
from ulmfit_style.training.answers import collate
from ulmfit_style.training.objectives import Chunks, MaskedLM
from ulmfit_style.training.phases import Phase, Settings, run_phase
from ulmfit_style.training.trainer import RecipeTrainer

TASK = TextClassification(path="-", text="review", label="stars")


def features(tokenizer: PreTrainedTokenizerFast, count: int = 37) -> list[dict[str, Any]]:
    """Rows of many lengths, so that batches hold unequal numbers of tokens."""
    rows = []
    for number, (text, label, _) in enumerate(reviews(count)):
        (feature,) = TASK.encode(TASK.row(text + " film" * (number % 9)), tokenizer, 32, None)
        rows.append({**feature, "labels": int(label == "good")})
    return rows


def weights_after(kind: str, tokenizer: PreTrainedTokenizerFast, tiny: dict, tmp_path: Any, micro: int) -> torch.Tensor:
    """Train ten plain SGD steps of 8 rows, `micro` rows at a time."""
    set_seed(0)
    if kind == "masked language modelling":
        model: Any = BertForMaskedLM(BertConfig(**tiny))
        objective: Any = MaskedLM(tokenizer, 0.15, seed=0)
        texts = [text + " film" * (number % 9) for number, (text, _, _) in enumerate(reviews(37))]
        rows: Any = Chunks(texts, tokenizer, 32)
        gather = objective.collate
    else:
        model = BertForSequenceClassification(BertConfig(**tiny, num_labels=2))
        objective, rows, gather = TASK, features(tokenizer), partial(collate, tokenizer=tokenizer)
    trainer = RecipeTrainer(
        model=model,
        objective=objective,
        args=TrainingArguments(
            output_dir=str(tmp_path),
            max_steps=10,
            per_device_train_batch_size=micro,
            gradient_accumulation_steps=8 // micro,
            learning_rate=0.1,
            optim="sgd",
            max_grad_norm=0.0,
            train_sampling_strategy="sequential",
            report_to="none",
            save_strategy="no",
            disable_tqdm=True,
            remove_unused_columns=False,
            use_cpu=True,
        ),
        train_dataset=rows,
        data_collator=gather,
    )
    trainer.train()
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


@pytest.mark.parametrize("kind", ["masked language modelling", "classification"])
def test_accumulation_equals_one_big_batch(kind: str, tokenizer: PreTrainedTokenizerFast, tiny: dict, tmp_path: Any):
    whole, halves, singles = (weights_after(kind, tokenizer, tiny, tmp_path, micro) for micro in (8, 4, 1))
    start = weights_after(kind, tokenizer, tiny, tmp_path, 8)
    assert torch.equal(whole, start)  # the run itself repeats
    assert (whole - halves).abs().max() < 1e-6
    assert (whole - singles).abs().max() < 1e-6


class Learning:
    """A phase over a tiny classifier, with what it saw recorded."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, tiny: dict) -> None:
        set_seed(0)
        self.model = BertForSequenceClassification(BertConfig(**tiny, num_labels=2))
        self.tokenizer, self.seen = tokenizer, []
        self.rows = features(tokenizer)

    def collate(self, rows: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        self.seen.append([self.rows.index(row) for row in rows])
        return collate(rows, self.tokenizer)

    def run(self, number: int = 0, **phase: Any) -> list[dict[str, float]]:
        self.seen.clear()
        options = {"title": "test", "thawed": None, "epochs": 1, "learning_rate": 1e-3, **phase}
        return run_phase(self.model, Phase(**options), number, Settings(8, 0.1, 0.0, 0), TASK, self.rows, self.collate)


def test_frozen_parameters_stay_and_thawed_ones_move(tokenizer: PreTrainedTokenizerFast, tiny: dict):
    learning = Learning(tokenizer, tiny)
    before = {name: parameter.clone() for name, parameter in learning.model.named_parameters()}
    learning.run(thawed=list(learning.model.classifier.parameters()))
    moved = {name for name, parameter in learning.model.named_parameters() if not torch.equal(parameter, before[name])}
    assert moved == {"classifier.weight", "classifier.bias"}
    assert learning.model.bert.embeddings.word_embeddings.weight.grad is None


def test_a_phase_trains_every_row_once_an_epoch_and_phases_differ_in_order(
    tokenizer: PreTrainedTokenizerFast, tiny: dict
):
    learning = Learning(tokenizer, tiny)
    learning.run(number=0)
    first = [index for batch in learning.seen for index in batch]
    learning.run(number=1)
    second = [index for batch in learning.seen for index in batch]
    assert sorted(first) == sorted(second) == list(range(len(learning.rows)))
    assert first != second


def test_the_same_phase_gives_the_same_weights(tokenizer: PreTrainedTokenizerFast, tiny: dict):
    ends = []
    for _ in range(2):
        learning = Learning(tokenizer, tiny)
        log = learning.run(epochs=8)
        ends.append(torch.cat([parameter.detach().flatten() for parameter in learning.model.parameters()]))
    assert torch.equal(*ends)
    assert log[-1]["loss"] < log[0]["loss"]


def test_the_rate_rises_to_its_peak_and_falls_to_zero(tokenizer: PreTrainedTokenizerFast, tiny: dict):
    log = Learning(tokenizer, tiny).run(epochs=8)
    rates = {int(entry["step"]): entry["learning_rate"] for entry in log}
    # 40 steps, 4 of them warm-up; the rate of step n is that of n - 1 steps done.
    assert rates[10] == pytest.approx(1e-3 * (40 - 9) / 36)
    assert rates[40] == pytest.approx(1e-3 * 1 / 36)


def test_a_loss_that_is_not_a_number_stops_the_run_with_its_step(tokenizer: PreTrainedTokenizerFast, tiny: dict):
    learning = Learning(tokenizer, tiny)
    with torch.no_grad():
        learning.model.classifier.bias.fill_(torch.nan)
    with pytest.raises(UserError, match=r"the loss is nan at step 1; try a lower learning_rate"):
        learning.run(epochs=3)


def test_every_epoch_of_every_phase_has_masks_of_its_own(tokenizer: PreTrainedTokenizerFast, tiny: dict):
    model = BertForMaskedLM(BertConfig(**tiny))
    objective = MaskedLM(tokenizer, 0.15, seed=0)
    rows = Chunks([text for text, _, _ in reviews(20)], tokenizer, 32)
    turns = []

    def record(batch: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        turns.append(batch[0]["turn"])
        return objective.collate(batch)

    for number in range(2):
        run_phase(model, Phase("test", None, 2, 1e-3), number, Settings(10, 0.1, 0.0, 0), objective, rows, record)
    assert turns == [(1, 0), (1, 0), (1, 1), (1, 1), (2, 0), (2, 0), (2, 1), (2, 1)]
