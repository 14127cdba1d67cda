import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from exact import ADAPTERS, KINDS, LAYERWISE, TASK, features, weights_after
from samples import chunks, reviews
from transformers import BertConfig, BertForMaskedLM, BertForSequenceClassification, PreTrainedTokenizerFast, set_seed

from ulmfit_style import console
from ulmfit_style.errors import UserError
from ulmfit_style.models.layers import layer_groups
from ulmfit_style.processes import split
from ulmfit_style.training.batching import ShuffledDataset, collate
from ulmfit_style.training.objectives import MaskedLM
from ulmfit_style.training.phases import Phase, PhaseResult, PhaseSettings, TrainingData, TrainingPlan, train


@pytest.mark.parametrize("kind", KINDS)
def test_accumulation_equals_one_big_batch(kind: str, tokenizer: PreTrainedTokenizerFast, tiny: dict, tmp_path: Path):
    whole, halves, singles = (weights_after(kind, tokenizer, tiny, tmp_path, micro) for micro in (8, 4, 1))
    start = weights_after(kind, tokenizer, tiny, tmp_path, 8)
    assert torch.equal(whole, start)  # the run itself repeats
    assert (whole - halves).abs().max() < 1e-6
    assert (whole - singles).abs().max() < 1e-6


# The other kinds differ by their loss alone, which accumulation tries.
@pytest.mark.parametrize(
    "kind",
    [
        *KINDS[:5],
        *(pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS[5:-1]),
        LAYERWISE,
        ADAPTERS,
        "summarisation",
    ],
)
def test_two_processes_equal_one_big_batch(kind: str, tokenizer: PreTrainedTokenizerFast, tiny: dict, tmp_path: Path):
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    script = Path(__file__).with_name("exact.py")
    tokenizer.save_pretrained(tmp_path)
    ended = subprocess.run([*torchrun, str(script), kind, str(tmp_path)], capture_output=True, check=False)
    assert ended.returncode == 0, ended.stderr.decode()
    ranks = [torch.load(tmp_path / f"weights.{rank}") for rank in (0, 1)]
    assert torch.equal(*ranks)
    assert (weights_after(kind, tokenizer, tiny, tmp_path, 8) - ranks[0]).abs().max() < 1e-6


class Learning:
    """Phases over a tiny classifier, with the rows of every batch recorded."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, tiny: dict, folder: Path) -> None:
        set_seed(0)
        self.model = BertForSequenceClassification(BertConfig(**tiny, num_labels=2))
        self.tokenizer, self.folder = tokenizer, folder
        self.rows = features(tokenizer)
        self.seen: list[list[int]] = []

    def collate(self, rows: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        self.seen.append([row["row"] for row in rows])
        return collate(rows, self.tokenizer)

    def run(self, *phases: dict[str, Any], **options: Any) -> list[PhaseResult]:
        defaults = {"title": "test", "thawed": list(self.model.parameters()), "epochs": 1, "learning_rate": 1e-3}
        settings = PhaseSettings(8, 0.1, 0.0, 0, None, 1, 60, {}, **options)
        todo = [Phase(**{**defaults, **phase}) for phase in phases]
        return train(TrainingPlan(self.model, todo, settings, TrainingData(TASK, self.rows, self.collate)), self.folder)


@pytest.fixture
def learning(tokenizer: PreTrainedTokenizerFast, tiny: dict, tmp_path: Path) -> Learning:
    return Learning(tokenizer, tiny, tmp_path)


def test_frozen_parameters_stay_and_thawed_ones_move(learning: Learning):
    before = {name: parameter.clone() for name, parameter in learning.model.named_parameters()}
    learning.run({"thawed": list(learning.model.classifier.parameters())})
    moved = {name for name, parameter in learning.model.named_parameters() if not torch.equal(parameter, before[name])}
    assert moved == {"classifier.weight", "classifier.bias"}


def test_every_phase_trains_every_row_once_an_epoch_in_an_order_of_its_own(learning: Learning):
    learning.run({"epochs": 2}, {"epochs": 2})
    steps = -(-len(learning.rows) // 8)
    epochs = [[row for batch in epoch for row in batch] for epoch in batches(learning.seen, steps)]
    assert len(learning.seen) == 4 * steps
    assert all(sorted(epoch) == list(range(len(learning.rows))) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4


def test_rows_of_like_length_share_a_batch(tokenizer: PreTrainedTokenizerFast):
    rows = features(tokenizer, 400)
    lengths = [len(row["input_ids"]) for row in rows]
    order = ShuffledDataset(rows, 8, seed=0, phase=0).order(0)
    spread = [max(batch) - min(batch) for batch in batches([lengths[index] for index in order], 8)]
    assert sum(spread) / len(spread) < 1
    assert max(lengths) - min(lengths) >= 8


def batches(items: Sequence[Any], size: int) -> list[Sequence[Any]]:
    return [items[at : at + size] for at in range(0, len(items), size)]


def test_the_same_phase_gives_the_same_weights(tokenizer: PreTrainedTokenizerFast, tiny: dict, tmp_path: Path):
    ends = []
    for name in ("first", "second"):
        learning = Learning(tokenizer, tiny, tmp_path / name)
        (result,) = learning.run({"epochs": 8, "learning_rate": 1e-2})
        ends.append(torch.cat([parameter.detach().flatten() for parameter in learning.model.parameters()]))
    assert torch.equal(*ends)
    assert result.log[-1]["loss"] < result.log[0]["loss"]


def test_no_loss_is_shown_before_there_is_one(
    learning: Learning, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(console, "PLAIN_INTERVAL", 0)
    learning.run({"title": "slow"})
    first, second, *_ = [line for line in capsys.readouterr().out.splitlines() if "slow: " in line]
    assert re.search(r"slow: 1/5, .* left, rate ", first)
    assert re.search(r"slow: 2/5, .* left, loss \d\.\d+, rate ", second)


def test_the_rate_rises_to_its_peak_and_falls_to_nearly_zero(learning: Learning):
    (result,) = learning.run({"epochs": 8})
    rates = {int(entry["step"]): entry["learning_rate"] for entry in result.log}
    # 40 steps, 4 of them warm-up; the rate of a step is that of its middle.
    assert rates[1] == pytest.approx(1e-3 * 0.5 / 4)
    assert rates[12] == pytest.approx(1e-3 * (40 - 11.5) / 36)
    assert rates[40] == pytest.approx(1e-3 * 0.5 / 36)


def test_each_layer_group_follows_the_schedule_at_a_rate_of_its_own_and_the_log_has_them_all(
    learning: Learning, capsys
):
    layers = layer_groups(learning.model, ())
    thawed = [parameter for title in ("layer 2", "head") for parameter in layers[title]]
    results = learning.run(
        {"epochs": 4, "thawed": thawed}, {"epochs": 8}, schedule="slanted", layers=layers, layer_decay=2
    )
    logs = [{int(entry["step"]): entry for entry in result.log} for result in results]
    assert all(entry["rates"]["head"] == entry["learning_rate"] for log in logs for entry in log.values())
    assert set(logs[0][1]["rates"]) == {"layer 2", "head"}
    # 40 steps, 4 of them warm-up; the rate of a step is that of its middle.
    share = (1 + 31 * (1 - (19.5 - 4) / 36)) / 32
    rates = {"head": 1e-3, "layer 2": 5e-4, "layer 1": 2.5e-4, "embeddings": 1.25e-4}
    assert logs[1][20]["rates"] == pytest.approx({title: rate * share for title, rate in rates.items()})
    shown = capsys.readouterr().out
    assert [line.split()[1] for line in shown.splitlines() if "e-0" in line] == ["head", "layer", "layer", "embeddings"]
    assert shown.count("a rate for each layer group (layer_decay=2)") == 1


def test_the_rates_are_those_that_the_weights_move_by(learning: Learning):
    before = {title: own[0].clone() for title, own in layer_groups(learning.model, ()).items()}
    layers = layer_groups(learning.model, ())
    learning.run({"learning_rate": 1e-4}, schedule="constant", layers=layers, layer_decay=10)
    moved = {title: float((layers[title][0] - before[title]).detach().abs().max()) for title in before}
    # Adam's first steps are of about the rate's size, whatever the gradient is.
    assert 5 < moved["head"] / moved["layer 2"] < 20
    assert 5 < moved["layer 2"] / moved["layer 1"] < 20


def test_groups_at_one_rate_train_to_the_same_weights_as_no_groups(
    tokenizer: PreTrainedTokenizerFast, tiny: dict, tmp_path: Path
):
    ends = []
    for grouped in (False, True):
        learning = Learning(tokenizer, tiny, tmp_path / str(grouped))
        learning.run({"epochs": 4}, layers=layer_groups(learning.model, ()) if grouped else None)
        ends.append(torch.cat([parameter.detach().flatten() for parameter in learning.model.parameters()]))
    assert torch.equal(*ends)


def test_a_loss_that_is_not_a_number_stops_the_run_with_its_step(learning: Learning):
    with torch.no_grad():
        learning.model.classifier.bias.fill_(torch.nan)
    with pytest.raises(UserError, match=r"the loss is nan at step 1; try a lower learning_rate"):
        learning.run({})


def test_a_batch_is_split_evenly_or_refused(monkeypatch: pytest.MonkeyPatch):
    assert split(8, 2) == (2, 4)
    assert split(8, None, among=2) == (4, 1)
    assert split(32, None, texts=8) == (4, 1)
    assert split(32, 16, texts=8) == (2, 2)
    with pytest.raises(UserError, match="batch_size=8: cannot be split into 3 texts for each of 1 processes"):
        split(8, 3)
    with pytest.raises(UserError, match="batch_size=4: cannot be split into 8 texts for each of 1 processes"):
        split(4, None, texts=8)
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert split(8, None) == (4, 1)


def test_every_epoch_of_every_phase_has_masks_of_its_own(
    tokenizer: PreTrainedTokenizerFast, tiny: dict, tmp_path: Path
):
    model = BertForMaskedLM(BertConfig(**tiny))
    objective = MaskedLM(tokenizer, 0.15, seed=0)
    rows = chunks([text for text, _, _ in reviews(20)], tokenizer, 32, tmp_path)
    turns = []

    def record(batch: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        turns.append(batch[0]["phase_epoch"])
        return objective.collate(batch)

    phases = [Phase("test", list(model.parameters()), 2, 1e-3)] * 2
    settings = PhaseSettings(10, 0.1, 0.0, 0, None, 1, 60, {})
    train(TrainingPlan(model, phases, settings, TrainingData(objective, rows, record)), tmp_path)
    assert turns == [(1, 0), (1, 0), (1, 1), (1, 1), (2, 0), (2, 0), (2, 1), (2, 1)]
