import csv
import io
import json
import math
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy
import pandas
import pytest
from datasets import Dataset, DatasetDict
from hypothesis import given, settings, strategies
from recipes import Trained
from samples import UNICODE, jsonl, reviews

from ulmfit_style import chain, load, predictor
from ulmfit_style.__main__ import main
from ulmfit_style.artefacts import predictions
from ulmfit_style.artefacts.directory import RECIPE
from ulmfit_style.cli.compose import compose
from ulmfit_style.errors import UserError
from ulmfit_style.metrics import selective
from ulmfit_style.predictor import Predictor
from ulmfit_style.results import csv as answers_csv
from ulmfit_style.stages import predict
from ulmfit_style.stages.table import resolve
from ulmfit_style.tasks.base import Row
from ulmfit_style.tasks.multi_label_classification import MultiLabelClassification
from ulmfit_style.training import scoring

TEXTS = [text for text, _, _ in reviews(10, seed=3)]


@pytest.fixture(scope="module")
def directory(trained: Callable[[str], Trained]) -> Path:
    return trained("text classification").directory


@pytest.fixture(scope="module")
def model(directory: Path) -> Predictor:
    return load(directory, device="cpu")


@pytest.fixture
def predicted(directory: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., list[dict]]:
    """Run `predict` with options, and return what it printed on standard output."""

    def run(*options: str) -> list[dict]:
        assert main(["predict", f"predict.model={directory}", *options]) == 0
        return [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    return run


def test_a_text_and_standard_input_are_answered_as_in_python(
    predicted: Callable[..., list[dict]],
    finetuned: list[str],
    model: Predictor,
    monkeypatch: pytest.MonkeyPatch,
    capsys,
):
    expected = [{"text": text, **answer} for text, answer in zip(TEXTS, model(TEXTS), strict=True)]
    assert {answer["label"] for answer in expected} == {"good", "bad"}  # or the order would not be tested
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("\r\n".join(TEXTS).encode())))
    assert predicted("predict.input=-") == expected
    assert main(["predict", *finetuned, f"predict.input='{TEXTS[0]}'"]) == 0  # the model is that of the recipe
    assert json.loads(capsys.readouterr().out) == pytest.approx(expected[0], abs=1e-5)


def test_the_other_columns_are_carried_along_in_the_order_of_the_rows(
    predicted: Callable[..., list[dict]], model: Predictor, tmp_path: Path
):
    rows = [{"id": number, "review": text, "label": "ä"} for number, text in enumerate(TEXTS)]
    answers = model(TEXTS)
    expected = [
        {"id": row["id"], "review": row["review"], "input_label": "ä", **answer}
        for row, answer in zip(rows, answers, strict=True)
    ]
    path, output = jsonl(tmp_path / "texts.jsonl", rows), tmp_path / "out.csv"
    assert predicted(f"predict.input={path}") == expected
    assert predicted(f"predict.input={path}", f"predict.output={output}") == []
    with output.open(newline="", encoding="utf-8") as file:
        assert list(csv.DictReader(file)) == [{name: str(value) for name, value in row.items()} for row in expected]


def test_the_most_probable_labels_are_told_with_their_probabilities(
    predicted: Callable[..., list[dict]], finetuned: list[str], directory: Path, tmp_path: Path, capsys
):
    text, output = f"predict.input={TEXTS[0]}", tmp_path / "out.csv"
    (answer,) = predicted(text, "predict.task.top_k=all")
    scores = answer["scores"]
    assert list(scores) == [answer["label"], *({"good", "bad"} - {answer["label"]})]
    assert list(scores.values()) == pytest.approx([answer["score"], 1 - answer["score"]], abs=2e-6)
    assert predicted(text, f"predict.output={output}", "predict.task.top_k=1") == []
    with output.open(newline="", encoding="utf-8") as file:
        assert json.loads(next(csv.DictReader(file))["scores"]) == {answer["label"]: answer["score"]}
    assert main(["predict", *finetuned, "task.top_k=1", text]) == 0  # of the recipe, no other model is meant
    assert list(json.loads(capsys.readouterr().out)["scores"]) == [answer["label"]]
    assert load(directory, device="cpu", task={"top_k": 5})(TEXTS[0]).keys() == {"label", "score", "scores"}
    assert set(predictions.read(directory, "test")[0]["scores"]) == {"good", "bad"}


def test_of_several_labels_those_that_are_given_do_not_depend_on_how_many_are_told():
    task = MultiLabelClassification(path="-", top_k=2)
    answer = task.merge(Row("a", 1, {}), [], [{"a": 0.2, "b": 0.9, "c": 0.8}, {"a": 0.1, "b": 0.5, "c": 1.0}])
    assert answer == {"labels": ["b", "c"], "scores": {"c": 0.9, "b": 0.7}}
    with pytest.raises(UserError, match=r"predict\.task\.top_k=0: should be a number of labels, or all"):
        task.with_answer_options({"top_k": 0})


def test_rows_are_answered_while_the_rest_is_not_yet_read(model: Predictor, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(scoring, "WINDOW", 4)
    read = 0

    def rows() -> Iterator[tuple[Row, dict]]:
        nonlocal read
        for _ in range(40):
            read += 1
            yield model.task.row("a film"), {"number": read}

    for number, record in enumerate(predict._answered(model, rows(), None, None, None), start=1):
        assert record["number"] == number
        assert read - number < 4


@pytest.mark.parametrize(
    ("last", "output", "message"),
    [
        ("{broken", "out.jsonl", "a.jsonl:10: is not JSON"),
        ('{"review": ["y"]}', "out.csv", "a.jsonl:10: the text is a list, where a text should be"),
    ],
)
def test_a_file_of_answers_is_there_whole_or_not_at_all(
    directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys, last: str, output: str, message: str
):
    monkeypatch.setattr(scoring, "WINDOW", 4)
    path = jsonl(tmp_path / "a.jsonl", [{"review": "a film"}] * 9)
    path.write_text(path.read_text() + last + "\n")
    (tmp_path / output).write_text("what was there\n")
    options = [f"predict.model={directory}", f"predict.input={path}", f"predict.output={tmp_path / output}"]
    assert main(["predict", *options]) == 2
    assert message in capsys.readouterr().err
    assert (tmp_path / output).read_text() == "what was there\n"
    # What was answered is kept until the row is mended.
    assert {inside.name for inside in tmp_path.iterdir()} == {"a.jsonl", output, f".{output}.windows"}


def test_the_answers_of_rows_with_various_columns_are_answered_again(
    predicted: Callable[..., list[dict]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    jsonl(Path("0.jsonl"), [{"review": "a film", "label": "mine"}, {"note": "x", "review": "a plot"}])
    for source, output in (("0.jsonl", "1.csv"), ("1.csv", "2.csv"), ("2.csv", "3.csv")):
        assert predicted(f"predict.input={source}", f"predict.output={output}") == []
    header, first, second = csv.reader(Path("3.csv").read_text().splitlines())
    labels = ["input_label", "input_label_2", "input_label_3", "label"]
    assert [name for name in header if "label" in name] == labels
    assert dict(zip(header, first, strict=True))["input_label"] == "mine"
    assert dict(zip(header, second, strict=True))["note"] == "x"


@pytest.mark.parametrize(
    "text",
    [
        "Great film, isn't it?",
        'it costs $5 or ${oc.env:HOME}, "they" say \\',
        "hub: the place to be",
        "a: b, [c] {d} (e) #f = g",
        "see the notes in manual.txt",
        "~/x\n'y'",
    ],
)
def test_a_text_is_taken_as_it_is_typed(predicted: Callable[..., list[dict]], text: str):
    assert [row["text"] for row in predicted(f"predict.input={text}")] == [text]


def test_empty_texts_are_told_with_their_rows(directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = jsonl(tmp_path / "a.jsonl", [{"review": text} for text in ("a film", " ", "a plot", None)])
    options = [f"predict.model={directory}", f"predict.input={path}", f"predict.output={tmp_path / 'a.csv'}"]
    assert main(["predict", *options]) == 0
    assert "2 rows have an empty text, and are answered all the same: row 2, 4" in capsys.readouterr().err


def test_the_words_of_a_row_to_be_answered_are_texts(trained: Callable[[str], Trained], tmp_path: Path, capsys):
    path = jsonl(tmp_path / "a.jsonl", [{"tokens": [None, "film"]}])
    model = f"predict.model={trained('entities').directory}"
    assert main(["predict", model, f"predict.input={path}"]) == 2
    assert "a.jsonl:1: the text holds nothing, where a text should be" in capsys.readouterr().err


def test_a_reader_that_has_enough_is_no_error(directory: Path, monkeypatch: pytest.MonkeyPatch):
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as pipe:
        monkeypatch.setattr(sys, "stdout", pipe)
        assert main(["predict", f"predict.model={directory}", "predict.input=a wonderful film"]) == 0


def test_python_takes_a_text_a_list_and_a_frame(model: Predictor):
    answers = model(TEXTS)
    assert model(TEXTS[0]) == pytest.approx(answers[0], abs=1e-5)
    assert model([]) == []
    assert model(pandas.DataFrame({"id": range(len(TEXTS)), "review": TEXTS}, index=range(100, 110))) == answers
    with pytest.raises(UserError, match="DataFrame: row 7 has no text"):
        model(pandas.DataFrame({"review": ["x", None]}, index=[5, 7]))


def test_python_takes_named_fields(model: Predictor, trained: Callable[[str], Trained]):
    answers = model(TEXTS)
    rows = [{"id": number, "review": text} for number, text in enumerate(TEXTS)]
    assert model(rows) == model(Dataset.from_list(rows)) == answers
    assert model({"text": TEXTS[0], "label": "bad"}) == pytest.approx(answers[0], abs=1e-5)
    questions = load(trained("questions").directory, device="cpu")
    asked = {"question": "the plot is very what", "context": "the plot is moving", "id": 3}
    assert questions(asked) == questions([asked])[0] == questions(("the plot is very what", "the plot is moving"))
    words = load(trained("entities").directory, device="cpu")
    assert (
        words({"tokens": ["the", "film"]}) == words([{"tokens": numpy.array(["the", "film"])}])[0] == words("the film")
    )


@settings(max_examples=settings.default.max_examples // 5)
@given(texts=strategies.lists(UNICODE, max_size=9), window=strategies.integers(1, 4))
def test_each_row_has_one_answer_whatever_stands_beside_it(model: Predictor, texts: list[str], window: int):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scoring, "WINDOW", window)
        answers = model(texts)
    assert len(answers) == len(texts)
    for text, answer in zip(texts, answers, strict=True):
        assert model(text) == pytest.approx(answer, abs=1e-5)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (None, "None is no text; give a text"),
        (math.nan, "nan is no text"),
        (b"a film", "b'a film' is no text"),
        ([b"a film"], "entry 1: b'a film' is no text"),
        ("a film \ud83d", "the text contains half a character, such as \\ud83d alone; it was cut within an emoji"),
        ({"review": "\ud83d"}, "entry 1: the text contains half a character"),
        (["a film", None], "entry 2: None is no text"),
        (pandas.Series(["a film", math.nan]), "entry 2: nan is no text"),
        ([{"review": "a film"}, {"review": None}], "entry 2 has no text"),
        ([{"review": pandas.NA}], "entry 1 has no text"),
        ({"review": b"a film"}, "entry 1: the text is a bytes, where a text should be"),
        (Dataset.from_dict({"review": ["a", "b"]})[:2], "entry 1: the text is a list, where a text should be"),
        ({"txt": "a film"}, "entry 1: no column could be identified as the text; call it 'review'"),
        ({}, "entry 1: no column could be identified as the text"),
        (DatasetDict(test=Dataset.from_dict({"review": ["a"]})), r"call it 'review' (columns: test)"),
        (
            pandas.DataFrame([["a", "b"]], columns=["text", "text"]),
            "DataFrame: there are two columns 'text'; rename one",
        ),
    ],
)
def test_what_is_no_text_is_refused_in_python(model: Predictor, asked: object, message: str):
    with pytest.raises(UserError, match=re.escape(message)):
        model(asked)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "predict: what? Say predict.input=<a text, a file, or - for standard input>"),
        (["predict.input="], "predict: what? Say predict.input="),
        (["predict.input=tests.csv"], "predict.input=tests.csv: there is no such file; did you mean 'texts.csv'?"),
        (["predict.input=ids.csv"], "no column could be identified as the text; call it 'review' (columns: id, year)"),
        (["predict.input=texts.csv", "predict.output=a.xlsx"], "predict.output=a.xlsx: must end in .jsonl or .csv"),
        (["predict.input=texts.csv", "predict.output=texts.csv"], "predict.output=texts.csv: is the input"),
        (["predict.input=-"], "predict.input=-: line 1 is not UTF-8"),
        (["predict.input=folder"], "predict.input=folder: is a folder; name one of its files"),
        (["predict.input=words.txt"], "words.txt: holds a word and its tag a line; as a file call it .conll"),
    ],
)
def test_a_mistake_is_answered_before_the_model_is_loaded(
    directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], message: str
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(predictor, "Predictor", None)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"sch\xf6n\n")))
    Path("texts.csv").write_text("review\na film\n")
    Path("ids.csv").write_text("id,year\n1,1999\n")
    Path("words.txt").write_text("-DOCSTART- -X- O\n\nthe\tO\nfilm\tB-thing\n")
    Path("folder").mkdir()
    with pytest.raises(UserError, match=re.escape(message)):
        chain.run(compose([f"predict.model={directory}", *options]), ["predict"])


def test_a_model_without_the_head_answers_no_task(directory: Path, checkpoint: Path, tmp_path: Path):
    model = shutil.copytree(checkpoint, tmp_path / "model")
    shutil.copy(directory / RECIPE, model)
    with pytest.raises(
        UserError, match=r"TextClassification \(classifier\.bias, classifier\.weight\); name a model that"
    ):
        load(model)


def test_an_answer_that_is_no_number_is_an_error_that_names_its_rows(directory: Path):
    broken = load(directory, device="cpu")
    broken.model.classifier.bias.data.fill_(math.nan)
    with pytest.raises(UserError, match=r"^the model's logits are not finite on text:1, text:1; look at the rows"):
        broken(TEXTS[:2])


@pytest.mark.parametrize("cell", ["=1+1", "+1", "-cmd", "@a", "\t=1", "\r=1"])
def test_no_cell_of_a_csv_is_a_formula(cell: str):
    assert answers_csv.guarded(cell) == f"'{cell}"


def test_other_cells_of_a_csv_are_as_they_are():
    cells = ["a=1", "-1.5", "", "'", -1.5, None]
    assert [answers_csv.guarded(cell) for cell in cells] == cells


def test_what_is_not_sure_enough_is_a_guess(
    predicted: Callable[..., list[dict]], model: Predictor, tmp_path: Path, capsys
):
    file = tmp_path / "texts.txt"
    file.write_text("\n".join(TEXTS))
    answers = model(TEXTS)
    middle = sorted(answer["score"] for answer in answers)[len(TEXTS) // 2]
    given = predicted(f"predict.input={file}", f"predict.threshold={middle}")
    assert [row["guess"] for row in given] == [answer["label"] for answer in answers]
    assert [row["label"] is not None for row in given] == [answer["score"] >= middle for answer in answers]


def test_the_probability_of_a_precision_is_chosen_and_measured_on_rows_that_were_not_trained_on(
    directory: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(selective, "FEWEST", 5)
    options = ["predict", f"predict.model={directory}", f"predict.input='{TEXTS[0]}'"]
    assert main([*options, "predict.threshold=precision:0.5"]) == 0
    said = capsys.readouterr().err
    assert "chosen on the 12 validation rows" in said
    assert re.search(r"\d+\.\d% of the 24 test rows are answered, and \d+\.\d% of these right \(95 % interval", said)
    monkeypatch.setattr(selective, "FEWEST", 1000)
    assert main([*options, "predict.threshold=precision:0.5"]) == 2
    assert "no 1000 answers of the 12 validation rows are right so often" in capsys.readouterr().err


def test_a_model_that_the_same_command_makes_can_hold_answers_back(trained: Callable[[str], Trained]):
    resolved = resolve(compose([*trained("text classification").overrides, "finetune.seed=5", "predict.input=a"]))
    options = resolved.config.predict.model_copy(update={"threshold": 0.9})
    predict.check(resolved.variant(predict=options), ["finetune", "predict"])


@pytest.mark.parametrize("threshold", ["2", "precision:1.5", "sure"])
def test_a_threshold_is_a_probability_or_a_precision(threshold: str, capsys: pytest.CaptureFixture[str]):
    assert main(["predict", "predict.input=a", f"predict.threshold={threshold}"]) == 2
    assert f"predict.threshold={threshold}: should be a probability" in capsys.readouterr().err


def test_a_threshold_is_for_classes(trained: Callable[[str], Trained], capsys: pytest.CaptureFixture[str]):
    numbers = trained("numbers").directory
    assert main(["predict", f"predict.model={numbers}", "predict.input=a", "predict.threshold=0.5"]) == 2
    assert "is for tasks with one class a text" in capsys.readouterr().err
