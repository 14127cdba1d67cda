import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ulmfit_style.artefacts.directory import CHECKPOINTS, MANIFEST, Artefact, write_json
from ulmfit_style.artefacts.fingerprint import digest
from ulmfit_style.cli.compose import compose
from ulmfit_style.compute.devices import device


def artefact(runs: Path, **determinants: object) -> Artefact:
    return Artefact("adapt", determinants or {"seed": 0}, runs)


def test_a_fingerprint_depends_on_every_determinant_and_on_nothing_else(tmp_path: Path):
    assert artefact(tmp_path, seed=0).fingerprint == artefact(tmp_path / "elsewhere", seed=0).fingerprint
    assert artefact(tmp_path, seed=0).fingerprint != artefact(tmp_path, seed=1).fingerprint
    assert artefact(tmp_path, a=1, b=2).fingerprint == artefact(tmp_path, b=2, a=1).fingerprint


def test_the_manifest_is_written_last_and_tells_what_was_made(tmp_path: Path):
    made = artefact(tmp_path)

    def build(directory: Path) -> None:
        assert not (directory / MANIFEST).exists()
        assert not made.finished
        (directory / "weights").write_text("w")

    directory = made.make(build, {"name": "x"})
    assert made.finished
    manifest = json.loads((directory / MANIFEST).read_text())
    assert manifest["fingerprint"] == made.fingerprint
    assert manifest["determinants"] == {"seed": 0}
    assert set(manifest["versions"]) >= {"python", "torch", "transformers"}
    assert (manifest["device"], manifest["processes"]) == (device(), 1)


def test_a_finished_artefact_is_not_made_again(tmp_path: Path):
    artefact(tmp_path).make(lambda directory: None, {})
    artefact(tmp_path).make(lambda directory: pytest.fail("made again"), {})


def test_what_a_stopped_run_left_to_go_on_from_is_handed_over_and_removed_in_the_end(tmp_path: Path):
    def stopped(directory: Path) -> None:
        (directory / CHECKPOINTS).mkdir()
        (directory / CHECKPOINTS / "half").write_text("done")
        raise KeyboardInterrupt

    def going_on(directory: Path) -> None:
        assert (directory / CHECKPOINTS / "half").read_text() == "done"

    with pytest.raises(KeyboardInterrupt):
        artefact(tmp_path).make(stopped, {})
    assert not artefact(tmp_path).finished
    directory = artefact(tmp_path).make(going_on, {})
    assert artefact(tmp_path).finished
    assert not (directory / CHECKPOINTS).exists()


def test_a_second_run_waits_for_the_first_and_finds_it_finished(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    started, go_on = threading.Event(), threading.Event()

    def slow(directory: Path) -> None:
        started.set()
        go_on.wait(10)

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(artefact(tmp_path).make, slow, {})
        started.wait(10)
        second = pool.submit(artefact(tmp_path).make, lambda directory: pytest.fail("made twice"), {})
        while "waiting for it" not in capsys.readouterr().out:
            time.sleep(0.01)
        go_on.set()
        assert first.result() == second.result()


def test_links_follow_the_last_artefact_of_a_name(tmp_path: Path):
    for seed in (0, 1):
        made = artefact(tmp_path, seed=seed)
        made.make(lambda directory: None, {})
        made.link("mine", "adapt")
    assert (tmp_path / "mine" / "adapt").resolve() == made.directory.resolve()


def test_json_is_written_whole_or_not_at_all(tmp_path: Path):
    write_json(tmp_path / "a.json", {"old": 1})
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", {"new": object()})
    assert json.loads((tmp_path / "a.json").read_text()) == {"old": 1}


def test_options_that_act_through_the_data_are_in_no_fingerprint():
    task = compose(["task.train_samples=7", "task.split_seed=3"]).task
    assert task.determinants() == {}
    assert digest({"ä": 1}) == digest({"ä": 1})
