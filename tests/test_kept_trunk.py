"""A phase that trains the head alone runs the frozen trunk once, and ends with the same weights."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from exact import TASKS, features, labelled, untrained
from tiny_run import finetune_options, without_dropout
from transformers import BertModel, PreTrainedModel, PreTrainedTokenizerFast, TrainerCallback, set_seed

from ulmfit_style.models.layers import add_adapters, layer_groups
from ulmfit_style.models.pooling import PooledConfig, PooledForSequenceClassification
from ulmfit_style.training import kept_trunk
from ulmfit_style.training.batching import collate
from ulmfit_style.training.phases import Phase, TrainingData, TrainingPlan, train_phase

HEADS = ("classification", "multi-label classification", "regression", "token classification", "question answering")
NO_DROPOUT = ("embd_pdrop", "attn_pdrop", "resid_pdrop", "hidden_dropout_prob", "attention_probs_dropout_prob")
ARCHITECTURES = {"GPT2": {"n_embd": 16, "n_head": 2}, "Llama": {}, "Roberta": {"max_position_embeddings": 200}}
MODELS = [*HEADS, *ARCHITECTURES, "pooled", "low-rank adapters"]


def made(name: str, tiny: dict[str, Any]) -> PreTrainedModel:
    """Return a model of a name, whose head has no dropout."""
    set_seed(0)
    if name in ARCHITECTURES:
        task = TASKS["classification"]
        config = getattr(transformers, f"{name}Config")
        sizes = {**without_dropout(tiny), **ARCHITECTURES[name], **task.head(task.classes(labelled("classification")))}
        sizes |= {"pad_token_id": 0, **dict.fromkeys(NO_DROPOUT, 0.0)}
        return getattr(transformers, f"{name}ForSequenceClassification")(config(**sizes))
    if name == "pooled":
        body = BertModel(transformers.BertConfig(**tiny))
        return PooledForSequenceClassification(PooledConfig(body=body.config.to_dict(), pooling="mean"), body)
    return untrained(name, tiny, classifier_dropout=0.0)


class Scoring(TrainerCallback):
    """Runs the model on a row that is not trained on."""

    def on_step_end(self, *arguments: Any, model: PreTrainedModel, **kwargs: Any) -> None:
        model.eval()(input_ids=torch.tensor([[5, 5]]), attention_mask=torch.tensor([[1, 1]]))


@pytest.fixture
def end_of(tokenizer: PreTrainedTokenizerFast, tiny: dict, tmp_path: Path) -> Callable[..., tuple[torch.Tensor, int]]:
    def train(name: str, epochs: float = 2, **sizes: Any) -> tuple[torch.Tensor, int]:
        """Train a head, and return the model's weights and how often its trunk was run."""
        model, kind = made(name, {**tiny, **sizes}), name if name in HEADS else "classification"
        layers = layer_groups(model, ())
        if name == "low-rank adapters":
            layers = add_adapters(model, layers, finetune_options(lora_rank=4))
        runs: list[Any] = []
        model.get_input_embeddings().register_forward_hook(lambda *arguments: runs.append(arguments))
        data = TrainingData(TASKS[kind], features(tokenizer, kind=kind), partial(collate, tokenizer=tokenizer))
        phase = Phase("head", layers["head"], epochs, learning_rate=0.1)
        # Adam would blow up the rounding errors where a gradient is zero.
        options = finetune_options(trainer={"optim": "sgd"})
        plan = TrainingPlan(model, [phase], data, options, layers, micro_batch_size=4)
        train_phase(plan, 0, tmp_path / str(len(list(tmp_path.iterdir()))), [Scoring()])
        return torch.cat([weights.detach().flatten() for weights in model.parameters()]), len(runs) - plan.steps(0)

    return train


@pytest.mark.parametrize("name", MODELS)
def test_the_trunk_is_run_once_without_dropout_and_the_weights_are_those_of_running_it_each_time(
    name: str, end_of, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    weights, runs = end_of(name, **({"hidden_dropout_prob": 0.5} if name in HEADS else {}))
    assert runs <= 5  # each of 512 tokens
    assert "head: the frozen layers are run once, and their outputs are kept" in capsys.readouterr().out
    monkeypatch.setattr(kept_trunk, "MAX_BYTES", 1000)
    expected, runs = end_of(name)
    assert runs > 10
    assert "run on every pass: their outputs would take 0.0 GB" in capsys.readouterr().out
    assert (weights - expected).abs().max() < 1e-6


def test_one_pass_keeps_nothing(end_of):
    assert end_of("classification", epochs=1)[1] == 10
