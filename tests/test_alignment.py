"""Which tokens of a text a model looked at for each that it wrote: the attention, the page and what has none."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from recipes import Trained
from samples import encoder_decoder, jsonl, tiny_tokenizer
from transformers import (
    BertConfig,
    BertModel,
    EncoderDecoderModel,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedTokenizerFast,
)

from ulmfit_style.__main__ import main
from ulmfit_style.config.training import NewTokenizer
from ulmfit_style.errors import UserError
from ulmfit_style.models import attributions
from ulmfit_style.models.new_tokenizer import DECODER, learn
from ulmfit_style.models.rnn import RnnConfig, RnnForConditionalGeneration
from ulmfit_style.results import html
from ulmfit_style.results.html import MOST_ALIGNED, Page
from ulmfit_style.results.parts import Alignment
from ulmfit_style.stages.report import EXPLAINED
from ulmfit_style.tasks.summarization import Summarization
from ulmfit_style.tasks.translation import Translation

TASK = Summarization(path="-", max_target_length=6)
ENDS = {"pad_token_id": 0, "eos_token_id": 3, "decoder_start_token_id": 3}


def grown(tokenizer: PreTrainedTokenizerFast) -> EncoderDecoderModel:
    """A BERT with a decoder of its own kind of attention, as `model.decoder=scratch` makes it."""
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
    encoder = BertModel(BertConfig(vocab_size=len(tokenizer), **sizes))
    layers = {"n_embd": 16, "n_layer": 2, "n_head": 2, "add_cross_attention": True, "is_decoder": True}
    decoder = GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer), **layers, bos_token_id=3, eos_token_id=3))
    model = EncoderDecoderModel(encoder=encoder, decoder=decoder)
    model.config.update(ENDS)
    return model


@pytest.mark.parametrize("kind", ["T5", "BART", "grown", "rnn"])
@pytest.mark.parametrize("beams", [1, 3])
def test_the_matrix_is_the_attention_by_which_each_token_was_chosen(kind: str, beams: int):
    torch.manual_seed(0)
    tokenizer = tiny_tokenizer()
    if kind == "rnn":
        sizes = {"vocab_size": len(tokenizer), "hidden_size": 16, "initializer_range": 0.7}
        model = RnnForConditionalGeneration(RnnConfig(**sizes, **ENDS))
    else:
        model = grown(tokenizer) if kind == "grown" else encoder_decoder(kind, tokenizer)
    for name, weight in model.named_parameters():
        weight.data *= 1 if "norm" in name or "ln_" in name else 4  # or it would look everywhere alike
    model.eval()
    before = model.config._attn_implementation
    task = TASK.model_copy(update={"num_beams": beams})
    (feature,) = task.encode(task.row("the film number 7 is wonderful"), tokenizer, 32, None)
    answer = attributions.aligned(model, tokenizer, task, feature)
    assert model.config._attn_implementation == before

    # Step by step, each from all the tokens before it
    model.set_attn_implementation("eager")
    batch = {
        "input_ids": torch.tensor([feature["input_ids"]]),
        "attention_mask": torch.tensor([feature["attention_mask"]]),
    }
    written = task.generated(model, tokenizer, batch)
    (explanation,) = answer["explanations"]
    weights = torch.tensor(explanation["weights"])
    assert weights.shape == (written.shape[1] - 1, len(feature["input_ids"]))
    for step in range(1, written.shape[1]):
        layers = model(**batch, decoder_input_ids=written[:, :step], output_attentions=True).cross_attentions
        mean = torch.stack([layer[0, :, -1] for layer in layers]).mean(dim=(0, 1))
        assert torch.allclose(weights[step - 1], mean, atol=1e-4)
    assert torch.allclose(weights.sum(dim=1), torch.ones(len(weights)), atol=1e-3)
    assert weights.std() > 1e-3
    assert explanation["read"] == ["[CLS]", "the", "film", "number", "7", "is", "wonderful", "[SEP]"]
    assert len(explanation["written"]) == len(weights)
    assert answer[task.answer_field] == task.answer(model, tokenizer, batch)[0][task.answer_field]


def test_a_character_of_several_tokens_stands_at_the_last_of_them_on_either_side():
    options = NewTokenizer(kind="bpe", vocab_size=270)
    bytes_ = PreTrainedTokenizerFast(tokenizer_object=learn(options, "-", [["a a"]], DECODER), **DECODER)
    ids = bytes_("é 한 x")["input_ids"]
    texts = attributions._spelled(bytes_, ids)
    assert texts == ["", "é", " ", "", "", "한", " ", "x"]
    assert "".join(texts) == bytes_.decode(ids)
    broken = [*ids[:1], *ids]  # half a character, as a model may write it
    assert "".join(attributions._spelled(bytes_, broken)) == bytes_.decode(broken)


def test_the_page_shows_a_matrix_and_says_what_is_left_out_of_a_large_one(tmp_path: Path):
    small = {"read": ["<b>", "$$"], "written": ["하나"], "weights": [[0.25, 0.75]]}
    read, written = [f"r{number}" for number in range(MOST_ALIGNED + 9)], [f"w{number}" for number in range(3)]
    large = {"read": read, "written": written, "weights": [[0.0] * len(read)] * 3}
    path = tmp_path / "page.html"
    html.write(Page("", "", {"Answers": [Alignment("a.csv:1", small), Alignment("a.csv:2", large)]}), path)
    first, second = path.read_text(encoding="utf-8").partition("<h3>a.csv:2</h3>")[::2]
    assert "&lt;b&gt;</td>" in first
    assert "<b>" not in first
    assert re.findall(r'rgba\(0,114,178,([\d.]+)\)" title="하나 / ([^:]+): ', first) == [
        ("0.25", "&lt;b&gt;"),
        ("0.75", "$$"),
    ]
    assert "Shown are the first" not in first
    assert "the first 80 of the 89 tokens that were read" in second
    assert "tokens that were written." not in second
    assert (f"r{MOST_ALIGNED - 1}<" in second, f"r{MOST_ALIGNED}<" in second) == (True, False)
    assert second.count("w2</td>") == 1


def test_predict_draws_it_beside_the_answers(trained: Callable[[str], Trained], tmp_path: Path, capsys):
    directory = trained("summaries").directory
    texts = ["the film number 7 is wonderful. " * 2, "the plot " * 40]
    rows, out = jsonl(tmp_path / "new.jsonl", [{"text": text} for text in texts]), tmp_path / "answers.jsonl"
    command = ["predict", f"predict.model={directory}", f"predict.input={rows}", f"predict.output={out}"]
    assert main(command) == 0
    plain = [json.loads(line) for line in out.read_text().splitlines()]
    capsys.readouterr()
    assert main([*command, "predict.explain=true"]) == 0
    told = capsys.readouterr().err
    assert "1 rows are longer than the 32 tokens that the model was trained on" in told
    answers = [json.loads(line) for line in out.read_text().splitlines()]
    matrices = [explanation for answer in answers for explanation in answer.pop("explanations")]
    assert answers == plain
    page = (tmp_path / "answers.html").read_text(encoding="utf-8")
    assert page.count('<table class="alignment">') == len(matrices) == 2
    assert "the mean over all heads of all layers".replace(" ", "") in "".join(page.split())


@pytest.mark.parametrize(
    ("kind", "drawn"), [("summaries", '<table class="alignment">'), ("text classification", '<span style="background:')]
)
def test_a_report_shows_what_a_few_answers_rest_on_where_it_is_asked(
    trained: Callable[[str], Trained], kind: str, drawn: str
):
    run = trained(kind)
    assert main(["report", *run.overrides]) == 0
    output = run.runs / "default/report.html"
    assert "What answers rest on" not in output.read_text(encoding="utf-8")
    assert main(["report", *run.overrides, "predict.explain=true"]) == 0
    section = (
        output.read_text(encoding="utf-8").partition("<h2>What answers rest on</h2>")[2].partition("</section>")[0]
    )
    assert len(re.findall(r"rows\.(?:csv|jsonl):\d+", section)) == EXPLAINED
    assert section.count(drawn) >= EXPLAINED


def test_a_page_on_several_models_explains_nothing_and_says_so(trained: Callable[[str], Trained], capsys):
    asked = ["report.runs=[default,default]", "predict.explain=true"]
    assert main(["report", *trained("text classification").overrides, *asked]) == 2
    assert "predict.explain=true: is for the page of one model that answers" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("config", "is_drawn"),
    [
        ({"model_type": "t5"}, True),
        ({"model_type": "bert"}, True),  # which gets a decoder
        ({"model_type": "rnn", "attention": True}, True),
        ({"model_type": "rnn", "attention": False}, False),
        ({"model_type": "gpt2"}, False),
    ],
)
def test_what_has_no_cross_attention_is_told_what_has(config: dict, is_drawn: bool):
    task = Translation(path="-", source_language="en", target_language="de")
    if is_drawn:
        attributions.check(task, config)
    else:
        with pytest.raises(
            UserError, match="this model has none; take an encoder-decoder that has, such as model=rnn_at"
        ):
            attributions.check(task, config)


def test_it_is_told_before_anything_is_trained_and_of_a_finished_model(
    trained: Callable[[str], Trained], tmp_path, capsys
):
    run, asked = trained("translations"), ["predict.input=the film", "predict.explain=true"]
    assert main(["finetune", "predict", *run.overrides, f"runs={tmp_path}", *asked]) == 2
    assert "predict.explain=true: draws the cross-attention" in capsys.readouterr().err
    assert main(["finetune", "report", *run.overrides, f"runs={tmp_path}", "predict.explain=true"]) == 2
    assert "predict.explain=true: draws the cross-attention" in capsys.readouterr().err
    assert not list(tmp_path.glob("finetune-*"))
    assert main(["predict", f"predict.model={run.directory}", f"runs={tmp_path}", *asked]) == 2
    assert "predict.explain=true: draws the cross-attention" in capsys.readouterr().err
