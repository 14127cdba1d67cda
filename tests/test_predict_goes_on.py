"""`predict` of a file, by several processes, and after it was stopped."""

import csv
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from functools import wraps
from pathlib import Path

import pytest
from recipes import Trained
from safetensors.torch import load_file, save_file
from samples import jsonl, reviews

from ulmfit_style.__main__ import main
from ulmfit_style.artefacts.directory import MANIFEST
from ulmfit_style.cli.compose import compose
from ulmfit_style.compute import processes
from ulmfit_style.models.checkpoints import WEIGHTS
from ulmfit_style.predictor import Predictor
from ulmfit_style.stages import predict
from ulmfit_style.training import scoring

ROWS = [{"id": number, "review": text, "label": "mine"} for number, (text, _, _) in enumerate(reviews(40, seed=3))]
ROWS[5]["review"] = " "
ROWS[21]["review"] = "the film is good " * 60
"""Which is cut."""


class Asked:
    """How many rows `Predictor.stream` is asked, and after how many windows a signal comes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.rows, self.windows_left = 0, -1
        stream = Predictor.stream

        @wraps(stream)
        def counted(model: Predictor, rows: Iterable, *arguments: object) -> Iterator[dict]:
            if self.windows_left == 0:
                signal.raise_signal(signal.SIGINT)
            self.windows_left -= 1
            window = list(rows)
            self.rows += len(window)
            return stream(model, window, *arguments)

        monkeypatch.setattr(Predictor, "stream", counted)

    def stopped_after(self, windows: int, command: list[str]) -> None:
        self.windows_left = windows
        assert main(command) == 130
        self.rows, self.windows_left = 0, -1


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    monkeypatch.setattr(scoring, "WINDOW", 8)
    return Asked(monkeypatch)


@pytest.fixture
def directory(trained: Callable[[str], Trained]) -> Path:
    return trained("text classification").directory


def command(directory: Path, source: Path, output: Path, *options: str) -> list[str]:
    return ["predict", f"predict.model={directory}", f"predict.input={source}", f"predict.output={output}", *options]


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_what_was_answered_before_a_stop_is_not_answered_again_and_all_is_counted(
    ending: str, directory: Path, asked: Asked, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    source, output, whole = jsonl(tmp_path / "a.jsonl", ROWS), tmp_path / f"b.{ending}", tmp_path / f"c.{ending}"
    assert main(command(directory, source, whole)) == 0
    assert asked.rows == 40
    expected = capsys.readouterr().err
    assert "1 rows are longer than" in expected
    assert "1 rows have an empty text, and are answered all the same: row 6" in expected
    threshold = "predict.threshold=0.7"  # which is applied to the answers that are kept, too
    assert main(command(directory, source, whole, threshold)) == 0
    assert capsys.readouterr().err != expected

    asked.stopped_after(3, command(directory, source, output))
    assert not output.exists()
    capsys.readouterr()
    assert main(command(directory, source, output)) == 0
    assert asked.rows == 16
    goes_on, _, said = capsys.readouterr().err.partition("\n")
    assert (
        goes_on
        == f"predict: goes on: of 3 windows of answers in {tmp_path}/.b.{ending}.windows those that fit are taken"
    )
    assert said == expected.replace(str(whole), str(output))
    asked.rows = 0
    asked.stopped_after(2, command(directory, source, output, threshold))
    assert main(command(directory, source, output, threshold)) == 0
    assert asked.rows == 24
    assert output.read_bytes() == whole.read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {source.name, output.name, whole.name}


@pytest.mark.parametrize(
    ("options", "rows", "again"),
    [
        ([], ROWS, 16),
        (["predict.threshold=0.6"], ROWS, 16),
        (["predict.task.top_k=all"], ROWS, 40),
        ([], [{**ROWS[0], "review": "another film"}, *ROWS[1:]], 24),
        ([], [*ROWS, *ROWS[:1]], 17),
        ([], ROWS[1:], 39),
        ([], [{**row, "id": 0} for row in ROWS], 16),  # what is answered is the same
    ],
    ids=["the same", "threshold", "top_k", "a text", "a row more", "a row fewer", "another column"],
)
def test_answers_to_other_texts_or_by_other_options_are_not_taken(
    options: list[str], rows: list[dict], again: int, directory: Path, asked: Asked, tmp_path: Path
):
    source, output = jsonl(tmp_path / "a.jsonl", ROWS), tmp_path / "b.jsonl"
    asked.stopped_after(3, command(directory, source, output))
    jsonl(source, rows)
    assert main(command(directory, source, output, *options)) == 0
    assert asked.rows == again
    assert [json.loads(line)["id"] for line in output.read_text().splitlines()] == [row["id"] for row in rows]
    asked.rows = 0
    assert main(command(directory, source, tmp_path / "c.jsonl", *options)) == 0
    assert asked.rows == len(rows)
    assert output.read_text() == (tmp_path / "c.jsonl").read_text()


def test_answers_of_another_model_are_not_taken(directory: Path, asked: Asked, tmp_path: Path):
    source, output, other = jsonl(tmp_path / "a.jsonl", ROWS), tmp_path / "b.jsonl", tmp_path / "other"
    asked.stopped_after(3, command(directory, source, output))
    shutil.copytree(directory, other)
    (other / MANIFEST).unlink()
    weights = load_file(other / WEIGHTS)
    save_file({name: -weight for name, weight in weights.items()}, other / WEIGHTS, {"format": "pt"})
    assert main(command(other, source, output)) == 0
    assert asked.rows == 40


def test_a_mistake_that_was_mended_loses_no_answers(
    directory: Path, asked: Asked, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    source, output = jsonl(tmp_path / "a.jsonl", [*ROWS[:20], {"review": ["x"]}, *ROWS[20:]]), tmp_path / "b.csv"
    assert main(command(directory, source, output)) == 2
    assert "a.jsonl:21: the text is a list, where a text should be" in capsys.readouterr().err
    assert asked.rows == 16
    jsonl(source, ROWS)
    assert main(command(directory, source, output)) == 0
    assert asked.rows == 40
    with output.open(newline="", encoding="utf-8") as file:
        assert [int(row["id"]) for row in csv.DictReader(file)] == list(range(40))


def test_standard_input_that_goes_to_a_file_goes_on_too(
    directory: Path, asked: Asked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def typed() -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"the film is good\n" * 20)))

    typed()
    asked.stopped_after(1, command(directory, Path("-"), tmp_path / "b.jsonl"))
    typed()
    assert main(command(directory, Path("-"), tmp_path / "b.jsonl")) == 0
    assert asked.rows == 4  # for the second window is as the first one
    assert "predict: goes on: of 1 windows of answers" in capsys.readouterr().err
    assert len((tmp_path / "b.jsonl").read_text().splitlines()) == 20


def test_explanations_go_on_too(directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("captum")
    monkeypatch.setattr("ulmfit_style.stages.predict.SLOW_WINDOW", 2)
    source, output = jsonl(tmp_path / "a.jsonl", ROWS[:6]), tmp_path / "b.jsonl"
    explained = command(directory, source, output, "predict.explain=true")
    assert main(explained) == 0
    expected = output.read_text(), output.with_suffix(".html").read_text()
    asked = Asked(monkeypatch)
    asked.stopped_after(2, explained)
    assert main(explained) == 0
    assert (output.read_text(), output.with_suffix(".html").read_text()) == expected


@pytest.mark.parametrize("given", ["predict.input=a film", "predict.input={source}"])
def test_it_is_told_where_one_process_answers_though_several_are_asked_for(
    given: str, directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    source = jsonl(tmp_path / "a.jsonl", ROWS)
    assert main(["predict", f"predict.model={directory}", given.format(source=source), "processes=2"]) == 0
    said = "processes=2: one answers; several can share a file that is answered to predict.output"
    assert said in capsys.readouterr().err


def test_each_of_several_processes_answers_its_windows_alone(
    directory: Path, asked: Asked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    source, folder = jsonl(tmp_path / "a.jsonl", ROWS), tmp_path / "kept"
    options = compose(command(directory, source, tmp_path / "b.csv")[1:]).predict.model_dump_json()
    for rank, rows in ((0, 16), (1, 16), (2, 8)):  # of five windows
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setattr(processes, "count", lambda: 3)
        asked.rows = 0
        predict.answer_share(str(folder), options)
        assert asked.rows == rows
    assert len(list(folder.iterdir())) == 5


MANY = [{"id": number, "text": f"the film number {number} is {'good' * (number % 2)}"} for number in range(9000)]
"""Five windows of the size that they have."""


def test_two_processes_answer_as_one_and_the_rows_keep_their_order(
    directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    source, one, two = jsonl(tmp_path / "a.jsonl", MANY), tmp_path / "one.csv", tmp_path / "two.csv"
    assert main(command(directory, source, one, "processes=1")) == 0
    expected = capsys.readouterr().err
    asked = Asked(monkeypatch)
    assert main(command(directory, source, two, "processes=2")) == 0
    assert asked.rows == 0  # by this process, which puts together what the others answered
    assert capsys.readouterr().err == expected.replace(str(one), str(two))
    assert two.read_bytes() == one.read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {source.name, one.name, two.name}


def test_a_mistake_in_a_row_ends_both_processes_with_a_line(directory: Path, tmp_path: Path, capfd):
    source = jsonl(tmp_path / "a.jsonl", [*MANY[:3000], {"text": ["x"]}])
    assert main(command(directory, source, tmp_path / "b.csv", "processes=2")) == 2
    errors = capfd.readouterr().err
    assert "a.jsonl:3001: the text is a list, where a text should be" in errors
    assert "ulmfit-style: a process ended with exit code 2; what it said stands above" in errors
    assert "Traceback" not in errors


@pytest.mark.slow
@pytest.mark.parametrize("killed", ["one process", "both", "one of two", "the launcher of two", "ctrl-c"])
def test_after_a_kill_any_number_of_processes_goes_on(
    killed: str, directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    rows = [{"text": f"the film number {number} is {'very ' * 30} good"} for number in range(30_000)]
    source, output, whole = jsonl(tmp_path / "a.jsonl", rows), tmp_path / "b.csv", tmp_path / "c.csv"
    count = 1 if killed == "one process" else 2
    typed = [sys.executable, "-m", "ulmfit_style", *command(directory, source, output, f"processes={count}")]
    with subprocess.Popen(typed, stderr=subprocess.PIPE, text=True, start_new_session=True) as launcher:
        while len(list(tmp_path.glob(".b.csv.windows/*.json"))) < 3:
            assert launcher.poll() is None
            time.sleep(0.01)
        listed = ["ps", "-o", "pid=", "--ppid", str(launcher.pid)]
        ranks = [int(line) for line in subprocess.run(listed, capture_output=True, check=False).stdout.split()]
        if killed == "ctrl-c":
            os.killpg(launcher.pid, signal.SIGINT)
        elif killed == "one of two":
            os.kill(ranks[1], signal.SIGKILL)
        else:
            for process in [launcher.pid, *(ranks if killed == "both" else [])]:
                os.kill(process, signal.SIGKILL)
        _, errors = launcher.communicate(timeout=60)
    assert launcher.returncode == {"one of two": 2, "ctrl-c": 130}.get(killed, -signal.SIGKILL)
    assert errors.count("interrupted; what was finished is kept") == (killed == "ctrl-c")
    assert "Traceback" not in errors
    time.sleep(3)  # after which the others have seen that they are alone
    assert not output.exists()
    kept = len(list(tmp_path.glob(".b.csv.windows/*.json")))
    assert 3 <= kept < 14

    asked = Asked(monkeypatch)
    assert main(command(directory, source, output, "processes=1")) == 0
    assert 30_000 - kept * 2048 <= asked.rows <= 30_000 - (kept - 1) * 2048 - 30_000 % 2048
    assert main(command(directory, source, whole, "processes=1")) == 0
    assert output.read_bytes() == whole.read_bytes()
