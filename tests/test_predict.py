import csv
import gzip
import io
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas
import pyarrow
import pyarrow.parquet
import pytest
from samples import jsonl, reviews

from ulmfit_style import load, predictor
from ulmfit_style.__main__ import main
from ulmfit_style.errors import UserError
from ulmfit_style.predictor import Predictor
from ulmfit_style.stages import predict
from ulmfit_style.tasks.base import Row
from ulmfit_style.training import scoring

TEXTS = [text for text, _, _ in reviews(10, seed=3)]


@pytest.fixture(scope="module")
def directory(finetuned: list[str]) -> Path:
    runs = next(override for override in finetuned if override.startswith("runs="))
    return Path(runs.removeprefix("runs=")) / "default/finetune"


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


def test_a_text_a_file_and_standard_input_are_answered_as_in_python(
    predicted: Callable[..., list[dict]], model: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    expected = [{"text": text, **answer} for text, answer in zip(TEXTS, model(TEXTS), strict=True)]
    assert {answer["label"] for answer in expected} == {"good", "bad"}  # or the order would not be tested

    (alone,) = predicted(f"predict.input='{TEXTS[0]}'")
    assert alone == pytest.approx(expected[0], abs=1e-5)

    (tmp_path / "texts.txt").write_text("\n".join(TEXTS) + "\n")
    assert predicted(f"predict.input={tmp_path / 'texts.txt'}") == expected

    lines = io.BytesIO("\r\n".join(TEXTS).encode())
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(lines))
    assert predicted("predict.input=-") == expected


def test_the_configs_own_model_is_the_default(finetuned: list[str], model: Predictor, capsys):
    assert main(["predict", *finetuned, f"predict.input='{TEXTS[0]}'"]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out) == {"text": TEXTS[0], **model(TEXTS[0])}
    assert "predict: rows answered by" in printed.err


@pytest.mark.parametrize("suffix", ["csv", "csv.gz", "jsonl", "parquet"])
def test_the_other_columns_are_carried_along_in_the_order_of_the_rows(
    predicted: Callable[..., list[dict]], model: Predictor, tmp_path: Path, suffix: str
):
    rows = [{"id": f"row {number}", "review": text, "note": "ä"} for number, text in enumerate(TEXTS)]
    path = tmp_path / f"texts.{suffix}"
    lines = io.StringIO()
    writer = csv.DictWriter(lines, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    if suffix == "jsonl":
        jsonl(path, rows)
    elif suffix == "parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    else:
        content = lines.getvalue().encode()
        path.write_bytes(gzip.compress(content) if suffix.endswith("gz") else content)
    expected = [{**row, **answer} for row, answer in zip(rows, model(TEXTS), strict=True)]
    assert predicted(f"predict.input={path}") == expected

    assert predicted(f"predict.input={path}", f"predict.output={tmp_path / 'out.csv'}") == []
    with (tmp_path / "out.csv").open(newline="", encoding="utf-8") as file:
        found = list(csv.DictReader(file))
    assert found == [{name: str(value) for name, value in row.items()} for row in expected]


def test_a_column_of_another_name_is_taken_if_its_name_leaves_no_doubt(
    predicted: Callable[..., list[dict]], tmp_path: Path
):
    path = jsonl(tmp_path / "a.jsonl", [{"Body": TEXTS[0], "label": "of the user's own"}])
    (found,) = predicted(f"predict.input={path}")
    assert found["Body"] == TEXTS[0]
    assert found["label"] in {"good", "bad"}
    assert found["input_label"] == "of the user's own"


def test_what_is_renamed_or_cut_or_has_no_text_is_said(
    directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    long = {"review": "a film " * 100, "label": 1}
    path = jsonl(tmp_path / "a.jsonl", [long, {"review": None}, {"review": "  "}])
    assert main(["predict", f"predict.model={directory}", f"predict.input={path}"]) == 0
    said = capsys.readouterr().err
    assert "the input's own column 'label' is 'input_label' in the output" in said
    assert "2 rows have an empty text" in said
    assert "1 rows are longer than the 32 tokens" in said


def test_rows_are_answered_and_written_while_the_rest_is_not_yet_read(
    model: Predictor, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(scoring, "WINDOW", 4)
    read = written = 0

    def rows() -> Iterator[tuple[Row, dict]]:
        nonlocal read
        for _ in range(40):
            read += 1
            yield model.task.row("a film"), {"number": read}

    def write(record: dict) -> None:
        nonlocal written
        written += 1
        assert record["number"] == written
        assert read - written < 4

    assert predict._answer(model, rows(), write, None, None) == 40


def test_a_file_is_read_row_by_row(model: Predictor, tmp_path: Path):
    path = jsonl(tmp_path / "a.jsonl", [{"review": "a film"}] * 3)
    with path.open("a") as file:
        file.write("{broken\n")
    rows = predict._rows(model.task, str(path), None)
    assert [next(rows)[1]["review"] for _ in range(3)] == ["a film"] * 3
    with pytest.raises(UserError, match=r"a\.jsonl:4: is not JSON"):
        next(rows)


def test_a_file_of_answers_is_there_whole_or_not_at_all(
    directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(scoring, "WINDOW", 4)
    path = jsonl(tmp_path / "a.jsonl", [{"review": "a film"}] * 9)
    with path.open("a") as file:
        file.write("{broken\n")
    out = tmp_path / "out.jsonl"
    out.write_text("what was there\n")
    assert main(["predict", f"predict.model={directory}", f"predict.input={path}", f"predict.output={out}"]) == 2
    assert out.read_text() == "what was there\n"
    assert {inside.name for inside in tmp_path.iterdir()} == {"a.jsonl", "out.jsonl"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "predict: what? Say predict.input=<a text, a file, or - for standard input>"),
        (["predict.input=tests.csv"], "predict.input=tests.csv: there is no such file; did you mean 'texts.csv'?"),
        (["predict.input=texts.docx"], "files of type '.docx' cannot be read"),
        (["predict.input=empty.csv"], "predict.input=empty.csv: holds no rows"),
        (["predict.input=ids.csv"], "no column could be identified as the text; call it 'review' (columns: id, year)"),
        (["predict.input=texts.csv", "predict.output=a.xlsx"], "predict.output=a.xlsx: must end in .jsonl or .csv"),
        (["predict.input=texts.csv", "predict.output=folder.csv"], "predict.output=folder.csv: is a folder"),
        (["predict.input=texts.csv", "predict.output=no/a.csv"], "predict.output=no/a.csv: there is no folder no"),
        (["predict.input=texts.csv", "predict.output=texts.csv"], "predict.output=texts.csv: is the input"),
        (["predict.input=texts.csv", f"predict.output={'a' * 250}.csv"], "cannot be written (File name too long)"),
        (["predict.input=x", "predict.model=no/model/here"], "predict.model=no/model/here: is neither a directory nor"),
        (["predict.input=x", "predict.model=."], "predict.model=.: holds no config.json"),
    ],
)
def test_a_mistake_is_answered_before_the_model_is_loaded(
    directory: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    message: str,
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(predictor, "Predictor", None)
    Path("texts.csv").write_text("review\na film\n")
    Path("folder.csv").mkdir()
    Path("texts.docx").write_text("a film")
    Path("empty.csv").write_text("review\n")
    Path("ids.csv").write_text("id,year\n1,1999\n")
    assert main(["predict", f"predict.model={directory}", *options]) == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert printed.out == ""


def test_without_a_finished_model_the_command_that_makes_one_is_named(
    finetuned: list[str], capsys: pytest.CaptureFixture[str]
):
    assert main(["predict", *finetuned, "finetune.seed=9", "predict.input=x"]) == 2
    assert "run `finetune` with the same options" in capsys.readouterr().err


def test_a_line_that_is_not_utf8_is_named(directory: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"a film\nsch\xf6n\n")))
    assert main(["predict", f"predict.model={directory}", "predict.input=-"]) == 2
    assert "predict.input=-: line 2 is not UTF-8" in capsys.readouterr().err


def test_a_column_that_comes_later_does_not_fit_into_csv(
    directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    path = jsonl(tmp_path / "a.jsonl", [{"review": "x"}, {"review": "y", "year": 1999}])
    out = tmp_path / "out.csv"
    assert main(["predict", f"predict.model={directory}", f"predict.input={path}", f"predict.output={out}"]) == 2
    assert "the column 'year' is in a later row" in capsys.readouterr().err
    assert not out.exists()


def test_a_reader_that_has_enough_is_no_error(directory: Path, tmp_path: Path):
    (tmp_path / "texts.txt").write_text("a wonderful film\n" * 5000)
    command = f"{sys.executable} -m ulmfit_style predict predict.model={directory} predict.input=texts.txt | head -n 1"
    ended = subprocess.run(command, shell=True, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert json.loads(ended.stdout)["text"] == "a wonderful film"
    assert ended.stderr == ""


def test_python_takes_a_text_a_list_and_a_frame(model: Predictor):
    found = model(TEXTS)
    assert model(TEXTS[0]) == pytest.approx(found[0], abs=1e-5)
    assert model(tuple(TEXTS)) == found
    assert model([]) == []
    frame = pandas.DataFrame({"id": range(len(TEXTS)), "review": TEXTS}, index=range(100, 100 + len(TEXTS)))
    assert model(frame) == found
    assert model(frame.rename(columns={"review": "text"})) == found


def test_a_frame_without_texts_is_refused(model: Predictor):
    with pytest.raises(
        UserError, match=r"DataFrame: no column could be identified as the text; call it 'review' \(columns: id\)"
    ):
        model(pandas.DataFrame({"id": [1]}))
    with pytest.raises(UserError, match="DataFrame: row 7 has no text"):
        model(pandas.DataFrame({"review": ["x", None]}, index=[5, 7]))


def test_a_device_that_is_not_there_is_refused(directory: Path):
    with pytest.raises(UserError, match="device=gpu: cannot be used"):
        load(directory, device="gpu")


def test_an_adapted_language_model_answers_no_task(tiny_overrides: list[str], tmp_path: Path):
    assert main(["adapt", *tiny_overrides]) == 0
    with pytest.raises(UserError, match="is a BertForMaskedLM, and lacks a task's head"):
        load(tmp_path / "runs/default/adapt")
