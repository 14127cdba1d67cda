"""The contrastive phase: which texts are compared, by which loss, and what comes of it."""

import math
from collections import Counter
from pathlib import Path

import pytest
import torch
from samples import good_or_bad
from torch.nn.functional import cosine_similarity
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast, set_seed

from ulmfit_style.cli.compose import compose
from ulmfit_style.config.training import CONTRAST_GROUP_SIZE
from ulmfit_style.errors import UserError
from ulmfit_style.models.pooling import PooledConfig, PooledForSequenceClassification
from ulmfit_style.tasks.text_classification import TextClassification
from ulmfit_style.training import checks, contrast
from ulmfit_style.training.contrast import TEMPERATURE, ContrastiveDataset, ContrastiveObjective


def grouped(tokenizer: PreTrainedTokenizerFast, classes: list[int]) -> ContrastiveDataset:
    rows = good_or_bad(tokenizer, TextClassification(path="-"))
    of_classes = [{**row, "labels": label} for row, label in zip(rows, classes, strict=True)]
    return ContrastiveDataset(of_classes, tokenizer, seed=3)


@pytest.fixture
def model(tiny: dict) -> PooledForSequenceClassification:
    set_seed(0)
    body = BertModel(BertConfig(**{**tiny, "initializer_range": 0.3}), add_pooling_layer=False)
    return PooledForSequenceClassification(PooledConfig(body=body.config.to_dict(), pooling="mean"), body).eval()


@pytest.mark.parametrize(("classes", "shares"), [(2, [4, 4]), (3, [2, 2, 4]), (7, [2, 2, 2, 2])], ids=str)
def test_a_row_has_two_texts_at_least_of_each_class_that_it_has_and_none_twice(
    classes: int, shares: list[int], tokenizer: PreTrainedTokenizerFast
):
    groups = grouped(tokenizer, [number % classes for number in range(40)])
    seen = set()
    for index in range(len(groups)):
        drawn = list(groups.draw((1, 0), index))
        assert sorted(Counter(feature["labels"] for feature in drawn).values()) == shares
        assert len({feature["number"] for feature in drawn}) == CONTRAST_GROUP_SIZE
        seen |= {feature["labels"] for feature in drawn}
    assert len(groups) == math.ceil(40 / CONTRAST_GROUP_SIZE)
    assert len(seen) > 1


def test_the_only_text_of_a_class_comes_twice_and_draws_depend_on_seed_phase_epoch_and_row_alone(
    tokenizer: PreTrainedTokenizerFast,
):
    groups = grouped(tokenizer, [0] * 20 + [1] * 19 + [2])
    other = ContrastiveDataset(groups.features, tokenizer, seed=4)
    places = [(groups, (1, 0), 0), (groups, (1, 1), 0), (groups, (2, 0), 0), (groups, (1, 0), 1), (other, (1, 0), 0)]
    drawn = [[feature["number"] for feature in rows.draw(epoch, index)] for rows, epoch, index in places]
    assert all(numbers.count(39) in (2, 4) for numbers in drawn)
    assert len(set(map(tuple, drawn))) == len(drawn)
    assert [feature["number"] for feature in groups.draw((1, 0), 0)] == drawn[0]


def test_texts_of_like_length_run_together_and_change_no_gradient(
    tokenizer: PreTrainedTokenizerFast, model: PooledForSequenceClassification
):
    groups, tokens, gradients = grouped(tokenizer, [number % 3 for number in range(40)]), [], []
    for number, feature in enumerate(groups.features):
        for name, filling in (("input_ids", 5), ("attention_mask", 1), ("token_type_ids", 0)):
            if name in feature:
                feature[name] = [*feature[name], *[filling] * (number % 9)]
    batch = groups.collate([{"phase_epoch": (1, 0), "index": index} for index in (0, 1)])
    for parts in (contrast.PARTS, 1):
        shapes: list[int] = []
        with model.body.register_forward_pre_hook(
            lambda *arguments, shapes=shapes: shapes.append(arguments[2]["input_ids"].numel()), with_kwargs=True
        ):
            ContrastiveObjective(parts).loss(model, batch).backward()
        tokens.append(sum(shapes))
        gradients.append(torch.cat([weight.grad.flatten() for weight in model.body.parameters()]))
        model.zero_grad()
    assert int(batch["attention_mask"].sum()) <= tokens[0] < tokens[1] == batch["input_ids"].numel()
    assert (gradients[0] - gradients[1]).abs().max() < 1e-5 * gradients[1].abs().max()


@torch.no_grad()
def test_the_loss_is_that_of_the_paper(tokenizer: PreTrainedTokenizerFast, model: PooledForSequenceClassification):
    groups = grouped(tokenizer, [number % 3 for number in range(40)])
    rows = [{"phase_epoch": (1, 0), "index": index} for index in (0, 1)]
    batch = groups.collate(rows)
    expected = 0.0
    for row in rows:
        drawn = list(groups.draw(row["phase_epoch"], row["index"]))
        read = [model.body(torch.tensor([feature["input_ids"]])).last_hidden_state[0].mean(0) for feature in drawn]
        labels = [feature["labels"] for feature in drawn]
        for anchor, label in enumerate(labels):
            # Khosla et al. 2020, eq. 2: L_out of one anchor.
            others = [place for place in range(CONTRAST_GROUP_SIZE) if place != anchor]
            near = {place: cosine_similarity(read[anchor], read[place], dim=0) / TEMPERATURE for place in others}
            whole = torch.stack(list(near.values())).exp().sum().log()
            positive = [near[place] - whole for place in others if labels[place] == label]
            expected += float(-sum(positive) / len(positive)) / CONTRAST_GROUP_SIZE
    found = ContrastiveObjective().loss(model, batch)
    assert found.item() == pytest.approx(expected, rel=1e-5)
    assert ContrastiveObjective().count(batch) == 2
    assert batch["labels"].shape == (2, CONTRAST_GROUP_SIZE)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["finetune.pooling=default"], r"contrast_steps needs a head that pools .*finetune\.pooling=mean"),
        (["task=text_regression"], r"finetune\.contrast_steps=50: is for texts of one class each, and .* none"),
        (
            ["processes=2"],
            r"finetune\.batch_size=8: take a multiple of 16, because each of 2 processes reads 8 texts at once",
        ),
    ],
)
def test_what_cannot_be_contrasted_is_refused(options: list[str], message: str, checkpoint: Path):
    overrides = ["task.path=-", f"model.checkpoint={checkpoint}", "finetune=few_labels", *options]
    with pytest.raises(UserError, match=message):  # noqa: PT012
        config = compose(["task=text_classification", "finetune.batch_size=8", *overrides])
        checks.finetune(config, config.require_task())
