"""What only a GPU can show: `pytest -m gpu`. With `--device cpu` as well, all but the memory is tried without one."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from samples import PLAIN_LSTM, Killed, reviews, tiny_sizes, tiny_tokenizer
from tiny_run import TinyRun, without_dropout
from torch.nn.functional import cross_entropy
from transformers import (
    BertConfig,
    BertForMaskedLM,
    EuroBertConfig,
    EuroBertForMaskedLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForMaskedLM,
    set_seed,
)

from ulmfit_style.__main__ import main
from ulmfit_style.models.awd_lstm import AwdLstmConfig, AwdLstmForCausalLM
from ulmfit_style.predictor import Predictor
from ulmfit_style.training.packing import attention_mask, first_position

pytestmark = pytest.mark.gpu

UNDISTURBED = {"rtol": 0.0, "atol": 1e-5}
"""How far weights may be from those of the same training: a GPU adds in another order each time. The rate is 1e-3."""


@pytest.fixture
def device(request: pytest.FixtureRequest) -> torch.device:
    """The GPU; the processor, where `--device cpu` asks for it."""
    asked = torch.device(request.config.getoption("--device"))
    if asked.type == "cuda" and not torch.cuda.is_available():
        pytest.skip("there is no GPU; --device cpu tries the test without one")
    return asked


@pytest.fixture
def half(device: torch.device) -> dict[str, Any]:
    """What makes a Trainer train in bf16, where that is not what it does by itself."""
    return {} if device.type == "cuda" else {"bf16": True, "use_cpu": True}


@pytest.fixture
def run(device: torch.device, tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> Callable[..., TinyRun]:
    """Train the head and then every weight on the device, in a folder of its own name; options as of the Trainer."""

    def train(name: str, sizes: dict[str, Any] | None = None, micro: Any = 4, **trainer: Any) -> TinyRun:
        made = TinyRun(tokenizer, tmp_path / name, **(sizes or {}))
        made.results = made.run(micro=micro, trainer=trainer, batch_size=8 if sizes is None else 40)
        assert made.weights().device.type == device.type
        return made

    return train


def losses(run: TinyRun) -> list[float]:
    return [entry["loss"] for result in run.results for entry in result.log]


def test_training_is_in_bf16_by_itself_and_learns_as_in_fp32(run, half: dict[str, Any]):
    seen: set[torch.dtype] = set()

    def note(module: torch.nn.Module, inputs: Any, output: Any) -> None:
        if isinstance(module, torch.nn.Linear) and module.training:
            seen.add(output.dtype)

    with torch.nn.modules.module.register_module_forward_hook(note):
        short = run("short", **half)
    assert seen == {torch.bfloat16}
    assert {parameter.dtype for parameter in short.model.parameters()} == {torch.float32}
    full = run("full", bf16=False)
    assert losses(short) != losses(full)
    assert losses(short) == pytest.approx(losses(full), abs=0.02)


@pytest.mark.parametrize(
    "other",
    [{"optim": "adamw_torch", "bf16": False}, {"dataloader_pin_memory": False}, {"dataloader_num_workers": 2}],
    ids=["optimizer that is not fused", "memory that is not pinned", "rows from other processes"],
)
def test_what_makes_it_faster_changes_no_weight(run, half: dict[str, Any], other: dict[str, Any]):
    usual = {**half, "bf16": False} if "bf16" in other else half
    usual, changed = run("usual", **usual), run("changed", **{**half, **other})
    torch.testing.assert_close(changed.weights(), usual.weights(), **UNDISTURBED)


def test_a_run_that_was_killed_ends_as_one_that_was_not(run, half: dict[str, Any], tmp_path: Path):
    undisturbed = run("undisturbed", **half)
    killed = TinyRun(undisturbed.tokenizer, tmp_path / "killed")
    for step in (3, 4):
        with pytest.raises(Killed):
            killed.run(killed_at=step, trainer=half)
    killed.run(trainer=half)
    assert 0 < len(killed.seen) < len(undisturbed.seen)
    torch.testing.assert_close(killed.weights(), undisturbed.weights(), **UNDISTURBED)


def packable(name: str) -> PreTrainedModel:
    """A tiny model of an architecture that keeps packed documents apart."""
    set_seed(0)
    tiny = tiny_sizes(tiny_tokenizer())
    if name == "BERT":
        return BertForMaskedLM(BertConfig(**tiny))
    if name == "RoBERTa":
        return RobertaForMaskedLM(RobertaConfig(**tiny))
    config, model = (EuroBertConfig, EuroBertForMaskedLM) if name == "EuroBERT" else (LlamaConfig, LlamaForCausalLM)
    return model(config(**without_dropout(tiny), num_key_value_heads=2))


@pytest.mark.parametrize("half", [False, True], ids=["fp32", "bf16"])
@pytest.mark.parametrize("name", ["BERT", "RoBERTa", "EuroBERT", "Llama"])
def test_packed_documents_learn_what_each_learns_alone(device: torch.device, name: str, half: bool):
    model = packable(name).to(device)
    sizes, causal = (40, 15, 9), name == "Llama"
    start = first_position(model, 64, 0, causal=causal)
    assert start is not None
    ids = torch.randint(5, 90, (1, sum(sizes)), generator=torch.Generator().manual_seed(0)).to(device)
    documents = torch.repeat_interleave(torch.arange(3), torch.tensor(sizes))[None].to(device)
    positions = torch.cat([torch.arange(size) for size in sizes])[None].to(device) + start
    labels = ids.roll(-1)

    def learnt(*parts: tuple[torch.Tensor, dict[str, torch.Tensor], torch.Tensor]) -> tuple[float, torch.Tensor]:
        model.zero_grad()
        total = 0.0
        for part, inputs, targets in parts:
            with torch.autocast(device.type, torch.bfloat16, enabled=half):
                logits = model(input_ids=part, **inputs).logits
            loss = cross_entropy(logits.float().flatten(0, 1), targets.flatten(), reduction="sum")
            loss.backward()
            total += loss.item()
        gradients = [weights.grad.flatten() for weights in model.parameters() if weights.grad is not None]
        return total, torch.cat(gradients)

    mask = attention_mask(documents, causal=causal)
    packed, gradients = learnt((ids, {"attention_mask": mask, "position_ids": positions}, labels))
    parts = zip(ids.split(sizes, 1), labels.split(sizes, 1), strict=True)
    alone, expected = learnt(*((part, {}, right) for part, right in parts))
    tolerance = 0.03 if half else 1e-4
    assert packed == pytest.approx(alone, rel=tolerance)
    assert (gradients - expected).norm() < tolerance * expected.norm()


@pytest.mark.filterwarnings("ignore:RNN module weights are not part")  # dropout makes new ones for each pass
@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_the_fused_lstm_says_what_that_of_the_processor_says(device: torch.device, direction: str):
    set_seed(0)
    sizes = {"vocab_size": 90, "hidden_size": 16, "lstm_size": 24, "num_hidden_layers": 2}
    model = AwdLstmForCausalLM(AwdLstmConfig(**sizes, **PLAIN_LSTM, direction=direction))
    ids = torch.randint(1, 90, (3, 20), generator=torch.Generator().manual_seed(0))
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "starts": torch.zeros_like(ids)}
    inputs["attention_mask"][1, 14:] = 0
    inputs["starts"][2, 7] = 1

    def learnt(where: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        moved = {name: tensor.to(where) for name, tensor in inputs.items()}
        model.to(where).zero_grad()
        logits = model(**moved).logits
        logits[moved["attention_mask"].bool()].logsumexp(-1).sum().backward()
        return logits.detach().cpu(), torch.cat([weights.grad.flatten().cpu() for weights in model.parameters()])

    (logits, gradients), (there, there_gradients) = learnt(torch.device("cpu")), learnt(device)
    # cuDNN multiplies in TF32, which has 10 bits behind the point.
    assert (there - logits).norm() < 3e-3 * logits.norm()
    assert (there_gradients - gradients).norm() < 1e-2 * gradients.norm()


def test_what_a_chain_trained_there_answers_on_the_processor_too(device: torch.device, tiny_overrides, tmp_path: Path):
    options = [*tiny_overrides, "compare=false", "task.folds=0", "finetune.epochs=8", "finetune.learning_rate=1e-2"]
    assert main(["adapt", "finetune", *options]) == 0
    texts = [text for text, _, _ in reviews(40)]
    directory = tmp_path / "runs/default/finetune"
    there, here = (Predictor(str(directory), device=str(where))(texts) for where in (device, "cpu"))
    assert [answer["label"] for answer in there] == [answer["label"] for answer in here]
    assert [answer["score"] for answer in there] == pytest.approx([answer["score"] for answer in here], abs=1e-3)


@pytest.fixture
def little_memory(device: torch.device) -> Iterator[None]:
    """Leave 300 MB of the GPU's memory."""
    if device.type != "cuda":
        pytest.skip("only a GPU has a memory of its own to be made small")
    torch.cuda.empty_cache()
    left = torch.cuda.memory_reserved() + 300e6
    torch.cuda.set_per_process_memory_fraction(left / torch.cuda.get_device_properties(device).total_memory)
    yield
    torch.cuda.set_per_process_memory_fraction(1.0)
    torch.cuda.empty_cache()


def test_as_many_rows_as_the_memory_holds_are_read_at_a_time(run, little_memory, capsys: pytest.CaptureFixture):
    # What a layer says of 40 rows takes 0.4 GB, and the weights 20 MB.
    run("little", {"hidden_size": 64, "intermediate_size": 16384}, micro="auto", bf16=False)
    assert "do not fit into memory (micro_batch_size=auto)" in capsys.readouterr().out
