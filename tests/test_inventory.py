"""plan, runs and clean-runs, and what is said of an artefact that is not there."""

from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock
from samples import artefact, reseal

from ulmfit_style import chain
from ulmfit_style.analysis import inventory
from ulmfit_style.artefacts.differences import changes, why_missing
from ulmfit_style.artefacts.directory import MANIFEST, RECIPE, Artefact, read_json
from ulmfit_style.compute.devices import device
from ulmfit_style.data import corpus, labelled
from ulmfit_style.errors import UserError
from ulmfit_style.recipe import Config


@pytest.fixture
def made(compose_tiny: Callable[..., Config]) -> Callable[..., Artefact]:
    """Pretend to have adapted, or with `stage=finetune` to have fine-tuned, with some options."""

    def make(*overrides: str, stage: str = "adapt", name: str | None = None) -> Artefact:
        config = compose_tiny(*overrides)
        wanted = artefact(stage, config)
        wanted.make(lambda directory: (directory / "weights").write_bytes(b"0" * 1000) and None, config.recipe())
        if name is not None:
            wanted.link(name, stage)
        return wanted

    return make


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "runs"


@pytest.mark.parametrize(
    ("nearest", "farther", "wanted", "difference"),
    [
        (["adapt.epochs=7"], ["adapt.epochs=7", "adapt.seed=3"], "adapt.epochs=2", "adapt.epochs=7 instead of 2"),
        (
            ["corpus.max_documents=60"],
            ["adapt.seed=1"],
            "corpus.max_documents=50",
            "corpus.max_documents=60 instead of 50",
        ),
    ],
    ids=["an option", "an option that acts through the data"],
)
def test_what_is_missing_is_told_with_the_nearest_and_the_options_that_differ(
    made, compose_tiny, nearest: list[str], farther: list[str], wanted: str, difference: str
):
    config = compose_tiny(wanted)
    missing = artefact("adapt", config)
    assert why_missing(missing, config.recipe()) == f"{missing.directory} is not there"
    made(*farther)
    near = made(*nearest)
    expected = f"{missing.directory} is not there; the nearest is {near.directory}: {difference}"
    assert why_missing(missing, config.recipe()) == expected


def test_other_content_of_the_same_file_is_told(made, compose_tiny, reviews_csv: Path):
    made()
    with reviews_csv.open("a") as file:
        file.writelines(f"the actor was {word} and moving,good,x{word}\n" for word in "abcdefghijklmnopqrst")
    corpus.load.cache_clear()
    labelled.load.cache_clear()
    config = compose_tiny()
    assert why_missing(artefact("adapt", config), config.recipe()).endswith(
        ": what it was made from has changed: corpus"
    )


def test_a_fine_tuning_of_another_adapted_model_is_told_by_the_options_of_adapt(made, compose_tiny):
    made("adapt.epochs=3", stage="finetune")
    config = compose_tiny()
    assert why_missing(artefact("finetune", config), config.recipe()).endswith(": adapt.epochs=3 instead of 1")
    config = compose_tiny("finetune.seed=1").model_copy(update={"adapt": None})
    assert why_missing(artefact("finetune", config), config.recipe()).endswith(
        ": adapt is not none, finetune.seed=0 instead of 1"
    )
    assert list(changes({"train": "a", "test": "b"}, "a", "task.path")) == [
        'task.path={"train": "a", "test": "b"} instead of a'
    ]


def test_a_plan_tells_each_step_and_does_nothing(made, compose_tiny, capsys, folder: Path):
    adapted = made()
    before = sorted(folder.rglob("*"))
    chain.preview(compose_tiny("compare=false"), ["adapt", "finetune"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[-3].endswith(f"learns the corpus: up to date ({adapted.directory})")
    assert lines[-2].startswith("[2/2] finetune: fine-tuned model: would run (")
    assert lines[-1].startswith("It takes about ")
    assert sorted(folder.rglob("*")) == before


def test_an_artefact_that_is_up_to_date_tells_what_is_other_now(made, compose_tiny, capsys):
    adapted = made()
    manifest = read_json(adapted.directory / MANIFEST)
    there = f"[1/1] adapt: {compose_tiny().model.checkpoint} learns the corpus: up to date ({adapted.directory})"

    def told(*overrides: str, **changes) -> list[str]:
        reseal(
            adapted.directory,
            **{"versions": manifest["versions"], "device": manifest["device"], "processes": 1, **changes},
        )
        chain.preview(compose_tiny(*overrides), ["adapt"])
        lines = capsys.readouterr().out.splitlines()
        return lines[lines.index(there) + 1 :]

    assert told() == []
    versions = {**manifest["versions"], "torch": "1.13.1", "python": "3.6"}
    here = manifest["versions"]["torch"]
    assert told(versions=versions) == [f"  made with torch 1.13.1 (here {here})"]
    assert told("processes=1", processes=2) == ["  made with processes=2 (here 1)"]
    assert told("micro_batch_size=2") == ["  made with micro_batch_size=null (here 2)"]
    assert told("fast=false") == ["  made with fast=true (here false)"]
    assert told("processes=4", versions=versions, device="cuda H100, bf16") == [
        f"  made with torch 1.13.1 (here {here}), cuda H100, bf16 (here {device()}), processes=1 (here 4)"
    ]


def test_a_plan_and_the_table_of_runs_tell_what_is_not_finished(made, compose_tiny, folder: Path, capsys):
    linked, stopped = made(name="mine"), made("adapt.seed=5")
    (stopped.directory / "manifest.json").unlink()
    chain.preview(compose_tiny("adapt.seed=5"), ["adapt"])
    assert f"would run ({stopped.directory} was begun, but not finished)" in capsys.readouterr().out
    inventory.runs([f"runs={folder}"])
    shown = capsys.readouterr().out
    row = next(line for line in shown.splitlines() if linked.fingerprint in line)
    assert "mine/adapt" in row
    assert "unfinished" in next(line for line in shown.splitlines() if stopped.fingerprint in line)
    assert "4 artefacts" in shown  # the texts of the task are one, and the general text of adapt


def test_cleaning_only_lists_until_it_is_told_to_remove(made, folder: Path, capsys):
    old, new = made("adapt.seed=5", name="mine"), made(name="mine")
    inventory.clean([f"runs={folder}"])
    listed = capsys.readouterr().out
    assert old.fingerprint in listed
    assert new.fingerprint not in listed
    assert "make clean-runs yes=true" in listed
    assert old.finished

    inventory.clean([f"runs={folder}", "yes=true"])
    assert f"removed {old.directory}" in capsys.readouterr().out
    assert not old.directory.exists()
    assert new.finished


def test_what_a_named_artefact_was_made_from_stays(made, folder: Path):
    adapted, tuned = made(), made(stage="finetune", name="mine")
    (folder / "notes-2026").mkdir()  # and what is no artefact
    inventory.clean([f"runs={folder}", "yes=true"])
    assert adapted.finished
    assert tuned.finished
    assert (folder / "notes-2026").exists()
    assert (folder / "mine" / "finetune" / RECIPE).exists()


def test_what_is_not_finished_goes_unless_a_run_is_making_it(made, folder: Path, capsys):
    artefact, other = made(), made("adapt.seed=5")
    (artefact.directory / "manifest.json").unlink()
    with FileLock(folder / f".{artefact.directory.name}.lock"):
        with pytest.raises(UserError, match="a run is making it; try again when it is finished"):
            inventory.clean([f"runs={folder}", "yes=true"])
        assert artefact.directory.exists()
        assert other.finished
    inventory.clean([f"runs={folder}", "yes=true"])
    assert not artefact.directory.exists()
    assert not other.directory.exists()
