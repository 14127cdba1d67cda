"""Gradual unfreezing: what each phase of `finetune` thaws, for how long, and what is refused."""

import json
from collections.abc import Callable
from itertools import groupby
from operator import itemgetter
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ulmfit_style.__main__ import main
from ulmfit_style.artefacts.directory import METRICS
from ulmfit_style.cli.compose import compose
from ulmfit_style.errors import ConfigError

Tune = Callable[..., int]


@pytest.fixture
def tune(tiny_overrides: list[str]) -> Tune:
    own = [override for override in tiny_overrides if not override.startswith("adapt.")]
    return lambda *options: main(["finetune", *own, "adapt=none", "compare=false", *options])


def log(runs: Path) -> list[dict]:
    return json.loads((runs / "default/finetune" / METRICS).read_text())["log"]


def test_each_phase_before_the_last_is_one_pass_and_the_last_has_the_epochs(tune: Tune, tmp_path: Path):
    options = ["finetune.unfreeze=[1,2,all]", "finetune.layer_decay=2", "finetune.epochs=3"]
    assert tune(*options, "finetune.batch_size=5", "finetune.trainer.logging_steps=1") == 0
    phases = {title: list(entries) for title, entries in groupby(log(tmp_path / "runs"), lambda entry: entry["phase"])}
    assert {title: [entry["step"] for entry in entries] for title, entries in phases.items()} == {
        "last 1 of 4 layer groups": [1, 2, 3, 4],
        "last 2 of 4 layer groups": [1, 2, 3, 4],
        "every weight": list(range(1, 13)),
    }
    assert [list(entries[0]["rates"]) for entries in phases.values()] == [
        ["head"],
        ["head", "layer 2"],
        ["head", "layer 2", "layer 1", "embeddings"],
    ]


def test_a_short_phase_is_logged_more_often_and_every_one_at_its_end(tune: Tune, tmp_path: Path):
    assert tune("finetune.unfreeze=[1,all]", "finetune.epochs=15", "finetune.batch_size=3") == 0
    assert [entry["step"] for entry in log(tmp_path / "runs")] == [
        *range(1, 8),
        *(1, 10, 20, 30, 40, 50, 60, 70, 80, 90, 100, 105),
    ]


def test_chain_thaw_trains_the_head_then_each_group_alone_and_then_all(tune: Tune, tmp_path: Path):
    options = ["finetune.unfreeze=chain_thaw", "finetune.layer_decay=2", "finetune.epochs=3", "finetune.max_steps=10"]
    assert tune(*options, "finetune.batch_size=10", "finetune.trainer.logging_steps=1") == 0
    phases = {title: list(entries) for title, entries in groupby(log(tmp_path / "runs"), lambda entry: entry["phase"])}
    assert {title: (list(entries[0]["rates"]), len(entries)) for title, entries in phases.items()} == {
        "head alone": (["head"], 2),
        "embeddings alone": (["embeddings"], 2),
        "layer 1 alone": (["layer 1"], 2),
        "layer 2 alone": (["layer 2"], 2),
        "every weight": (["head", "layer 2", "layer 1", "embeddings"], 2),
    }


@pytest.mark.parametrize(("bound", "steps"), [("1", 1), ("7", 7), ("100", 12), ("null", 12)])
def test_max_steps_bounds_the_passes(tune: Tune, tmp_path: Path, bound: str, steps: int):
    options = ["finetune.epochs=3", "finetune.batch_size=5", "finetune.trainer.logging_steps=1"]
    assert tune(f"finetune.max_steps={bound}", *options) == 0
    assert [entry["step"] for entry in log(tmp_path / "runs")] == list(range(1, steps + 1))


@pytest.mark.parametrize(
    ("bound", "steps"),
    [(3, [1, 1, 1]), (11, [3, 3, 5]), (13, [4, 4, 5]), (19, [4, 4, 11]), (20, [4, 4, 12]), (100, [4, 4, 12])],
)
def test_max_steps_bounds_all_phases_together(tune: Tune, tmp_path: Path, bound: int, steps: list[int]):
    options = ["finetune.unfreeze=[1,2,all]", "finetune.epochs=3", "finetune.batch_size=5"]
    assert tune(f"finetune.max_steps={bound}", "finetune.trainer.logging_steps=1", *options) == 0
    assert [len(list(entries)) for _, entries in groupby(log(tmp_path / "runs"), itemgetter("phase"))] == steps


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (
            ["finetune.unfreeze=[1,2,all]", "finetune.max_steps=2"],
            "max_steps=2 for the 3 phases of unfreeze",
        ),
        (
            ["finetune.unfreeze=chain_thaw", "finetune.max_steps=4"],
            "finetune.max_steps=4: finetune.unfreeze=chain_thaw has 5 phases; give at least as many steps",
        ),
    ],
)
def test_fewer_steps_than_phases_are_refused_before_anything_is_made(
    tiny_overrides: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], told: str
):
    assert main(["adapt", "finetune", *tiny_overrides, *options]) == 2
    assert told in " ".join(capsys.readouterr().err.split())
    assert not list((tmp_path / "runs").glob("adapt-*"))


def test_what_no_phase_thaws_stays_as_it_was(tune: Tune, tmp_path: Path, checkpoint: Path):
    assert tune("finetune.unfreeze=2", "finetune.learning_rate=1e-2") == 0
    before, after = (
        load_file(checkpoint / "model.safetensors"),
        load_file(tmp_path / "runs/default/finetune/model.safetensors"),
    )
    # The checkpoint has a pooler, which goes with the last layer.
    for name, weights in before.items():
        assert torch.equal(weights, after[f"bert.{name}"]) != name.startswith(("encoder.layer.1.", "pooler.")), name


def test_more_groups_than_the_model_has_are_refused_before_anything_is_made(
    tiny_overrides: list[str], tmp_path: Path, capsys
):
    assert main(["adapt", "finetune", *tiny_overrides, "finetune.unfreeze=[1,5,all]"]) == 2
    assert not list((tmp_path / "runs").glob("adapt-*"))
    told = " ".join(capsys.readouterr().err.split())
    assert (
        'finetune.unfreeze=[1, 5, "all"]: the model has 4 layer groups (embeddings, layer 1, layer 2, head); ' in told
    )
    assert "give smaller numbers, or all" in told


@pytest.mark.parametrize(
    "value", ["[]", "0", "[0,all]", "[2,1]", "[1,1]", "[all,2]", "[-1,all]", "some", "[1.5,all]", "null"]
)
def test_phases_that_thaw_nothing_more_are_refused(value: str):
    with pytest.raises(ConfigError) as caught:
        compose([f"finetune.unfreeze={value}"])
    (problem,) = caught.value.problems
    assert problem.startswith("finetune.unfreeze=")
    assert "should be rising numbers of layer groups from 1 on, the last of which may be all" in problem


def test_one_number_needs_no_list():
    assert compose(["finetune.unfreeze=1"]).finetune.unfreeze == (1,)
    assert compose(["finetune.unfreeze=all"]).finetune == compose().finetune


def test_the_kept_state_is_told_with_its_phase(tune: Tune, tmp_path: Path, capsys):
    assert tune("finetune=ulmfit", "finetune.epochs=3", "finetune.patience=2") == 0
    kept = json.loads((tmp_path / "runs/default/finetune" / METRICS).read_text())["kept"]
    assert f"  kept: the state of '{kept['phase']}' after epoch {kept['epoch']:g} of " in capsys.readouterr().out


def test_adaptation_takes_the_same_techniques(tiny_overrides: list[str], tmp_path: Path):
    assert main(["adapt", *tiny_overrides, "adapt=ulmfit", "adapt.layer_decay=2"]) == 0
    found = json.loads((tmp_path / "runs/default/adapt" / METRICS).read_text())["log"]
    new, every = (
        next(entry for entry in found if entry["phase"] == title and entry["step"] == 1)
        for title in ("new head", "every weight")
    )
    steps = max(entry["step"] for entry in found)  # of either phase
    share = (1 + 31 * 0.5 / (0.1 * steps)) / 32 if steps > 5 else (1 + 31 * (1 - 0.5 / steps) / 0.9) / 32
    assert new["rates"] == {"head": pytest.approx(1e-3 * share)}
    assert every["rates"] == {
        title: pytest.approx(1e-4 * share / 2**depth)
        for depth, title in enumerate(["head", "layer 2", "layer 1", "embeddings"])
    }
