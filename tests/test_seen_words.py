"""The table of words that is trained holds those of the rows alone, and the model ends as it does with all words."""

import copy
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from exact import TASKS, features, untrained
from samples import Killed
from test_kept_trunk import ARCHITECTURES, made
from tiny_run import finetune_options
from torch import nn
from transformers import PreTrainedTokenizerFast

from ulmfit_style.config.training import CONTRAST_GROUP_SIZE
from ulmfit_style.errors import UserError
from ulmfit_style.models.layers import add_adapters, layer_groups
from ulmfit_style.training.batching import EncodedDataset, collate
from ulmfit_style.training.contrast import ContrastiveDataset, ContrastiveObjective
from ulmfit_style.training.objectives import MaskedLM
from ulmfit_style.training.phases import Phase, TrainingData, TrainingPlan, train
from ulmfit_style.training.seen_words import seen_words

MODELS = ("classification", "token classification", "question answering", *ARCHITECTURES, "pooled")


@pytest.fixture
def plan_of(tokenizer: PreTrainedTokenizerFast, tiny: dict) -> Callable[..., TrainingPlan]:
    def plan(name: str, lora_rank: int = 0, **options: Any) -> TrainingPlan:
        """Return two phases of a model of a name: the head or a contrast, and all that is ever trained."""
        model = made(name, tiny) if name in MODELS else untrained(name, tiny)
        kind = name if name in TASKS else "classification"
        section = finetune_options(weight_decay=0.3, lora_rank=lora_rank, **options)
        layers = add_adapters(model, layer_groups(model, ()), section)
        data = TrainingData(TASKS[kind], features(tokenizer, kind=kind), partial(collate, tokenizer=tokenizer))
        every = [weights for group in layers.values() for weights in group]
        first = Phase("head", layers.get("head", every), 1, 0.01)
        if name == "pooled":
            rows = ContrastiveDataset([dict(row) for row in data.rows], tokenizer, seed=0)
            drawn = TrainingData(ContrastiveObjective(), rows, rows.collate, CONTRAST_GROUP_SIZE)
            first = Phase("contrast", list(model.body.parameters()), 2, 0.01, data=drawn)
        return TrainingPlan(model, [first, Phase("all", every, 2, 0.01)], data, section, layers, save_minutes=1e-9)

    return plan


@pytest.fixture
def unseen(tokenizer: PreTrainedTokenizerFast) -> int:
    """Return a word that no row has."""
    words = {int(word) for kind in TASKS for row in features(tokenizer, kind=kind) for word in row["input_ids"]}
    return max(set(range(len(tokenizer))) - words)


def table(plan: TrainingPlan) -> torch.Tensor:
    return plan.model.get_input_embeddings().weight


# Adam would blow up the rounding errors where a gradient is zero, as that of question answering is in places.
@pytest.mark.parametrize(
    ("name", "optimizer"),
    [*((name, "sgd") for name in MODELS), ("pooled", "adamw_torch"), ("GPT2", "adamw_torch_fused")],
)
def test_the_model_is_that_of_the_whole_table_while_it_is_trained_and_in_the_end(
    name: str, optimizer: str, plan_of, unseen: int, tmp_path: Path
):
    ends, sizes, answers = [], [], []
    for fast in (True, False):
        plan = replace(plan_of(name, trainer={"optim": optimizer}), fast=fast)
        begun = table(plan).detach().clone()

        def answer(plan: TrainingPlan = plan) -> dict[str, float]:
            """Answer a row that has a word which is not trained on."""
            sizes.append(len(table(plan)))
            with torch.no_grad():
                output = plan.model.eval()(input_ids=torch.tensor([[5, unseen]]), attention_mask=torch.ones(1, 2))
            answers.append(next(iter(output.values())).flatten())
            return {}

        train(plan, tmp_path / str(fast), answer)
        ends.append(torch.cat([weights.detach().flatten() for weights in plan.model.parameters()]))
        assert table(plan).shape == begun.shape
        assert not torch.equal(table(plan)[unseen], begun[unseen])  # it decays
    assert max(sizes[:3]) < min(sizes[3:]) == len(begun)
    assert all(torch.allclose(*pair, atol=2e-6) for pair in zip(answers[:3], answers[3:], strict=True))
    assert not torch.allclose(answers[0], answers[2], atol=1e-4)
    assert torch.allclose(*ends, atol=2e-6)


@pytest.mark.parametrize(
    ("name", "options", "differently"),
    [
        ("completions", {}, {}),  # whose output layer has the weights of the table
        ("summarisation", {}, {}),  # whose decoder reads other words
        ("classification", {"trainer": {"optim": "adafactor"}}, {}),
        ("classification", {"trainer": {"use_cpu": True}}, {}),
        ("classification", {"lora_rank": 4}, {}),
        ("classification", {}, {"shard": True}),
        ("classification", {}, {"fast": False}),
        ("masked language modelling", {}, {}),
        ("scaled", {}, {}),
        ("every word", {}, {}),
    ],
)
def test_the_table_is_left_as_it_is_where_the_result_would_not_be_the_same_or_it_is_not_trained(
    name: str,
    options: dict[str, Any],
    differently: dict[str, Any],
    plan_of,
    tokenizer: PreTrainedTokenizerFast,
):
    kind = name if name in TASKS else "classification"
    plan = replace(plan_of(kind, **options), **differently)
    words = plan.model.get_input_embeddings()
    before, size = words.weight, len(words.weight)
    match name:
        case "completions":
            plan.model.lm_head.weight = before
        case "summarisation":
            plan.model.lm_head.weight = nn.Parameter(before.detach().clone())
            plan.model.decoder.embed_tokens = plan.model.encoder.embed_tokens = words
        case "masked language modelling":
            plan = replace(plan, data=replace(plan.data, objective=MaskedLM(tokenizer, 0.15, 0)))
        case "scaled":
            words.__class__ = type("Scaled", (nn.Embedding,), {})
        case "every word":
            plan = replace(plan, data=replace(plan.data, rows=EncodedDataset([{"input_ids": [*range(size)]}])))
    with seen_words(plan):
        assert table(plan) is before
        assert len(before) == size


def test_the_table_is_whole_again_after_an_error(plan_of):
    plan = plan_of("classification")
    words, size = plan.model.get_input_embeddings(), len(table(plan))
    with suppress(Killed), seen_words(plan):
        assert len(words.weight) < size
        raise Killed
    assert len(words.weight) == size
    assert torch.equal(words(torch.arange(size)), words.weight)


def test_padding_that_a_model_reads_is_trained(plan_of, tokenizer: PreTrainedTokenizerFast, unseen: int):
    plan = plan_of("classification")
    plan.data.collate.keywords["tokenizer"] = tokenizer = copy.deepcopy(tokenizer)
    tokenizer.pad_token = tokenizer.convert_ids_to_tokens(unseen)
    with seen_words(plan):
        plan.model(input_ids=torch.tensor([[5, tokenizer.pad_token_id]])).logits.sum().backward()
        assert table(plan).grad[:-1].abs().sum(1).gt(0).sum() == 2
        assert not table(plan).grad[-1].any()


def test_a_checkpoint_with_a_table_of_another_size_is_refused(plan_of, tmp_path: Path):
    train(plan_of("classification"), tmp_path)
    with pytest.raises(UserError, match=r"embeddings.weight has another size there; give the other value of fast, or "):
        train(replace(plan_of("classification"), fast=False), tmp_path)
