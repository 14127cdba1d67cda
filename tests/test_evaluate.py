import csv
import json
import re
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet
import pytest
from samples import reviews

from ulmfit_style.__main__ import main
from ulmfit_style.artefacts import predictions
from ulmfit_style.artefacts.directory import METRICS
from ulmfit_style.metrics import classification


def option(overrides: list[str], name: str) -> Path:
    return Path(next(override for override in overrides if override.startswith(f"{name}=")).partition("=")[2])


def folder(overrides: list[str], role: str) -> Path:
    return option(overrides, "runs") / "default" / role


def metrics(overrides: list[str], role: str) -> dict:
    return json.loads((folder(overrides, role) / METRICS).read_text())


@pytest.mark.parametrize("split", ["test", "validation"])
def test_the_scores_are_exactly_those_that_finetune_found(finetuned: list[str], split: str):
    assert main(["evaluate", *finetuned, f"evaluate.split={split}"]) == 0
    found = metrics(finetuned, "evaluate")
    assert found[split] == metrics(finetuned, "finetune")[split]
    assert 0.5 < found[split]["scores"]["accuracy"] < 1  # or the test would say little


def test_the_labelled_training_rows_can_be_scored_too(finetuned: list[str]):
    assert main(["evaluate", *finetuned, "evaluate.split=train", "task.train_samples=null"]) == 0
    assert metrics(finetuned, "evaluate")["train"]["rows"] == metrics(finetuned, "finetune")["train"]["rows"]


def test_every_score_and_every_class_is_printed_with_what_it_rests_on(
    finetuned: list[str], capsys: pytest.CaptureFixture[str]
):
    assert main(["evaluate", *finetuned]) == 0
    printed = capsys.readouterr().out
    measured = metrics(finetuned, "evaluate")["test"]
    assert f"test: 24 rows, answered by {folder(finetuned, 'finetune').resolve()}" in printed
    for name, (low, high) in measured["intervals"].items():
        assert f"│ {name} │ {measured['scores'][name]:.3f} │ {low:.3f} to {high:.3f} │" in re.sub(" +", " ", printed)
    assert list(measured["intervals"]) == ["accuracy", "macro_f1", "micro_f1", "matthews"]
    assert [(entry["class"], entry["rows"]) for entry in measured["report"]] == [("bad", 14), ("good", 10)]
    assert f"│ bad │ {measured['report'][0]['precision']:.3f} │" in re.sub(" +", " ", printed)


def test_the_predictions_are_those_of_the_scores_and_know_their_rows(finetuned: list[str]):
    assert main(["evaluate", *finetuned]) == 0
    table = pyarrow.parquet.read_table(folder(finetuned, "evaluate") / predictions.FILE).to_pylist()
    lines = option(finetuned, "task.path").read_text().splitlines()
    for found in table:
        assert (found["split"], found["file"]) == ("test", option(finetuned, "task.path").name)
        assert found["target"] == lines[found["row"] - 1].split(",")[1]
    scores = classification.scores([found["label"] for found in table], [found["target"] for found in table])
    assert scores == metrics(finetuned, "evaluate")["test"]["scores"]


def test_a_finished_evaluation_is_answered_without_torch_and_without_evaluate(finetuned: list[str]):
    assert main(["evaluate", *finetuned]) == 0
    code = "import sys; from ulmfit_style.__main__ import main; code = main(sys.argv[1:]); "
    code += "sys.exit(code or bool({'torch', 'transformers', 'evaluate', 'datasets', 'pandas'} & set(sys.modules)))"
    command = [sys.executable, "-c", code, "evaluate", *finetuned]
    again = subprocess.run(command, capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    assert "evaluate: the test rows: up to date" in again.stdout
    assert "matthews" in again.stdout


def test_another_file_is_scored_whole(finetuned: list[str], tmp_path: Path):
    path = tmp_path / "others.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("stars", "review"), *((label, text) for text, label, _ in reviews(30, seed=1))])
    assert main(["evaluate", *finetuned, f"evaluate.path={path}"]) == 0
    found = predictions.read(folder(finetuned, "evaluate"), "all")
    assert [(entry["file"], entry["row"]) for entry in found] == [("others.csv", line) for line in range(2, 32)]
    assert metrics(finetuned, "evaluate")["all"]["rows"] == 30


def test_a_model_named_by_its_directory_has_the_same_scores(finetuned: list[str]):
    # The recipe of another model, which nobody has made.
    named = [*finetuned, "finetune.seed=5", f"evaluate.model={folder(finetuned, 'finetune')}"]
    assert main(["evaluate", *named]) == 0
    assert metrics(finetuned, "evaluate")["test"] == metrics(finetuned, "finetune")["test"]


def test_each_choice_of_model_and_rows_is_an_artefact_of_its_own(finetuned: list[str]):
    before = set(option(finetuned, "runs").glob("evaluate-*"))
    path = f"evaluate.path={option(finetuned, 'task.path')}"
    for choice in ([path], [path, f"evaluate.model={folder(finetuned, 'finetune')}"], [path, "evaluate.split=train"]):
        assert main(["evaluate", *finetuned, *choice]) == 0
    # `split` says nothing about another file.
    assert len(set(option(finetuned, "runs").glob("evaluate-*")) - before) == 2


@pytest.mark.parametrize(
    ("overrides", "content", "message"),
    [
        (["evaluate.split=tests"], None, "evaluate.split=tests: should be 'test', 'validation' or 'train'"),
        (["evaluate.path=nowhere.csv"], None, "evaluate.path=nowhere.csv: there is no such file"),
        (["evaluate.path=1.csv"], "review,star\nx,good\n", "has no column 'stars'; did you mean 'star'?"),
        (
            ["evaluate.path=2.csv"],
            "review,stars\nx,fine\n",
            "2.csv:2: the label 'fine' is one that the model does not know",
        ),
        (["evaluate.path=3.csv"], "review,stars\n,good\n", "3.csv:2: the text is empty"),
        (["evaluate.path=4.csv"], "review,stars\n", "holds no rows"),
        (["evaluate.model=nowhere/at/all"], None, "evaluate.model=nowhere/at/all: is neither a directory nor a Hub id"),
        (["finetune.seed=9"], None, "finetune.seed=0 there, 9 here); run `finetune evaluate` with the same options"),
    ],
)
def test_a_mistake_is_answered_with_its_place(
    finetuned: list[str],
    overrides: list[str],
    content: str | None,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.chdir(tmp_path)
    if content is not None:
        Path(overrides[0].partition("=")[2]).write_text(content)
    assert main(["evaluate", *finetuned, *overrides]) == 2
    assert message in capsys.readouterr().err


def test_a_model_of_another_kind_of_task_is_refused(
    finetuned: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "numbers.csv").write_text("review,stars\n" + "".join(f"film {n},{n}\n" for n in range(60)))
    others = ["task=text_regression", f"task.path={tmp_path / 'numbers.csv'}"]
    assert main(["evaluate", *finetuned, *others, f"evaluate.model={folder(finetuned, 'finetune')}"]) == 2
    assert "was trained on TextClassification, and the task is TextRegression" in capsys.readouterr().err


def test_in_a_chain_the_rows_to_score_are_read_before_anything_is_trained(
    tiny_overrides: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert (
        main(["adapt", "finetune", "evaluate", *tiny_overrides, "adapt.general=null", "evaluate.path=nowhere.csv"]) == 2
    )
    assert "evaluate.path=nowhere.csv: there is no such file" in capsys.readouterr().err
    assert not list((tmp_path / "runs").glob("*"))
