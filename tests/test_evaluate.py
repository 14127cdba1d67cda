import csv
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from recipes import Trained

from ulmfit_style import chain
from ulmfit_style.__main__ import main
from ulmfit_style.artefacts import predictions
from ulmfit_style.artefacts.directory import METRICS, read_json
from ulmfit_style.cli.compose import compose
from ulmfit_style.data import labelled
from ulmfit_style.errors import UserError


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
    assert f"│ accuracy │ {measured['scores']['accuracy']:.3f} │" in words
    assert f"│ bad │ {measured['report'][0]['precision']:.3f} │" in words


def test_another_split_or_file_is_scored_and_a_model_can_be_named(
    run: Trained, evaluate: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = tmp_path / "others.csv"
    with run.file.open(newline="") as file, path.open("w", newline="") as others:
        csv.writer(others).writerows(reversed(row) for row in list(csv.reader(file))[:31])
    metrics = read_json(evaluate("evaluate.split=validation") / METRICS)
    assert metrics["validation"] == run.metrics["validation"]
    directory = evaluate(f"evaluate.path={path}", "evaluate.split=train")
    rows = predictions.read(directory, "all")
    assert [(row["file"], row["row"]) for row in rows] == [("others.csv", line) for line in range(2, 32)]
    assert [row["target"] for row in rows] == [line.split(",")[1] for line in path.read_text().splitlines()[1:]]
    assert evaluate(f"evaluate.path={path}") == directory  # `split` says nothing about another file
    # The recipe is that of another model, which nobody has made.
    named = evaluate(f"evaluate.path={path}", "finetune.seed=5", f"evaluate.model={run.directory}")
    assert named != directory
    # No task is chosen: it is that of the model, whose own rows may be gone.
    monkeypatch.setattr(labelled, "load", lambda task: pytest.fail("the rows that it was trained on are read"))
    assert main(["evaluate", f"evaluate.model={run.directory}", f"evaluate.path={path}", f"runs={tmp_path}"]) == 0
    assert read_json(tmp_path / "default/evaluate" / METRICS)["all"] == read_json(named / METRICS)["all"]
    assert read_json(named / METRICS)["all"] == read_json(directory / METRICS)["all"]


@pytest.mark.parametrize(
    ("overrides", "content", "message"),
    [
        (["evaluate.path=1.csv"], "review,stars\nx,fine\n", "1.csv:2: the label 'fine' is one that the model does not"),
        (["evaluate.path=nowhere.csv", "finetune.seed=9"], "", "evaluate.path=nowhere.csv: there is no such file"),
        (["finetune.seed=9"], "", "finetune.seed=0 instead of 9); run `finetune evaluate` with the same options"),
        (
            ["task=text_regression", "task.path=1.csv", "evaluate.model={model}"],
            "review,stars\n" + "".join(f"film {number},{number}\n" for number in range(60)),
            "was trained on TextClassification, and the task is TextRegression",
        ),
    ],
)
def test_a_mistake_is_answered_with_its_place(
    run: Trained, overrides: list[str], content: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    Path("1.csv").write_text(content)
    options = [override.format(model=run.directory) for override in overrides]
    # In a chain nothing is trained before.
    stages = ["finetune", "evaluate"] if "nowhere" in overrides[0] else ["evaluate"]
    with pytest.raises(UserError, match=re.escape(message)):
        chain.run(compose([*run.overrides, *options]), stages)
