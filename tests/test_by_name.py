"""A name is enough: commands on a finished model read its options from `runs/<name>/`."""

import json
import re
from pathlib import Path

import pytest
from recipes import Trained
from samples import reviews

from ulmfit_style import console, load
from ulmfit_style.__main__ import main

TEXT = reviews(1, seed=3)[0][0]


def test_a_name_alone_means_the_model_that_was_made_under_it(chain: Trained, capsys: pytest.CaptureFixture[str]):
    for name, finetuned in (("default", chain.directory), ("second", (chain.runs / "second/finetune").resolve())):
        assert main(["predict", f"runs={chain.runs}", f"name={name}", f"predict.input='{TEXT}'"]) == 0
        said = capsys.readouterr()
        assert f"name={name}: the options of the model are those of {chain.runs / finetuned.name}" in said.err
        assert json.loads(said.out)["score"] == pytest.approx(load(finetuned)(TEXT)["score"])


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["report"], "report.html"),
        (["push", "hub.repo=mine", "hub.dry_run=true"], "push: would go to mine"),
        (["evaluate", "evaluate.split=validation"], "predictions.parquet"),
    ],
)
def test_every_command_on_a_model_takes_a_name(chain: Trained, capsys: pytest.CaptureFixture[str], command, said: str):
    assert main([*command, f"runs={chain.runs}", "name=second"]) == 0
    assert said in capsys.readouterr().out


def test_an_option_of_another_model_beside_a_name_is_told(chain: Trained, capsys: pytest.CaptureFixture[str]):
    overrides = [option for option in chain.overrides if not option.startswith("finetune.epochs")]
    assert main(["predict", *overrides, "finetune.epochs=7", f"predict.input='{TEXT}'"]) == 2
    assert "there is no fine-tuned model for this config" in capsys.readouterr().err


def test_a_name_that_no_model_has_is_told_at_once(chain: Trained, capsys: pytest.CaptureFixture[str]):
    assert main(["predict", f"runs={chain.runs}", "name=secnd", "predict.input=a"]) == 2
    said = capsys.readouterr()
    assert "name=secnd: there is no finished run of that name" in said.err
    assert "did you mean 'second'" in said.err
    assert said.out == ""
    assert main(["predict", f"runs={chain.runs}", "predict.model=secnd", "predict.input=a"]) == 2
    assert "predict.model=secnd: there is no finished run of that name" in capsys.readouterr().err


def test_a_page_on_other_runs_can_have_a_name_of_its_own(chain: Trained):
    assert main(["report", f"runs={chain.runs}", "name=both", "report.runs=[default,second]"]) == 0
    assert (chain.runs / "both/report-default-second.html").exists()


def test_a_name_is_enough_beside_a_folder_of_configs(chain: Trained, tmp_path: Path, capsys):
    options = ["--config-dir", str(tmp_path), f"runs={chain.runs}", "name=second", f"predict.input='{TEXT}'"]
    assert main(["predict", *options]) == 0
    assert "label" in capsys.readouterr().out


def test_python_and_options_take_the_name_of_a_run(chain: Trained, monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.chdir(chain.folder)
    assert load("second")(TEXT) == load("runs/second/finetune")(TEXT)
    assert main(["predict", "predict.model=second", f"predict.input='{TEXT}'"]) == 0
    assert "answered by runs/second/finetune: 1" in capsys.readouterr().err
    monkeypatch.chdir(chain.folder.parent)
    assert main(["evaluate", f"runs={chain.runs}", "evaluate.model=second", f"evaluate.path={chain.file}"]) == 0


def test_runs_lists_the_models_of_a_task_by_their_scores(
    chain: Trained, capsys: pytest.CaptureFixture[str], monkeypatch
):
    monkeypatch.setattr(console.OUT, "width", 140)
    assert main(["runs", f"runs={chain.runs}"]) == 0
    said = capsys.readouterr().out
    assert f"TextClassification: {chain.file}" in said.replace("\n", "")
    rows = re.findall(r"│ (default|second) +│ +\d+ │ +(\d\.\d{3}) │", said)
    assert sorted(name for name, _ in rows) == ["default", "second"]
    assert rows == sorted(rows, key=lambda row: -float(row[1]))
    other = ["task=text_classification", "task.path=x.csv", "task.text=a", "task.label=b"]
    assert main(["runs", f"runs={chain.runs}", *other]) == 0
    assert "There is no scored model of x.csv" in capsys.readouterr().out


def test_two_runs_are_compared_on_the_same_rows(chain: Trained, capsys: pytest.CaptureFixture[str]):
    assert main(["compare", f"runs={chain.runs}", "names=[default,second]"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "second less default" in said
    assert "│ second │ finetune.seed=1 instead of 0 │" in said
    assert main(["compare", f"runs={chain.runs}", "names=default"]) == 2
    assert "Say names=[a,b]" in capsys.readouterr().err
