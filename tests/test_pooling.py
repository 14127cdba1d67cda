"""The heads that pool all tokens: what they read, and who can read them."""

import ast
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pytest
import torch
import transformers
from transformers import PreTrainedTokenizerFast

from ulmfit_style import load
from ulmfit_style.__main__ import main
from ulmfit_style.cli.compose import compose
from ulmfit_style.errors import UserError
from ulmfit_style.models import pooling
from ulmfit_style.models.checkpoints import load_pooled
from ulmfit_style.models.layers import layer_groups
from ulmfit_style.models.pooling import PooledForSequenceClassification
from ulmfit_style.publishing import card
from ulmfit_style.results import finished
from ulmfit_style.results.finished import Run
from ulmfit_style.training import checks

FILE = "pooling.py"
HEAD = {"id2label": {0: "a", 1: "b", 2: "c"}, "label2id": {"a": 0, "b": 1, "c": 2}}
TEXTS = ["the film", "the plot of a film number 7 is unforgettable", "a"]

BODIES = {
    "Bert": ({}, "BertForMaskedLM"),
    "GPT2": ({"n_embd": 16, "n_layer": 2, "n_head": 2}, "GPT2LMHeadModel"),
    "Llama": ({"num_key_value_heads": 2}, "LlamaForCausalLM"),
}
CAUSAL = ("GPT2", "Llama")

Make = Callable[..., tuple[PooledForSequenceClassification, set[str]]]


@pytest.fixture
def saved(tiny: dict, tmp_path: Path) -> Callable[[str, str], Path]:
    """Save a tiny model of a class, with weights far from each other, under the name of its body."""

    def save(name: str, class_name: str) -> Path:
        transformers.set_seed(0)
        sizes = {**tiny, **BODIES[name][0], **{f"{kind}_token_id": 0 for kind in ("bos", "eos", "cls", "sep", "pad")}}
        config = getattr(transformers, f"{name}Config")(**sizes)
        config.initializer_range = 0.3
        getattr(transformers, class_name)(config).save_pretrained(tmp_path / class_name)
        return tmp_path / class_name

    return save


@pytest.fixture
def make(saved: Callable[[str, str], Path]) -> Make:
    """Make the model that fine-tuning starts from a checkpoint with a language-model head."""

    def run(name: str, head: dict = HEAD, pooling: Literal["concat", "mean"] = "concat"):
        transformers.set_seed(0)
        model, missing = load_pooled(saved(name, BODIES[name][1]), pooling, head)
        return model.eval(), missing

    return run


@pytest.mark.parametrize("kind", ["{}Model", "{}ForSequenceClassification", "with a language-model head"])
@pytest.mark.parametrize("name", BODIES)
def test_the_body_has_the_weights_of_its_checkpoint_whatever_head_that_has(name: str, kind: str, saved):
    class_name = kind.format(name) if "{}" in kind else BODIES[name][1]
    source = saved(name, class_name)
    expected = getattr(transformers, class_name).from_pretrained(source).base_model.state_dict()
    model, missing = load_pooled(source, "concat", HEAD)
    weights = model.body.state_dict()
    assert set(weights) == {name for name in expected if not name.startswith("pooler.")}
    assert all(torch.equal(weights[name], expected[name]) for name in weights)
    assert not missing & {parameter for parameter, _ in model.named_parameters()}
    assert model.body.config._attn_implementation == "sdpa"  # as without this head


@pytest.mark.parametrize("pooling", ["concat", "mean"])
@pytest.mark.parametrize("name", BODIES)
def test_the_head_reads_all_tokens_is_the_last_layer_group_and_every_parameter_is_trained(
    name: str, pooling: Literal["concat", "mean"], make: Make
):
    model, missing = make(name, pooling=pooling)
    ids = torch.tensor([[5, 6, 7, 8]])
    hidden = model.body(ids).last_hidden_state[0]
    summary, mean = hidden[-1 if name in CAUSAL else 0], hidden.mean(dim=0)
    read = mean if pooling == "mean" else torch.cat([summary, hidden.max(dim=0).values, mean])
    logits = model(ids).logits
    assert torch.allclose(logits[0], model.head(read), atol=1e-6)
    logits.sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    groups = layer_groups(model, missing)
    assert list(groups) == ["embeddings", "layer 1", "layer 2", "head"]
    held = [id(parameter) for group in groups.values() for parameter in group]
    assert sorted(held) == sorted(map(id, model.parameters()))
    assert list(map(id, groups["head"])) == list(map(id, model.head.parameters()))
    assert id(model.get_input_embeddings().weight) in map(id, groups["embeddings"])
    assert pooling == "concat" or [parameter.shape for parameter in groups["head"]] == [(3, 16), (3,)]


@pytest.mark.parametrize("pooling", ["concat", "mean"])
@pytest.mark.parametrize("name", BODIES)
@torch.no_grad()
def test_padding_changes_no_logits_and_an_empty_text_has_an_answer_too(
    name: str, pooling: str, make: Make, tokenizer: PreTrainedTokenizerFast
):
    model, _ = make(name, pooling=pooling)
    inputs = [{"input_ids": tokenizer(text)["input_ids"]} for text in TEXTS]
    alone = torch.cat([model(torch.tensor([row["input_ids"]])).logits for row in inputs])
    assert (alone[0] - alone[1]).abs().max() > 1e-2  # or this would test nothing
    # GPT-2 numbers its positions from the left, padding included.
    for side in ("right", "left") if name == "Llama" else ("right",):
        padded = model(**tokenizer.pad(inputs, return_tensors="pt", padding_side=side)).logits
        assert torch.allclose(alone, padded, atol=1e-5)
    ids = torch.tensor([[5, 6], [0, 0]])
    logits = model(ids, attention_mask=torch.tensor([[1, 1], [0, 0]])).logits
    assert logits.isfinite().all()
    assert torch.allclose(logits[:1], model(ids[:1]).logits, atol=1e-5)


# The artefact


@pytest.fixture(scope="module")
def overrides(finetuned: list[str]) -> list[str]:
    """The overrides of a recipe with this head, that `finetune` has run."""
    overrides = [*finetuned, "name=concat", "finetune.pooling=concat", "finetune.epochs=2"]
    assert main(["finetune", *overrides]) == 0
    return overrides


@pytest.fixture(scope="module")
def artefact(overrides: list[str]) -> Path:
    return compose(overrides).runs / "concat/finetune"


def test_a_model_is_fine_tuned_and_ours_reads_it_without_running_the_copy_that_lies_beside_it(
    artefact: Path, tmp_path: Path
):
    expected = load(artefact, device="cpu")(TEXTS)
    copy = shutil.copytree(artefact, tmp_path / "copy")
    assert (copy / FILE).read_text() == Path(pooling.__file__).read_text()
    (copy / FILE).write_text("raise SystemExit('this was run')\n")
    assert load(copy, device="cpu")(TEXTS) == expected
    (copy / FILE).unlink()  # as where the Hub sent it, which is not asked for code
    assert load(copy, device="cpu")(TEXTS) == expected


STOCK = """
import sys
sys.modules["ulmfit_style"] = None  # cannot be imported
from transformers import AutoModelForSequenceClassification, AutoTokenizer
try:
    AutoModelForSequenceClassification.from_pretrained(sys.argv[1], trust_remote_code=False)
except ValueError as error:
    print("REFUSED", " ".join(str(error).split()))
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
model = AutoModelForSequenceClassification.from_pretrained(sys.argv[1], trust_remote_code=True).eval()
print("LOGITS", model(**tokenizer(sys.argv[2:], padding=True, return_tensors="pt")).logits.tolist())
"""


def test_stock_transformers_gives_the_same_logits_when_it_may_run_the_file_and_else_says_what_it_needs(
    artefact: Path, tokenizer: PreTrainedTokenizerFast
):
    command = [sys.executable, "-c", STOCK, str(artefact), *TEXTS]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    assert ended.returncode == 0, ended.stderr
    refusal, logits = ended.stdout.split("LOGITS ")
    assert "pass the argument `trust_remote_code=True`" in refusal
    with torch.inference_mode():
        ours = load(artefact, device="cpu").model(**tokenizer(TEXTS, padding=True, return_tensors="pt")).logits
    assert torch.equal(torch.tensor(ast.literal_eval(logits)), ours)


def test_the_file_is_exported_and_the_card_says_that_it_is_run(
    artefact: Path, overrides: list[str], capsys: pytest.CaptureFixture[str]
):
    capsys.readouterr()
    assert main(["push", *overrides, "hub.repo=me/reviews", "hub.dry_run=true"]) == 0
    listed, behind = capsys.readouterr().out.split("stays behind:")
    assert FILE in listed
    assert FILE not in behind
    text = card.write("me/reviews", Run("reviews", finished.find(artefact), compose(overrides)), None, "")
    assert "`trust_remote_code=True` lets it run `pooling.py` of this repository" in text


def test_an_encoder_decoder_is_refused(seq2seq_checkpoint: Path, tiny_overrides: list[str]):
    options = [override for override in tiny_overrides if not override.startswith("adapt.")]
    config = compose([*options, f"model.checkpoint={seq2seq_checkpoint}", "finetune.pooling=concat", "adapt=none"])
    with pytest.raises(UserError, match=r"pools one body, and a model of type 't5' is an encoder and a decoder"):
        checks.finetune(config, config.require_task())
