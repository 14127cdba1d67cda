import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ulmfit_style.__main__ import main
from ulmfit_style.analysis import doctor, two_processes

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
    names = {line.split()[0] for line in lines}
    assert {"python", "torch", "cores", "memory", "device", "disk", "Hub", "embedded"} < names
    assert "two" not in names  # which takes most of a minute, and is done when asked for


@pytest.mark.slow
def test_two_processes_on_this_machine_train_as_one_does():
    assert re.fullmatch(r"agree with one to \de-\d\d", two_processes.compared())


@pytest.mark.parametrize(
    ("code", "line"),
    [
        ("print(9.9e-7)", "agree with one to 1e-06"),
        (
            "print(0.004)",
            "differ from one by 4e-03, and rounding explains 1e-06; train with processes=1, and report it",
        ),
        ("print('nan')", "differ from one by nan"),
        (
            "import this_is_not_there",
            "failed: `python -m ulmfit_style.analysis.two_processes` shows more; train with processes=1",
        ),
        ("import signal, time; signal.alarm(1); time.sleep(60)", "did not end within 120 seconds: `python -m"),
    ],
)
def test_what_is_wrong_with_two_processes_is_one_line(monkeypatch: pytest.MonkeyPatch, code: str, line: str):
    monkeypatch.setattr(two_processes, "COMMAND", [sys.executable, "-c", code])
    compared = two_processes.compared()
    assert compared.startswith(line)
    assert "\n" not in compared


def test_two_processes_are_tried_when_asked_for_and_nothing_else_is_an_option(monkeypatch, report: str, capsys):
    monkeypatch.setattr(two_processes, "compared", lambda: "agree")
    assert main(["doctor", "two_processes=true"]) == 0
    assert capsys.readouterr().out == f"{report}two processes   agree\n"
    assert main(["doctor", "agreement=true"]) == 2
    assert "agreement=true: is no option of doctor; it has one: two_processes=true" in capsys.readouterr().err


def test_processes_that_hang_are_ended():
    code = "from ulmfit_style.analysis import two_processes; two_processes.TIMEOUT_SECONDS = 1; two_processes.main([])"
    ended = subprocess.run([sys.executable, "-c", code], check=False, timeout=60)
    assert ended.returncode == -signal.SIGALRM


def test_it_prints_no_secret_and_no_folder(report: str):
    assert "HF_TOKEN        set" in report
    assert "embedded        scattertext 0.2.2" in report
    assert "hf_secret" not in report
    for folder in (Path.home(), Path.cwd(), Path(sys.prefix)):
        assert str(folder) not in report


def test_a_hub_that_does_not_answer_is_told_and_is_no_traceback():
    code = "from ulmfit_style.analysis import doctor; print(doctor._hub())"
    environment = {**os.environ, "HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_OFFLINE": "0"}
    ended = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert ended.stdout.startswith("http://127.0.0.1:9: does not answer"), ended.stderr
