"""What a plan says of time, memory and disk, and what a run says of that in the end."""

from collections.abc import Callable
from pathlib import Path

import pytest
from samples import artefact

from ulmfit_style import chain
from ulmfit_style.analysis import estimate
from ulmfit_style.artefacts.directory import CHECKPOINTS, MANIFEST, read_json
from ulmfit_style.cli.compose import compose
from ulmfit_style.models import embedded
from ulmfit_style.recipe import Config
from ulmfit_style.stages import adapt
from ulmfit_style.stages.table import resolve


def test_a_plan_guesses_until_a_run_was_timed_and_the_run_tells_how_that_went(
    compose_tiny: Callable[..., Config], assets: Path, capsys: pytest.CaptureFixture[str]
):
    config = compose_tiny()
    chain.preview(config, ["adapt"])
    assert "(a guess: no step of the kind was timed on this machine yet)" in capsys.readouterr().out
    chain.run(config, ["adapt"])
    assert "; the estimate was 0 seconds" in capsys.readouterr().out  # tiny weights are nothing to a processor
    lasted = read_json(artefact("adapt", config).directory / MANIFEST)["seconds"]
    longer = compose_tiny("adapt.epochs=3")
    assert config.adapt.epochs == 1
    assert estimate.seconds(chain.plan(resolve(longer), ["adapt"])) == pytest.approx(3 * lasted, rel=0.01)
    chain.preview(longer, ["adapt"])
    (told,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("It takes")]
    assert "guess" not in told
    assert " of memory and at most " in told


def test_nothing_is_foretold_of_a_model_that_is_still_to_be_made(tiny_overrides: list[str], assets: Path):
    config = compose([*(one for one in tiny_overrides if "checkpoint" not in one), "model=mini_bert"])
    steps = chain.plan(resolve(config), ["pretrain"])
    assert estimate.needs(steps).startswith("an unknown amount of time, memory and disk: no step")


def test_what_goes_on_from_a_checkpoint_is_not_timed_for_it_took_less(compose_tiny, assets: Path):
    config = compose_tiny()
    (artefact("adapt", config).directory / CHECKPOINTS).mkdir(parents=True)
    chain.run(config, ["adapt"])
    assert embedded.kept(estimate.TIMES) == {}


@pytest.mark.parametrize(("work", "seconds"), [(100, 11), (1500, 75), (50, 5.5)], ids=["near", "longer", "shorter"])
def test_a_step_is_foretold_by_the_one_of_its_kind_that_is_nearest_in_work(
    compose_tiny, assets: Path, monkeypatch, work: float, seconds: float
):
    (step,) = chain.plan(resolve(compose_tiny()), ["adapt"])
    kept = [(100, 11, 10**9), (1000, 50, 10**9)]
    embedded.keep(estimate.TIMES, {estimate._kind(step): kept})
    monkeypatch.setattr(estimate, "_work", lambda step: work)
    assert estimate.seconds([step]) == pytest.approx(seconds, rel=0.05)


def test_a_cache_that_cannot_be_read_or_written_stops_nothing(assets: Path):
    embedded.cache().mkdir(parents=True)
    (embedded.cache() / "kept.json").write_text("{")
    assert embedded.kept("kept.json") == {}
    (embedded.cache() / "folder.json").mkdir()
    embedded.keep("folder.json", {"a": 1})


def test_a_plan_tells_that_so_little_text_gained_nothing_where_it_was_measured(compose_tiny, monkeypatch, capsys):
    chain.preview(compose_tiny(), ["adapt"])
    assert "adapt: so little text (" in capsys.readouterr().out
    monkeypatch.setattr(adapt, "LITTLE_TEXT", 1000)
    chain.preview(compose_tiny(), ["adapt"])
    assert "so little text" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "passes"),
    [
        (["finetune=plain", "finetune.epochs=2"], 3 * 2 + 1),
        (["finetune=plain", "finetune.epochs=2", "finetune.unfreeze=[1,2,all]"], 3 * 4 + 1),
        (["finetune=frozen", "finetune.epochs=0"], 1),
    ],
    ids=["every weight", "three phases", "the head alone"],
)
def test_the_work_of_fine_tuning_is_that_of_its_phases_and_of_what_is_scored(compose_tiny, options, passes: int):
    resolved = resolve(compose_tiny(*options))
    learnt, rows = estimate.tokens(resolved, resolved.training_rows), resolved.rows
    scored = estimate.tokens(resolved, [*rows.validation, *rows.test])
    assert resolved.stages["finetune"].module.work(resolved) == pytest.approx(passes * learnt + scored)
