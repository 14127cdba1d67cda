import csv
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from recipes import Trained

from ulmfit_style.__main__ import main
from ulmfit_style.artefacts import predictions
from ulmfit_style.artefacts.directory import METRICS, read_json


@pytest.fixture(scope="module")
def run(trained: Callable[[str], Trained]) -> Trained:
    return trained("text classification")


@pytest.fixture
def evaluate(run: Trained) -> Callable[..., Path]:
    """Run `evaluate` with options, and return what it made."""

    def evaluate(*options: str) -> Path:
        assert main(["evaluate", *run.overrides, *options]) == 0
        return (run.runs / "default/evaluate").resolve()

    return evaluate


def test_each_split_can_be_scored(run: Trained, evaluate: Callable[..., Path]):
    validation = read_json(evaluate("evaluate.split=validation") / METRICS)
    assert validation["validation"] == run.metrics["validation"]
    train = read_json(evaluate("evaluate.split=train") / METRICS)
    assert train["train"]["rows"] == run.metrics["train"]["rows"]


def test_a_finished_evaluation_is_shown_without_torch_and_without_evaluate(run: Trained, evaluate: Callable[..., Path]):
    measured = read_json(evaluate() / METRICS)["test"]
    code = "import sys; from ulmfit_style.__main__ import main; code = main(sys.argv[1:]); "
    code += "sys.exit(code or bool({'torch', 'transformers', 'evaluate', 'datasets', 'pandas'} & set(sys.modules)))"
    command = [sys.executable, "-c", code, "evaluate", *run.overrides]
    again = subprocess.run(command, capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    assert "[1/1] evaluate: scores: up to date" in again.stdout
    assert f"test: 24 rows, answered by {run.directory}" in again.stdout
    assert [(entry["class"], entry["rows"]) for entry in measured["report"]] == [("bad", 14), ("good", 10)]
    words = " ".join(again.stdout.split())
    for name, (low, high) in measured["intervals"].items():
        assert f"│ {name} │ {measured['scores'][name]:.3f} │ {low:.3f} to {high:.3f} │" in words
    assert f"│ bad │ {measured['report'][0]['precision']:.3f} │" in words


def test_another_file_is_scored_whole_and_a_model_can_be_named(
    run: Trained, evaluate: Callable[..., Path], tmp_path: Path
):
    path = tmp_path / "others.csv"
    with run.file.open(newline="") as file, path.open("w", newline="") as others:
        csv.writer(others).writerows(reversed(row) for row in list(csv.reader(file))[:31])
    directory = evaluate(f"evaluate.path={path}", "evaluate.split=train")
    rows = predictions.read(directory, "all")
    assert [(row["file"], row["row"]) for row in rows] == [("others.csv", line) for line in range(2, 32)]
    assert [row["target"] for row in rows] == [line.split(",")[1] for line in path.read_text().splitlines()[1:]]
    assert evaluate(f"evaluate.path={path}") == directory  # `split` says nothing about another file
    # The recipe is that of another model, which nobody has made.
    named = evaluate(f"evaluate.path={path}", "finetune.seed=5", f"evaluate.model={run.directory}")
    assert named != directory
    assert read_json(named / METRICS)["all"] == read_json(directory / METRICS)["all"]


@pytest.mark.parametrize(
    ("overrides", "content", "message"),
    [
        (["evaluate.path=1.csv"], "review,star\nx,good\n", "has no column 'stars'; did you mean 'star'?"),
        (
            ["evaluate.path=2.csv"],
            "review,stars\nx,fine\n",
            "2.csv:2: the label 'fine' is one that the model does not know",
        ),
        (["evaluate.model=nowhere/at/all"], "", "evaluate.model=nowhere/at/all: is no directory, and cannot be had"),
        (["finetune.seed=9"], "", "finetune.seed=0 instead of 9); run `finetune evaluate` with the same options"),
        (
            ["task=text_regression", "task.path=3.csv", "evaluate.model={model}"],
            "review,stars\n" + "".join(f"film {number},{number}\n" for number in range(60)),
            "was trained on TextClassification, and the task is TextRegression",
        ),
    ],
)
def test_a_mistake_is_answered_with_its_place(
    run: Trained,
    overrides: list[str],
    content: str,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.chdir(tmp_path)
    for name in ("1.csv", "2.csv", "3.csv"):
        Path(name).write_text(content)
    options = [override.format(model=run.directory) for override in overrides]
    assert main(["evaluate", *run.overrides, *options]) == 2
    assert message in capsys.readouterr().err


def test_in_a_chain_the_rows_to_score_are_read_before_anything_is_trained(
    tiny_overrides: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    options = [*tiny_overrides, "adapt.general=null", "evaluate.path=nowhere.csv"]
    assert main(["adapt", "finetune", "evaluate", *options]) == 2
    assert "evaluate.path=nowhere.csv: there is no such file" in capsys.readouterr().err
    assert not list((tmp_path / "runs").glob("*"))
