"""Generation: what is read, learnt and written by models with an encoder and by decoders alone."""

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from samples import DECODER, ENCODER_DECODER, reviews, tiny_sizes, tiny_t5, tiny_tokenizer, tokenizer_of
from tokenizers import decoders
from torch.nn.functional import cross_entropy
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    BartConfig,
    BartForConditionalGeneration,
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
    PreTrainedTokenizerFast,
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
WHOLE = {"long": False, "long_target": False}


def summarized(number: int, text: str) -> Row:
    return Row("a.jsonl", number, {"text": text, "summary": " ".join(text.split()[: 2 + number % 3])})


ROWS = [summarized(number, text + " film" * (number % 4)) for number, (text, _, _) in enumerate(reviews(8))]


def seq2seq(name: str) -> PreTrainedModel:
    """A tiny untrained encoder-decoder."""
    set_seed(0)
    tiny = tiny_sizes(tiny_tokenizer())
    sizes = {"vocab_size": tiny["vocab_size"], "d_model": 16, "encoder_layers": 1, "decoder_layers": 1}
    sizes |= {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16}
    tokens = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3, "decoder_start_token_id": 3, "init_std": 0.5}
    if name == "T5":
        return T5ForConditionalGeneration(tiny_t5(tiny)).eval()
    if name == "Bart":
        return BartForConditionalGeneration(BartConfig(**sizes, **tokens, forced_eos_token_id=3)).eval()
    sides = BertConfig(**tiny), BertConfig(**tiny, is_decoder=True, add_cross_attention=True)
    config = EncoderDecoderConfig.from_encoder_decoder_configs(*sides)
    config.decoder_start_token_id, config.pad_token_id, config.eos_token_id = 2, 0, 3
    return EncoderDecoderModel(config=config).eval()


def decoder(name: str) -> PreTrainedModel:
    """A tiny untrained decoder; GPT-2 learns where a token stands, Llama turns it."""
    set_seed(0)
    tiny = tiny_sizes(tiny_tokenizer())
    if name == "GPT2":
        sizes = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 128, "initializer_range": 0.5}
        return GPT2LMHeadModel(GPT2Config(vocab_size=tiny["vocab_size"], **sizes)).eval()
    sizes = {name: size for name, size in tiny.items() if "dropout" not in name}
    return LlamaForCausalLM(LlamaConfig(**sizes, initializer_range=0.5)).eval()


def encoded(task: GenerationTask, tokenizer: PreTrainedTokenizerFast, rows: list[Row] = ROWS) -> list[dict[str, Any]]:
    return [feature for row in rows for feature in task.encode(row, tokenizer, 48, {})]


# What is read and learnt


def test_an_encoder_decoder_reads_the_text_and_learns_its_summary():
    tokenizer, task = tiny_tokenizer(), TASK.for_architecture(ENCODER_DECODER)
    (feature,) = task.encode(ROWS[0], tokenizer, 48, {})
    assert feature["input_ids"] == tokenizer(ROWS[0].fields["text"])["input_ids"]
    assert feature["labels"] == tokenizer(ROWS[0].fields["summary"])["input_ids"]
    assert feature["bytes"] == len(ROWS[0].fields["summary"])
    (asked,) = task.encode(ROWS[0], tokenizer, 48, None)
    assert asked.keys() == {"input_ids", "attention_mask", "long"}
    batch = collate(encoded(task, tokenizer), tokenizer)
    assert batch["labels"].shape[1] < batch["input_ids"].shape[1]
    assert (batch["labels"] == IGNORED).any()


def test_the_sentences_of_a_document_may_be_a_list():
    row = Row("a.jsonl", 1, {"text": ["A film.", "It is moving."], "summary": "a"})
    assert TASK.row_problem(row) is None
    assert TASK.source(row) == "A film. It is moving."


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


def test_a_prompt_stands_around_the_text():
    tokenizer = tiny_tokenizer()
    task = Summarization(path="-", prompt="the plot: {text} is").for_architecture(ENCODER_DECODER)
    (feature,) = task.encode(ROWS[0], tokenizer, 48, None)
    assert feature["input_ids"] == tokenizer(f"the plot: {ROWS[0].fields['text']} is")["input_ids"]


@pytest.mark.parametrize("model_type", ["t5", "llama"])
def test_a_long_text_is_cut_at_its_end_and_a_long_summary_too_and_both_are_told(model_type: str):
    tokenizer = tiny_tokenizer()
    long = Row("a", 1, {"text": "the plot " + "film " * 60, "summary": "story " * 60})
    task = Summarization(path="-", prompt="actor: {text} is scene", max_target_length=9).for_architecture(
        architecture(model_type)
    )
    (feature,) = task.encode(long, tokenizer, 24, {})
    assert feature["long"]
    assert feature["long_target"]
    assert feature["bytes"] == len(("story " * (8 if model_type == "llama" else 7)).strip())
    learnt = [label for label in feature["labels"] if label != IGNORED]
    assert len(learnt) == 9
    assert learnt[-1] == tokenizer.sep_token_id
    (asked,) = task.encode(long, tokenizer, 24, None)
    assert len(asked["input_ids"]) == 24
    words = tokenizer.convert_ids_to_tokens(asked["input_ids"])
    if model_type == "llama":
        assert words[-3:] == ["film", "is", "scene"]  # the prompt is whole
    (short,) = task.encode(ROWS[0], tokenizer, 48, {})
    assert {name: short[name] for name in WHOLE} == WHOLE


def test_all_tokens_of_a_document_but_the_first_are_learnt_once_however_long_it_is():
    tokenizer = tiny_tokenizer()
    task = TextGeneration(path="-", form="documents").for_architecture(DECODER)
    row = Row("a", 1, {"text": "the film is a story number 3 " * 9})
    plain = tokenizer(row.fields["text"], add_special_tokens=False)["input_ids"]
    for length in (200, 20, 7):
        parts = task.encode(row, tokenizer, length, {})
        learnt = [label for part in parts for label in part["labels"] if label != IGNORED]
        assert learnt == [*plain[1:], tokenizer.sep_token_id]
        assert max(len(part["input_ids"]) for part in parts) <= length
        assert all(part["long"] == (length < 200) for part in parts)
        assert sum(part["bytes"] for part in parts) == len(row.fields["text"]) - len("the")


TEMPLATE = (
    "{% for message in messages %}{{ {'user': 'plot', 'assistant': 'actor'}[message['role']] }} "
    "{{ message['content'] }} [SEP] {% endfor %}{% if add_generation_prompt %}actor {% endif %}"
)


def chat(*contents: str) -> Row:
    roles = ["user", "assistant"] * 3
    messages = [{"role": role, "content": text} for role, text in zip(roles, contents, strict=False)]
    return Row("chats.jsonl", 4, {"text": messages})


def test_the_last_message_of_a_chat_is_learnt_in_the_template_of_the_tokenizer():
    tokenizer, task = tiny_tokenizer(), TextGeneration(path="-", form="messages").for_architecture(DECODER)
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


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        (chat("a", "b"), None),
        (chat("a"), "the last message is not the assistant's, so there is nothing to learn"),
        (Row("a", 1, {"text": "a"}), "the messages are not a list"),
        (
            Row("a", 1, {"text": [{"role": "user"}]}),
            "message 1 lacks a role or a content; write {role: user, content: ...}",
        ),
    ],
)
def test_what_is_wrong_with_a_chat_is_said(row: Row, problem: str | None):
    assert TextGeneration(path="-", form="messages").row_problem(row) == problem


def test_a_broken_chat_that_is_asked_is_told_with_its_place():
    task = TextGeneration(path="-", form="messages").for_architecture(DECODER)
    with pytest.raises(UserError, match=r"chats\.jsonl:4: message 1 lacks a role"):
        task.encode(Row("chats.jsonl", 4, {"text": ["hello"]}), tiny_tokenizer(), 48, None)
    with pytest.raises(UserError, match=r"task\.form=messages: the model has no chat template; choose one that has"):
        task.encode(chat("a", "b"), tiny_tokenizer(), 48, None)


@pytest.mark.parametrize(
    ("task", "fields", "problem"),
    [
        (TASK, ("a b", " "), "the summary is empty"),
        (TASK, (None, "a"), "the text is empty"),
        (TASK, (["a", 7], "a"), "the text is a list, not a text"),
        (TASK, (["", " "], "a"), "the text is empty"),
        (TASK, (["a.", "b."], ["a"]), "the summary is a list, not a text"),
        (LANGUAGES, ({"en": "a"}, {"en": "a", "fr": "b"}), "the translation is not there in 'de' (there are: en, fr)"),
        (LANGUAGES, ("a", {"de": ""}), "the translation is empty"),
        (LANGUAGES, (["a"], "b"), "the text is a list, not a text"),
    ],
)
def test_what_is_wrong_with_a_row_is_said(task: GenerationTask, fields: tuple, problem: str):
    names = (*task.inputs(), *task.targets())
    assert task.row_problem(Row("a", 1, dict(zip(names, fields, strict=True)))) == problem


# The loss


@pytest.mark.parametrize("name", ["T5", "Bart", "EncoderDecoder"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.filterwarnings("ignore:Version v4.12.0 introduces a better way:FutureWarning")  # its own loss is asked for
def test_the_loss_of_an_encoder_decoder_is_the_sum_of_what_transformers_averages(name: str, smoothing: float):
    tokenizer, model = tiny_tokenizer(), seq2seq(name)
    task = TASK.model_copy(update={"label_smoothing": smoothing}).for_architecture(
        architecture(model.config.model_type)
    )
    batch = collate(encoded(task, tokenizer), tokenizer)
    inputs = {key: batch[key] for key in ("input_ids", "attention_mask", "labels")}
    output = model(**inputs)
    mean = LabelSmoother(smoothing)(output, batch["labels"]) if smoothing else output.loss
    assert task.loss(model, batch).item() == pytest.approx(mean.item() * task.count(batch).item(), rel=1e-5)


@pytest.mark.parametrize("name", ["GPT2", "Llama"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_the_loss_of_a_decoder_is_that_of_each_row_alone_whatever_side_is_padded(name: str, side: str, monkeypatch):
    tokenizer, model = tiny_tokenizer(), decoder(name)
    monkeypatch.setattr(tokenizer, "padding_side", side)
    task = TASK.for_architecture(architecture(model.config.model_type))
    features = encoded(task, tokenizer)
    weights = [1.0, 2.0, 0.5, 1.0, 3.0, 1.0, 1.0, 0.25]
    total = tokens = 0.0
    for feature, weight in zip(features, weights, strict=True):
        logits = model(torch.tensor([feature["input_ids"]])).logits[0, :-1]
        right = torch.tensor(feature["labels"][1:])
        total += weight * cross_entropy(logits, right, ignore_index=IGNORED, reduction="sum").item()
        tokens += weight * right.ne(IGNORED).sum().item()
    weighted = [{**feature, "weight": weight} for feature, weight in zip(features, weights, strict=True)]
    batch = collate(weighted, tokenizer)
    assert task.loss(model, batch).item() == pytest.approx(total, rel=1e-5)
    assert task.count(batch).item() == tokens


@pytest.mark.parametrize("model", [seq2seq("T5"), decoder("Llama")], ids=["seq2seq", "decoder"])
def test_likelihoods_are_those_of_each_row_without_smoothing(model: PreTrainedModel):
    tokenizer = tiny_tokenizer()
    task = TASK.for_architecture(architecture(model.config.model_type))
    smooth = task.model_copy(update={"label_smoothing": 0.3})
    found = list(Scorer(model, tokenizer, smooth, 48).likelihoods(ROWS))
    for row, told in zip(ROWS, found, strict=True):
        batch = collate(task.encode(row, tokenizer, 48, {}), tokenizer)
        assert told["nats"] == pytest.approx(task.loss(model, batch).item(), rel=1e-4)
        assert told["tokens"] == task.count(batch).item()
        assert 0 <= told["hits"] <= told["tokens"]
        assert told["bytes"] == len(row.fields["summary"])
    scores = task.score([{"summary_text": "-", **told} for told in found], [task.target(row) for row in ROWS])
    assert scores["loss"] == pytest.approx(sum(t["nats"] for t in found) / sum(t["tokens"] for t in found))
    assert scores["perplexity"] == pytest.approx(math.exp(scores["loss"]))
    assert scores["bits_per_byte"] < scores["loss"] * 8


# Writing


@pytest.mark.parametrize("model", [seq2seq("Bart"), decoder("GPT2"), decoder("Llama")], ids=["Bart", "GPT2", "Llama"])
@pytest.mark.parametrize("num_beams", [1, 3])
def test_a_row_is_answered_in_a_batch_as_alone_and_as_transformers_does(
    model: PreTrainedModel, num_beams: int, tmp_path: Path
):
    tokenizer = tiny_tokenizer()
    task = TASK.model_copy(update={"num_beams": num_beams, "max_new_tokens": 6}).for_architecture(
        architecture(model.config.model_type)
    )
    task.prepare_model(model, tokenizer, ROWS)
    together = list(Scorer(model, tokenizer, task, 48).answers(ROWS))
    assert len({answer["summary_text"] for answer in together}) > 1
    assert together == [next(Scorer(model, tokenizer, task, 48).answers([row])) for row in ROWS]
    # The settings are saved with the model: transformers alone writes the same.
    model.save_pretrained(tmp_path)
    auto_class = AutoModelForSeq2SeqLM if model.config.is_encoder_decoder else AutoModelForCausalLM
    theirs = auto_class.from_pretrained(tmp_path)
    for row, own in zip(ROWS, together, strict=True):
        (feature,) = task.encode(row, tokenizer, 48, None)
        ids = torch.tensor([feature["input_ids"]])
        written = theirs.generate(ids, attention_mask=torch.ones_like(ids))[0]
        new = written if model.config.is_encoder_decoder else written[ids.shape[1] :]
        assert tokenizer.decode(new, skip_special_tokens=True).strip() == own["summary_text"]


def test_drawn_answers_repeat_with_their_seed_and_leave_the_seed_of_training_alone():
    tokenizer, model = tiny_tokenizer(), decoder("Llama")
    cold = TASK.for_architecture(DECODER)
    warm = cold.with_answer_options({"temperature": 1.0, "seed": 1})
    other = cold.with_answer_options({"temperature": 1.0, "seed": 2})
    torch.manual_seed(7)
    state = torch.get_rng_state()
    first, again, different, likeliest = (
        [answer["summary_text"] for answer in Scorer(model, tokenizer, task, 48).answers(ROWS)]
        for task in (warm, warm, other, cold)
    )
    assert torch.equal(torch.get_rng_state(), state)
    assert first == again
    assert first != different
    assert first != likeliest


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prompt": "summarize"}, "should hold {text} once"),
        ({"top_p": 0.9}, "nothing is drawn at temperature 0; give task.temperature=1 too"),
        ({"label_smoothing": 1.0}, "less than 1"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        Summarization(path="-", **options)


def test_documents_have_no_prompt():
    with pytest.raises(ValueError, match=r"has no prompt beside it; leave task\.prompt out"):
        TextGeneration(path="-", form="documents", prompt="a {text}")


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
    settings = task.settings(model, tokenizer)
    german = tokenizer.convert_tokens_to_ids("de_DE")
    assert german in (settings.forced_bos_token_id, settings.decoder_start_token_id)
    # What is written begins as what is learnt does.
    begun = model.prepare_decoder_input_ids_from_labels(labels=torch.tensor([feature["labels"]]))[0].tolist()
    ids = torch.tensor([feature["input_ids"]])
    written = model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=settings)[0].tolist()
    assert written[: begun.index(german) + 1][-1] == german
    assert next(Scorer(model, tokenizer, task, 48).answers([PAIR, PAIR])).keys() == {"translation_text"}


def test_a_language_that_the_model_has_not_is_refused_with_the_names_that_there_are():
    task = Translation(path="-", source_language="en", target_language="de").for_architecture(ENCODER_DECODER)
    with pytest.raises(UserError, match=r"task\.codes: the model has no language 'en'; name both as it does \(ar_AR"):
        task.encode(PAIR, MBartTokenizer(), 48, None)


def test_a_tokenizer_whose_package_is_not_installed_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    def missing(*args: Any, **kwargs: Any) -> None:
        raise ImportError("MarianTokenizer requires the SentencePiece library but it was not found")

    monkeypatch.setattr(AutoTokenizer, "from_pretrained", missing)
    with pytest.raises(
        UserError, match="its tokenizer needs a package that is not installed: MarianTokenizer requires"
    ):
        checkpoints.tokenizer(tmp_path)


# A trained model


def test_a_model_is_saved_with_how_it_writes_and_compared_with_the_beginning_of_the_document(trained):
    run = trained("summaries")
    assert json.loads((run.directory / "generation_config.json").read_text())["max_new_tokens"] == 8
    test, beginnings = run.metrics["test"], json.loads((run.runs / "default/references" / METRICS).read_text())["test"]
    assert test["signatures"]["rouge"].startswith("fmeasure|")
    assert list(beginnings) == ["the first sentence", "the first three sentences"]
    assert beginnings["the first sentence"]["scores"]["rougeL"] < test["scores"]["rougeL"]
    text = "the plot number 3 is moving"
    assert load(run.directory, device="cpu")(text) == {"summary_text": "plot is moving"}
    assert load(run.directory, device="cpu", task={"temperature": 50.0})(text) != {"summary_text": "plot is moving"}


def test_documents_have_likelihoods_alone_and_translations_their_signatures(trained):
    scores = trained("documents").metrics["test"]["scores"]
    assert scores.keys() == {"loss", "perplexity", "bits_per_byte", "token_accuracy"}
    assert {"chrf", "bleu"} == trained("translations").metrics["test"]["signatures"].keys()


def test_documents_need_a_decoder():
    with pytest.raises(UserError, match=r"task\.form=documents: a model of type 't5' has an encoder, and cannot"):
        TextGeneration(path="-", form="documents").for_architecture(ENCODER_DECODER)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"num_beams": 0}, "predict.task.num_beams=0: should be greater than or equal to 1"),
        ({"prompt": "x"}, "predict.task.prompt: cannot be changed after training"),
        ({"num_beam": 2}, "after training; did you mean 'num_beams'? (what can be: max_new_tokens, num_beams"),
        (
            {"top_p": 0.5},
            "predict.task.top_p=0.5: Value error, nothing is drawn at temperature 0; give task.temp",
        ),
    ],
)
def test_other_ways_to_answer_are_checked(options: dict, problem: str):
    with pytest.raises(UserError, match=re.escape(problem)):
        TASK.with_answer_options(options)
