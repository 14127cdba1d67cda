import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from exact import KINDS, features, weights_after
from samples import chunks, reviews
from tiny_run import GROUPS, TinyRun, finetune_options
from transformers import BertConfig, BertForMaskedLM, PreTrainedTokenizerFast

from ulmfit_style import console
from ulmfit_style.errors import UserError
from ulmfit_style.processes import split
from ulmfit_style.training.batching import ShuffledDataset
from ulmfit_style.training.objectives import MaskedLM
from ulmfit_style.training.phases import Phase, TrainingData, TrainingPlan, say_precision, train


@pytest.fixture(scope="module")
def ranks(tokenizer: PreTrainedTokenizerFast, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The final weights of every kind in each of two processes."""
    folder = tmp_path_factory.mktemp("ranks")
    tokenizer.save_pretrained(folder)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    script = Path(__file__).with_name("exact.py")
    ended = subprocess.run([*torchrun, str(script), str(folder)], capture_output=True, check=False)
    assert ended.returncode == 0, ended.stderr.decode()
    return [torch.load(folder / f"weights.{rank}") for rank in (0, 1)]


@pytest.mark.parametrize("kind", KINDS)
def test_accumulation_and_two_processes_equal_one_big_batch(
    kind: str, ranks: list[dict[str, Any]], tokenizer: PreTrainedTokenizerFast, tiny: dict, tmp_path: Path
):
    whole, singles = (weights_after(kind, tokenizer, tiny, tmp_path, micro) for micro in (8, 1))
    assert (whole - singles).abs().max() < 1e-6
    assert torch.equal(ranks[0][kind], ranks[1][kind])
    assert (whole - ranks[0][kind]).abs().max() < 1e-6


@pytest.fixture
def make(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> Callable[[str], TinyRun]:
    """A run without dropout, in a folder of its own."""
    dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    return lambda name: TinyRun(tokenizer, tmp_path / name, save_minutes=60, **dropout)


@pytest.fixture
def run(make: Callable[[str], TinyRun]) -> TinyRun:
    return make("run")


def moved(run: TinyRun, start: TinyRun) -> dict[str, float]:
    """Return how far the first parameter of each layer group is from where it started."""
    start.run({"learning_rate": 0.0})
    pairs = {group: (run.layers[group][0].detach(), start.layers[group][0].detach()) for group in GROUPS}
    return {group: float((now - before).abs().max()) for group, (now, before) in pairs.items()}


def test_frozen_parameters_stay_and_the_rates_are_those_that_the_thawed_ones_move_by(make):
    run = make("run")
    options = {"schedule": "constant", "layer_decay": 10}
    run.run({"thawed": GROUPS[1:], "learning_rate": 1e-4, "epochs": 0.1}, **options)
    distance = moved(run, make("start"))
    assert distance["embeddings"] == 0
    # Adam's first step, the only one here, is of the rate's size, whatever the gradient is.
    assert distance["head"] / distance["layer 2"] == pytest.approx(10, rel=0.1)
    assert distance["layer 2"] / distance["layer 1"] == pytest.approx(10, rel=0.1)


def test_every_phase_trains_every_row_once_an_epoch_in_an_order_of_its_own(run: TinyRun):
    run.run({}, {}, micro=8)
    epochs = [[row for batch in epoch for row in batch] for epoch in parts(run.seen, 5)]
    assert all(sorted(epoch) == list(range(40)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == len(epochs) == 4


def parts(items: Sequence[Any], size: int) -> list[Any]:
    return [items[at : at + size] for at in range(0, len(items), size)]


def test_rows_of_like_length_share_a_batch(tokenizer: PreTrainedTokenizerFast):
    rows = features(tokenizer, 400)
    lengths = rows.lengths[ShuffledDataset(rows, 8, seed=0, phase=0).order(0)].tolist()
    spread = [max(batch) - min(batch) for batch in parts(lengths, 8)]
    assert sum(spread) / len(spread) < 1
    assert max(lengths) - min(lengths) >= 8


def test_the_same_phase_gives_the_same_weights_also_with_groups_at_rates_that_hardly_differ(make):
    runs = [make("first"), make("second"), make("grouped")]
    for run, decay in zip(runs, (1, 1, 1 + 1e-12), strict=True):
        (result,) = run.run({"learning_rate": 1e-2, "epochs": 8}, layer_decay=decay)
        assert result.log[-1]["loss"] < result.log[0]["loss"]
    assert torch.equal(runs[0].weights(), runs[1].weights())
    assert torch.allclose(runs[0].weights(), runs[2].weights(), atol=1e-6)


def test_the_rate_rises_to_its_peak_and_falls_to_nearly_zero_and_no_loss_is_shown_before_there_is_one(
    run: TinyRun, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(console, "PLAIN_INTERVAL", 0)
    (result,) = run.run({"title": "slow", "epochs": 8}, micro=8)
    rates = {int(entry["step"]): entry["learning_rate"] for entry in result.log}
    # 40 steps, 4 of them warm-up; the rate of a step is that of its middle.
    assert rates[1] == pytest.approx(1e-3 * 0.5 / 4)
    assert rates[12] == pytest.approx(1e-3 * (40 - 11.5) / 36)
    assert rates[40] == pytest.approx(1e-3 * 0.5 / 36)
    first, second, *_ = [line for line in capsys.readouterr().out.splitlines() if "slow: " in line]
    assert re.search(r"slow: 1/40, .* left, rate ", first)
    assert re.search(r"slow: 2/40, .* left, loss \d\.\d+, rate ", second)


def test_a_short_phase_is_logged_more_often_and_every_one_at_its_end(run: TinyRun):
    short, long = run.run({"epochs": 1}, {"epochs": 21}, micro=8)
    assert [entry["step"] for entry in short.log] == [1, 2, 3, 4, 5]
    assert [entry["step"] for entry in long.log] == [1, 10, 20, 30, 40, 50, 60, 70, 80, 90, 100, 105]


def test_each_layer_group_follows_the_schedule_at_a_rate_of_its_own_and_the_log_has_them_all(run: TinyRun, capsys):
    phases = {"epochs": 4, "thawed": ["layer 2", "head"]}, {"epochs": 8}
    results = run.run(*phases, schedule="slanted", layer_decay=2)
    logs = [{int(entry["step"]): entry for entry in result.log} for result in results]
    assert all(entry["rates"]["head"] == entry["learning_rate"] for log in logs for entry in log.values())
    assert set(logs[0][1]["rates"]) == {"layer 2", "head"}
    # 40 steps, 4 of them warm-up; the rate of a step is that of its middle.
    factor = (1 + 31 * (1 - (19.5 - 4) / 36)) / 32
    rates = {"head": 1e-3, "layer 2": 5e-4, "layer 1": 2.5e-4, "embeddings": 1.25e-4}
    assert logs[1][20]["rates"] == pytest.approx({title: rate * factor for title, rate in rates.items()})
    shown = capsys.readouterr().out
    assert [line.split()[1] for line in shown.splitlines() if "e-0" in line] == ["head", "layer", "layer", "embeddings"]
    assert shown.count("a rate for each layer group (layer_decay=2)") == 1


def test_a_loss_that_is_not_a_number_stops_the_run_with_its_step(run: TinyRun):
    run.before_batch = lambda number: run.model.classifier.bias.data.fill_(torch.nan)
    with pytest.raises(UserError, match=r"the loss is nan at step 1; try a lower learning_rate"):
        run.run({})


def test_a_gpu_without_bf16_is_told_of(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    say_precision({})  # there is no GPU
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for supported in (True, False):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda supported=supported: supported)
        say_precision({})
        say_precision({"bf16": False})
    assert capsys.readouterr().out == "  this GPU has no bf16: training runs in single precision\n"


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
    seen = []

    def record(batch: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        seen.append(batch[0]["phase_epoch"])
        return objective.collate(batch)

    phases = [Phase("test", list(model.parameters()), 2, 1e-3)] * 2
    train(
        TrainingPlan(model, phases, TrainingData(objective, rows, record), finetune_options(batch_size=10), {}),
        tmp_path,
    )
    assert seen == [(1, 0), (1, 0), (1, 1), (1, 1), (2, 0), (2, 0), (2, 1), (2, 1)]
