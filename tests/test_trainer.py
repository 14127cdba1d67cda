import math
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from exact import KINDS, SHARDED, head_alone, weights_after
from tiny_run import GROUPS, TinyRun
from transformers import BertForSequenceClassification, PreTrainedTokenizerFast

from ulmfit_style.compute import processes
from ulmfit_style.compute.processes import split
from ulmfit_style.errors import UserError, trouble
from ulmfit_style.training.batching import EncodedDataset, ShuffledDataset, passes
from ulmfit_style.training.phases import say_if_single_precision
from ulmfit_style.training.trainer import Progress


@pytest.fixture(scope="module")
def ranks(tokenizer: PreTrainedTokenizerFast, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which two processes have saved how their training ended."""
    folder = tmp_path_factory.mktemp("ranks")
    tokenizer.save_pretrained(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]))
        processes.start(2, "exact", [str(folder)])
    return folder


@pytest.mark.parametrize("kind", KINDS)
def test_accumulation_and_two_processes_equal_one_big_batch(
    kind: str, ranks: Path, tokenizer: PreTrainedTokenizerFast, tiny: dict, tmp_path: Path
):
    whole, pairs = (weights_after(kind, tokenizer, tiny, tmp_path, micro) for micro in (8, 2))
    assert (whole - pairs).abs().max() < 1e-6
    first, second = (torch.load(ranks / f"weights.{rank}")[kind] for rank in (0, 1))
    assert torch.equal(first, second)
    assert (whole - first).abs().max() < 1e-6


@pytest.mark.parametrize("kind", SHARDED)
def test_two_processes_that_share_out_the_weights_end_with_those_of_one(
    kind: str, ranks: Path, tokenizer: PreTrainedTokenizerFast, tiny: dict, tmp_path: Path
):
    first, second = (torch.load(ranks / f"weights.{rank}")[f"sharded {kind}"] for rank in (0, 1))
    assert torch.equal(first, second)
    assert (weights_after(kind, tokenizer, tiny, tmp_path, 8) - first).abs().max() < 1e-6


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # the compiler's own look
@pytest.mark.parametrize("kind", [KINDS[0], *(pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS[1:])])
def test_a_compiled_model_learns_the_same(kind: str, tokenizer: PreTrainedTokenizerFast, tiny: dict, tmp_path: Path):
    # torch.compile does not look whether a hook has changed: what it traces first has to fit all later batches.
    traced = {"torch_compile": True, "torch_compile_backend": "eager"}
    plain, compiled = (weights_after(kind, tokenizer, tiny, tmp_path, 4, **options) for options in ({}, traced))
    assert (plain - compiled).abs().max() < 1e-6


def test_two_processes_train_the_head_of_a_kept_trunk_as_one_does(
    ranks: Path, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
):
    first, second = (torch.load(ranks / f"weights.{rank}")["kept trunk"] for rank in (0, 1))
    assert torch.equal(first, second)
    assert (head_alone(tokenizer, tmp_path, 8) - first).abs().max() < 1e-6


def test_several_processes_keep_one_state_also_after_a_break(ranks: Path):
    # Each process would have given other scores; the main one's count.
    (curve, weights), *others = [end for rank in (0, 1) for end in torch.load(ranks / f"best.{rank}")]
    assert all(other == curve for other, _ in others)
    assert all(torch.equal(other, weights) for _, other in others)


@pytest.fixture
def make(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> Callable[[str], TinyRun]:
    """A run without dropout, in a folder of its own."""
    dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    return lambda name: TinyRun(tokenizer, tmp_path / name, save_minutes=60, **dropout)


@pytest.fixture
def run(make: Callable[[str], TinyRun]) -> TinyRun:
    return make("run")


def test_frozen_parameters_stay_and_the_rates_are_those_that_the_thawed_ones_move_by(make):
    run, start = make("run"), make("start")
    start.run({"learning_rate": 0.0})
    options = {"schedule": "constant", "layer_decay": 10}
    run.run({"trainable": GROUPS[1:], "learning_rate": 1e-4, "epochs": 0.1}, **options)
    weights = {group: (run.layers[group][0].detach(), start.layers[group][0].detach()) for group in GROUPS}
    distance = {group: float((now - before).abs().max()) for group, (now, before) in weights.items()}
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


def test_rows_of_like_length_share_a_batch():
    rows = EncodedDataset({"input_ids": [0] * (5 + 7 * number % 11)} for number in range(400))
    lengths = rows.lengths[ShuffledDataset(rows, 8, seed=0, phase=0).order(0)].tolist()
    spread = [max(batch) - min(batch) for batch in parts(lengths, 8)]
    assert sum(spread) / len(spread) < 1
    assert max(lengths) - min(lengths) >= 8


def test_a_model_that_does_not_learn_reads_as_many_tokens_as_a_cache_holds_or_one_row_and_writes_to_many():
    def sizes(lengths: list[int], device: str = "cpu", **options: bool) -> list[int]:
        cut = passes(lengths, torch.device(device), **options)
        return [len(lengths[some]) for some in cut]

    assert sizes([]) == []
    assert sizes([4] * 70) == [64, 6]
    assert sizes([10, 20, 256, 256, 257, 600, 600]) == [2, 2, 1, 1, 1]
    assert sizes([600] * 70, "cuda") == sizes([600] * 70, writes=True) == [64, 6]


def test_the_rate_rises_and_falls_and_a_short_phase_is_logged_more_often_and_every_one_at_its_end(
    run: TinyRun,
):
    short, long = run.run({"title": "short", "epochs": 1}, {"epochs": 21}, micro=8)
    assert [entry["step"] for entry in short.log] == [1, 2, 3, 4, 5]
    assert [entry["step"] for entry in long.log] == [1, 10, 20, 30, 40, 50, 60, 70, 80, 90, 100, 105]
    rates = {int(entry["step"]): entry["learning_rate"] for entry in long.log}
    # 105 steps, 11 of them warm-up; the rate of a step is that of its middle.
    assert rates[1] == pytest.approx(1e-3 * 0.5 / 11)
    assert rates[50] == pytest.approx(1e-3 * (105 - 49.5) / 94)
    assert rates[105] == pytest.approx(1e-3 * 0.5 / 94)


def test_a_loss_that_is_not_finite_stops_the_run_with_its_step_and_rows(run: TinyRun):
    run.rows = EncodedDataset(
        {**row, "place": f"a.csv:{number}", "weight": math.inf if number == 7 else 1.0}
        for number, row in enumerate(run.rows)
    )
    with pytest.raises(
        UserError, match=r"^all: the loss is nan at step \d on (a\.csv:\d+, ){3}a\.csv:\d+; look"
    ) as stopped:
        run.run({})
    assert "a.csv:7" in str(stopped.value)


def test_weights_that_are_not_finite_are_told_by_the_step_that_made_them(run: TinyRun):
    def break_weights(number: int) -> None:
        if number == 3:
            run.model.classifier.bias.data.fill_(torch.nan)

    run.before_batch = break_weights
    with pytest.raises(
        UserError, match=r"^all: before step 2: 1 of \d+ weight tensors are not finite \(classifier.bias"
    ):
        run.run({})


def test_no_weights_that_are_not_finite_are_saved(run: TinyRun):
    # Adam moves by the rate, whatever the gradients are: every loss before the only step is finite.
    with pytest.raises(UserError, match=r"^all: after step 1: \d+ of \d+ weight tensors are not finite"):
        run.run({"learning_rate": 1e300, "epochs": 0.2}, schedule="constant")
    assert not list(run.folder.glob("phase-0/checkpoint-*"))


def test_a_gradient_that_is_not_finite_stops_the_run(run: TinyRun):
    run.run({"epochs": 0.2})
    entry = {"loss": 1.0, "grad_norm": math.inf}
    with pytest.raises(UserError, match=r"^all: the gradient norm is inf at step 3; try a lower learning_rate"):
        Progress(SimpleNamespace(title="all"), run.rows).on_log(
            SimpleNamespace(fp16=False), SimpleNamespace(log_history=[entry], global_step=3), None
        )


def test_what_memory_does_not_hold_is_halved_by_auto_and_else_told(make, monkeypatch: pytest.MonkeyPatch):
    forward = BertForSequenceClassification.forward

    def small(self: Any, input_ids: torch.Tensor, **inputs: Any) -> Any:
        if len(input_ids) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return forward(self, input_ids, **inputs)

    monkeypatch.setattr(BertForSequenceClassification, "forward", small)
    auto, told = make("auto"), make("told")
    auto.sizes["hidden_dropout_prob"] = told.sizes["hidden_dropout_prob"] = 0.1
    auto.run({"epochs": 0.4}, micro="auto")
    told.run({"epochs": 0.4}, micro=2)
    assert torch.equal(auto.weights(), told.weights())
    with pytest.raises(torch.OutOfMemoryError) as error:
        make("whole").run({}, micro=8)
    assert re.match(
        r"the memory is too small; all: in a pass of 8 texts of \d+ tokens; a smaller micro", trouble(error.value)
    )


def test_a_gpu_without_bf16_is_told_of(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: False)
    say_if_single_precision({"bf16": False})
    assert capsys.readouterr().out == ""
    say_if_single_precision({})
    assert capsys.readouterr().out == "  this GPU has no bf16: training runs in single precision\n"


def test_a_batch_is_split_evenly_or_refused(monkeypatch: pytest.MonkeyPatch):
    assert split(8, 2) == (2, 4)
    assert split(8, None, among=2) == (4, 1)
    assert split(32, None, texts=8) == (4, 1)
    assert split(32, 16, texts=8) == (2, 2)
    with pytest.raises(
        UserError, match="batch_size=8: take a multiple of 3, because each of 1 processes reads 3 texts at once"
    ):
        split(8, 3)
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert split(8, None) == (4, 1)
