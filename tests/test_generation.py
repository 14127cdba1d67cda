"""Generation: what is read, learnt and written by models with an encoder and by decoders alone."""

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from samples import (
    DECODER,
    ENCODER_DECODER,
    encoder_decoder,
    reviews,
    tiny_sizes,
    tiny_t5,
    tiny_tokenizer,
    tokenizer_of,
)
from tiny_run import without_dropout
from tokenizers import decoders
from transformers import (
    AutoTokenizer,
    BertConfig,
    EncoderDecoderConfig,
    EncoderDecoderModel,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MBart50Tokenizer,
    MBartConfig,
    MBartForConditionalGeneration,
    MBartTokenizer,
    PreTrainedModel,
    T5ForConditionalGeneration,
    set_seed,
)
from transformers.trainer_pt_utils import LabelSmoother

from ulmfit_style import load
from ulmfit_style.artefacts.directory import METRICS
from ulmfit_style.errors import UserError
from ulmfit_style.models import checkpoints
from ulmfit_style.models.architectures import architecture
from ulmfit_style.tasks.base import IGNORED, Row
from ulmfit_style.tasks.base_generation import GenerationTask
from ulmfit_style.tasks.summarization import Summarization
from ulmfit_style.tasks.text_generation import TextGeneration
from ulmfit_style.tasks.translation import Translation
from ulmfit_style.training.batching import collate
from ulmfit_style.training.scoring import Scorer

TASK = Summarization(path="-", max_target_length=12)
LANGUAGES = Translation(
    path="-", source_language="en", target_language="de", codes=("en_XX", "de_DE"), max_target_length=16
)
CHATS = TextGeneration(path="-", form="messages")


def summarized(number: int, text: str) -> Row:
    return Row("a.jsonl", number, {"text": text, "summary": " ".join(text.split()[: 2 + number % 3])})


ROWS = [summarized(number, text + " film" * (number % 4)) for number, (text, _, _) in enumerate(reviews(8))]


def untrained(name: str) -> PreTrainedModel:
    """A tiny model, whose weights are large enough to tell texts apart; GPT-2 learns where a token stands."""
    set_seed(0)
    tiny = tiny_sizes(tiny_tokenizer())
    if name == "T5":
        return T5ForConditionalGeneration(tiny_t5(tiny)).eval()
    if name == "Bart":
        model = encoder_decoder("BART", tiny_tokenizer()).eval()
        for parameter in model.parameters():
            parameter.data *= 20
        return model
    if name == "GPT2":
        sizes = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 128, "initializer_range": 0.5}
        return GPT2LMHeadModel(GPT2Config(vocab_size=tiny["vocab_size"], **sizes)).eval()
    if name == "Llama":
        return LlamaForCausalLM(LlamaConfig(**without_dropout(tiny), initializer_range=0.5)).eval()
    sides = BertConfig(**tiny), BertConfig(**tiny, is_decoder=True, add_cross_attention=True)
    config = EncoderDecoderConfig.from_encoder_decoder_configs(*sides)
    config.decoder_start_token_id, config.pad_token_id, config.eos_token_id = 2, 0, 3
    return EncoderDecoderModel(config=config).eval()


def task_of(model: PreTrainedModel, **options: Any) -> GenerationTask:
    return TASK.model_copy(update=options).for_architecture(architecture(model.config.model_type))


# What is read and learnt


def test_an_encoder_decoder_reads_the_text_and_learns_its_summary():
    tokenizer, task = tiny_tokenizer(), TASK.for_architecture(ENCODER_DECODER)
    (feature,) = task.encode(ROWS[0], tokenizer, 48, {})
    assert feature["input_ids"] == tokenizer(ROWS[0].fields["text"])["input_ids"]
    assert feature["labels"] == tokenizer(ROWS[0].fields["summary"])["input_ids"]
    assert feature["bytes"] == len(ROWS[0].fields["summary"])
    (asked,) = task.encode(ROWS[0], tokenizer, 48, None)
    assert asked.keys() == {"input_ids", "attention_mask", "long"}


@pytest.mark.parametrize("family", ["WordPiece", "byte-level", "metaspace"])
def test_a_decoder_goes_on_from_the_prompt_to_the_summary_and_its_end(family: str):
    tokenizer = tokenizer_of(family, [row.fields["text"] + " TL;DR:\n" for row in ROWS])
    tokenizer.add_special_tokens({"eos_token": "</s>"})
    told = {"WordPiece": decoders.WordPiece(), "byte-level": decoders.ByteLevel(), "metaspace": decoders.Metaspace()}
    tokenizer.backend_tokenizer.decoder = told[family]
    task = TASK.for_architecture(DECODER)
    (feature,) = task.encode(ROWS[0], tokenizer, 200, {})
    (asked,) = task.encode(ROWS[0], tokenizer, 200, None)
    read = len(asked["input_ids"])
    # The same tokens are read when the answer is known and when it is asked for, and the answer alone is learnt.
    assert feature["input_ids"][:read] == asked["input_ids"]
    assert feature["labels"] == [IGNORED] * read + feature["input_ids"][read:]
    assert feature["labels"][-1] == tokenizer.eos_token_id
    assert tokenizer.eos_token_id not in feature["input_ids"][1:-1]
    text, summary = (ROWS[0].fields[name] for name in ("text", "summary"))
    assert tokenizer.decode(feature["labels"][read:-1]).strip() == summary
    told = tokenizer.decode(feature["input_ids"], skip_special_tokens=True)
    if family == "byte-level":
        assert told == f"{text}\n\nTL;DR: {summary}"
        # The blank before the summary belongs to its first word, as in plain text.
        assert tokenizer.decode(feature["labels"][read : read + 1]).startswith(" ")


@pytest.mark.parametrize("model_type", ["t5", "llama"])
def test_a_long_text_is_cut_at_its_end_and_a_long_summary_too_and_both_are_told(model_type: str):
    tokenizer = tiny_tokenizer()
    long = Row("a", 1, {"text": "the plot " + "film " * 60, "summary": "story " * 60})
    task = Summarization(path="-", prompt="actor: {text} is scene", max_target_length=9).for_architecture(
        architecture(model_type)
    )
    (feature,) = task.encode(long, tokenizer, 24, {})
    assert (feature["long"], feature["long_target"]) == (True, True)
    assert feature["bytes"] == len(("story " * (8 if model_type == "llama" else 7)).strip())
    learnt = [label for label in feature["labels"] if label != IGNORED]
    assert (len(learnt), learnt[-1]) == (9, tokenizer.sep_token_id)
    (asked,) = task.encode(long, tokenizer, 24, None)
    assert len(asked["input_ids"]) == 24
    words = tokenizer.convert_ids_to_tokens(asked["input_ids"])
    assert "actor" in words[:2]
    assert model_type == "t5" or words[-3:] == ["film", "is", "scene"]  # the prompt is whole
    (short,) = task.encode(ROWS[0], tokenizer, 48, {})
    assert (short["long"], short["long_target"]) == (False, False)


TEMPLATE = (
    "{% for message in messages %}{{ {'user': 'plot', 'assistant': 'actor'}[message['role']] }} "
    "{{ message['content'] }} [SEP] {% endfor %}{% if add_generation_prompt %}actor {% endif %}"
)


def chat(*contents: str) -> Row:
    roles = ["user", "assistant"] * 3
    messages = [{"role": role, "content": text} for role, text in zip(roles, contents, strict=False)]
    return Row("chats.jsonl", 4, {"text": messages})


def test_the_last_message_of_a_chat_is_learnt_in_the_template_of_the_tokenizer():
    tokenizer, task = tiny_tokenizer(), CHATS.for_architecture(DECODER)
    tokenizer.chat_template, tokenizer.eos_token = TEMPLATE, "[SEP]"

    def words(row: Row, length: int, label2id: dict | None = None) -> str:
        (feature,) = task.encode(row, tokenizer, length, label2id)
        return " ".join(tokenizer.convert_ids_to_tokens(feature["input_ids"]))

    row = chat("the film", "wonderful", "the story", "tedious scene")
    talk = "plot the film [SEP] actor wonderful [SEP] plot the story [SEP] actor"
    assert words(row, 48) == talk
    assert words(row, 48, {}) == f"{talk} tedious scene [SEP]"
    (feature,) = task.encode(row, tokenizer, 48, {})
    assert [label != IGNORED for label in feature["labels"]] == [False] * 12 + [True] * 3
    assert words(task.row("the film"), 48) == "plot the film [SEP] actor"
    assert task.target(row) == "tedious scene"
    assert words(row, 5) == "plot the story [SEP] actor"  # of a chat that is too long, the beginning is left out


def test_an_answer_that_holds_the_end_token_is_learnt_whole_and_an_empty_one_is_refused():
    tokenizer, task = tiny_tokenizer(), CHATS.for_architecture(DECODER)
    tokenizer.chat_template, tokenizer.eos_token = TEMPLATE, "[SEP]"
    assert task.written(chat("the film", "a [SEP] scene"), tokenizer) == "a [SEP] scene "
    assert task.row_problem(chat("the film", "  ")) == "the answer is empty"


def test_a_broken_chat_that_is_asked_is_told():
    task = CHATS.for_architecture(DECODER)
    assert (task.input_problem(Row("chats.jsonl", 4, {"text": ["hello"]})) or "").startswith("message 1 lacks a role")
    assert task.input_problem(Row("chats.jsonl", 4, {"text": "hello"})) is None  # a chat of one message
    with pytest.raises(UserError, match=r"task\.form=messages: the model has no chat template; choose one that has"):
        task.encode(chat("a", "b"), tiny_tokenizer(), 48, None)


NO_ANSWER = "the last message is not the assistant's, so there is nothing to learn"


@pytest.mark.parametrize(
    ("task", "fields", "problem"),
    [
        (TASK, (["A film.", "It is moving."], "a"), None),
        (TASK, ("a b", " "), "the summary is empty"),
        (TASK, (["", " "], "a"), "the text is empty"),
        (TASK, (["a", 7], "a"), "the text holds an int, where a text should be"),
        (LANGUAGES, ({"en": "a"}, {"en": "a", "fr": "b"}), "the translation is not there in 'de' (there are: en, fr)"),
        (LANGUAGES, ("a", {"de": ""}), "the translation is empty"),
        (CHATS, (chat("a").fields["text"],), NO_ANSWER),
        (CHATS, ("a",), "the messages are not a list"),
    ],
)
def test_what_is_wrong_with_a_row_is_said(task: GenerationTask, fields: tuple, problem: str | None):
    names = (*task.inputs(), *task.targets())
    assert task.row_problem(Row("a", 1, dict(zip(names, fields, strict=False)))) == problem


# The loss


CASES = [("T5", "right"), ("Bart", "right"), ("EncoderDecoder", "right"), ("GPT2", "left"), ("Llama", "left")]


@pytest.mark.parametrize(("name", "side"), CASES)
@pytest.mark.filterwarnings("ignore:Version v4.12.0 introduces a better way:FutureWarning")  # its own loss is asked for
def test_the_loss_of_a_batch_is_the_weighted_sum_of_what_transformers_says_of_each_row(name: str, side: str):
    tokenizer, model = tiny_tokenizer(), untrained(name)
    tokenizer.padding_side = side
    task = task_of(model, label_smoothing=0.1)
    features = [feature for row in ROWS for feature in task.encode(row, tokenizer, 48, {})]
    weighted = [{**feature, "weight": 1 + number / 7} for number, feature in enumerate(features)]
    total = tokens = 0.0
    for feature in weighted:
        ids, labels = torch.tensor([feature["input_ids"]]), torch.tensor([feature["labels"]])
        mean = LabelSmoother(0.1)(model(ids, labels=labels), labels, shift_labels=not model.config.is_encoder_decoder)
        count = labels.ne(IGNORED).sum().item() * feature["weight"]
        total, tokens = total + mean.item() * count, tokens + count
    batch = collate(weighted, tokenizer)
    assert task.loss(model, batch).item() == pytest.approx(total, rel=1e-5)
    assert task.count(batch).item() == pytest.approx(tokens)


@pytest.mark.parametrize("name", ["T5", "Llama"])
def test_likelihoods_are_those_of_each_row_without_smoothing(name: str):
    tokenizer, model = tiny_tokenizer(), untrained(name)
    task = task_of(model)
    found = list(Scorer(model, tokenizer, task_of(model, label_smoothing=0.3), 48).likelihoods(ROWS))
    for row, told in zip(ROWS, found, strict=True):
        batch = collate(task.encode(row, tokenizer, 48, {}), tokenizer)
        assert told["nats"] == pytest.approx(task.loss(model, batch).item(), rel=1e-4)
        assert told["tokens"] == task.count(batch).item() >= told["hits"]
        assert told["bytes"] == len(row.fields["summary"])
    scores = task.score([{"summary_text": "-", **told} for told in found], [task.target(row) for row in ROWS])
    assert scores["loss"] == pytest.approx(sum(t["nats"] for t in found) / sum(t["tokens"] for t in found))
    assert scores["perplexity"] == pytest.approx(math.exp(scores["loss"]))
    assert scores["bits_per_byte"] < scores["loss"] * 8


# Writing


@pytest.mark.parametrize("name", ["Bart", "GPT2", "Llama"])
@pytest.mark.parametrize("num_beams", [1, 3])
def test_a_row_is_answered_in_a_batch_as_alone_and_as_transformers_does(name: str, num_beams: int, tmp_path: Path):
    tokenizer, model = tiny_tokenizer(), untrained(name)
    task = task_of(model, num_beams=num_beams, max_new_tokens=6)
    task.prepare_model(model, tokenizer, ROWS)
    together = list(Scorer(model, tokenizer, task, 48).answers(ROWS))
    assert len({answer["summary_text"] for answer in together}) > 1
    assert together == [next(Scorer(model, tokenizer, task, 48).answers([row])) for row in ROWS]
    # The settings are saved with the model: transformers alone writes the same.
    model.save_pretrained(tmp_path)
    theirs = type(model).from_pretrained(tmp_path)
    for row, own in zip(ROWS, together, strict=True):
        (feature,) = task.encode(row, tokenizer, 48, None)
        ids = torch.tensor([feature["input_ids"]])
        written = theirs.generate(ids, attention_mask=torch.ones_like(ids))[0]
        new = written if model.config.is_encoder_decoder else written[ids.shape[1] :]
        assert tokenizer.decode(new, skip_special_tokens=True).strip() == own["summary_text"]


def test_drawn_answers_repeat_with_their_seed_and_leave_the_seed_of_training_alone():
    tokenizer, model = tiny_tokenizer(), untrained("Llama")
    cold = task_of(model)
    warm, other = (cold.with_answer_options({"temperature": 1.0, "seed": seed}) for seed in (1, 2))
    torch.manual_seed(7)
    state = torch.get_rng_state()
    first, again, different, likeliest = (
        [answer["summary_text"] for answer in Scorer(model, tokenizer, task, 48).answers(ROWS)]
        for task in (warm, warm, other, cold)
    )
    assert torch.equal(torch.get_rng_state(), state)
    assert first == again
    assert first not in (different, likeliest)


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (Summarization, {"prompt": "summarize"}, "should hold {text} once"),
        (Summarization, {"label_smoothing": 1.0}, "less than 1"),
        (TextGeneration, {"form": "messages", "prompt": "a {text}"}, r"no prompt beside it; leave task\.prompt out"),
    ],
)
def test_options_that_make_no_sense_are_refused(kind: type[GenerationTask], options: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        kind(path="-", **options)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"num_beams": 0}, "predict.task.num_beams=0: should be greater than or equal to 1"),
        ({"prompt": "x"}, "predict.task.prompt: cannot be changed after training"),
        ({"num_beam": 2}, "after training; did you mean 'num_beams'? (what can be: max_new_tokens, num_beams"),
    ],
)
def test_other_ways_to_answer_are_checked(options: dict, problem: str):
    with pytest.raises(UserError, match=re.escape(problem)):
        TASK.with_answer_options(options)


# Languages


PAIR = Row("a", 1, {"text": {"en": "ab ba", "de": "ba"}, "translation": {"en": "ab ba", "de": "ba"}})


@pytest.mark.parametrize("kind", [MBartTokenizer, MBart50Tokenizer])
def test_a_model_of_many_languages_is_told_which_two(kind: type):
    vocabulary = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0), ("a", -2.0), ("b", -2.0)]
    tokenizer = kind(vocab=[*vocabulary, ("en_XX", 0.0), ("de_DE", 0.0), ("<mask>", 0.0)])
    task = LANGUAGES.for_architecture(ENCODER_DECODER)
    (feature,) = task.encode(PAIR, tokenizer, 48, {})
    read, learnt = (tokenizer.convert_ids_to_tokens(feature[name]) for name in ("input_ids", "labels"))
    assert "en_XX" in (read[0], read[-1])
    assert "de_DE" in (learnt[0], learnt[-1])
    sizes = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2}
    sizes |= {"decoder_attention_heads": 2, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16, "vocab_size": len(tokenizer)}
    set_seed(0)
    model = MBartForConditionalGeneration(MBartConfig(**sizes, pad_token_id=1, bos_token_id=0, eos_token_id=2)).eval()
    settings, german = task.settings(model, tokenizer), tokenizer.convert_tokens_to_ids("de_DE")
    # What is written begins as what is learnt does.
    begun = model.prepare_decoder_input_ids_from_labels(labels=torch.tensor([feature["labels"]]))[0].tolist()
    written = model.generate(torch.tensor([feature["input_ids"]]), generation_config=settings)[0].tolist()
    assert written[begun.index(german)] == german


def test_a_language_that_the_model_has_not_is_refused_with_the_names_that_there_are():
    task = Translation(path="-", source_language="en", target_language="de").for_architecture(ENCODER_DECODER)
    with pytest.raises(UserError, match=r"task\.codes: the model has no language 'en'; name both as it does \(ar_AR"):
        task.encode(PAIR, MBartTokenizer(), 48, None)


def test_a_tokenizer_whose_package_is_not_installed_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    def missing(*args: Any, **kwargs: Any) -> None:
        raise ImportError("MarianTokenizer requires")

    monkeypatch.setattr(AutoTokenizer, "from_pretrained", missing)
    with pytest.raises(UserError, match="needs a package that is not installed: MarianTokenizer requires"):
        checkpoints.tokenizer(tmp_path)


def test_a_model_is_saved_with_how_it_writes_and_compared_with_the_beginning_of_the_document(trained):
    run = trained("summaries")
    assert json.loads((run.directory / "generation_config.json").read_text())["max_new_tokens"] == 8
    test, beginnings = run.metrics["test"], json.loads((run.runs / "default/references" / METRICS).read_text())["test"]
    assert list(beginnings) == ["the first sentence", "the first three sentences"]
    assert beginnings["the first sentence"]["scores"]["rougeL"] < test["scores"]["rougeL"]
    text = "the plot number 3 is moving"
    assert load(run.directory, device="cpu")(text) == {"summary_text": "plot is moving"}
    assert load(run.directory, device="cpu", task={"temperature": 50.0})(text) != {"summary_text": "plot is moving"}


def test_chats_need_a_decoder():
    with pytest.raises(UserError, match=r"task\.form=messages: a model of type 't5' has an encoder, and cannot"):
        CHATS.for_architecture(ENCODER_DECODER)
