"""Finished models answer as one, by the mean of their answers: an ensemble."""

from collections.abc import Callable
from pathlib import Path

import pytest
from recipes import Trained

from ulmfit_style import load
from ulmfit_style.__main__ import main
from ulmfit_style.artefacts.directory import read_json


@pytest.fixture(scope="session")
def both(trained: Callable[[str], Trained], tmp_path_factory) -> Path:
    """A folder of runs with two models of the same rows, `default` and `other`, and `both`, their mean."""
    one = trained("text classification")
    assert main(["finetune", *one.overrides, "name=other", "finetune.seed=3", "finetune.epochs=3"]) == 0
    assert main(["ensemble", "name=both", "ensemble.members=[default,other]", f"runs={one.runs}"]) == 0
    return one.runs


def test_a(both: Path, capsys):
    print(both)
    m = read_json(both / "both/ensemble/metrics.json")
    print(m["members"], m["test"])
    print(load(both / "both/ensemble")("the film is good"))
    for c in (
        ["predict", "predict.input=the film"],
        ["evaluate"],
        ["report"],
        ["push", "hub.repo=x", "hub.dry_run=true"],
        ["plan", "evaluate"],
        ["export"],
        ["runs"],
    ):
        print(c, main([*c, "name=both", f"runs={both}"]))
    pass
    print((both / "both/card.md").read_text())
    assert 0
