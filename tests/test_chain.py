"""The chain through the command line: what it makes, shares, prints and refuses."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from recipes import Trained
from safetensors.torch import load_file
from samples import artefact
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer, pipeline

from ulmfit_style import load
from ulmfit_style.__main__ import main
from ulmfit_style.artefacts import predictions
from ulmfit_style.artefacts.directory import METRICS, read_json
from ulmfit_style.cli.compose import compose
from ulmfit_style.models import checkpoints
from ulmfit_style.stages import references
from ulmfit_style.stages.table import resolve

SCORED = (
    *("TF-IDF + logistic regression", "frozen features + logistic regression"),
    *("fine-tuned, not adapted", "adapted + fine-tuned"),
)


def test_the_embedded_model_and_data_go_through_the_chain_and_nothing_but_our_own_lines_is_printed(tmp_path: Path):
    small = ["corpus.max_documents=60", "task.train_samples=8", "task.test_samples=30", "finetune.max_steps=1"]
    command = [
        sys.executable,
        "-m",
        "ulmfit_style",
        "adapt",
        "finetune",
        "experiment=smoke",
        f"runs={tmp_path}",
        *small,
    ]
    ended = subprocess.run(
        [*command, "compare=false"], capture_output=True, text=True, check=False, env={**os.environ, "COLUMNS": "200"}
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
    assert "make push hub.repo=" in printed


def test_a_change_of_fine_tuning_shares_the_adapted_model_which_is_a_better_language_model(chain: Trained):
    assert len(list(chain.runs.glob("adapt-*"))) == 1
    assert len(list(chain.runs.glob("finetune-*"))) >= 3  # one of them not adapted, one with another seed
    losses = [entry["loss"] for entry in read_json(chain.runs / "default/adapt" / METRICS)["heldout"]]
    assert losses[0] > losses[-1]


def test_load_and_the_transformers_pipeline_agree(chain: Trained):
    texts = ["the film is moving", "the plot of the actor is dreadful"]
    ours = load(chain.directory)
    theirs = pipeline("text-classification", model=str(chain.directory))
    for answer, expected in zip(ours(texts), theirs(texts), strict=True):
        assert answer["label"] == expected["label"]
        assert answer["score"] == pytest.approx(expected["score"], abs=1e-5)
    assert ours(texts[0]) == pytest.approx(ours(texts)[0], abs=1e-5)


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


def test_a_checkpoint_in_half_precision_is_read_in_single(checkpoint: Path, tiny_overrides: list[str], tmp_path: Path):
    halves = load_file(checkpoint / "model.safetensors")
    texts, read = ["a film", "the plot is moving"], []
    for dtype in (torch.float16, torch.float32):
        folder = tmp_path / str(dtype)
        model = AutoModel.from_pretrained(checkpoint, dtype=dtype)
        # The same numbers, which either type holds.
        model.load_state_dict({name: tensor.half().to(dtype) for name, tensor in halves.items()})
        model.save_pretrained(folder)
        AutoTokenizer.from_pretrained(checkpoint).save_pretrained(folder)
        resolved = resolve(compose([*tiny_overrides, f"model.checkpoint={folder}", f"runs={folder / 'runs'}"]))
        tuned, *_ = checkpoints.load_model(AutoModelForSequenceClassification, folder)
        read.append((tuned.base_model.state_dict(), references._frozen(resolved, texts, ["a scene"])[0]))
    (halved, its_features), (single, features) = read
    assert {tensor.dtype for tensor in halved.values() if tensor.is_floating_point()} == {torch.float32}
    assert all(torch.equal(halved[name], single[name]) for name in single if "pooler" not in name)
    assert np.array_equal(its_features, features)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["task.path=nowhere.csv"], "task.path=nowhere.csv: there is no such file"),
        (["task.text=reviews"], "has no column 'reviews'; did you mean 'review'?"),
        (["model.checkpoint=/nowhere/model"], "model.checkpoint=/nowhere/model: is no directory, and cannot be had"),
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


def test_adapting_at_a_rate_that_moves_nothing_leaves_fine_tuning_as_it_is(tmp_path: Path, tiny_overrides: list[str]):
    """All that a classifier reads comes through `adapt`, BERT's pooler too, for which a language model has no place."""
    still = ["adapt.learning_rate=1e-30", "adapt.head_learning_rate=1e-30", "adapt.weight_decay=0", "compare=false"]
    assert main(["adapt", "finetune", *tiny_overrides, *still, "name=adapted"]) == 0
    plain_overrides = [override for override in tiny_overrides if not override.startswith("adapt.")]
    assert main(["finetune", *plain_overrides, "adapt=none", "compare=false", "name=plain"]) == 0
    adapted, plain = (tmp_path / "runs" / name / "finetune" for name in ("adapted", "plain"))
    assert adapted.resolve() != plain.resolve()
    scores = [read_json(directory / METRICS) for directory in (adapted, plain)]
    assert scores[0]["test"] == scores[1]["test"]
    assert predictions.read(adapted, "test") == predictions.read(plain, "test")
    ours, theirs = (load_file(directory / "model.safetensors") for directory in (adapted, plain))
    assert max((ours[name] - theirs[name]).abs().max() for name in {**ours, **theirs}) < 1e-29
