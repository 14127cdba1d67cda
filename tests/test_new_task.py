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
    assert lines[0] == "# 120 texts of 6 words on average, 6 at most."
    assert lines[2] == "# 2 classes: bad 60, good 60"
    assert any(line.endswith("columns: film") for line in lines)
    assert task == TextClassification(path="reviews.csv", text="review", label="stars")


@pytest.mark.parametrize(
    ("label", "kind"),
    [
        (lambda n: ["war", "love"][: n % 3], MultiLabelClassification),
        (lambda n: n / 4, TextRegression),
        (lambda n: n % 3, TextClassification),
    ],
)
def test_lists_make_several_labels_fractions_a_number_and_all_else_classes(label, kind):
    jsonl(Path("a.jsonl"), [{"리뷰": f"글 {n}", "라벨: 1": label(n)} for n in range(120)])
    task, lines = made("path=a.jsonl", "label=라벨: 1")
    assert yaml.safe_load("\n".join(lines))["text"] == "리뷰"
    assert type(task) is kind


def test_words_and_texts_with_entities_make_a_task_of_tokens():
    conll(Path("a.conll"), sentences(120))
    task, lines = made("path=a.conll")
    assert lines[2] == "# 2 classes: quality 120, thing 120"
    assert task == TokenClassification(path="a.conll", text="tokens", label="tags")
    Path("conf/task/mine.yaml").unlink()
    jsonl(Path("b.jsonl"), [{"text": f"Ada {n}", "entities": [[0, 3, "person"]] * (n % 2)} for n in range(120)])
    assert made("path=b.jsonl")[0] == TokenClassification(path="b.jsonl", text="text", label="entities")


def test_questions_make_a_task_of_their_own_whatever_the_file():
    squad(Path("a.json"), questions(60))
    fields = {"question": "question", "context": "context", "answers": "answers", "group": "title"}
    task, lines = made("path=a.json")
    assert lines[2] == "# 2 classes: answer 100, no answer 20"
    assert task == QuestionAnswering(path="a.json", **fields)
    Path("conf/task/mine.yaml").unlink()
    rows = [{"질문": "누가", "본문": f"{n} Ada", "answer": "Ada", "answer_start": len(str(n)) + 1} for n in range(60)]
    jsonl(Path("b.jsonl"), rows)
    fields = {"question": "질문", "context": "본문", "answers": "answer", "answer_start": "answer_start"}
    assert made("path=b.jsonl")[0] == QuestionAnswering(path="b.jsonl", **fields)


def test_a_question_and_a_context_with_a_label_are_a_pair_if_it_is_said():
    rows = [{"question": f"is it {n}", "passage": f"it is {n}", "answer": str(n % 2)} for n in range(60)]
    jsonl(Path("a.jsonl"), rows)
    task, _ = made("path=a.jsonl", "text=question", "text_pair=passage", "label=answer")
    assert type(task) is TextClassification


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
        (
            {"messages": [{"role": "user", "content": "hello {}"}, {"role": "assistant", "content": "hi"}]},
            TextGeneration,
            {"form": "messages", "text": "messages"},
        ),
    ],
)
def test_texts_that_are_to_be_written_are_known_by_their_columns(row: dict, kind: type, options: dict):
    Path("a.jsonl").write_text("\n".join(json.dumps(row).replace("{}", str(number)) for number in range(60)))
    task, _ = made("path=a.jsonl")
    assert type(task) is kind
    assert {name: getattr(task, name) for name in options} == options


def test_columns_that_fit_two_kinds_of_task_are_told(capsys: pytest.CaptureFixture[str]):
    messages = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "hi"}]
    jsonl(Path("a.jsonl"), [{"document": f"a text {n}", "summary": "short", "messages": messages} for n in range(60)])
    assert type(made("path=a.jsonl")[0]) is Summarization
    assert "the columns fit Summarization, which is taken, and TextGeneration too" in capsys.readouterr().out


def test_every_kind_of_task_is_asked_whether_a_file_is_of_it():
    texts = {TextClassification, MultiLabelClassification, TextRegression, TokenClassification}
    assert set(new_task.kinds()) == texts | {QuestionAnswering, Summarization, Translation, TextGeneration}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["pth=reviews.csv"], "pth=reviews.csv: there is no such option; did you mean 'path'?"),
        (["path=reviews.csv"], "new-task: needs path=<file of labelled texts> name=<what to call the task>"),
        (["path=reviews.csv", "name=../mine"], "name=../mine: a name consists of letters, digits, - and _"),
        (["path=reviews.csv", "name=rotten_tomatoes"], f"{CONF}/task/rotten_tomatoes.yaml exists already"),
        (["path=reviews.csv", "name=mine", "label=star"], "has no column 'star'; did you mean 'stars'?"),
        (["path=review.csv", "name=mine"], "path=review.csv: there is no such file; did you mean 'reviews.csv'?"),
        (["path=b.jsonl", "name=mine", "text_pair=note"], "rows of TokenClassification have no second text"),
        (["path=c.jsonl", "name=mine"], "more than one column could be the text (text, content); name it with text="),
        (["path=d.jsonl", "name=mine"], "d.jsonl:51: the text is empty"),
    ],
)
def test_what_is_wrong_is_answered_and_nothing_is_written(reviews_csv: Path, arguments: list[str], message: str):
    jsonl(Path("b.jsonl"), [{"text": "Ada", "note": "a", "entities": [[0, 3, "person"]]}])
    jsonl(Path("c.jsonl"), [{"text": "a", "content": "b", "label": "c"}])
    jsonl(Path("d.jsonl"), [{"text": text, "label": label} for text, label, _ in [*reviews(50), ("", "good", "f")]])
    with pytest.raises(UserError) as caught:
        new_task.run(arguments)
    assert message in str(caught.value)
    assert not Path("conf").exists()


def test_nothing_is_overwritten(reviews_csv: Path):
    made("path=reviews.csv")
    with pytest.raises(UserError, match=r"name=mine: conf/task/mine.yaml exists already"):
        new_task.run(["path=reviews.csv", "name=mine"])
