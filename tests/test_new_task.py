import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from samples import conll, jsonl, questions, reviews, sentences, squad

from ulmfit_style.__main__ import main
from ulmfit_style.cli import CONF
from ulmfit_style.cli.compose import compose
from ulmfit_style.data import labelled
from ulmfit_style.data.new_task import kinds
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


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run `new-task` in vain, and return what it says."""

    def run(*arguments: str) -> str:
        assert main(["new-task", *arguments]) == 2
        return capsys.readouterr().err

    return run


def test_a_csv_becomes_a_task_with_comments_on_what_is_in_it(reviews_csv: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["new-task", "path=reviews.csv", "name=mine"]) == 0
    out = capsys.readouterr().out
    assert "using column 'review' as the text and column 'stars' as the label" in out
    assert "ulmfit-style adapt finetune --config-dir conf task=mine" in out
    text = Path("conf/task/mine.yaml").read_text(encoding="utf-8")
    assert "# 120 texts of 6 words on average, 6 at most.\n" in text
    assert "# 2 classes: bad 60, good 60.\n" in text
    assert "columns: film\n" in text
    task = compose(["hydra.searchpath=[conf]", "task=mine"]).task
    assert task == TextClassification(path="reviews.csv", text="review", label="stars")


@pytest.mark.parametrize(
    ("label", "kind", "comment"),
    [
        (lambda n: ["war", "love"][: n % 3], MultiLabelClassification, "# 2 classes: war 80, love 40."),
        (lambda n: n / 4, TextRegression, "# Numbers from 0 to 29.75, 14.9 on average."),
        (lambda n: n % 3, TextClassification, "# 3 classes: 0 40, 1 40, 2 40."),
    ],
)
def test_lists_make_several_labels_fractions_a_number_and_all_else_classes(label, kind, comment: str):
    jsonl(Path("a.jsonl"), [{"리뷰": f"글 {n}", "라벨: 1": label(n)} for n in range(120)])
    assert main(["new-task", "path=a.jsonl", "name=mine", "label=라벨: 1"]) == 0
    text = Path("conf/task/mine.yaml").read_text(encoding="utf-8")
    assert comment in text.splitlines()
    assert yaml.safe_load(text)["text"] == "리뷰"
    assert isinstance(compose(["hydra.searchpath=[conf]", "task=mine"]).task, kind)


def test_words_and_texts_with_entities_make_a_task_of_tokens():
    conll(Path("a.conll"), sentences(120))
    spans = [{"text": f"Ada {n}", "entities": [[0, 3, "person"]] * (n % 2)} for n in range(120)]
    jsonl(Path("b.jsonl"), spans)
    for file, columns, comment in (
        ("a.conll", ("tokens", "tags"), "# 2 classes: quality 120, thing 120."),
        ("b.jsonl", ("text", "entities"), "# 2 classes: no entity 60, person 60."),
    ):
        name = file[0]
        assert main(["new-task", f"path={file}", f"name={name}"]) == 0
        assert comment in Path(f"conf/task/{name}.yaml").read_text(encoding="utf-8").splitlines()
        task = compose(["hydra.searchpath=[conf]", f"task={name}"]).task
        assert task == TokenClassification(path=file, text=columns[0], label=columns[1])


def test_questions_make_a_task_of_their_own_whatever_the_file():
    squad(Path("a.json"), questions(60))
    flat = [{"질문": "누가", "본문": f"{n} Ada", "answer": "Ada", "answer_start": len(str(n)) + 1} for n in range(60)]
    jsonl(Path("b.jsonl"), flat)
    for file, columns, comment in (
        ("a.json", ("question", "context", "answers", None, "title"), "# 2 classes: answer 100, no answer 20."),
        ("b.jsonl", ("질문", "본문", "answer", "answer_start", None), "# 1 classes: answer 60."),
    ):
        name = file[0]
        assert main(["new-task", f"path={file}", f"name={name}"]) == 0
        assert comment in Path(f"conf/task/{name}.yaml").read_text(encoding="utf-8").splitlines()
        task = compose(["hydra.searchpath=[conf]", f"task={name}"]).task
        fields = dict(zip(("question", "context", "answers", "answer_start", "group"), columns, strict=True))
        assert task == QuestionAnswering(path=file, **fields)


def test_a_question_and_a_context_with_a_label_are_a_pair_if_it_is_said():
    rows = [{"question": f"is it {n}", "passage": f"it is {n}", "answer": str(n % 2)} for n in range(60)]
    jsonl(Path("a.jsonl"), rows)
    assert main(["new-task", "path=a.jsonl", "name=a", "text=question", "text_pair=passage", "label=answer"]) == 0
    assert isinstance(compose(["hydra.searchpath=[conf]", "task=a"]).task, TextClassification)


def test_every_kind_of_task_is_asked_whether_a_file_is_of_it():
    texts = {TextClassification, MultiLabelClassification, TextRegression, TokenClassification}
    assert set(kinds()) == texts | {QuestionAnswering, Summarization, Translation, TextGeneration}


def test_words_have_no_second_text(refused: Callable[..., str]):
    jsonl(Path("b.jsonl"), [{"text": "Ada", "note": "a", "entities": [[0, 3, "person"]]}])
    assert "new-task: text_pair=note: rows of TokenClassification have no second text" in refused(
        "path=b.jsonl", "name=mine", "text_pair=note"
    )


def test_nothing_is_overwritten_and_no_preset_is_hidden(reviews_csv: Path, refused: Callable[..., str]):
    assert main(["new-task", "path=reviews.csv", "name=mine"]) == 0
    assert "name=mine: conf/task/mine.yaml exists already" in refused("path=reviews.csv", "name=mine")
    assert f"{CONF}/task/rotten_tomatoes.yaml exists already" in refused("path=reviews.csv", "name=rotten_tomatoes")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["pth=reviews.csv"], "pth=reviews.csv: there is no such option; did you mean 'path'?"),
        (["path=reviews.csv"], "new-task: needs path=<file of labelled texts> name=<what to call the task>"),
        (["path=reviews.csv", "name=../mine"], "name=../mine: a name consists of letters, digits, - and _"),
        (["path=reviews.csv", "name=mine", "label=star"], "has no column 'star'; did you mean 'stars'?"),
        (["path=review.csv", "name=mine"], "path=review.csv: there is no such file; did you mean 'reviews.csv'?"),
    ],
)
def test_a_wrong_argument_is_answered_and_nothing_is_written(
    reviews_csv: Path, refused: Callable[..., str], arguments: list[str], message: str
):
    assert message in refused(*arguments)
    assert not Path("conf").exists()


def test_a_file_that_cannot_be_learnt_from_makes_no_task(write_csv: Callable[..., Path], refused: Callable[..., str]):
    write_csv([*reviews(50), ("", "good", "f")])
    assert "reviews.csv:52: the text is empty" in refused("path=reviews.csv", "name=mine")
    write_csv(reviews(50), ("text", "label", "content"))
    assert "more than one column could be the text (text, content); name it with text=<column>" in refused(
        "path=reviews.csv", "name=x"
    )
    assert not Path("conf").exists()


@pytest.mark.parametrize(
    ("row", "kind", "options", "told"),
    [
        (
            {"article": "a long text {}", "summary": "short"},
            Summarization,
            {"text": "article"},
            "of 1 words on average",
        ),
        (
            {"translation": {"en": "text {}", "de": "ein Text"}},
            Translation,
            {"source_language": "en", "target_language": "de", "text": "translation"},
            "Right answers of 2 words on average, 2 at most.",
        ),
        ({"prompt": "say {}", "response": "yes, I do"}, TextGeneration, {"completion": "response"}, "of 3 words"),
        (
            {"messages": [{"role": "user", "content": "hello {}"}, {"role": "assistant", "content": "hi"}]},
            TextGeneration,
            {"form": "messages", "text": "messages"},
            "of 1 words",
        ),
    ],
)
def test_texts_that_are_to_be_written_are_known_by_their_columns(row: dict, kind: type, options: dict, told: str):
    lines = [json.dumps(row).replace("{}", str(number)) for number in range(60)]
    Path("a.jsonl").write_text("\n".join(lines))
    assert main(["new-task", "path=a.jsonl", "name=a"]) == 0
    written = Path("conf/task/a.yaml").read_text()
    assert told in written
    task = compose(["hydra.searchpath=[conf]", "task=a"]).task
    assert isinstance(task, kind)
    assert {name: getattr(task, name) for name in options} == options
    assert len(labelled.load(task).test) > 5
