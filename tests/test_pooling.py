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
from ulmfit_style.artefacts import predictions
from ulmfit_style.artefacts.directory import MANIFEST, read_json
from ulmfit_style.cli.compose import compose
from ulmfit_style.config.commands import Hub
from ulmfit_style.config.training import Model
from ulmfit_style.errors import UserError
from ulmfit_style.models import checkpoints, pooling
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
        model, missing, _ = load_pooled(saved(name, BODIES[name][1]), pooling, head)
        return model.eval(), missing

    return run


@pytest.mark.parametrize("kind", ["{}Model", "{}ForSequenceClassification", "with a language-model head"])
@pytest.mark.parametrize("name", BODIES)
def test_the_body_has_the_weights_of_its_checkpoint_whatever_head_that_has(name: str, kind: str, saved):
    class_name = kind.format(name) if "{}" in kind else BODIES[name][1]
    source = saved(name, class_name)
    expected = getattr(transformers, class_name).from_pretrained(source).base_model.state_dict()
    model, missing, _ = load_pooled(source, "concat", HEAD)
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


# Windows


@pytest.mark.parametrize("pooling", ["concat", "mean"])
@pytest.mark.parametrize("name", BODIES)
@torch.no_grad()
def test_the_head_reads_the_maximum_over_windows_which_padding_and_other_texts_do_not_change(
    name: str, pooling: str, make: Make
):
    model, _ = make(name, pooling=pooling)
    texts = [torch.randint(5, 30, (length,)) for length in (12, 8, 4, 3)]
    vectors = [
        torch.stack(
            [
                model._vectors({"input_ids": part[None], "attention_mask": torch.ones_like(part[None])}, None)[1][0]
                for part in parts
            ]
        )
        for parts in (text.split(4) for text in texts)
    ]
    expected = model.head(torch.stack([of_text.amax(0) for of_text in vectors]))
    assert model(texts[0][None]).logits.sub(expected[:1]).abs().max() > 1e-3  # who reads it whole says something else
    model.config.window = 4
    for side in ("right", "left") if name == "Llama" else ("right",):
        ids = torch.nn.utils.rnn.pad_sequence(texts, batch_first=True, padding_side=side)
        assert torch.allclose(model(ids, attention_mask=ids > 0).logits, expected, atol=1e-5)
    assert torch.allclose(torch.cat([model(text[None]).logits for text in texts]), expected, atol=1e-5)
    assert model(texts[0][None, :10]).logits.isfinite().all()  # as pipelines have it, which know of no windows


def test_gradients_go_through_the_windows_that_give_the_most_and_change_no_logits(make: Make):
    model, _ = make("Bert", pooling="mean")
    model.config.window = 2
    model.train()
    for layer in model.modules():
        if isinstance(layer, torch.nn.Dropout):
            layer.p = 0.0
    ids, words = torch.arange(5, 25).view(2, 10), model.get_input_embeddings().weight

    def step(most: int) -> tuple[torch.Tensor, torch.Tensor]:
        model.zero_grad()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(pooling, "MOST_TRAINED", most)
            logits = model(ids).logits
        logits[:, 0].sum().backward()
        return logits.detach(), words.grad.abs().sum(1)[ids].view(2, 5, 2).sum(2)

    (whole, all_five), (bounded, of_three) = step(5), step(3)
    assert torch.allclose(whole, bounded, atol=1e-6)
    assert (all_five > 0).sum(1).min() > 3
    assert (of_three > 0).sum(1).tolist() == [3, 3]
    model.config.window = None
    vectors = model.body(ids.view(10, 2)).last_hidden_state.mean(1).view(2, 5, -1)
    for row, winners in enumerate(vectors.argmax(1)):
        shares = torch.bincount(winners, minlength=5)
        assert shares[of_three[row] > 0].min() >= shares[of_three[row] == 0].max()


# The artefact


@pytest.fixture(scope="module", params=["encoder", "decoder", "stateful"])
def overrides(request: pytest.FixtureRequest, finetuned: list[str]) -> list[str]:
    """The overrides of a recipe with this head, that `finetune` has run: a BERT's, and others' with the mean."""
    overrides = [*finetuned, "name=pooled", "finetune.pooling=concat", "finetune.epochs=2"]
    if request.param != "encoder":
        checkpoint = request.getfixturevalue({"decoder": "causal_checkpoint"}.get(request.param, "stateful_checkpoint"))
        overrides += [f"model.checkpoint={checkpoint}", "finetune.pooling=mean"]
    if request.param == "stateful":
        overrides.append("task.long_documents=whole")
    assert main(["finetune", *overrides]) == 0
    return overrides


@pytest.fixture(scope="module")
def artefact(overrides: list[str]) -> Path:
    return (compose(overrides).runs / "pooled/finetune").resolve()


def test_a_model_is_fine_tuned_and_ours_reads_it_without_running_the_copy_that_lies_beside_it(
    artefact: Path, tmp_path: Path
):
    expected = load(artefact, device="cpu")(TEXTS)
    copy = shutil.copytree(artefact, tmp_path / "copy", ignore=shutil.ignore_patterns(MANIFEST))
    assert (copy / FILE).read_text() == Path(pooling.__file__).read_text()
    (copy / FILE).write_text("raise SystemExit('this was run')\n")
    assert load(copy, device="cpu")(TEXTS) == expected
    (copy / FILE).unlink()  # as where the Hub sent it, which is not asked for code
    assert load(copy, device="cpu")(TEXTS) == expected


STOCK = """
import sys
sys.modules["ulmfit_style"] = None  # cannot be imported
from transformers import pipeline
source, saved, *texts = sys.argv[1:]
try:
    pipeline("text-classification", model=source, trust_remote_code=False)
except ValueError as error:
    print("REFUSED", " ".join(str(error).split()))
pipeline("text-classification", model=source, trust_remote_code=True).save_pretrained(saved)
print("ANSWERS", pipeline("text-classification", model=saved, trust_remote_code=True)(texts))
"""


def test_stock_transformers_gives_the_same_answers_when_it_may_run_the_file_and_else_says_what_it_needs(
    artefact: Path, tmp_path: Path
):
    command = [sys.executable, "-c", STOCK, str(artefact), str(tmp_path), *TEXTS]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    assert ended.returncode == 0, ended.stderr
    refusal, answers = ended.stdout.split("ANSWERS ")
    assert "pass the argument `trust_remote_code=True`" in refusal
    for theirs, ours in zip(ast.literal_eval(answers), load(artefact, device="cpu")(TEXTS), strict=True):
        assert theirs["label"] == ours["label"]
        assert theirs["score"] == pytest.approx(ours["score"], abs=1e-5)


def test_the_file_is_exported_and_the_card_says_that_it_is_run(
    artefact: Path, overrides: list[str], capsys: pytest.CaptureFixture[str]
):
    capsys.readouterr()
    assert main(["push", *overrides, "hub.repo=me/reviews", "hub.dry_run=true"]) == 0
    listed, behind = capsys.readouterr().out.split("stays behind:")
    assert FILE in listed
    assert FILE not in behind
    text = card.write("me/reviews", Run("reviews", finished.find(artefact), compose(overrides)), Hub(), "")
    file = read_json(artefact / "config.json")["auto_map"]["AutoConfig"].partition(".")[0]  # one of a body of our own
    assert f"`trust_remote_code=True` lets it run `{file}.py` of this repository" in text
    assert 'model="me/reviews", trust_remote_code=True)' in text


# Once more


@pytest.mark.parametrize("name", BODIES)
def test_its_body_gets_the_head_of_a_language_model_and_then_its_own_again_for_as_many_labels(
    name: str, make: Make, tmp_path: Path
):
    pooled, adapted = tmp_path / "pooled", tmp_path / "adapted"
    expected, _ = make(name, pooling="mean")
    expected.save_pretrained(pooled)
    model, config = Model(checkpoint=str(pooled)), expected.body.config
    assert checkpoints.model_type(model) == config.model_type
    assert checkpoints.positions(model) == config.max_position_embeddings
    auto_class = transformers.AutoModelForCausalLM if name in CAUSAL else transformers.AutoModelForMaskedLM
    language_model, _, unused = checkpoints.load_model(auto_class, pooled)
    checkpoints.save(language_model, adapted, pooled, unused)
    assert type(language_model).__name__ == BODIES[name][1]
    classifier = checkpoints.load_model(transformers.AutoModelForSequenceClassification, pooled, **HEAD).model
    assert type(classifier).__name__ == f"{name}ForSequenceClassification"

    def again(pooling: Literal["concat", "mean"], head: dict) -> dict[str, torch.Tensor]:
        return load_pooled(adapted, pooling, head)[0].state_dict()

    weights = expected.state_dict()
    assert all(torch.equal(weight, weights[name]) for name, weight in again("mean", HEAD).items())
    assert again("mean", {"num_labels": 2})["head.1.weight"].shape == (2, 16)
    assert again("concat", HEAD)["head.1.weight"].shape == (50, 48)


def test_adapting_it_at_a_rate_that_moves_nothing_leaves_fine_tuning_as_it_is(
    artefact: Path, tmp_path: Path, tiny_overrides: list[str], not_adapted: list[str]
):
    options = [f"model.checkpoint={artefact}", f"finetune.pooling={read_json(artefact / 'config.json')['pooling']}"]
    still = ["adapt.learning_rate=1e-30", "adapt.head_learning_rate=1e-30", "adapt.weight_decay=0", "compare=false"]
    assert main(["adapt", "finetune", *tiny_overrides, *still, *options, "name=adapted"]) == 0
    assert main(["finetune", *not_adapted, *options, "name=plain"]) == 0
    adapted, plain = (tmp_path / "runs" / name / "finetune" for name in ("adapted", "plain"))
    assert adapted.resolve() != plain.resolve()
    assert predictions.read(adapted, "test") == predictions.read(plain, "test")


def test_a_head_of_the_architecture_is_new_where_it_has_another_number_of_labels(saved):
    auto_class = transformers.AutoModelForSequenceClassification
    model, missing, _ = checkpoints.load_model(auto_class, saved("Bert", "BertForSequenceClassification"), **HEAD)
    assert missing == {"classifier.weight", "classifier.bias"}
    assert model.config.id2label == HEAD["id2label"]


def test_an_encoder_decoder_is_refused(seq2seq_checkpoint: Path, tiny_overrides: list[str]):
    options = [override for override in tiny_overrides if not override.startswith("adapt.")]
    config = compose([*options, f"model.checkpoint={seq2seq_checkpoint}", "finetune.pooling=concat", "adapt=none"])
    with pytest.raises(UserError, match=r"pools one body, and a model of type 't5' is an encoder and a decoder"):
        checks.finetune(config, config.require_task())
