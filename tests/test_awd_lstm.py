"""AWD-LSTM: that its state goes through a text exactly, what each dropout does, and who can read the model."""

import subprocess
import sys

import pytest
import torch
from samples import PLAIN_LSTM

from ulmfit_style import load
from ulmfit_style.__main__ import main
from ulmfit_style.artefacts.directory import read_json
from ulmfit_style.cli.compose import compose
from ulmfit_style.errors import UserError
from ulmfit_style.models import architectures
from ulmfit_style.models.awd_lstm import MODELS, AwdLstmConfig, AwdLstmForCausalLM, AwdLstmForSequenceClassification
from ulmfit_style.models.pooling import BatchNorm
from ulmfit_style.training import checks

LENGTH = 20
IDS = torch.randint(50, (3, LENGTH), generator=torch.Generator().manual_seed(0))


def config_of(**fields: object) -> AwdLstmConfig:
    return AwdLstmConfig(vocab_size=50, hidden_size=16, lstm_size=24, **{**PLAIN_LSTM, **fields})


@pytest.fixture
def model() -> AwdLstmForCausalLM:
    """Return a model whose state matters."""
    torch.manual_seed(0)
    model = AwdLstmForCausalLM(config_of()).eval().requires_grad_(False)
    for weight in model.body.layers.parameters():
        weight.mul_(3)
    return model


def test_its_layers_are_those_of_torch(model: AwdLstmForCausalLM):
    hidden = model.body.embed_tokens(IDS)
    for layer in model.body.layers:
        hidden, _ = layer(hidden)
    assert torch.allclose(model(IDS).logits, model.lm_head(hidden), atol=1e-6)


def test_parts_that_carry_the_state_give_the_logits_of_one_long_pass(model: AwdLstmForCausalLM):
    whole, state, logits = model(IDS), None, []
    for part in IDS.split([3, 9, 1, 7], dim=1):
        outputs = model(part, state=state)
        state = outputs.state
        logits.append(outputs.logits)
    assert torch.allclose(torch.cat(logits, dim=1), whole.logits, atol=1e-6)
    assert torch.allclose(state, whole.state, atol=1e-6)
    assert not torch.allclose(model(IDS[:, 3:]).logits, whole.logits[:, 3:], atol=1e-2)  # or this would test nothing


def test_a_document_that_starts_within_a_row_knows_nothing_of_what_stands_before(model: AwdLstmForCausalLM):
    before, starts = model(IDS.flip(0)).state, torch.zeros_like(IDS)
    starts[0, 5] = starts[1, 0] = starts[2, 7] = starts[2, 15] = 1
    outputs = model(IDS, starts=starts, state=before)
    for row, start, end in ((0, 5, LENGTH), (1, 0, LENGTH), (2, 7, 15), (2, 15, LENGTH)):
        alone = model(IDS[row : row + 1, start:end])
        assert torch.allclose(outputs.logits[row, start:end], alone.logits[0], atol=1e-6)
        assert end < LENGTH or torch.allclose(outputs.state[row], alone.state[0], atol=1e-6)
    assert torch.allclose(outputs.logits[0, :5], model(IDS[:1, :5], state=before[:1]).logits[0], atol=1e-6)


def test_masked_tokens_change_neither_logits_nor_state_wherever_they_stand(model: AwdLstmForCausalLM):
    before, mask = model(IDS.flip(0)).state, torch.ones_like(IDS)
    mask[0, 12:] = mask[1, :4] = mask[2] = 0
    outputs = model(IDS, mask, state=before)
    for row, part in ((0, slice(12)), (1, slice(4, LENGTH))):
        alone = model(IDS[row : row + 1, part], state=before[row : row + 1])
        assert torch.allclose(outputs.logits[row, part], alone.logits[0], atol=1e-6)
        assert torch.allclose(outputs.state[row], alone.state[0], atol=1e-6)
    assert torch.equal(outputs.state[2], before[2])


@pytest.mark.parametrize("name", PLAIN_LSTM)
def test_each_dropout_acts_in_training_alone(name: str):
    model = AwdLstmForCausalLM(config_of(**{name: 0.5}))
    first, second = (model.train()(IDS).logits for _ in "ab")
    assert not torch.allclose(first, second)
    assert torch.equal(*(model.eval()(IDS).logits for _ in "ab"))


def test_gradients_reach_the_last_tokens_of_each_text_and_the_state_all():
    model = AwdLstmForCausalLM(config_of()).body.train()
    model.embed_tokens.weight.data = torch.nn.functional.normalize(model.embed_tokens.weight.data)
    embedded: list[torch.Tensor] = []
    model.embed_tokens.register_forward_hook(
        lambda *arguments: embedded.append(arguments[2]) or arguments[2].retain_grad()
    )
    mask = torch.ones_like(IDS)
    mask[0, 12:] = 0
    whole = model(IDS, mask).last_hidden_state
    model.config.gradient_length = 5
    bounded = model(IDS, mask).last_hidden_state
    assert torch.allclose(whole, bounded, atol=1e-6)
    bounded.sum().backward()
    reached = embedded[1].grad.abs().sum(-1) > 0
    assert [row.nonzero().flatten().tolist() for row in reached[:2]] == [[7, 8, 9, 10, 11], [15, 16, 17, 18, 19]]


def test_the_head_of_the_paper_normalises_batches_and_learns_from_one_row_too():
    model = AwdLstmForSequenceClassification(config_of(batch_norm=True, num_labels=3))
    assert isinstance(model.head[0], BatchNorm)
    model.train()(IDS[:1]).logits.sum().backward()


STOCK = """
import sys
sys.modules["ulmfit_style"] = None  # cannot be imported
from transformers import pipeline
print(pipeline("text-classification", model=sys.argv[1], trust_remote_code=True)(sys.argv[2])[0]["score"])
"""


def test_it_is_pretrained_adapted_fine_tuned_on_whole_texts_and_read_by_stock_transformers(
    tiny_overrides: list[str], capsys: pytest.CaptureFixture[str]
):
    sizes = ["hidden_size=16", "lstm_size=24", "num_hidden_layers=2", "batch_norm=true"]
    options = [
        *(override for override in tiny_overrides if not override.startswith("model.")),
        *("model=awd_lstm", *(f"model.architecture.{size}" for size in sizes), "model.tokenizer.vocab_size=300"),
        *(
            "pretrain.batch_size=8",
            "pretrain.max_length=16",
            "adapt.general=null",
            "adapt.max_length=16",
            "compare=false",
        ),
        *("task.long_documents=whole", "finetune.max_length=8"),
    ]
    assert main(["pretrain", "adapt", "finetune", *options]) == 0
    directory = (compose(options).runs / "default/finetune").resolve()
    assert read_json(directory / "config.json")["gradient_length"] == 8
    text = "the plot of a film number 7 is unforgettable " * 3
    command = [sys.executable, "-c", STOCK, str(directory), text]
    ended = subprocess.run(command, capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL)
    assert float(ended.stdout) == pytest.approx(load(directory, device="cpu")(text)["score"], abs=1e-5)
    turned = ["model.architecture.direction=backward", "name=turned", "finetune.init=default"]
    assert main(["finetune", *options, *turned]) == 2
    assert "has model.architecture.direction=forward instead of backward; give the same" in capsys.readouterr().err


def test_whole_texts_are_refused_where_no_state_is_carried(not_adapted: list[str]):
    config = compose([*not_adapted, "task.long_documents=whole"])
    with pytest.raises(UserError, match=r"'bert' carries no state .* take windows, or model=awd_lstm"):
        checks.finetune(config, config.require_task())


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["model=awd_lstm_backward", "task=text_generation"], r"backward: TextGeneration .* left to right; take one"),
        (["model=awd_lstm", "model.architecture.direction=left"], r"direction=left: should be forward or backward"),
    ],
)
def test_directions_that_do_not_fit_are_refused(options: list[str], problem: str):
    config = compose([*options, "task.path=rows.jsonl"])
    with pytest.raises(UserError, match=problem):
        checks.finetune(config, config.require_task())


def test_what_is_known_of_architectures_before_they_are_imported_is_what_they_say():
    assert {model._auto_class for model in MODELS} - {"AutoModel"} == architectures.OWN[AwdLstmConfig.model_type]


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"num_hidden_layers": 0}, "num_hidden_layers=0: .* there is a layer at least"),
        ({"weight_dropout": 1.5}, "weight_dropout=1.5: a dropout is a share"),
    ],
)
def test_sizes_and_dropouts_that_cannot_be_are_named(fields: dict, problem: str):
    with pytest.raises(ValueError, match=problem):
        AwdLstmForCausalLM(config_of(**fields))


def test_what_it_writes_is_what_it_predicts_of_all_before_beside_padding_too(model: AwdLstmForCausalLM):
    ids, mask = IDS[:2, :6], torch.ones(2, 6, dtype=torch.long)
    ids[1, :2], mask[1, :2] = 0, 0
    written = model.generate(ids, attention_mask=mask, max_new_tokens=4, do_sample=False, pad_token_id=0)
    for row, start in ((0, 0), (1, 2)):
        text = ids[row : row + 1, start:]
        for _ in range(4):
            text = torch.cat([text, model(text).logits[:, -1:].argmax(-1)], dim=1)
        assert torch.equal(written[row, start:], text[0])


def test_a_backward_model_says_of_a_text_what_a_forward_one_says_of_it_reversed(model: AwdLstmForCausalLM):
    backward = AwdLstmForCausalLM(config_of(direction="backward")).eval()
    backward.load_state_dict(model.state_dict())
    mask = torch.ones_like(IDS)
    mask[1, 12:] = 0
    ours, theirs = backward(IDS, mask, labels=IDS), model(IDS.flip(1), mask.flip(1), labels=IDS.flip(1))
    assert torch.allclose(ours.logits, theirs.logits.flip(1), atol=1e-6)
    assert torch.allclose(ours.loss, theirs.loss, atol=1e-6)
    assert torch.allclose(ours.state, theirs.state, atol=1e-6)
    heads = [AwdLstmForSequenceClassification(each.config).eval() for each in (backward, model)]
    heads[0].load_state_dict(heads[1].state_dict())
    pooled = heads[0](IDS, mask).logits, heads[1](IDS.flip(1), mask.flip(1)).logits
    assert torch.allclose(*pooled, atol=1e-6)
