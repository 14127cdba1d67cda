"""Generation: what is read, learnt and written by models with an encoder and by decoders alone."""

import json
import math
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pandas
import pytest
import torch
from samples import DECODER, ENCODER_DECODER, GOOD, jsonl, reviews, tiny_sizes, tiny_t5, tiny_tokenizer, tokenizer_of
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
    MarianConfig,
    MarianMTModel,
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
from ulmfit_style.__main__ import main
from ulmfit_style.artefacts import predictions
from ulmfit_style.artefacts.directory import METRICS
from ulmfit_style.chain import plan
from ulmfit_style.cli.compose import compose
from ulmfit_style.data import labelled
from ulmfit_style.errors import ConfigError, UserError
from ulmfit_style.models import checkpoints
from ulmfit_style.models.architectures import architecture
from ulmfit_style.stages import push, resolve
from ulmfit_style.tasks.base import IGNORED, Row
from ulmfit_style.tasks.generation import GenerationTask
from ulmfit_style.tasks.summarization import Summarization
from ulmfit_style.tasks.text_generation import TextGeneration
from ulmfit_style.tasks.translation import Translation
from ulmfit_style.training.batching import collate
from ulmfit_style.training.scoring import Scorer

TASK = Summarization(path="-", max_target_length=12)
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
    if name == "Marian":
        return MarianMTModel(MarianConfig(**sizes, **{**tokens, "decoder_start_token_id": 0})).eval()
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
    "{% for message in messages %}{{ message['role'] }} {{ message['content'] }} [SEP] {% endfor %}"
    "{% if add_generation_prompt %}actor {% endif %}"
)


def chat(*contents: str) -> Row:
    roles = ["user", "assistant"] * 3
    messages = [{"role": role, "content": text} for role, text in zip(roles, contents, strict=False)]
    return Row("chats.jsonl", 4, {"text": messages})


def test_the_last_message_of_a_chat_is_learnt_in_the_template_of_the_tokenizer():
    tokenizer, task = (
        tiny_tokenizer(),
        TextGeneration(path="-", form="messages").for_architecture(DECODER),
    )
    tokenizer.chat_template = TEMPLATE.replace(
        "message['role']", "{'user': 'plot', 'assistant': 'actor'}[message['role']]"
    )
    row = chat("the film", "wonderful", "the story", "tedious scene")
    tokenizer.eos_token = "[SEP]"
    (feature,) = task.encode(row, tokenizer, 48, {})
    words = tokenizer.convert_ids_to_tokens(feature["input_ids"])
    talk = ["plot the film", "actor wonderful", "plot the story", "actor tedious scene"]
    assert words == f"{' [SEP] '.join(talk)} [SEP]".split()
    assert [label != IGNORED for label in feature["labels"]] == [False] * 12 + [True] * 3
    (asked,) = task.encode(row, tokenizer, 48, None)
    assert asked["input_ids"] == feature["input_ids"][:12]
    assert task.encode(task.row("the film"), tokenizer, 48, None)[0]["input_ids"] == tokenizer.convert_tokens_to_ids(
        ["plot", "the", "film", "[SEP]", "actor"]
    )
    assert task.target(row) == "tedious scene"
    # Of a chat that is too long, the beginning is left out.
    (short,) = task.encode(row, tokenizer, 5, None)
    assert tokenizer.convert_ids_to_tokens(short["input_ids"]) == ["plot", "the", "story", "[SEP]", "actor"]
    assert short["long"]


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        (chat("a", "b"), None),
        (chat("a"), "the last message is not the assistant's, so there is nothing to learn"),
        (Row("a", 1, {"text": "a"}), "the messages are no list of them"),
        (Row("a", 1, {"text": [{"role": "user"}]}), "message 1 is none; write {role: user, content: a text}"),
    ],
)
def test_what_is_wrong_with_a_chat_is_said(row: Row, problem: str | None):
    assert TextGeneration(path="-", form="messages").row_problem(row) == problem


def test_a_broken_chat_that_is_asked_is_told_with_its_place():
    task = TextGeneration(path="-", form="messages").for_architecture(DECODER)
    with pytest.raises(UserError, match=r"chats\.jsonl:4: message 1 is none"):
        task.encode(Row("chats.jsonl", 4, {"text": ["hello"]}), tiny_tokenizer(), 48, None)
    with pytest.raises(UserError, match=r"task\.form=messages: the model has no chat template; take one that has"):
        task.encode(chat("a", "b"), tiny_tokenizer(), 48, None)


@pytest.mark.parametrize(
    ("task", "fields", "problem"),
    [
        (TASK, {"text": "a b", "summary": " "}, "the summary is empty"),
        (TASK, {"text": None, "summary": "a"}, "the text is empty"),
        (TASK, {"text": ["a", 7], "summary": "a"}, "the text is a list, and no text"),
        (TASK, {"text": ["", " "], "summary": "a"}, "the text is empty"),
        (TASK, {"text": ["a.", "b."], "summary": ["a"]}, "the summary is a list, and no text"),
        (
            Translation(path="-", source_language="en", target_language="de"),
            {"text": {"en": "a"}, "translation": {"en": "a", "fr": "b"}},
            "the translation is not there in 'de' (there are: en, fr)",
        ),
        (
            Translation(path="-", source_language="en", target_language="de"),
            {"text": "a", "translation": {"de": ""}},
            "the translation is empty",
        ),
        (
            Translation(path="-", source_language="en", target_language="de"),
            {"text": ["a"], "translation": "b"},
            "the text is a list, and no text",
        ),
    ],
)
def test_what_is_wrong_with_a_row_is_said(task: GenerationTask, fields: dict, problem: str):
    assert task.row_problem(Row("a", 1, fields)) == problem


def test_two_texts_are_refused():
    with pytest.raises(UserError, match="this model answers one text; 2 texts were given"):
        TASK.row("a", "b")


# The loss


@pytest.mark.parametrize("name", ["T5", "Bart", "Marian", "EncoderDecoder"])
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


def test_an_answer_never_repeats_what_it_may_not():
    tokenizer, model = tiny_tokenizer(), decoder("GPT2")
    free, bound = (TASK.model_copy(update={"no_repeat_ngram_size": size, "max_new_tokens": 40}) for size in (0, 2))
    texts = [
        [answer["summary_text"].split() for answer in Scorer(model, tokenizer, task, 48).answers(ROWS)]
        for task in (free, bound)
    ]
    repeats = [max(len(words) - len(set(pairwise(words))) for words in some) for some in texts]
    assert repeats[0] > 5
    assert repeats[1] <= 1


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


LANGUAGES = Translation(path="-", source_language="en", target_language="de", max_target_length=16)
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
    task = Translation(path="-", source_language="en", target_language="xx").for_architecture(ENCODER_DECODER)
    with pytest.raises(UserError, match=r"task\.codes: the model has no language 'xx'; name both as it does \(ar_AR"):
        task.encode(PAIR, MBartTokenizer(), 48, None)
    named = Translation(
        path="-", source_language="en", target_language="de", codes=("en_XX", "fr_XX")
    ).for_architecture(ENCODER_DECODER)
    tokenizer = MBartTokenizer()
    named.encode(PAIR, tokenizer, 48, {})
    assert (tokenizer.src_lang, tokenizer.tgt_lang) == ("en_XX", "fr_XX")


def test_a_tokenizer_whose_package_is_not_installed_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    def missing(*args: Any, **kwargs: Any) -> None:
        raise ImportError("MarianTokenizer requires the SentencePiece library but it was not found")

    monkeypatch.setattr(AutoTokenizer, "from_pretrained", missing)
    with pytest.raises(
        UserError, match="its tokenizer needs a package that is not installed: MarianTokenizer requires"
    ):
        checkpoints.tokenizer(tmp_path)


# The command line


def articles(path: Path, count: int = 160, seed: int = 0) -> Path:
    """Write reviews, whose summary is what they are about and how it is."""
    rows = []
    for text, _, _ in reviews(count, seed):
        words = text.split()
        rows.append({"document": text, "summary": f"{words[1]} is {'moving' if words[-1] in GOOD else 'dreadful'}"})
    return jsonl(path, rows)


def recipe(path: Path, *overrides: str) -> list[str]:
    return [
        "task=summarization",
        f"task.path={path / 'articles.jsonl'}",
        "task.max_target_length=8",
        f"model.checkpoint={path / 'checkpoint'}",
        "model.sha256=null",
        f"runs={path / 'runs'}",
        "adapt=none",
        "finetune.epochs=30",
        "finetune.learning_rate=1e-2",
        "finetune.max_length=32",
        *overrides,
    ]


@pytest.fixture(scope="module", params=["seq2seq", "causal"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a recipe that `finetune` has run, over a model with an encoder, or a decoder alone."""
    path = tmp_path_factory.mktemp(request.param)
    articles(path / "articles.jsonl")
    (path / "checkpoint").symlink_to(request.getfixturevalue(f"{request.param}_checkpoint"))
    assert main(["finetune", "evaluate", *recipe(path)]) == 0
    return path


def test_summaries_are_learnt_scored_and_kept_with_their_rows(folder: Path, capsys):
    assert main(["evaluate", *recipe(folder)]) == 0
    printed = capsys.readouterr().out
    directory = folder / "runs/default/finetune"
    found = json.loads((directory / METRICS).read_text())
    scores = found["test"]["scores"]
    assert found["metric"] == "rougeL"
    assert scores["rougeL"] > 0.9
    assert scores["token_accuracy"] > 0.9
    assert scores["loss"] < 0.5
    assert found["test"]["signatures"]["rouge"] in printed
    rows = predictions.read(directory, "test")
    assert TASK.score(rows, [row["target"] for row in rows]) == pytest.approx(scores)
    simple = json.loads((folder / "runs/default/references" / METRICS).read_text())["test"]
    assert list(simple) == ["the first sentence", "the first three sentences"]
    assert simple["the first sentence"]["scores"]["rougeL"] < scores["rougeL"]
    saved = json.loads((directory / "generation_config.json").read_text())
    assert saved["max_new_tokens"] == 8


def test_python_writes_a_summary_of_a_text_of_several_and_of_a_frame(folder: Path):
    model = load(folder / "runs/default/finetune", device="cpu")
    text = "the plot number 3 is moving"
    assert model(text) == {"summary_text": "plot is moving"}
    assert model([text, text]) == [model(text)] * 2
    assert model(pandas.DataFrame({"document": [text]})) == [model(text)]
    warm = load(folder / "runs/default/finetune", task={"temperature": 50.0})
    assert warm(text) != model(text)


def test_a_text_and_a_file_are_answered_and_other_ways_to_answer_are_checked(
    folder: Path, tmp_path: Path, capsys, monkeypatch
):
    model = f"predict.model={folder / 'runs/default/finetune'}"
    path = jsonl(tmp_path / "new.jsonl", [{"id": 7, "document": "a film number 5 is tedious", "summary_text": "x"}])
    assert main(["predict", model, f"predict.input={path}", "predict.task.num_beams=2"]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["summary_text"] == "film is dreadful"
    assert "the input's own column 'summary_text' is 'input_summary_text' in the output" in printed.err
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)  # as on a terminal
    assert main(["predict", model, "predict.input=the film number 3 is moving"]) == 0
    streamed, record = capsys.readouterr().out.splitlines()
    assert json.loads(record)["summary_text"] == streamed.strip() == "film is moving"
    monkeypatch.undo()
    assert main(["predict", model, "predict.input=the film", "predict.task.num_beams=0"]) == 2
    assert "predict.task.num_beams=0: should be greater than or equal to 1" in capsys.readouterr().err
    assert main(["predict", model, "predict.input=the film", "predict.task.prompt=x"]) == 2
    assert "predict.task.prompt: is no option that says how the model answers" in capsys.readouterr().err
    assert main(["predict", model, f"predict.input={'the film ' * 60}"]) == 0
    assert "1 rows are longer than the 32 tokens that the model was trained on; cut" in capsys.readouterr().err


def test_sentences_and_summaries_within_columns_go_through_all_stages(tmp_path: Path, request, capsys):
    plain = [json.loads(line) for line in articles(tmp_path / "articles.jsonl", 40).read_text().splitlines()]
    rows = [{"paper": {"all": [row["document"], "the end"]}, "told": {"short": row["summary"]}} for row in plain]
    jsonl(tmp_path / "articles.jsonl", rows)
    (tmp_path / "checkpoint").symlink_to(request.getfixturevalue("causal_checkpoint"))
    own = ["task.text=paper.all", "task.summary=told.short", "adapt=plain", "adapt.epochs=1", "finetune.epochs=1"]
    assert main(["adapt", "finetune", "evaluate", *recipe(tmp_path, *own)]) == 0
    kept = predictions.read(tmp_path / "runs/default/evaluate", "test")
    assert {row["target"] for row in kept} <= {row["summary"] for row in plain}
    model = f"predict.model={tmp_path / 'runs/default/finetune'}"
    capsys.readouterr()
    assert main(["predict", model, f"predict.input={tmp_path / 'articles.jsonl'}"]) == 0
    answered = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [{name: row[name] for name in ("paper", "told")} for row in answered] == rows


def test_what_is_cut_is_said_before_training_and_when_scoring(folder: Path, capsys):
    few = ["name=short", "finetune.max_length=6", "task.max_target_length=3", "finetune.max_steps=1", "compare=false"]
    assert main(["finetune", *recipe(folder, *few)]) == 0
    printed = capsys.readouterr().out
    assert "112 (100%) are longer than 6 tokens, and are cut (finetune.max_length)" in printed
    assert "112 right answers are longer than there is room for, and are cut (task.max_target_length)" in printed
    assert "test: 32 of 32 rows are longer than 6 tokens, and were cut" in printed


def test_the_card_tells_the_scores_and_what_is_pushed(folder: Path, tmp_path: Path):
    push._export(tmp_path, compose(), (folder / "runs/default/finetune").resolve(), "me/summaries", None)
    assert (tmp_path / "generation_config.json").exists()
    card = (tmp_path / "README.md").read_text()
    assert "rougeL" in card
    assert "- Texts longer than 32 tokens were cut." in card


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["finetune.pooling=mean"], r"finetune\.pooling=mean: Summarization does not score whole texts"),
        (
            ["finetune.pooling=mean", "finetune.contrast_epochs=1"],
            r"finetune\.contrast_epochs=1: compares texts of one class",
        ),
        (["finetune.max_length=500"], r"finetune\.max_length=500( and answers take 508 in all)?: .* tokens at most"),
    ],
)
def test_what_makes_no_sense_is_refused_before_the_data_is_read(folder: Path, overrides: list[str], message: str):
    config = compose([*recipe(folder), "task.path=nowhere.jsonl", *overrides])
    with pytest.raises(UserError, match=message):
        plan(resolve(config), ["finetune"])


def test_an_encoder_alone_is_refused(folder: Path, checkpoint: Path):
    config = compose([*recipe(folder), f"model.checkpoint={checkpoint}"])
    with pytest.raises(UserError, match="is of type 'bert', and Summarization needs one that AutoModelForSeq2SeqLM"):
        plan(resolve(config), ["finetune"])


def test_documents_need_a_decoder(seq2seq_checkpoint: Path, tmp_path: Path):
    (tmp_path / "checkpoint").symlink_to(seq2seq_checkpoint)
    config = compose([*recipe(tmp_path)[3:], "task=text_generation", "task.path=-", "task.form=documents"])
    with pytest.raises(UserError, match=r"task\.form=documents: a model of type 't5' has an encoder, and goes on from"):
        plan(resolve(config), ["finetune"])


def test_translations_are_learnt_from_both_layouts(causal_checkpoint: Path, tmp_path: Path):
    (tmp_path / "checkpoint").symlink_to(causal_checkpoint)
    nouns = [noun for noun in ("film", "plot", "story", "actor") for _ in range(40)]
    pairs = [(f"the {noun} number {n}", f"a {noun} is moving") for n, noun in enumerate(nouns)]
    jsonl(tmp_path / "both.jsonl", [{"translation": {"en": source, "de": target}} for source, target in pairs])
    jsonl(tmp_path / "each.jsonl", [{"EN": source, "de": target} for source, target in pairs])
    own = ["task=translation", "task.source_language=en", "task.target_language=de"]
    both, each = ([*recipe(tmp_path), *own, f"task.path={tmp_path / name}.jsonl"] for name in ("both", "each"))
    assert labelled.load(compose(both).task).digest == labelled.load(compose(each).task).digest
    assert main(["finetune", *both, "finetune.learning_rate=5e-3"]) == 0
    found = json.loads((tmp_path / "runs/default/finetune" / METRICS).read_text())["test"]
    assert found["scores"]["chrf"] > 0.9
    assert "case:mixed" in found["signatures"]["chrf"]
    assert "tok:13a" in found["signatures"]["bleu"]
    low, high = found["intervals"]["chrf"]
    assert low <= found["scores"]["chrf"] <= high
    simple = json.loads((tmp_path / "runs/default/references" / METRICS).read_text())["test"]
    assert simple["the text, not translated"]["scores"]["chrf"] < found["scores"]["chrf"]
    assert load(tmp_path / "runs/default/finetune")("the plot number 44") == {"translation_text": "a plot is moving"}


def test_documents_and_completions_are_learnt_by_a_decoder(causal_checkpoint: Path, tmp_path: Path, capsys):
    (tmp_path / "checkpoint").symlink_to(causal_checkpoint)
    jsonl(tmp_path / "texts.jsonl", [{"text": f"{text} and {text} again"} for text, _, _ in reviews(160)])
    documents = ["task=text_generation", "task.form=documents", f"task.path={tmp_path / 'texts.jsonl'}"]
    few = ["finetune.epochs=5", "finetune.max_length=20", "task.max_target_length=16"]
    assert main(["finetune", *recipe(tmp_path), *documents, *few]) == 0
    assert "are longer than 20 tokens, and are read in pieces (finetune.max_length)" in capsys.readouterr().out
    found = json.loads((tmp_path / "runs/default/finetune" / METRICS).read_text())["test"]
    assert found["scores"].keys() == {"loss", "perplexity", "bits_per_byte", "token_accuracy"}
    assert found["scores"]["perplexity"] < 10
    model = f"predict.model={tmp_path / 'runs/default/finetune'}"
    assert main(["predict", model, "predict.input=the film", "predict.task.temperature=1"]) == 0
    assert json.loads(capsys.readouterr().out)["generated_text"]

    nouns = [noun for noun in ("film", "plot") for _ in range(60)]
    pairs = [{"prompt": f"the {noun} number {n} is", "completion": f"a {noun}"} for n, noun in enumerate(nouns)]
    jsonl(tmp_path / "pairs.jsonl", pairs)
    completions = ["task=text_generation", f"task.path={tmp_path / 'pairs.jsonl'}", "name=pairs"]
    assert main(["finetune", *recipe(tmp_path), *completions, "finetune.epochs=25"]) == 0
    found = json.loads((tmp_path / "runs/pairs/finetune" / METRICS).read_text())["test"]
    assert found["scores"]["exact_match"] > 0.9
    assert found["scores"]["token_accuracy"] > 0.9


def test_a_row_that_is_wrong_is_told_with_its_line_before_a_model_is_loaded(tmp_path: Path):
    rows = [{"document": "a", "summary": "b"}, {"document": "a", "summary": ""}, {"document": None, "summary": "b"}]
    task = Summarization(path=str(jsonl(tmp_path / "a.jsonl", rows)))
    with pytest.raises(UserError) as caught:
        labelled.load(task)
    assert "\n  - a.jsonl:2: the summary is empty" in str(caught.value)
    assert "\n  - a.jsonl:3: the text is empty" in str(caught.value)


def test_the_languages_have_to_be_said(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"task\.source_language"):
        compose(["task=translation", "task.path=a.jsonl"])
