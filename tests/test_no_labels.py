"""Without labelled rows, the names of the classes are learnt from."""

import json
import re
from pathlib import Path

import pytest
from samples import jsonl

from ulmfit_style import chain
from ulmfit_style.__main__ import main
from ulmfit_style.artefacts.directory import METRICS, read_json
from ulmfit_style.cli.compose import compose
from ulmfit_style.errors import UserError
from ulmfit_style.recipe import load
from ulmfit_style.stages.table import resolve

NAMES = ["task=text_classification", "task.path=null", "task.labels=[good,bad]"]

NEEDED = "without labelled rows the names of the classes are learnt from; that takes task=text_classification, single"


@pytest.fixture
def short(tmp_path: Path, checkpoint: Path) -> list[str]:
    """A recipe for the tiny checkpoint, without adaptation."""
    return [f"model.checkpoint={checkpoint}", f"runs={tmp_path / 'runs'}", "adapt=none"]


def test_the_names_of_classes_alone_give_a_model_that_says_that_it_is_not_scored(
    tmp_path: Path, short: list[str], capsys: pytest.CaptureFixture[str]
):
    options, folder = [*short, *NAMES], tmp_path / "runs/default"
    texts = jsonl(tmp_path / "texts.jsonl", [{"text": "a good film"}, {"text": "a bad plot"}])
    predicted = [f"predict.input={texts}", "predict.task.top_k=all"]
    pushed = ["hub.repo=my-model", "hub.dry_run=true"]
    assert main(["finetune", "predict", "report", "push", *options, *predicted, *pushed]) == 0
    answered, printed = capsys.readouterr()
    assert "the names of 2 classes are learnt from, and no labelled row (task.path=null)" in printed
    assert "finetune=auto takes frozen: there are no labelled rows" in printed
    assert "There are no labelled rows, so nothing is scored" in printed
    answers = [json.loads(line) for line in answered.splitlines()]
    assert [(answer["text"], set(answer["scores"])) for answer in answers] == [
        ("a good film", {"good", "bad"}),
        ("a bad plot", {"good", "bad"}),
    ]
    assert read_json(folder / "finetune" / METRICS)["train"]["rows"] == 0
    assert load(folder / "finetune/recipe.yaml").task == compose(options).task
    assert "learnt from the names of 2 classes, and not scored" in (folder / "report.html").read_text()
    assert "the names of its classes alone.\n" in (folder / "card.md").read_text()

    assert main(["evaluate", *options]) == 2
    assert "there are no labelled test rows; name a file: evaluate.path=<file>" in capsys.readouterr().err
    rows = jsonl(tmp_path / "rows.jsonl", [{"text": "a good film", "label": "good"}] * 3)
    assert main(["evaluate", *options, f"evaluate.path={rows}"]) == 0
    assert main(["report", *options]) == 0
    assert str(rows) in (folder / "report.html").read_text()


def test_no_shot_of_a_class_is_scored_beside_references_that_know_no_more(
    tmp_path: Path, short: list[str], reviews_csv: Path, capsys: pytest.CaptureFixture[str]
):
    rows = ["task=text_classification", f"task.path={reviews_csv}", "task.text=review", "task.label=stars"]
    assert main(["finetune", *short, *rows, "task.shots=0"]) == 0
    printed = capsys.readouterr().out
    assert "0 labelled training rows, 24 test rows" in printed
    reference, ours = (re.findall(rf"│ {name} +(│ .*)", printed) for name in ("class names alone", "fine-tuned"))
    assert len(ours) == 1
    assert ours == reference  # both take the nearest name


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["task.labels=null"], f"task.path=null: {NEEDED}"),
        (["task.labels=[good,1]"], f"task.path=null: {NEEDED}"),
        (["task.text_pair=b"], f"task.path=null: {NEEDED}"),
        (["task=text_regression", "~task.labels"], f"task.path=null: {NEEDED}"),
        (["finetune.patience=1"], "finetune=auto takes frozen: patience needs epochs to choose from, and epochs=0"),
        (["task.train_samples=100"], "task.train_samples=100: the training split has 0 rows"),
        (["task.path={train: null, test: a.csv}"], "task.path.train: is required"),
        (
            ["adapt=plain"],
            "there is no task with rows whose text could be read; give corpus.path=<file>",
        ),
    ],
)
def test_what_names_cannot_tell_is_refused(short: list[str], options: list[str], message: str):
    with pytest.raises(UserError, match=re.escape(message)):
        chain.plan(resolve(compose([*short, *NAMES, *options])), ["finetune"])
