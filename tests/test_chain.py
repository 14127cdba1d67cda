"""The chain through the command line: what it makes, shares, prints and refuses."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from recipes import Trained
from safetensors.torch import load_file
from samples import artefact
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer

from ulmfit_style.__main__ import main
from ulmfit_style.artefacts import predictions
from ulmfit_style.artefacts.directory import METRICS, read_json
from ulmfit_style.cli.compose import compose
from ulmfit_style.models import checkpoints

SCORED = (
    *("largest class", "class names alone"),
    *("TF-IDF + logistic regression", "frozen features + logistic regression"),
    *("fine-tuned, not adapted", "adapted + fine-tuned"),
)


def test_the_embedded_model_and_data_go_through_the_chain_and_nothing_but_our_own_lines_is_printed(tmp_path: Path):
    data = ["corpus.max_documents=20", "task.train_samples=8", "task.test_samples=30", "compare=false"]
    training = ["adapt.general=null", "adapt.head_epochs=0", "finetune.max_steps=1", "finetune.max_length=32"]
    command = ["adapt", "finetune", "experiment=smoke", f"runs={tmp_path}", *data, *training]
    environment = {**os.environ, "COLUMNS": "200"}
    ended = subprocess.run(
        [sys.executable, "-m", "ulmfit_style", *command], capture_output=True, text=True, check=False, env=environment
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr == ""
    assert re.search(r"│ adapted \+ fine-tuned +│ +30 │ +0\.\d{3} │ 0\.\d{3} to [01]\.\d{3} │", ended.stdout), (
        ended.stdout
    )
    for noise in ("LOAD REPORT", "Warning", "it/s", "\r"):
        assert noise not in ended.stdout


def test_the_same_command_again_tells_what_is_there(chain: Trained, capsys: pytest.CaptureFixture[str]):
    assert main(["adapt", "finetune", *chain.overrides]) == 0
    printed = capsys.readouterr().out
    assert printed.count("up to date") == 4
    for name in SCORED:
        assert re.search(rf"│ {re.escape(name)} +│ +\d+ │ +0\.\d{{3}} │ 0\.\d{{3}} to 0\.\d{{3}} │", printed), printed
    worth = re.search(
        r"Adaptation changed accuracy by ([+-]\d+\.\d) points \(95 % interval (\S+) to ([^\s,]+)", printed
    )
    assert worth, printed
    gain, low, high = map(float, worth.groups())
    assert low <= gain <= high
    assert ("cannot be told from zero" in printed) == (low <= 0 <= high)
    assert f"The model is in {chain.runs}/default/finetune" in printed
    assert "make push name=default" in printed


def test_what_trains_nothing_does_not_import_torch(chain: Trained):
    report = ["report", *chain.overrides, "report.runs=second"]
    commands = [
        *(["adapt", "finetune.lr=1"], ["adapt", "--help"], ["adapt", "--cfg", "job"]),
        *(["adapt", *chain.overrides], ["runs", f"runs={chain.runs}"], report),
    ]
    code = "import sys; from ulmfit_style.__main__ import main\n"
    code += f"print([main(command) for command in {commands!r}], 'torch' in sys.modules)"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ended.stdout.splitlines()[-1:] == ["[2, 0, 0, 0, 0, 0] False"], ended.stderr
    assert "Traceback" not in ended.stderr
    assert "What they differ in" not in (chain.runs / "default/report-second.html").read_text(encoding="utf-8")


def test_a_change_of_fine_tuning_shares_the_adapted_model_which_is_a_better_language_model(chain: Trained):
    assert len(list(chain.runs.glob("adapt-*"))) == 1
    assert len(list(chain.runs.glob("finetune-*"))) >= 3  # one of them not adapted, one with another seed
    losses = [entry["loss"] for entry in read_json(chain.runs / "default/adapt" / METRICS)["heldout"]]
    assert losses[0] > losses[-1]


def test_a_sweep_runs_a_grid_over_one_adapted_model(chain: Trained, capsys: pytest.CaptureFixture[str]):
    options, rates = [*chain.overrides, "name=swept", "finetune.max_steps=2"], ("2e-5", "1e-2")
    assert main(["sweep", *options, f"finetune.learning_rate={','.join(rates)}"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert len(list(chain.runs.glob("adapt-*"))) == 1
    configs = {float(rate): compose([*options, f"finetune.learning_rate={rate}"]) for rate in rates}
    metrics = {rate: read_json(artefact("finetune", config).directory / METRICS) for rate, config in configs.items()}
    scores = {rate: measured["validation"]["scores"]["accuracy"] for rate, measured in metrics.items()}
    best = re.search(r"name=swept finetune\.max_steps=2 finetune\.learning_rate=(\S+)", printed)
    assert best, printed
    assert scores[float(best[1])] == max(scores.values())


def test_a_checkpoint_in_half_precision_is_read_in_single(checkpoint: Path, tmp_path: Path):
    AutoModel.from_pretrained(checkpoint, dtype=torch.float16).save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(checkpoint).save_pretrained(tmp_path)
    model, *_ = checkpoints.load_model(AutoModelForSequenceClassification, tmp_path)
    assert {tensor.dtype for tensor in model.state_dict().values() if tensor.is_floating_point()} == {torch.float32}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["task.path=nowhere.csv"], "task.path=nowhere.csv: there is no such file"),
        (["model.checkpoint=nobody/nothing"], "is no directory, and cannot be had from the Hub"),
    ],
)
def test_a_mistake_is_answered_before_anything_is_trained(
    tiny_overrides: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], overrides: list[str], message: str
):
    assert main(["adapt", "finetune", *tiny_overrides, *overrides]) == 2
    assert message in capsys.readouterr().err
    assert not list((tmp_path / "runs").glob("[!.]*"))


def test_finetune_without_its_adapted_model_names_the_command(
    tiny_overrides: list[str], capsys: pytest.CaptureFixture[str]
):
    assert main(["finetune", *tiny_overrides]) == 2
    assert "run `adapt finetune` with the same options" in capsys.readouterr().err


def test_unknown_commands_are_answered_with_the_nearest(capsys: pytest.CaptureFixture[str]):
    assert main(["adept"]) == 2
    assert "did you mean 'adapt'?" in capsys.readouterr().err
    assert main(["sweep", "adapt"]) == 2
    assert "sweep: goes alone" in capsys.readouterr().err


def test_adapting_at_a_rate_that_moves_nothing_leaves_fine_tuning_as_it_is(
    tmp_path: Path, tiny_overrides: list[str], not_adapted: list[str]
):
    """All that a classifier reads comes through `adapt`, BERT's pooler too, for which a language model has no place."""
    still = ["adapt.learning_rate=1e-30", "adapt.head_learning_rate=1e-30", "adapt.weight_decay=0", "compare=false"]
    assert main(["adapt", "finetune", *tiny_overrides, *still, "name=adapted"]) == 0
    assert main(["finetune", *not_adapted, "name=plain"]) == 0
    adapted, plain = (tmp_path / "runs" / name / "finetune" for name in ("adapted", "plain"))
    assert adapted.resolve() != plain.resolve()
    scores = [read_json(directory / METRICS) for directory in (adapted, plain)]
    assert scores[0]["test"] == scores[1]["test"]
    assert predictions.read(adapted, "test") == predictions.read(plain, "test")
    ours, theirs = (load_file(directory / "model.safetensors") for directory in (adapted, plain))
    assert max((ours[name] - theirs[name]).abs().max() for name in {**ours, **theirs}) < 1e-29
