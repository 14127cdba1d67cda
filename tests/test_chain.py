"""The real chain through the command line, on the embedded model and data, made small."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file
from samples import reviews
from transformers import AutoModel, AutoTokenizer, pipeline

from ulmfit_style import load
from ulmfit_style.__main__ import main
from ulmfit_style.artefacts import predictions
from ulmfit_style.artefacts.directory import METRICS, read_json
from ulmfit_style.cli.compose import compose
from ulmfit_style.stages import references, resolve


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `ulmfit-style` as a user does."""
    environment = {**os.environ, "COLUMNS": "200"}
    return subprocess.run(
        [sys.executable, "-m", "ulmfit_style", *arguments], capture_output=True, text=True, check=False, env=environment
    )


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("chain") / "runs"


@pytest.fixture(scope="module")
def first(runs: Path) -> str:
    """What the smoke recipe prints when it runs for the first time."""
    ended = command("adapt", "finetune", "experiment=smoke", f"runs={runs}")
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr == ""
    return ended.stdout


def test_the_run_ends_with_every_score_and_its_interval(first: str):
    for name in (
        "TF-IDF + logistic regression",
        "frozen features + logistic regression",
        "fine-tuned, not adapted",
        "adapted + fine-tuned",
    ):
        assert re.search(rf"│ {re.escape(name)} +│ +100 │ +0\.\d{{3}} │ 0\.\d{{3}} to 0\.\d{{3}} │", first), first


def test_the_run_tells_what_adaptation_was_worth_and_what_to_type_next(first: str, runs: Path):
    worth = re.search(r"Adaptation changed accuracy by ([+-]\d+\.\d) points \(95 % interval (\S+) to ([^\s,]+)", first)
    assert worth, first
    gain, low, high = map(float, worth.groups())
    assert low <= gain <= high
    assert ("cannot be told from zero" in first) == (low <= 0 <= high)
    assert f"The model is in {runs}/smoke/finetune" in first
    assert "make push hub.repo=" in first


def test_nothing_but_our_own_lines_is_printed(first: str):
    for noise in ("LOAD REPORT", "Warning", "it/s", "\r"):
        assert noise not in first


def test_the_language_model_got_better_on_held_out_documents(first: str, runs: Path):
    losses = [entry["loss"] for entry in json.loads((runs / "smoke/adapt" / METRICS).read_text())["heldout"]]
    assert len(losses) == 3
    assert losses[0] > losses[1] > losses[2]


def test_the_same_command_again_is_answered_from_what_is_there(first: str, runs: Path):
    again = command("adapt", "finetune", "experiment=smoke", f"runs={runs}")
    assert again.returncode == 0
    assert again.stdout.count("up to date") == 4
    table = first[first.rindex("┏") :]
    assert again.stdout.endswith(table)


def test_a_change_of_fine_tuning_shares_the_adapted_model(first: str, runs: Path):
    changed = command("adapt", "finetune", "experiment=smoke", f"runs={runs}", "finetune.epochs=1", "compare=false")
    assert re.search(r"\[1/2\] adapt: .*: up to date", changed.stdout), changed.stdout
    assert re.search(r"\[2/2\] finetune: fine-tuned model\n", changed.stdout)
    assert len(list(runs.glob("adapt-*"))) == 1
    assert len(list(runs.glob("finetune-*"))) == 3


def test_the_predictions_are_those_that_the_score_was_computed_from(first: str, runs: Path):
    directory = runs / "smoke/finetune-not-adapted"
    test = predictions.read(directory, "test")
    metrics = json.loads((directory / METRICS).read_text())
    assert len(test) == metrics["test"]["rows"] == 100
    right = sum(prediction["label"] == prediction["target"] for prediction in test)
    assert metrics["test"]["scores"]["accuracy"] == pytest.approx(right / 100)


def test_load_and_the_transformers_pipeline_agree(first: str, runs: Path):
    texts = ["A film to remember.", "Two hours that nobody gives back."]
    ours = load(runs / "smoke/finetune")
    theirs = pipeline("text-classification", model=str(runs / "smoke/finetune"))
    for answer, expected in zip(ours(texts), theirs(texts), strict=True):
        assert answer["label"] == expected["label"]
        assert answer["score"] == pytest.approx(expected["score"], abs=1e-5)
    assert ours(texts[0]) == pytest.approx(ours(texts)[0], abs=1e-5)


def test_a_sweep_runs_a_grid_over_one_adapted_model(first: str, runs: Path):
    swept = command("sweep", "experiment=smoke", f"runs={runs}", "finetune.learning_rate=2e-5,1e-4")
    assert swept.returncode == 0, swept.stderr
    assert len(list(runs.glob("adapt-*"))) == 1
    rows = re.findall(r"│ finetune\.learning_rate=(\S+) +│ +(0\.\d{3}) ", swept.stdout)
    assert {rate for rate, _ in rows} == {"2e-05", "0.0001"}
    assert rows[0][1] >= rows[1][1]
    assert f"make adapt finetune experiment=smoke runs={runs} finetune.learning_rate={rows[0][0]}" in swept.stdout


def test_a_wrong_value_in_a_grid_is_answered_before_the_first_trial(runs: Path):
    ended = command("sweep", "experiment=smoke", f"runs={runs / 'none'}", "finetune.learning_rate=2e-5,-1")
    assert ended.returncode == 2
    assert "finetune.learning_rate=-1: should be greater than 0" in ended.stderr
    assert not (runs / "none").exists()


def test_hydra_shows_the_composed_config(runs: Path):
    shown = command("adapt", "finetune", "experiment=smoke", "finetune.seed=9", "--cfg", "job")
    assert shown.returncode == 0, shown.stderr
    assert yaml.safe_load(shown.stdout)["finetune"]["seed"] == 9


@pytest.fixture
def own_csv(write_csv: Callable[..., Path], checkpoint: Path, tmp_path: Path) -> Callable[..., Sequence[str]]:
    """A command line over a csv of the user's own and the tiny checkpoint."""

    def arguments(*overrides: str) -> list[str]:
        path = write_csv(reviews(120))
        own = ["task=text_classification", f"task.path={path}", "task.text=review", "task.label=stars"]
        tiny = [f"model.checkpoint={checkpoint}", "model.sha256=null", f"runs={tmp_path / 'runs'}"]
        return ["adapt", "finetune", *own, *tiny, *overrides]

    return arguments


def test_a_csv_of_ones_own_needs_no_code(own_csv, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(own_csv("finetune.epochs=30", "finetune.learning_rate=1e-2")) == 0
    scores = json.loads((tmp_path / "runs/default/finetune" / METRICS).read_text())["test"]["scores"]
    assert scores["accuracy"] > 0.9  # the label is a word of the text
    assert "adapted + fine-tuned" in capsys.readouterr().out


def test_a_causal_model_goes_the_same_way(own_csv, causal_checkpoint: Path, tmp_path: Path):
    options = ("finetune.epochs=30", "finetune.learning_rate=1e-2", "compare=false")
    assert main(own_csv(f"model.checkpoint={causal_checkpoint}", *options)) == 0
    adapted = json.loads((tmp_path / "runs/default/adapt" / METRICS).read_text())
    assert adapted["per"] == "token"
    assert [entry["after"] for entry in adapted["heldout"]] == ["checkpoint", "every weight"]
    scores = json.loads((tmp_path / "runs/default/finetune" / METRICS).read_text())["test"]["scores"]
    assert scores["accuracy"] > 0.9
    texts = ["a film number 3 is wonderful", "the plot number 12345 is tedious"]
    model = load(tmp_path / "runs/default/finetune")
    assert [answer["label"] for answer in model(texts)] == ["good", "bad"]
    assert model(texts) == [pytest.approx(model(text), abs=1e-5) for text in texts]


def test_a_checkpoint_in_half_precision_is_trained_and_read_in_single(own_csv, checkpoint: Path, tmp_path: Path):
    halves = load_file(checkpoint / "model.safetensors")
    made = []
    for dtype in (torch.float16, torch.float32):
        folder = tmp_path / str(dtype)
        model = AutoModel.from_pretrained(checkpoint, dtype=dtype)
        # The same numbers, which either type holds.
        model.load_state_dict({name: tensor.half().to(dtype) for name, tensor in halves.items()})
        model.save_pretrained(folder)
        AutoTokenizer.from_pretrained(checkpoint).save_pretrained(folder)
        runs = tmp_path / f"{dtype}-runs"
        options = ("adapt=none", f"model.checkpoint={folder}", f"runs={runs}", "finetune.epochs=2", "compare=false")
        assert main(own_csv(*options)[1:]) == 0
        frozen, _ = references._frozen(
            resolve(compose(own_csv(*options)[2:])), ["a film", "the plot is moving"], ["a scene"]
        )
        made.append((load_file(runs / "default/finetune/model.safetensors"), frozen))
    (halved, its_features), (single, features) = made
    assert all(torch.equal(halved[name], single[name]) for name in single)
    assert np.array_equal(its_features, features)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["task.path=nowhere.csv"], "task.path=nowhere.csv: there is no such file"),
        (["task.text=reviews"], "has no column 'reviews'; did you mean 'review'?"),
        (
            ["model.checkpoint=/nowhere/model"],
            "model.checkpoint=/nowhere/model: is no directory, and cannot be had from the Hub",
        ),
        (
            ["model.checkpoint=nobody/nothing"],
            "model.checkpoint=nobody/nothing: is no directory, and cannot be had from the Hub",
        ),
        (["model.sha256=0000"], "model.sha256=0000: "),
        (["task=none"], "there is no task here"),
    ],
)
def test_a_mistake_is_answered_before_anything_is_trained(
    own_csv, tmp_path: Path, capsys: pytest.CaptureFixture[str], overrides: list[str], message: str
):
    assert main(own_csv(*overrides)) == 2
    assert message in capsys.readouterr().err
    assert not list((tmp_path / "runs").glob("*"))


def test_finetune_without_its_adapted_model_names_the_command(own_csv, capsys: pytest.CaptureFixture[str]):
    assert main([argument for argument in own_csv() if argument != "adapt"]) == 2
    assert "run `adapt finetune` with the same options" in capsys.readouterr().err


def test_push_before_there_is_a_model_names_the_command(
    own_csv, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("HF_TOKEN", "hf_mine")
    assert main(["push", *own_csv("hub.repo=me/x")[2:]]) == 2
    error = capsys.readouterr().err
    assert "there is no fine-tuned model for this config" in error
    assert "run `adapt finetune` with the same options" in error


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
