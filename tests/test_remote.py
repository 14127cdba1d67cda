"""Addresses that fsspec knows, by its file system in memory."""

import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from samples import jsonl

from ulmfit_style.__main__ import main
from ulmfit_style.data import reading, remote
from ulmfit_style.errors import UserError

FOLDER = "memory://bucket/texts"


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setattr(remote.embedded, "cache", lambda: tmp_path / "cache")
    system = fsspec.filesystem("memory")
    system.pipe(
        {"/bucket/texts/good/a.txt": b"one\ntwo\n", "/bucket/texts/deep/b.txt": b"three\n", "/bucket/c.txt": b"no"}
    )
    yield system
    system.rm("/bucket", recursive=True)


def texts(address: str) -> list[str]:
    """Read an address as a new command does."""
    remote.copied.cache_clear()
    return [row.fields["text"].strip() for row in reading.rows("corpus.path", address, ["text"])]


def test_a_file_a_folder_and_a_glob_are_read_and_only_what_has_changed_is_copied_again(
    bucket: Any, monkeypatch, capsys
):
    copied: list[str] = []
    get_file = bucket.get_file
    monkeypatch.setattr(type(bucket), "get_file", lambda _, name, to: (copied.append(name), get_file(name, to)))
    assert texts(f"{FOLDER}/good/a.txt") == ["one", "two"]
    assert texts(f"{FOLDER}/go*/*.txt") == ["one", "two"]
    assert sorted(texts(FOLDER)) == ["one\ntwo", "three"]  # of running text in several folders each file is one text
    copied.clear()
    assert sorted(texts(FOLDER)) == ["one\ntwo", "three"]
    assert not copied
    bucket.pipe("/bucket/texts/deep/b.txt", b"four\n")
    bucket.rm("/bucket/texts/good/a.txt")
    capsys.readouterr()
    assert texts(FOLDER) == ["four"]
    assert copied == ["/bucket/texts/deep/b.txt"]
    said = " ".join(capsys.readouterr().out.split())
    assert said.startswith(f"corpus.path={FOLDER}: new or changed files, copied to ")
    assert said.endswith(": 1")


def test_a_copy_that_was_broken_off_is_made_again(bucket: Any, monkeypatch):
    def dies(*_: Any) -> None:
        raise ConnectionError("the network is gone")

    with monkeypatch.context() as patch:
        patch.setattr(type(bucket), "get_file", dies)
        with pytest.raises(
            UserError, match=r"corpus.path=.*: cannot be copied to this machine \(the network is gone\)"
        ):
            texts(FOLDER)
    assert len(texts(FOLDER)) == 2


def test_a_file_that_changes_while_it_is_copied_is_copied_again(bucket: Any, monkeypatch):
    address, get_file = f"{FOLDER}/deep/b.txt", bucket.get_file

    def changes(_: Any, name: str, to: str) -> None:
        get_file(name, to)
        bucket.pipe("/bucket/texts/deep/b.txt", b"changed\n")

    with monkeypatch.context() as patch:
        patch.setattr(type(bucket), "get_file", changes)
        assert texts(address) == ["three"]
    assert texts(address) == ["changed"]


def test_a_glob_that_matches_folders_copies_files_alone_and_nothing_is_written_elsewhere(bucket: Any, tmp_path: Path):
    assert sorted(texts("memory://bucket/*")) == ["no"]
    with zipfile.ZipFile(tmp_path / "evil.zip", "w") as file:
        file.writestr("../../../escaped.txt", "escaped")
    with pytest.raises(UserError, match=r"escaped.txt would lie outside of its folder"):
        texts(f"zip://::file://{tmp_path / 'evil.zip'}")
    assert not list(tmp_path.rglob("escaped.txt"))


@pytest.mark.parametrize(
    ("address", "problem"),
    [
        ("memory://bucket/nothing", "there is no such file"),
        ("memory://bucket/no*.txt", "there is no such file"),
        ("zz://bucket/texts", "Protocol not known: zz"),
        ("http://127.0.0.1:9/texts.jsonl", r"cannot be copied to this machine \(Cannot connect to host 127.0.0.1:9"),
    ],
)
def test_an_address_of_nothing_is_told(bucket: Any, address: str, problem: str):
    with pytest.raises(UserError, match=problem):
        texts(address)


def test_labelled_rows_are_read_there_and_named_by_their_file(bucket: Any, tmp_path: Path, capsys):
    rows = [{"text": f"a film number {number}", "label": ["bad", "good"][number % 2]} for number in range(40)]
    bucket.put(str(jsonl(tmp_path / "rows.jsonl", rows)), "/bucket/rows.jsonl")
    remote.copied.cache_clear()
    path = "task.path=memory://bucket/rows.jsonl"
    assert main(["check-data", "task=text_classification", path, f"runs={tmp_path / 'runs'}"]) == 0
    assert "rows of rows.jsonl" in " ".join(capsys.readouterr().out.split())
