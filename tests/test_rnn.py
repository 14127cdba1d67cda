"""Recurrent encoder-decoders: that padding, beams and the kept state change nothing, and what attention tells."""

import json
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from samples import Killed, jsonl
from tiny_run import killed_before
from transformers import GenerationConfig

from ulmfit_style import load
from ulmfit_style.__main__ import main
from ulmfit_style.cli.compose import compose
from ulmfit_style.errors import UserError
from ulmfit_style.models import architectures
from ulmfit_style.models.layers import HEAD, layer_groups
from ulmfit_style.models.rnn import RnnConfig, RnnForConditionalGeneration
from ulmfit_style.stages.finetune import prepare
from ulmfit_style.stages.table import resolve
from ulmfit_style.training import phases

IDS = torch.randint(4, 50, (3, 9), generator=torch.Generator().manual_seed(0))
MASK = torch.tensor([[1] * 9, [1] * 5 + [0] * 4, [1] * 2 + [0] * 7])
WRITTEN = torch.randint(4, 50, (3, 6), generator=torch.Generator().manual_seed(1))
SPECIAL = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3, "decoder_start_token_id": 3}


def untrained(*, attention: bool) -> RnnForConditionalGeneration:
    """Return a model whose states matter."""
    torch.manual_seed(0)
    config = RnnConfig(
        attention=attention, vocab_size=50, hidden_size=16, num_hidden_layers=2, initializer_range=0.7, **SPECIAL
    )
    model = RnnForConditionalGeneration(config).eval().requires_grad_(False)
    for part in (model.encoder, model.decoder):
        for weight in part.layers.parameters():
            weight.mul_(2)
    return model


@pytest.fixture(params=[True, False], ids=["attention", "state alone"])
def model(request: pytest.FixtureRequest) -> RnnForConditionalGeneration:
    return untrained(attention=request.param)


def test_a_row_beside_padding_is_read_as_it_is_alone(model: RnnForConditionalGeneration):
    together = model(IDS, MASK, WRITTEN).logits
    for row, length in enumerate(MASK.sum(1).tolist()):
        alone = model(IDS[row : row + 1, :length], decoder_input_ids=WRITTEN[row : row + 1]).logits
        assert torch.allclose(together[row], alone[0], atol=1e-6)
    assert not torch.allclose(
        model(IDS, decoder_input_ids=WRITTEN).logits, together, atol=1e-2
    )  # what is masked counts


def test_the_encoder_is_that_of_torch_and_hands_its_last_state_over(model: RnnForConditionalGeneration):
    hidden, ends = model.encoder.embed_tokens(IDS), []
    for layer in model.encoder.layers:
        hidden, (state, cell) = layer(hidden)
        ends += [torch.cat([*end], dim=-1) for end in (state, cell)]
    read = model.encoder(IDS)
    assert torch.allclose(read.last_hidden_state, hidden, atol=1e-6)
    assert torch.allclose(read.state, torch.stack(ends, dim=1), atol=1e-6)


def test_parts_that_carry_the_state_give_the_logits_of_one_pass(model: RnnForConditionalGeneration):
    whole, state, logits = model(IDS, MASK, WRITTEN).logits, None, []
    for part in WRITTEN.split([1, 3, 2], dim=1):
        outputs = model(IDS, MASK, part, state=state, use_cache=True)
        state = outputs.state
        logits.append(outputs.logits)
    assert torch.allclose(torch.cat(logits, dim=1), whole, atol=1e-6)
    assert model(IDS, MASK, WRITTEN).state is None  # or `generate` would go on from it without a cache


@pytest.mark.parametrize("options", [{}, {"num_beams": 4}, {"do_sample": True}], ids=["greedy", "beams", "drawn"])
def test_what_is_written_from_the_state_is_what_whole_beginnings_give(
    model: RnnForConditionalGeneration, options: dict
):
    written = []
    for use_cache in (True, False):
        torch.manual_seed(0)
        settings = GenerationConfig(**SPECIAL, max_new_tokens=12, use_cache=use_cache, **options)
        written.append(model.generate(IDS, attention_mask=MASK, generation_config=settings))
    assert torch.equal(*written)
    assert len({tuple(row) for row in written[0].tolist()}) == len(IDS)


def test_greedy_writing_takes_the_likeliest_token_after_all_before(model: RnnForConditionalGeneration):
    (written,) = model.generate(IDS[:1], max_new_tokens=6, min_new_tokens=6, do_sample=False)
    ids = written[:1]
    for _ in range(6):
        logits = model(IDS[:1], decoder_input_ids=ids[None]).logits[0, -1]
        logits[3] = -torch.inf if len(ids) < 7 else logits[3]
        ids = torch.cat([ids, logits.argmax()[None]])
    assert torch.equal(ids, written)


def test_attention_is_shared_among_what_was_read_and_none_of_it_is_padding():
    (weights,) = untrained(attention=True)(IDS, MASK, WRITTEN, output_attentions=True).cross_attentions
    assert weights.shape == (3, 1, 6, 9)
    assert torch.allclose(weights.sum(-1), torch.ones(3, 1, 6))
    assert not weights.masked_select(MASK[:, None, None] == 0).any()
    assert untrained(attention=False)(IDS, MASK, WRITTEN, output_attentions=True).cross_attentions is None


def test_without_attention_the_decoder_knows_the_last_state_alone():
    for attention in (True, False):
        model = untrained(attention=attention)
        read = model.encoder(IDS)
        first = model(encoder_outputs=read, decoder_input_ids=WRITTEN).logits
        read["last_hidden_state"] = read.last_hidden_state.flip(0)
        assert torch.equal(model(encoder_outputs=read, decoder_input_ids=WRITTEN).logits, first) != attention


def test_labels_are_learnt_each_after_the_one_before_and_padding_is_not(model: RnnForConditionalGeneration):
    labels = WRITTEN.clone()
    labels[1, 4:] = -100
    before = model.prepare_decoder_input_ids_from_labels(labels)
    assert before[:, 0].tolist() == [3] * 3
    assert torch.equal(before[0, 1:], labels[0, :-1])
    assert before[1, 5] == 0
    outputs = model(IDS, MASK, labels=labels)
    chances = model(IDS, MASK, before).logits.log_softmax(-1).gather(-1, WRITTEN[..., None])[..., 0]
    assert torch.allclose(outputs.loss, -chances[labels >= 0].mean())
    assert model.lm_head.weight is model.get_input_embeddings().weight


def test_dropout_acts_in_training_alone(model: RnnForConditionalGeneration):
    assert not torch.allclose(*(model.train()(IDS, MASK, WRITTEN).logits for _ in "ab"))
    assert torch.equal(*(model.eval()(IDS, MASK, WRITTEN).logits for _ in "ab"))


def test_each_lstm_is_a_layer_group(model: RnnForConditionalGeneration):
    groups = layer_groups(model, set())
    assert list(groups) == ["embeddings", *(f"layer {number}" for number in range(1, 5)), HEAD]
    assert {id(weight) for weights in groups.values() for weight in weights} == set(map(id, model.parameters()))


def test_padding_before_a_text_and_sizes_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match=r"padding stands before a token; .* padding_side='right'"):
        untrained(attention=True)(IDS, MASK.flip(1), WRITTEN)
    for wrong in ({"hidden_size": 15}, {"hidden_size": -2}, {"num_hidden_layers": 0}, {"dropout": 1}):
        with pytest.raises(ValueError, match="hidden_size should be even and positive, num_hidden_layers 1 or more"):
            RnnConfig(**wrong)


def test_what_is_known_of_it_before_it_is_imported_is_what_it_says():
    assert {RnnForConditionalGeneration._auto_class} == architectures.OWN[RnnConfig.model_type]


# In a recipe

GERMAN = {"red": "rot", "green": "grün", "old": "alt", "house": "Haus", "dog": "Hund", "cat": "Katze", "sees": "sieht"}


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., list[str]]:
    """The overrides that translate words one by one by a tiny model."""
    folder, chance = tmp_path_factory.mktemp("rnn"), random.Random(0)
    for split, count in (("train", 600), ("test", 20)):
        texts = [chance.choices(list(GERMAN), k=chance.randint(2, 6)) for _ in range(count)]
        rows = [{"en": " ".join(words), "de": " ".join(GERMAN[word] for word in words)} for words in texts]
        jsonl(folder / f"{split}.jsonl", [*rows, *([{"en": f"a {split}", "de": f"ein {split}wolf"}] * 3)])

    def make(model: str, *overrides: str) -> list[str]:
        return [
            *(f"model={model}", "pretrain=none", "adapt=none", "compare=false", f"runs={folder / 'runs'}"),
            *("model.architecture.hidden_size=64", "model.tokenizer.vocab_size=400"),
            *("model.architecture.num_hidden_layers=1", "task=translation", "task.max_target_length=24"),
            f"task.path={{train: {folder / 'train.jsonl'}, test: {folder / 'test.jsonl'}}}",
            *("task.source_language=en", "task.target_language=de", "finetune.max_length=24", f"name={model}"),
            *("finetune.epochs=10", "finetune.batch_size=16", "finetune.learning_rate=1e-2", *overrides),
        ]

    return make


STOCK = """
import sys
sys.modules["ulmfit_style"] = None  # cannot be imported
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer
model = AutoModelForSeq2SeqLM.from_pretrained(sys.argv[1], trust_remote_code=True)
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1], trust_remote_code=True)
written = model.generate(**tokenizer(sys.argv[2], return_tensors="pt"))
print(tokenizer.decode(written[0], skip_special_tokens=True).strip())
"""


def test_it_learns_to_translate_is_read_by_stock_transformers_and_tells_what_it_looked_at(
    recipe: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    overrides = recipe("rnn_attention")
    assert main(["finetune", *overrides]) == 0
    directory = (compose(overrides).runs / "rnn_attention/finetune").resolve()
    scores = json.loads((directory / "metrics.json").read_text())["test"]["scores"]
    assert scores["chrf"] > 0.8
    text = "red cat sees old dog"
    command = [sys.executable, "-c", STOCK, str(directory), text]
    ended = subprocess.run(command, capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL)
    answer = load(directory, device="cpu")(text)["translation_text"]
    assert ended.stdout.strip() == answer
    assert answer == "rot Katze sieht alt Hund"

    rows = jsonl(tmp_path / "new.jsonl", [{"en": text}, {"en": "red cat sees old dog " * 5}])
    out = tmp_path / "answers.jsonl"
    asked = ["predict", f"predict.model={directory}", f"predict.input={rows}", f"predict.output={out}"]
    capsys.readouterr()
    assert main(asked) == 0
    told = "1 rows are longer than the 24 tokens that the model was trained on; cut: train with a higher finetune.max"
    assert told in capsys.readouterr().err
    assert json.loads(out.read_text().splitlines()[0])["translation_text"] == answer
    assert main([*asked, "predict.explain=true"]) == 0
    explained = json.loads(out.read_text().splitlines()[0])
    (matrix,) = explained["explanations"]
    looked_at = [matrix["read"][row.index(max(row))].strip() for row in matrix["weights"]]
    pairs = [(source, word.strip()) for source, word in zip(looked_at, matrix["written"], strict=True)]
    assert explained["translation_text"] == answer
    assert [pair for pair in pairs if pair[1] in GERMAN.values()] == [(word, GERMAN[word]) for word in text.split()]
    capsys.readouterr()
    assert main(["push", *overrides, "hub.repo=translator", "hub.dry_run=true"]) == 0
    assert "│ rnn.py " in capsys.readouterr().out


def test_new_tokens_fit_both_sides(model: RnnForConditionalGeneration):
    before = model(IDS, MASK, WRITTEN).logits
    model.resize_token_embeddings(60, mean_resizing=False)
    assert model.lm_head.weight is model.encoder.embed_tokens.weight
    after = model(IDS, MASK, WRITTEN).logits
    assert after.shape[-1] == 60
    assert torch.allclose(after[..., :50], before, atol=1e-6)


def test_one_tokenizer_learns_of_both_languages_but_not_of_the_test(recipe: Callable[..., list[str]]):
    _, tokenizer = prepare(made(recipe("rnn_attention")))
    assert {"Ġgreen", "ĠKatze", "ĠgrÃ¼n"} <= set(tokenizer.get_vocab())
    assert any("train" in token for token in tokenizer.get_vocab())
    assert not any("test" in token for token in tokenizer.get_vocab())


def made(overrides: list[str]):
    """Return a config whose random weights are made."""
    resolved = resolve(compose(overrides))
    for step in resolved.stages["scratch"].steps(resolved, ["finetune"]):
        step.artefact.make(lambda directory, step=step: step.stage.module.run(step, directory), step.recipe)
    return resolved


@pytest.mark.parametrize("name", ["rnn_attention", "rnn_seq2seq"])
def test_a_killed_run_goes_on_to_the_same_weights(name: str, recipe: Callable[..., list[str]], tmp_path: Path):
    resolved = made(
        recipe(name, "finetune.epochs=1", "finetune.unfreeze=[1,all]", "task.train_samples=96", "save_minutes=1e-9")
    )

    def train(killed_at: int | None, folder: Path) -> torch.Tensor:
        plan, _ = prepare(resolved)
        phases.train(killed_before(plan, killed_at), folder)
        return torch.cat([parameter.detach().flatten() for parameter in plan.model.parameters()])

    whole = train(None, tmp_path / "whole")
    for killed_at in (4, 5):  # in each of the phases, of 6 steps each
        with pytest.raises(Killed):
            train(killed_at, tmp_path / "killed")
    assert torch.equal(train(None, tmp_path / "killed"), whole)


def test_it_is_pretrained_and_adapted_by_restoring_texts(recipe: Callable[..., list[str]], tmp_path: Path):
    lengths = ("pretrain.max_length=24", "adapt.max_length=24", "adapt.general=null")
    passes = ("pretrain.epochs=0.5", "adapt.epochs=0.5")
    overrides = [*recipe("rnn_attention"), "pretrain=plain", "adapt=plain", f"runs={tmp_path}", *lengths, *passes]
    assert main(["pretrain", "adapt", *overrides]) == 0


def test_adapters_are_refused_for_they_would_leave_the_lstms_as_they_are(recipe: Callable[..., list[str]], capsys):
    for name in ("rnn_attention", "rnn_seq2seq"):
        assert main(["plan", "finetune", *recipe(name, "finetune.lora_rank=4")]) == 2
        told = (
            "finetune.lora_rank: is for the layers of transformers, and this model has LSTMs; take finetune.lora_rank=0"
        )
        assert told in capsys.readouterr().err


def test_a_field_that_it_does_not_have_is_told():
    with pytest.raises(UserError, match=r"model\.architecture\.atention: a rnn has no such field; .*attention"):
        architectures.require_fields({"model_type": "rnn", "atention": False})
