"""What every kind of task holds, from its rows to its card."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from recipes import KINDS, Trained, recipe

from ulmfit_style import load
from ulmfit_style.__main__ import main
from ulmfit_style.artefacts import predictions
from ulmfit_style.cli.compose import compose
from ulmfit_style.data import labelled, reading
from ulmfit_style.errors import UserError
from ulmfit_style.publishing import export

FLOORS = {
    "text classification": 0.6,
    "pairs": 0.8,
    "several labels": 0.9,
    "numbers": 0.9,
    "entities": 0.9,
    "questions": 0.7,
    "summaries": 0.9,
    "translations": 0.9,
    "completions": 0.9,
}
"""What the metric of each recipe exceeds: each right answer is written in its text."""

Training = Callable[[str], Trained]


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_learnt_is_scored_with_its_interval_and_again_from_the_predictions(kind: str, trained: Training):
    run = trained(kind)
    metrics, task = run.metrics, run.task
    assert (metrics["task"], metrics["metric"]) == (type(task).__name__, task.metric)
    for split in ("validation", "test"):
        measured, rows = metrics[split], predictions.read(run.directory, split)
        low, high = measured["interval"]
        assert low <= measured["scores"][task.metric] <= high
        assert measured["rows"] == len(rows)
        assert task.score(rows, [row["target"] for row in rows]) == pytest.approx(measured["scores"], abs=1e-6)
    assert metrics["test"]["scores"][task.metric] > FLOORS[kind]


@pytest.mark.parametrize("kind", KINDS)
def test_evaluate_finds_the_scores_of_finetune(kind: str, trained: Training, capsys: pytest.CaptureFixture[str]):
    run = trained(kind)
    assert main(["evaluate", *run.overrides]) == 0
    assert f"│ {run.task.metric}" in capsys.readouterr().out
    found = json.loads((run.runs / "default" / "evaluate" / "metrics.json").read_text())
    expected = run.metrics["test"]
    assert found["test"].keys() == expected.keys()
    assert found["test"]["rows"] == expected["rows"]
    assert found["test"]["scores"] == pytest.approx(expected["scores"], rel=1e-5)  # rounding, in small batches


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_is_answered_row_by_row_as_python_does(kind: str, trained: Training, capsys, tmp_path: Path):
    run = trained(kind)
    capsys.readouterr()  # what the training printed, if it was not trained before
    command = ["predict", f"predict.model={run.directory}", f"predict.input={run.file}"]
    assert main(command) == 0
    answered = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert main([*command, f"predict.output={tmp_path / 'answers.jsonl'}"]) == 0
    assert [json.loads(line) for line in (tmp_path / "answers.jsonl").read_text().splitlines()] == answered
    config, model = compose(run.overrides), load(run.directory, device="cpu")
    numbers = [row.number for row in reading.rows("path", str(run.file), [])]
    assert len(answered) == len(numbers)
    rows = labelled.load(config.task).pool
    texts = [tuple(model.task.texts(row)) for row in rows[:5]]
    for row, answer in zip(rows, model([text if len(text) > 1 else text[0] for text in texts]), strict=False):
        theirs = model.task.returned(answered[numbers.index(row.number)])
        assert answer == theirs if isinstance(answer, list) else {name: theirs[name] for name in answer} == answer


@pytest.mark.parametrize(
    ("kind", "tag", "has_pipeline"),
    [
        ("several labels", "text-classification", True),
        ("entities", "token-classification", True),
        ("questions", "question-answering", False),
        ("summaries", "summarization", False),
        ("translations", "text-generation", True),
    ],
)
def test_the_card_tells_the_metric_and_how_to_ask(kind: str, tag: str, has_pipeline: bool, trained, tmp_path: Path):
    run = trained(kind)
    export.fill(tmp_path, compose(), run.directory, "me/mine", "")
    card = (tmp_path / "README.md").read_text()
    assert run.task.metric in card
    assert "ulmfit_style import load" in card
    assert f"pipeline_tag: {tag}" in card
    assert (f'pipeline("{tag}", model="me/mine"' in card) == has_pipeline
    assert run.task.long_texts in card


BROKEN = {
    "text classification": ("is dreadful,bad", ",,"),
    "numbers": ('"score": 90', '"score": "many"'),
    "several labels": ('"tags": ["good"', '"tags": ["", "good"'),
    "entities": ("number\tO", "number\tperson"),
    "questions": ('"answer_start": ', '"answer_start": 1'),
    "summaries": ('"summary": "', '"summary": "", "x": "'),
    "translations": ('"de": "', '"fr": "'),
    "completions": ('"completion": "', '"completion": " ", "x": "'),
    "pairs": ('"b": "', '"b": " ", "x": "'),
}
"""What is written into a file, once, so that one of its rows is wrong."""


@pytest.mark.parametrize("kind", KINDS)
def test_a_wrong_row_is_named_with_its_file(kind: str, tmp_path: Path):
    overrides = recipe(kind, tmp_path, tmp_path)
    path = next(tmp_path.glob("rows.*"))
    path.write_text(path.read_text().replace(*BROKEN[kind], 1))
    with pytest.raises(UserError, match=r"rows\.\w+:\d+: "):
        labelled.load(compose(overrides).task)
