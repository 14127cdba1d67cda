"""What is named on the Hub without a revision stays what it was when first used: over HTTP, to a Hub that runs here."""

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from huggingface_hub import constants

from tests.hub_server import Hub, Repo, serve
from ulmfit_style.artefacts.directory import write_json
from ulmfit_style.data import corpus, labelled, pins
from ulmfit_style.models import checkpoints
from ulmfit_style.stages.table import resolve

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
def adapted(hub: Hub, compose_tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Return the fingerprint of a model of the Hub that is adapted to text of the Hub."""
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))

    def run(*overrides: str, runs: str = "runs", offline: bool = False) -> str:
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
        for read in (checkpoints.resolve, corpus.load, labelled.load):
            getattr(read, "cache_clear", lambda: None)()
        named = [f"model.checkpoint={MODEL}", f"task.path=hub:{DATA}/data/all.csv", f"runs={tmp_path / runs}"]
        return resolve(compose_tiny(*named, *overrides)).artefact("adapt").fingerprint

    return run


def test_the_same_config_means_the_same_artefact_when_the_hub_moves_on(hub: Hub, adapted, tmp_path: Path, capsys):
    commits = {MODEL: hub.repos[MODEL].head, f"hub:{DATA}": hub.repos[DATA].head}
    first, printed = adapted(), capsys.readouterr().out
    path = tmp_path / "runs/pins.json"
    assert json.loads(path.read_text()) == commits
    assert f"model.checkpoint={MODEL}: pinned to its commit {commits[MODEL][:8]} ({path})\n" in printed
    assert f"task.path=hub:{DATA}: pinned to its commit {commits[f'hub:{DATA}'][:8]} ({path})\n" in printed

    move_on(hub)
    hub.requests.clear()
    assert adapted() == first
    assert "pinned" not in capsys.readouterr().out
    assert json.loads(path.read_text()) == commits
    downloads = [request for request in hub.requests if request.method != "HEAD" and "/resolve/" in request.path]
    assert downloads == []  # all that the pins mean is there

    assert adapted(runs="elsewhere") != first
    path.unlink()
    assert adapted() == adapted(runs="elsewhere")


def test_a_revision_that_is_given_counts_and_pins_nothing(hub: Hub, adapted, tmp_path: Path):
    newest = ["model.revision=main", f"task.path=hub:{DATA}@main/data/all.csv"]
    old, before = hub.repos[MODEL].head, adapted(*newest)
    assert not (tmp_path / "runs/pins.json").exists()
    pinned = adapted()
    move_on(hub)
    assert adapted(f"model.revision={old}") == pinned
    assert len({pinned, before, adapted("model.revision=main"), adapted(*newest)}) == 3  # `before` is what was pinned


def test_without_the_network_what_was_downloaded_is_found_and_can_be_pinned(hub: Hub, adapted, tmp_path: Path):
    first = adapted()
    move_on(hub)
    hub.requests.clear()
    assert adapted(offline=True) == adapted(offline=True, runs="elsewhere") == first
    assert (tmp_path / "runs/pins.json").read_text() == (tmp_path / "elsewhere/pins.json").read_text()
    assert hub.requests == []


@pytest.mark.parametrize(
    "options",
    [
        ["task.path={}"],
        ["task.path={{train: a.csv, test: {}}}"],
        ["corpus=file", "corpus.path={}"],
        ["adapt.general={}"],
        ["pretrain=plain", "pretrain.path={}"],
        ["evaluate.path={}"],
        ["predict.input={}"],
    ],
)
def test_every_option_that_names_a_file_of_the_hub_is_pinned(compose_tiny, options: list[str]):
    config = compose_tiny(*(option.format(f"hub:{DATA}/data/all.csv") for option in options))
    config.runs.mkdir()
    write_json(config.runs / pins.PINS, {f"hub:{DATA}": "b" * 40})
    recipe = str(pins.pinned(config).recipe())
    assert f"hub:{DATA}/data" not in recipe
    assert f"hub:{DATA}@{'b' * 40}/data/all.csv" in recipe


def test_the_checkpoint_and_the_decoder_are_pinned_in_the_recipe(compose_tiny):
    config = compose_tiny(f"model.checkpoint={MODEL}", "model.decoder=them/decoder")
    config.runs.mkdir()
    write_json(config.runs / pins.PINS, {MODEL: "a" * 40, "them/decoder": "c" * 40})
    recipe = pins.pinned(config).recipe()
    assert (recipe["model"]["revision"], recipe["model"]["decoder_revision"]) == ("a" * 40, "c" * 40)
    assert recipe["task"] == config.recipe()["task"]  # a file of one's own


def test_two_runs_at_once_pin_one_commit(tmp_path: Path):
    def pin(name: str, commit: int) -> str:
        return pins._commit(tmp_path, "model.checkpoint", name, lambda: f"{commit}")

    with ThreadPoolExecutor(8) as pool:
        found = [pool.submit(pin, MODEL, n) for n in range(8)]
        also = [pool.submit(pin, f"a/{n}", n) for n in range(8)]
    assert len({each.result() for each in found}) == 1
    assert [each.result() for each in also] == [str(n) for n in range(8)]
    assert len(json.loads((tmp_path / pins.PINS).read_text())) == 9
