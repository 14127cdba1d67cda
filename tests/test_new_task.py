import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from samples import conll, jsonl, questions, reviews, sentences, squad

from ulmfit_style.cli import CONF
from ulmfit_style.cli.compose import compose
from ulmfit_style.data import labelled, new_task
from ulmfit_style.errors import UserError
from ulmfit_style.tasks.multi_label_classification import MultiLabelClassification
from ulmfit_style.tasks.question_answering import QuestionAnswering
from ulmfit_style.tasks.summarization import Summarization
from ulmfit_style.tasks.text_classification import TextClassification
from ulmfit_style.tasks.text_generation import TextGeneration
from ulmfit_style.tasks.text_regression import TextRegression
from ulmfit_style.tasks.token_classification import TokenClassification
from ulmfit_style.tasks.translation import Translation

MESSAGES = [{"role": "user", "content": "hello {}"}, {"role": "assistant", "content": "hi"}]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    labelled.load.cache_clear()


def made(*arguments: str) -> tuple[Any, list[str]]:
    """Return the task of the YAML that `new-task` writes, and its lines."""
    new_task.run([*arguments, "name=mine"])
    lines = Path("conf/task/mine.yaml").read_text(encoding="utf-8").splitlines()
    return compose(["hydra.searchpath=[conf]", "task=mine"]).task, lines


def test_a_csv_becomes_a_task_with_comments_on_what_is_in_it(reviews_csv: Path, capsys: pytest.CaptureFixture[str]):
    task, lines = made("path=reviews.csv")
    out = capsys.readouterr().out
    assert "using column 'review' as the text and column 'stars' as the label" in out
    assert "ulmfit-style adapt finetune --config-dir conf task=mine" in out
    schema = lines[0].removeprefix("# yaml-language-server: $schema=")
    assert Path("conf/task", schema).read_text("utf-8") == (CONF / "schema/task.json").read_text("utf-8")
    assert lines[1] == "# 120 texts of 6 words on average, 6 at most."
    assert lines[3] == "# 2 classes: bad 60, good 60"
    assert any(line.endswith("columns: film") for line in lines)
    assert task == TextClassification(path="reviews.csv", text="review", label="stars")


@pytest.mark.parametrize(
    ("label", "kind"),
    [
        (lambda n: ["war", "love"][: n % 3], MultiLabelClassification),
        (lambda n: n / 4, TextRegression),
        (lambda n: n % 3, TextClassification),
        (lambda n: [[0, 1, "person"]] * (n % 2), TokenClassification),
    ],
)
def test_lists_make_several_labels_fractions_a_number_and_all_else_classes(label, kind):
    jsonl(Path("a.jsonl"), [{"리뷰": f"글 {n}", "라벨: 1": label(n)} for n in range(120)])
    task, lines = made("path=a.jsonl", "label=라벨: 1")
    assert yaml.safe_load("\n".join(lines))["text"] == "리뷰"
    assert type(task) is kind


def test_words_with_tags_make_a_task_of_tokens_and_questions_one_of_their_own():
    conll(Path("a.conll"), sentences(120))
    task, lines = made("path=a.conll")
    assert lines[3] == "# 2 classes: quality 120, thing 120"
    assert task == TokenClassification(path="a.conll", text="tokens", label="tags")
    Path("conf/task/mine.yaml").unlink()
    squad(Path("a.json"), questions(60))
    fields = {"question": "question", "context": "context", "answers": "answers", "group": "title"}
    task, lines = made("path=a.json")
    assert lines[3] == "# 2 classes: answer 100, no answer 20"
    assert task == QuestionAnswering(path="a.json", **fields)


@pytest.mark.parametrize(
    ("row", "kind", "options"),
    [
        ({"article": "a long text {}", "summary": "short"}, Summarization, {"text": "article"}),
        (
            {"translation": {"en": "text {}", "de": "ein Text"}},
            Translation,
            {"source_language": "en", "target_language": "de", "text": "translation"},
        ),
        ({"prompt": "say {}", "response": "yes, I do"}, TextGeneration, {"completion": "response"}),
        ({"messages": MESSAGES}, TextGeneration, {"form": "messages", "text": "messages"}),
        (
            {"질문": "누가", "본문": "Ada {}", "answer": "Ada", "answer_start": 0},
            QuestionAnswering,
            {"question": "질문", "context": "본문", "answers": "answer", "answer_start": "answer_start"},
        ),
    ],
)
def test_what_is_asked_or_written_is_known_by_their_columns(row: dict, kind: type, options: dict):
    Path("a.jsonl").write_text("\n".join(json.dumps(row).replace("{}", str(number)) for number in range(60)))
    task, _ = made("path=a.jsonl")
    assert type(task) is kind
    assert {name: getattr(task, name) for name in options} == options


def written(path: str, header: str, *rows: str) -> None:
    Path(path).write_text(
        "\n".join([header, *(row.replace("{}", str(n)) for n, row in enumerate(rows * 60))]), encoding="utf-8"
    )


@pytest.mark.parametrize(
    ("header", "rows", "kind", "options"),
    [
        (
            "text,labels",
            ["a {},late;broken", "b {},late", "c {},broken"],
            MultiLabelClassification,
            {"label_separator": ";"},
        ),
        ("text,labels", ["a {},\"['late', 'broken']\"", "b {},['late']"], MultiLabelClassification, {}),
        ("text,labels", ["a {},1|0", "b {},1|1"], MultiLabelClassification, {"labels": ("name_0", "name_1")}),
        ("text,labels", ["a {},x / y", "b {},x", "c {},y"], MultiLabelClassification, {"label_separator": "/"}),
        ("text,labels", ["a {},1 0", "b {},0 1"], MultiLabelClassification, {"labels": ("name_0", "name_1")}),
        ("text,label", ["a {},bad", "b {},good", "c {},"], TextClassification, {"labels": ("bad", "good")}),
        ("text,late,kind", ["a {},1,0", "b {},1,1", "c {},0,0"], MultiLabelClassification, {"label": ("late", "kind")}),
        (
            "text,late,kind",
            ["a {},False,True", "b {},True,True"],
            MultiLabelClassification,
            {"label": ("late", "kind")},
        ),
        (
            "text,labels",
            ["a {},\"['late', 'broken']\"", "b {},broken"],
            MultiLabelClassification,
            {"label_separator": "|"},
        ),
        ("text,label", ['a {},"0,5"', 'b {},"1,0"'], TextRegression, {}),
        ("text,score", ["a {},{}", "b {},{}"], TextRegression, {}),
        ("sentence1,sentence2,label", ["a {},b,yes", "c {},d,no"], TextClassification, {"text_pair": "sentence2"}),
        ("question,passage,label", ["a {},b,yes", "c {},d,no"], TextClassification, {"text": "question"}),
        ("text,label", ['Ada {},"[{""start"":0,""end"":3,""label"":""person""}]"'], TokenClassification, {}),
        ("tokens,tags", ["\"['Ada', '{}']\",\"['B-person', 'O']\""], TokenClassification, {}),
    ],
)
def test_what_a_table_holds_is_known_by_its_values(header: str, rows: list[str], kind: type, options: dict):
    written("a.csv", header, *rows)
    task, _ = made("path=a.csv")
    assert type(task) is kind
    assert {name: getattr(task, name) for name in options} == options


def test_a_column_whose_values_repeat_may_be_the_label():
    Path("a.csv").write_text("text,when,verdict\n" + "".join(f"text {n},day {n},{n % 2}\n" for n in range(9)))
    with pytest.raises(UserError, match=r"column 'verdict' may be the label.* label=verdict makes a task of it"):
        new_task.run(["path=a.csv", "name=mine"])


@pytest.mark.parametrize("line", ["Ada B-person\n\nleft O", "__label__bad a film"])
def test_lines_that_hold_their_labels_are_no_corpus(line: str):
    Path("a.txt").write_text(f"{line}\n" * 30)
    with pytest.raises(UserError, match=r"a\.txt: each line has a label; words with tags are read by format=conll"):
        new_task.run(["path=a.txt", "name=mine"])


def test_what_is_no_split_of_a_folder_is_told(capsys: pytest.CaptureFixture[str]):
    for name in ("train", "test", "holdout"):
        Path("rows").mkdir(exist_ok=True)
        written(f"rows/{name}.csv", "text,label", f"{name} {{}},bad", f"{name} {{}} too,good")
    assert made("path=rows")[0].path.files() == {"train": "rows/train.csv", "test": "rows/test.csv"}
    assert "not read, because their names hold no split: rows/holdout.csv" in capsys.readouterr().out


def test_text_without_labels_becomes_a_corpus(capsys: pytest.CaptureFixture[str]):
    written("a.csv", "text,verdict", "a text {},bad")
    new_task.run(["path=a.csv", "name=mine", "format={encoding: utf-8}"])
    out = capsys.readouterr().out
    assert "a.csv is taken for text without labels, so for a corpus; if one of its other columns is the label" in out
    assert "ulmfit-style adapt task=none --config-dir conf corpus=mine" in out
    corpus = compose(["hydra.searchpath=[conf]", "corpus=mine", "task=none"]).corpus
    assert (corpus.path, corpus.text, corpus.format.encoding) == (("a.csv",), "text", "utf-8")


@pytest.mark.parametrize("rows", [["{},Ada,B-person", "{},left,O"], ["{},Ada left,B-person O", "{},she left,O O"]])
def test_tags_of_words_are_no_classes(rows: list[str]):
    written("a.csv", "sentence_id,words,labels", *rows)
    with pytest.raises(UserError, match="the labels are tags of words; task=token_classification takes lists"):
        made("path=a.csv")


def test_columns_that_fit_two_kinds_of_task_are_told(capsys: pytest.CaptureFixture[str]):
    jsonl(Path("a.jsonl"), [{"document": f"a text {n}", "summary": "short", "messages": MESSAGES} for n in range(60)])
    assert type(made("path=a.jsonl")[0]) is Summarization
    assert "the columns fit Summarization, which is taken, and TextGeneration too" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["pth=reviews.csv"], "pth=reviews.csv: there is no such option; did you mean 'path'?"),
        (["path=reviews.csv"], "new-task: needs path=<file of labelled texts> name=<what to call the task>"),
        (["path=reviews.csv", "name=../mine"], "name=../mine: a name consists of letters, digits, - and _"),
        (["path=reviews.csv", "name=rotten_tomatoes"], f"{CONF}/task/rotten_tomatoes.yaml exists already"),
        (["path=b.jsonl", "name=mine", "text_pair=note"], "rows of TokenClassification have no second text"),
        (["path=d.jsonl", "name=mine"], "d.jsonl:51: the text is empty"),
    ],
)
def test_what_is_wrong_is_answered_and_nothing_is_written(reviews_csv: Path, arguments: list[str], message: str):
    jsonl(Path("b.jsonl"), [{"text": "Ada", "note": "a", "entities": [[0, 3, "person"]]}])
    jsonl(Path("d.jsonl"), [{"text": text, "label": label} for text, label, _ in [*reviews(50), ("", "good", "f")]])
    with pytest.raises(UserError) as caught:
        new_task.run(arguments)
    assert message in str(caught.value)
    assert not Path("conf").exists()
