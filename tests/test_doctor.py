import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ulmfit_style import doctor, embedded
from ulmfit_style.__main__ import main

LINE = re.compile(r"(\S+|package index) {1,16}\S.*")


@pytest.fixture
def report(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    """What doctor prints, without asking a package index."""
    monkeypatch.setattr(doctor, "_package_index", lambda: "answers")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert main(["doctor"]) == 0
    return capsys.readouterr().out


def test_it_tells_what_an_issue_needs_in_plain_lines(report: str):
    lines = report.splitlines()
    assert [line for line in lines if not LINE.fullmatch(line)] == []
    for start in ("python", "torch", "cores", "memory", "device", "disk", "Hub", "embedded"):
        assert any(line.startswith(f"{start} ") for line in lines), start


def test_it_prints_no_secret_and_no_folder(report: str):
    assert "HF_TOKEN        set" in report
    assert "hf_secret" not in report
    for folder in (Path.home(), Path.cwd(), Path(sys.prefix)):
        assert str(folder) not in report


def test_a_hub_that_does_not_answer_is_told_and_is_no_traceback():
    code = "from ulmfit_style import doctor; print(doctor._hub())"
    environment = {**os.environ, "HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_OFFLINE": "0"}
    ended = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert ended.stdout.startswith("http://127.0.0.1:9: does not answer"), ended.stderr


def test_an_embedded_package_is_as_it_was_installed_or_else_is_told(monkeypatch: pytest.MonkeyPatch):
    assert all(state.endswith("files, unchanged") for state in embedded.states())
    monkeypatch.setattr(embedded, "_hash", lambda path: "" if path.name == "model.safetensors" else "same")
    assert any(
        "changed since it was installed" in state and "model.safetensors" in state for state in embedded.states()
    )
    monkeypatch.setattr(embedded, "_is_installed", lambda package: False)
    assert all("not installed; `make setup`" in state for state in embedded.states())
