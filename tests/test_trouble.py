"""Trouble of the machine is told in a line: full disks, places that cannot be written to, memory that is too small."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pyarrow
import pytest
import torch
from safetensors import SafetensorError

from ulmfit_style import __main__
from ulmfit_style.artefacts.directory import LOG, whole
from ulmfit_style.console import logging_to
from ulmfit_style.errors import UserError, trouble

FULL = Path("/dev/full")
needs_full = pytest.mark.skipif(not FULL.exists(), reason="this system has no /dev/full")


def raise_safetensors() -> NoReturn:
    raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")


def write_arrow() -> None:
    with pyarrow.OSFile(str(FULL), "wb") as file:
        file.write(b"a")


@needs_full
@pytest.mark.parametrize(
    "write",
    [
        lambda: FULL.write_text("a"),
        lambda: torch.save(torch.zeros(9), FULL),
        write_arrow,
        raise_safetensors,
    ],
    ids=["Python", "torch", "Arrow", "safetensors"],
)
def test_every_library_means_a_full_disk_by_its_own_error(write: Callable[[], object], tmp_path: Path):
    with pytest.raises((OSError, RuntimeError, SafetensorError)) as raised:
        write()
    raised.value.add_note("a checkpoint takes 9 MB")
    line = trouble(raised.value, tmp_path)
    assert line.startswith(f"{tmp_path}: no space left on device (the disk /")
    assert line.endswith(" MB left); a checkpoint takes 9 MB")


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (OSError(errno.EROFS, os.strerror(errno.EROFS), "/a/runs"), "/a/runs: read-only file system"),
        (FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), "runs"), "runs: is a file, and no folder"),
        (MemoryError(), "the memory is too small; take a smaller batch, max_length or model"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried"), "the memory is too small; take a smaller batch, max"),
        (ValueError("too many values to unpack"), None),
        (FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), "a"), None),
    ],
)
def test_the_list_of_trouble_is_closed(error: Exception, line: str | None):
    told = trouble(error)
    assert told == line if line is None else told.startswith(line)


def test_the_door_tells_trouble_in_a_line_and_lets_all_else_through(monkeypatch, capsys):
    def fail(arguments: list[Exception]) -> NoReturn:
        raise arguments[0]

    monkeypatch.setattr(__main__, "_main", fail)
    assert __main__.main([PermissionError(errno.EACCES, os.strerror(errno.EACCES), "a.csv")]) == 2
    assert capsys.readouterr().err == "ulmfit-style: a.csv: permission denied\n"
    with pytest.raises(ZeroDivisionError):
        __main__.main([ZeroDivisionError()])


def test_the_traceback_of_a_stage_is_in_its_log(tmp_path: Path):
    with pytest.raises(UserError, match="no space left on device"), logging_to(tmp_path / LOG):
        raise_safetensors()
    assert "in raise_safetensors" in (tmp_path / LOG).read_text()


@needs_full
def test_a_log_on_a_full_disk_says_nothing(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(UserError, match="the memory"), logging_to(FULL):
        raise MemoryError
    assert capsys.readouterr().err == ""


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path):
    with pytest.raises(OSError, match=r"a\.jsonl"), whole(tmp_path / "a.jsonl"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
