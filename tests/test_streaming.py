"""A language model that carries its state: streams hold every token once, and are read as documents are."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from samples import PLAIN_LSTM, Killed, chunks, reviews
from torch.nn.functional import cross_entropy
from transformers import PreTrainedTokenizerFast, set_seed

from ulmfit_style.config.training import Pretrain
from ulmfit_style.data import tokens
from ulmfit_style.data.tokens import Chunks
from ulmfit_style.models.awd_lstm import AwdLstmConfig, AwdLstmForCausalLM
from ulmfit_style.models.layers import layer_groups
from ulmfit_style.tasks.base import IGNORED
from ulmfit_style.training.batching import ShuffledDataset
from ulmfit_style.training.phases import Phase, TrainingData, TrainingPlan, train
from ulmfit_style.training.streaming import StreamedLM, Streams

LENGTH, BATCH = 16, 4
OPTIONS = {"learning_rate": 1e-2, "warmup_ratio": 0.1, "weight_decay": 0.0, "mask_probability": 0.15, "path": None}


@pytest.fixture(scope="module")
def documents(tokenizer: PreTrainedTokenizerFast, tmp_path_factory: pytest.TempPathFactory) -> Chunks:
    """Documents of one sentence, and longer ones of several parts."""
    texts = [" ".join(text for text, _, _ in reviews(count, seed=count)) for count in (*range(1, 8), *[1] * 8)]
    return chunks(texts, tokenizer, tokens.WHOLE, tmp_path_factory.mktemp("streams"))


@pytest.fixture
def streams(documents: Chunks, tokenizer: PreTrainedTokenizerFast) -> Streams:
    return Streams(documents, StreamedLM(tokenizer, LENGTH), BATCH, seed=0)


def model_of(tokenizer: PreTrainedTokenizerFast, **fields: Any) -> AwdLstmForCausalLM:
    set_seed(0)
    return AwdLstmForCausalLM(AwdLstmConfig(vocab_size=len(tokenizer), hidden_size=16, lstm_size=24, **fields))


def test_every_token_is_read_once_in_an_epoch_in_parts_of_other_lengths_in_each(streams: Streams, documents: Chunks):
    lengths, orders = [], []
    for epoch in (0, 1):
        numbers = [step * BATCH + stream for stream in range(BATCH) for step in range(len(streams) // BATCH)]
        parts = [streams.part((1, epoch), number) for number in numbers]
        assert len(np.concatenate([part["input_ids"] for part in parts])) == documents.tokens
        predicted = np.concatenate([part["labels"] for part in parts])
        assert np.count_nonzero(predicted != IGNORED) == documents.tokens - len(documents)
        assert all(part["starts"][0] for part in parts[:: len(streams) // BATCH])
        lengths.append([len(part["input_ids"]) for part in parts])
        orders.append(predicted)
    assert len(set(lengths[0])) > 4
    assert lengths[0] != lengths[1]
    assert not np.array_equal(*orders)
    dataset = ShuffledDataset(streams, BATCH, seed=0, phase=0)
    assert [dataset[place]["index"] for place in range(len(dataset))] == list(range(len(streams)))


@pytest.mark.parametrize("direction", ["forward", "backward"])
@torch.no_grad()
def test_streams_and_held_out_documents_are_predicted_as_in_one_long_pass(
    documents: Chunks, tokenizer: PreTrainedTokenizerFast, direction: str
):
    model = model_of(tokenizer, direction=direction).eval()
    objective = StreamedLM(tokenizer, LENGTH, direction == "backward")
    for weight in model.body.layers.parameters():
        weight.mul_(3)  # or the state would hardly matter
    total = 0.0
    for row in range(len(documents)):
        ids = torch.from_numpy(np.array(documents[row]["input_ids"], np.int64))
        logits = model.config.turned(model(ids[None]).logits)[0, :-1]
        total += cross_entropy(logits, model.config.turned(ids[None])[0, 1:], reduction="sum").item()
    count = documents.tokens - len(documents)
    assert objective.measure(model, documents)["loss"] == pytest.approx(total / count, abs=1e-6)
    one = Streams(documents, objective, 1, seed=0)  # a stream that cuts no document
    batches = [one.collate([{"index": index, "phase_epoch": (1, 0)}]) for index in range(len(one))]
    assert sum(one.objective.loss(model, batch).item() for batch in batches) == pytest.approx(total, rel=1e-6)


def trained(
    streams: Streams, folder: Path, *, micro: int | None = None, killed_at: int = -1, **fields: Any
) -> dict[str, torch.Tensor]:
    """Train a tiny model for two epochs, and return its weights; it is killed before a pass, counted from the start."""
    model, passes = model_of(streams.objective.tokenizer, **fields), 0

    def collate(rows: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        nonlocal passes
        passes += 1
        if passes == killed_at:
            raise Killed
        return streams.collate(rows)

    options = Pretrain(**OPTIONS, epochs=2, batch_size=BATCH, max_length=LENGTH, seed=0, trainer={})
    data, phase = TrainingData(streams.objective, streams, collate), Phase("all", [*model.parameters()], 2, 1e-2)
    train(TrainingPlan(model, [phase], data, options, layer_groups(model, ()), micro, 1e-9), folder)
    return model.state_dict()


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor], tolerance: float = 0) -> bool:
    return all(torch.allclose(weight, other[name], rtol=0, atol=tolerance) for name, weight in one.items())


def test_a_run_that_is_killed_goes_on_with_the_same_states(
    documents: Chunks, tokenizer: PreTrainedTokenizerFast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def new() -> Streams:  # as in another process
        return Streams(documents, StreamedLM(tokenizer, LENGTH), BATCH, seed=0)

    whole = trained(new(), tmp_path / "whole")
    for folder in ("killed", "without states"):
        with pytest.raises(Killed):
            trained(new(), tmp_path / folder, killed_at=5)
    assert equal(trained(new(), tmp_path / "killed"), whole)
    monkeypatch.setattr(StreamedLM, "load", lambda *_: None)  # that the states matter
    assert not equal(trained(new(), tmp_path / "without states"), whole)


def test_a_batch_that_is_split_has_the_states_of_all_its_streams(
    documents: Chunks, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
):
    ends = [
        trained(
            Streams(documents, StreamedLM(tokenizer, LENGTH), BATCH, 0),
            tmp_path / f"{micro}",
            micro=micro,
            **PLAIN_LSTM,
        )
        for micro in (None, 2)
    ]
    assert equal(*ends, tolerance=1e-4)
