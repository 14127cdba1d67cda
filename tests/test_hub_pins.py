"""What is named on the Hub without a revision stays what it was when first used: over HTTP, to a Hub that runs here."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.hub_server import Hub, Repo, serve
from ulmfit_style.artefacts.directory import write_json
from ulmfit_style.data import pins
from ulmfit_style.errors import UserError
from ulmfit_style.recipe import Config

MODEL, DATA = "them/tiny", "them/reviews"


@pytest.fixture
def hub(checkpoint: Path, reviews_csv: Path) -> Iterator[Hub]:
    """A Hub with a model and a data set."""
    with serve() as server:
        files = {path.name: path.read_bytes() for path in checkpoint.iterdir()}
        server.repos[MODEL] = Repo(private=False, commits=[("", files)])
        server.repos[DATA] = Repo(private=False, commits=[("", {"data/all.csv": reviews_csv.read_bytes()})])
        yield server


def move_on(hub: Hub) -> None:
    """Commit another model and other rows."""
    files = hub.repos[MODEL].files
    hub.repos[MODEL].commits.append(("", {**files, "config.json": files["config.json"] + b"\n"}))
    rows = hub.repos[DATA].files["data/all.csv"]
    hub.repos[DATA].commits.append(("", {"data/all.csv": rows.replace(b"wonderful", b"unforgettable")}))


@pytest.fixture
def plan(hub: Hub, tiny_overrides: list[str], tmp_path: Path) -> Callable[..., tuple[str, str]]:
    """Plan to adapt a model of the Hub to text of the Hub, in a process; return the fingerprint and all that it says.

    HF_ENDPOINT is read when huggingface_hub is imported.
    """

    def run(*overrides: str, runs: str = "runs", **variables: str) -> tuple[str, str]:
        environment = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "0"}
        own = [override for override in tiny_overrides if not override.startswith(("runs=", "task.path="))]
        named = [f"model.checkpoint={MODEL}", f"task.path=hub:{DATA}/data/all.csv", f"runs={tmp_path / runs}"]
        command = [sys.executable, "-m", "ulmfit_style", "plan", "adapt", *own, *named, *overrides]
        ended = subprocess.run(command, env=environment | variables, capture_output=True, text=True, check=False)
        assert ended.returncode == 0, ended.stderr
        return re.findall(r"adapt-([0-9a-f]{8})", ended.stdout)[0], ended.stdout

    return run


def test_the_same_config_means_the_same_artefact_when_the_hub_moves_on(hub: Hub, plan, tmp_path: Path):
    commits = {MODEL: hub.repos[MODEL].head, f"hub:{DATA}": hub.repos[DATA].head}
    first, said = plan()
    path = tmp_path / "runs/pins.json"
    assert json.loads(path.read_text()) == commits
    assert f"model.checkpoint={MODEL}: pinned to its commit {commits[MODEL][:8]} ({path})\n" in said
    assert f"task.path=hub:{DATA}: pinned to its commit {commits[f'hub:{DATA}'][:8]} ({path})\n" in said

    move_on(hub)
    again, said = plan()
    assert again == first
    assert "pinned" not in said
    assert json.loads(path.read_text()) == commits


def test_another_folder_of_runs_and_a_removed_pin_mean_what_is_there_now(hub: Hub, plan, tmp_path: Path):
    first, _ = plan()
    move_on(hub)
    elsewhere, _ = plan(runs="elsewhere")
    (tmp_path / "runs/pins.json").unlink()
    assert first != elsewhere == plan()[0]


def test_a_revision_that_is_given_counts_and_pins_nothing(hub: Hub, plan, tmp_path: Path):
    old = hub.repos[MODEL].head
    _, said = plan("model.revision=main", f"task.path=hub:{DATA}@main/data/all.csv", runs="main")
    assert "pinned" not in said
    assert not (tmp_path / "main/pins.json").exists()
    pinned, _ = plan()
    move_on(hub)
    assert plan(f"model.revision={old}")[0] == pinned
    newest, _ = plan("model.revision=main")
    assert newest != pinned
    # The rows are others too.
    assert plan("model.revision=main", f"task.path=hub:{DATA}@main/data/all.csv")[0] not in (newest, pinned)


def test_without_the_network_what_was_downloaded_is_found_and_can_be_pinned(hub: Hub, plan, tmp_path: Path):
    first, _ = plan()
    move_on(hub)
    hub.requests.clear()
    assert plan(HF_HUB_OFFLINE="1")[0] == first
    assert plan(HF_HUB_OFFLINE="1", runs="elsewhere")[0] == first
    assert (tmp_path / "runs/pins.json").read_text() == (tmp_path / "elsewhere/pins.json").read_text()
    assert hub.requests == []


def test_a_pinned_config_of_a_run_that_is_up_to_date_asks_the_hub_for_nothing_that_is_there(hub: Hub, plan):
    plan()
    hub.requests.clear()
    plan()
    assert [request for request in hub.requests if request.method != "HEAD" and "/resolve/" in request.path] == []


OPTIONS = {
    "task.path": ["task.path={}"],
    "task.path.test": ["task.path={{train: a.csv, test: {}}}"],
    "corpus.path": ["corpus=file", "corpus.path={}"],
    "adapt.general": ["adapt.general={}"],
    "pretrain.path": ["pretrain=plain", "pretrain.path={}"],
    "evaluate.path": ["evaluate.path={}"],
    "predict.input": ["predict.input={}"],
}
"""How each option that names a file is set."""


@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_that_names_a_file_of_the_hub_is_pinned(compose_tiny, option: str):
    def naming(file: str) -> Config:
        return compose_tiny(*(override.format(file) for override in OPTIONS[option]))

    config = naming(f"hub:{DATA}/data/all.csv")
    config.runs.mkdir()
    write_json(config.runs / pins.PINS, {f"hub:{DATA}": "b" * 40})
    assert f"hub:{DATA}/data" not in str(pins.pinned(config).recipe())
    assert f"hub:{DATA}@{'b' * 40}/data/all.csv" in str(pins.pinned(config).recipe())
    with pytest.raises(UserError, match=rf"^{option}=hub:nonsense: write hub:<account>/<name>/<file>"):
        pins.pinned(naming("hub:nonsense"))


def test_the_checkpoint_and_the_decoder_are_pinned_in_the_recipe(compose_tiny):
    config = compose_tiny(f"model.checkpoint={MODEL}", "model.decoder=them/decoder")
    config.runs.mkdir()
    write_json(config.runs / pins.PINS, {MODEL: "a" * 40, "them/decoder": "c" * 40})
    recipe = pins.pinned(config).recipe()
    assert (recipe["model"]["revision"], recipe["model"]["decoder_revision"]) == ("a" * 40, "c" * 40)
    assert recipe["task"] == config.recipe()["task"]  # a file of one's own


def test_two_runs_at_once_pin_one_commit(tmp_path: Path):
    with ThreadPoolExecutor(8) as pool:
        found = [pool.submit(pins._commit, tmp_path, "model.checkpoint", MODEL, lambda n=n: f"{n}") for n in range(8)]
        also = [pool.submit(pins._commit, tmp_path, "model.checkpoint", f"a/{n}", lambda n=n: f"{n}") for n in range(8)]
    assert len({each.result() for each in found}) == 1
    assert [each.result() for each in also] == [str(n) for n in range(8)]
    assert len(json.loads((tmp_path / pins.PINS).read_text())) == 9
