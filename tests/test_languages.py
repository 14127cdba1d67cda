"""Which model `model=auto` takes, and what each part makes of texts in other scripts than Latin."""

import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.cells import cell_len
from samples import chunks, jsonl, save_bert, tokenizer_of
from tokenizers import Tokenizer, normalizers
from transformers import PreTrainedTokenizerFast

from ulmfit_style import console
from ulmfit_style.__main__ import main
from ulmfit_style.cli.compose import compose
from ulmfit_style.config.training import NewTokenizer
from ulmfit_style.data import corpus, guard, languages, new_task
from ulmfit_style.errors import UserError
from ulmfit_style.models import checkpoints
from ulmfit_style.models.new_tokenizer import learn
from ulmfit_style.results import figures, terminal
from ulmfit_style.results.parts import Table
from ulmfit_style.stages.table import resolve
from ulmfit_style.tasks.base import IGNORED
from ulmfit_style.training.objectives import MaskedLM
from ulmfit_style.words import TERM

ENGLISH = "the waiter was friendly and we would come again on a rainy evening number {}"
GERMAN = "der Kellner war freundlich und wir kommen an einem verregneten Abend wieder Nummer {}"
KOREAN = "이 영화는 정말 재미있었고 배우들의 연기도 훌륭했다 {}"
CODE = "def total(values: list[int]) -> int:\n    return sum(value for value in values if value > {})"


@pytest.fixture
def options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], list[str]]:
    """What to type for labelled rows of such a text."""
    monkeypatch.setattr(console, "_SAID", set())

    def typed(text: str) -> list[str]:
        rows = [{"text": text.format(number), "label": "ab"[number % 2]} for number in range(60)]
        return ["task=text_classification", f"task.path={jsonl(tmp_path / 'rows.jsonl', rows)}", f"runs={tmp_path}"]

    return typed


@pytest.mark.parametrize(
    ("text", "preset"),
    [(ENGLISH, "minilm"), (CODE, "minilm"), (GERMAN, "multilingual_e5_small"), (KOREAN, "multilingual_e5_small")],
)
def test_the_script_and_the_language_choose_the_model(text: str, preset: str, options, monkeypatch, capsys):
    monkeypatch.setattr(checkpoints, "commit", lambda *_: "0" * 40)
    model = resolve(compose([*options(text), "model=auto"])).config.model
    assert model == compose([f"model={preset}"]).model
    assert f"model=auto takes {preset}: " in capsys.readouterr().out


def test_what_is_out_of_reach_is_not_taken_and_it_is_said(options, monkeypatch, capsys):
    def unreachable(*_: object) -> str:
        raise UserError("no network")

    monkeypatch.setattr(checkpoints, "commit", unreachable)
    assert resolve(compose([*options(KOREAN), "model=auto"])).config.model == compose(["model=minilm"]).model
    assert "multilingual_e5_small would fit, but is not on the disk" in capsys.readouterr().out


@pytest.mark.parametrize(("text", "is_told"), [(KOREAN, True), ("the film number {} is moving", False)])
def test_a_text_that_the_tokenizer_breaks_into_pieces_is_told_before_training(
    text: str, is_told: bool, options, checkpoint: Path, capsys
):
    typed = [*options(text), f"model.checkpoint={checkpoint}", "adapt=none", "compare=false"]
    assert main(["plan", "finetune", *typed]) == 0
    assert ("of the tokens of this text are unknown to" in capsys.readouterr().out) is is_told


def test_the_bytes_of_a_character_count_as_parts_of_it(tmp_path: Path, options, capsys):
    tokenizer_of("byte-level", ["a b c"]).save_pretrained(save_bert(tmp_path / "model"))
    languages.say_if_unfit(compose([*options(KOREAN), f"model.checkpoint={tmp_path / 'model'}"]))
    assert "% of the tokens of this text are unknown to" in capsys.readouterr().out


# What each part makes of scripts that are not Latin

TEXTS = {
    "Korean": "이 영화는 정말 재미있었고 배우들의 연기도 훌륭했다",
    "Japanese": "この映画はとても面白かったのでもう一度見たいです",
    "Chinese": "这部电影非常好看演员的表演也很精彩我还想再看一遍",
    "Arabic": "كان هذا الفيلم ممتعا جدا وأداء الممثلين فيه رائع",
    "Thai": "หนังเรื่องนี้สนุกมากและนักแสดงเล่นได้ดีเยี่ยมอยากดูอีกครั้ง",
    "Hindi": "यह फिल्म बहुत अच्छी थी और कलाकारों का अभिनय शानदार है",
}
OTHERS = {
    "Korean": "돈이 아까울 만큼 지루해서 중간에 그냥 나와 버렸습니다",
    "Japanese": "退屈すぎて途中で寝てしまいお金の無駄だと思いました",
    "Chinese": "剧情拖沓得让人想睡觉浪费了我的钱再也不想看第二次",
    "Arabic": "القصة مملة وطويلة ولن أشاهدها مرة أخرى في حياتي كلها",
    "Thai": "เสียดายเงินค่าตั๋วเพราะเรื่องยาวเกินไปจะไม่กลับมาดูใหม่แน่นอน",
    "Hindi": "कहानी लंबी और नीरस लगी इसलिए पैसे की बर्बादी ही हुई",
}
every_language = pytest.mark.parametrize("language", TEXTS)


def tokenizer_for(kind: str, *, lowercase: bool) -> Tokenizer:
    texts = [*TEXTS.values(), *OTHERS.values()]
    options = NewTokenizer(kind=kind, vocab_size=280 if kind == "bpe" else 450, lowercase=lowercase)
    return learn(options, "model.tokenizer", [texts], {"unk_token": "[UNK]"})


@every_language
@pytest.mark.parametrize("lowercase", [False, True])
def test_a_new_wordpiece_keeps_the_letters_of_a_script_however_a_file_spells_them(language: str, lowercase: bool):
    tokenizer = tokenizer_for("wordpiece", lowercase=lowercase)
    whole, in_parts = (tokenizer.encode(unicodedata.normalize(form, TEXTS[language])).tokens for form in ("NFC", "NFD"))
    assert whole == in_parts
    letters = "".join(whole).replace("##", "")
    assert letters == unicodedata.normalize("NFC", TEXTS[language]).replace(" ", "")


def test_lower_case_takes_accents_off_latin_greek_and_cyrillic_letters_as_bert_does():
    text = "Crème BRÛLÉE, Ångström; Αθήνα, İstanbul, ёлка"
    bert = normalizers.BertNormalizer(lowercase=True)
    ours = tokenizer_for("wordpiece", lowercase=True).normalizer
    assert ours.normalize_str(text) == bert.normalize_str(text) == "creme brulee, angstrom; αθηνα, istanbul, елка"


@pytest.mark.parametrize("kind", ["wordpiece", "bpe", "unigram"])
@every_language
def test_part_of_a_sentence_is_masked_and_never_the_whole(language: str, kind: str, tmp_path: Path):
    learnt = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer_for(kind, lowercase=False), mask_token="[MASK]", pad_token="[PAD]"
    )
    (row,) = chunks([TEXTS[language]], learnt, 512, tmp_path)
    objective = MaskedLM(learnt, mask_probability=0.15, seed=0)
    _, labels = objective.mask(row["input_ids"], row["words"], (0, 0), 0)
    assert 0 < (labels != IGNORED).mean() < 0.5


def test_the_bytes_of_a_character_are_masked_together(tmp_path: Path):
    tokenizer = tokenizer_of("byte-level", ["a b"])
    (row,) = chunks(["好看 ok"], tokenizer, 64, tmp_path)
    assert row["words"].tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("a plain film, twice good", ["plain", "film", "twice", "good"]),
        ("这电影 good", ["这", "电", "影", "good"]),
        ("ดีมาก", ["ดี", "ม", "า", "ก"]),
        ("यह फिल्म", ["यह", "फिल्म"]),
        ("정말 좋다", ["정말", "좋다"]),
    ],
)
def test_tfidf_counts_words_and_characters_where_there_are_no_blanks(text: str, terms: list[str]):
    assert TERM.findall(text) == terms


@every_language
def test_near_copies_are_found_and_other_texts_are_none(language: str):
    text, other = TEXTS[language] * 3, OTHERS[language] * 3
    assert guard.near([text, other, f"{text} 2"]) == [(2, 0)]


@pytest.mark.parametrize(("language", "words"), [("Korean", 7), ("Chinese", 25), ("Japanese", 25), ("Arabic", 9)])
def test_new_task_counts_words_and_characters_where_there_are_no_blanks(
    language: str, words: int, tmp_path: Path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    jsonl(
        tmp_path / "rows.jsonl",
        [{"text": f"{TEXTS[language]}{number}", "label": "ab"[number % 2]} for number in range(10)],
    )
    new_task.run([f"path={tmp_path / 'rows.jsonl'}", "name=rows"])
    assert f"texts of {words} words on average" in Path("conf/task/rows.yaml").read_text(encoding="utf-8")


def test_documents_of_macos_are_read_in_syllables(tmp_path: Path):
    lines = [f"{TEXTS['Korean']} {number}" for number in range(30)]
    (tmp_path / "docs.txt").write_text(unicodedata.normalize("NFD", "\n".join(lines)), encoding="utf-8")
    config = compose(["task=none", "corpus=file", f"corpus.path={tmp_path / 'docs.txt'}", f"runs={tmp_path}"])
    documents = corpus.load(config.corpus, None, tmp_path)
    assert sorted([*documents.train, *documents.heldout]) == sorted(lines)


# What is typed


@pytest.mark.parametrize(
    ("typed", "value"),
    [
        ("corpus.path=영화 목록.txt", ("영화 목록.txt",)),
        ("corpus.path=[영화.txt, b.txt]", ("영화.txt", "b.txt")),
        ("corpus.path='영화.txt'", ("영화.txt",)),
        ('corpus.path=[données, "b c"]', ("données", "b c")),
    ],
)
def test_values_of_any_script_need_no_quotation_marks(typed: str, value: tuple[str, ...]):
    assert compose(["corpus=file", typed]).corpus.path == value


def test_a_task_a_run_and_classes_may_have_korean_names(tmp_path: Path, checkpoint: Path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    texts = [
        (f"{(TEXTS, OTHERS)[number % 2]['Korean']} {number}", ("긍정", "부정")[number % 2]) for number in range(60)
    ]
    rows = [[unicodedata.normalize("NFD", cell) for cell in row] for row in [("리뷰", "평가"), *texts]]
    Path("영화.csv").write_text("\n".join(map(",".join, rows)), encoding="utf-8")
    assert main(["new-task", "path=영화.csv", "name=영화", "text=리뷰", "label=평가"]) == 0
    options = ["--config-dir", "conf", "task=영화", "name=영화", f"model.checkpoint={checkpoint}", "adapt=none"]
    small = ["task.folds=0", "compare=false", "finetune=plain", "finetune.epochs=1"]
    assert main(["finetune", "report", "predict", *options, *small, "predict.input=정말 재미있다"]) == 0
    assert '"label": "' in capsys.readouterr().out
    page = Path("runs/영화/report.html").read_text(encoding="utf-8")
    assert 'dir="auto">긍정</td>' in page


# Figures and tables


def test_a_letter_that_no_font_has_is_told_once_and_left_to_the_reader_of_the_svg(tmp_path: Path, monkeypatch, capsys):
    monkeypatch.setattr(console, "_SAID", set())
    for name in ("one", "two"):
        figures.matrix(tmp_path / name, ["\U00012000", "가"], [[1, 2], [3, 4]])
    assert capsys.readouterr().out.count("figures: no font is installed that has '") == 1
    assert ">\U00012000<" in (tmp_path / "one.svg").read_text(encoding="utf-8")


def test_a_letter_that_another_font_has_is_drawn_with_it(tmp_path: Path, monkeypatch, capsys):
    monkeypatch.setattr(console, "_SAID", set())
    figures.matrix(tmp_path / "arcs", ["\u2312", "film"], [[1, 2], [3, 4]])  # DejaVu Sans has no arc
    assert "no font" not in capsys.readouterr().out
    svg = (tmp_path / "arcs.svg").read_text(encoding="utf-8")
    assert "STIX" in svg
    assert "<text" not in svg


@every_language
def test_the_lines_of_a_table_are_of_one_width(language: str, capsys):
    terminal.show(Table(("class", "rows"), [(TEXTS[language][:9], 10), ("film", 2)]))
    lines = capsys.readouterr().out.splitlines()
    assert len({cell_len(line) for line in lines}) == 1
