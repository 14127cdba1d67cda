"""What is finished is compared with its seal: damage is told, and made again or refused; nothing outside is read."""

import os
import platform
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from samples import save_bert

from ulmfit_style.__main__ import main
from ulmfit_style.analysis import inventory
from ulmfit_style.artefacts import directory as directories
from ulmfit_style.artefacts import seal
from ulmfit_style.artefacts.directory import (
    CHECKPOINTS,
    LOG,
    MANIFEST,
    MEASURED,
    Artefact,
    damage,
    discard_weights,
    require_intact,
    write_json,
)
from ulmfit_style.config.training import Model
from ulmfit_style.errors import UserError
from ulmfit_style.models import checkpoints


def build(directory: Path) -> None:
    (directory / "model.safetensors").write_bytes(bytes(1000))
    (directory / "tokenizer").mkdir(exist_ok=True)
    (directory / "tokenizer" / "vocab.txt").write_text("[PAD]\n[UNK]\n")


@pytest.fixture
def made(tmp_path: Path) -> Artefact:
    artefact = Artefact("adapt", {"seed": 0, "names": {1: "a", 10: "b", 2: "c"}}, tmp_path)
    artefact.make(build, {"name": "x"})
    return artefact


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


HARMS: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "cut short": ("model.safetensors", lambda path: os.truncate(path, 999), "has 999 bytes, and had 1,000"),
    "emptied": ("recipe.yaml", lambda path: os.truncate(path, 0), "has 0 bytes, and had 8"),
    "a flipped bit": ("tokenizer/vocab.txt", flip, r"has another content than it had \(by its SHA-256\)"),
    "removed": ("tokenizer/vocab.txt", Path.unlink, "is missing"),
    "a manifest with a flipped bit": (MANIFEST, flip, "is not what this version of the program wrote"),
    "an empty manifest": (MANIFEST, lambda path: path.write_text("{}"), "is not what this version"),
    "a manifest of null": (MANIFEST, lambda path: path.write_text("null"), "is not what this version"),
    "a manifest of brackets": (MANIFEST, lambda path: path.write_text("[" * 10**5), "is not what this version"),
    "a manifest that is a folder": (MANIFEST, lambda path: (path.unlink(), path.mkdir()), "is not what this version"),
}


@pytest.mark.parametrize(("name", "harm", "told"), HARMS.values(), ids=HARMS)
def test_a_damaged_artefact_is_told_set_aside_and_made_again(
    made: Artefact, capsys: pytest.CaptureFixture[str], name: str, harm: Callable[[Path], object], told: str
):
    harm(made.directory / name)
    assert not made.finished
    assert not made.measured
    with pytest.raises(UserError, match=rf"is damaged: {name} {told}.*; remove this folder, and run `adapt` with"):
        require_intact(made.directory)
    made.make(build, {"name": "x"})
    assert made.finished
    (aside,) = made.runs.glob(f"damaged-*-{made.directory.name}")
    assert damage(aside)
    line = f"adapt: {made.directory} is damaged: {name} "
    assert [said for said in capsys.readouterr().out.splitlines() if said.startswith(line)]


def test_a_large_file_is_compared_by_its_size_and_when_it_is_loaded_by_its_content(
    made: Artefact, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(seal, "SMALL", 100)
    assert damage(made.directory, "*") is None
    flip(made.directory / "model.safetensors")
    assert made.finished
    with pytest.raises(UserError, match=r"model\.safetensors has another content"):
        require_intact(made.directory)
    assert not made.finished  # for this process knows now


def test_the_table_of_runs_tells_what_was_set_aside(made: Artefact, capsys: pytest.CaptureFixture[str]):
    flip(made.directory / "model.safetensors")
    made.make(build, {"name": "x"})
    inventory.runs([f"runs={made.runs}"])
    assert re.search(r"│ damaged +│", capsys.readouterr().out)


def test_a_log_may_grow_and_weights_may_be_discarded(made: Artefact):
    with (made.directory / LOG).open("a") as file:
        file.write("a line of a later attempt")
    (made.directory / CHECKPOINTS).mkdir()  # as a run leaves it that is killed when the manifest is there
    assert made.finished
    discard_weights(made.directory, folder="")
    assert not (made.directory / CHECKPOINTS).exists()
    assert (made.directory / MEASURED).exists()
    assert not made.finished
    assert made.measured
    flip(made.directory / "recipe.yaml")
    assert not made.measured


def test_the_disk_holds_every_file_and_folder_before_the_manifest_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    artefact, synced = Artefact("adapt", {}, tmp_path), []
    fsync = os.fsync

    def noted(descriptor: int) -> None:
        assert not (artefact.directory / MANIFEST).exists() or Path(f"/proc/self/fd/{descriptor}").is_dir()
        synced.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    artefact.make(build, {})
    *before, manifest, last = synced
    files = ("recipe.yaml", "model.safetensors", "tokenizer", "tokenizer/vocab.txt", "")
    assert {str(artefact.directory / name) for name in files} | {str(tmp_path)} == set(before)
    assert Path(manifest).name == f".{MANIFEST}.{platform.node()}.{os.getpid()}"
    assert last == str(artefact.directory)


def test_a_run_that_ends_before_its_manifest_goes_on_from_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    artefact = Artefact("adapt", {}, tmp_path)

    def train(directory: Path) -> None:
        (directory / CHECKPOINTS).mkdir()

    def ends(*arguments: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(directories, "write_json", ends)
        with pytest.raises(KeyboardInterrupt):
            artefact.make(train, {})
    artefact.make(lambda directory: (directory / CHECKPOINTS).rmdir(), {})
    assert artefact.finished


def test_what_ended_runs_of_this_machine_left_half_written_is_removed(tmp_path: Path):
    ended = next(number for number in range(10**5, 10**7) if not psutil.pid_exists(number))
    here, there = f".a.json.{platform.node()}", ".a.json.another-machine"
    left, *others = (tmp_path / name for name in (f"{here}.{ended}", f"{here}.{os.getppid()}", f"{there}.{ended}"))
    for path in (left, *others):
        path.touch()
    write_json(tmp_path / "a.json", {})
    assert [path.exists() for path in (left, *others)] == [False, True, True]


def test_a_link_that_became_a_folder_when_runs_was_copied_is_set_aside(made: Artefact):
    made.link("mine", "adapt")
    (made.runs / "mine/adapt").unlink()
    (made.runs / "mine/adapt").mkdir()
    (made.runs / "mine/adapt/notes.txt").write_text("mine")
    made.link("mine", "adapt")
    assert (made.runs / "mine/adapt").resolve() == made.directory.resolve()
    (aside,) = (made.runs / "mine").glob("copied-*-adapt")
    assert (aside / "notes.txt").read_text() == "mine"


def linked(folder: Path) -> None:
    (folder / "tokenizer.json").rename(folder.parent / "secret.json")
    (folder / "tokenizer.json").symlink_to(folder.parent / "secret.json")


def sharded(value: object) -> Callable[[Path], None]:
    return lambda folder: write_json(folder / "model.safetensors.index.json", value)


@pytest.mark.parametrize(
    ("harm", "told"),
    [
        (linked, r"secret\.json is not a file of this folder"),
        (sharded({"weight_map": {"a": "../other.safetensors"}}), r"other\.safetensors is not a file of this folder"),
        (sharded({"weight_map": {"a": "/etc/passwd"}}), "/etc/passwd is not a file of this folder"),
        (sharded({"weight_map": {"a": "model-1.safetensors"}}), r"model-1\.safetensors is not a file of this folder"),
        (sharded(["a"]), "does not list weights"),
    ],
    ids=["a link", "a path upwards", "a whole path", "no such shard", "no index"],
)
def test_a_checkpoint_that_leads_out_of_its_folder_is_refused(tmp_path: Path, harm: Callable[[Path], None], told: str):
    folder = save_bert(tmp_path / "checkpoint")
    (tmp_path / "other.safetensors").touch()
    harm(folder)
    with pytest.raises(UserError, match=told):
        checkpoints.find(Model(checkpoint=str(folder)), f"model.checkpoint={folder}")


def test_the_links_of_the_hubs_cache_are_followed(tmp_path: Path):
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots/abc"
    snapshot.mkdir(parents=True)
    for path in save_bert(blobs).iterdir():
        (snapshot / path.name).symlink_to(f"../../blobs/{path.name}")
    assert checkpoints.find(Model(checkpoint=str(snapshot)), f"model.checkpoint={snapshot}") == snapshot


def test_a_flipped_bit_in_adapted_weights_is_refused_by_finetune_and_mended_by_the_chain(
    tiny_overrides: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(seal, "SMALL", 100)
    command = [*tiny_overrides, "compare=false", "adapt.head_epochs=0", "finetune.epochs=1"]
    assert main(["adapt", *command]) == 0
    (weights,) = (tmp_path / "runs").glob("adapt-*/model.safetensors")
    trained = weights.read_bytes()
    flip(weights)
    assert main(["finetune", *command]) == 2
    assert "model.safetensors has another content" in capsys.readouterr().err
    monkeypatch.setattr(seal, "_KNOWN", {})  # as in another process
    assert main(["adapt", "finetune", *command]) == 0
    assert weights.read_bytes() == trained
    assert "is made again" in capsys.readouterr().out
    assert main(["finetune", *command]) == 0
