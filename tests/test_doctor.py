import re
import sys
from pathlib import Path

import pytest
from huggingface_hub import constants

from ulmfit_style.analysis import doctor, two_processes
from ulmfit_style.errors import UserError

LINE = re.compile(r"\S+ {1,16}\S.*")


def test_it_tells_what_an_issue_needs_and_prints_no_secret_and_no_folder(monkeypatch, capsys):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setattr(two_processes, "compared", lambda: "agree")
    doctor.run([])
    printed = capsys.readouterr().out
    assert [line for line in printed.splitlines() if not LINE.fullmatch(line)] == []
    names = {line.split()[0] for line in printed.splitlines()}
    assert {"python", "torch", "cores", "memory", "device", "disk", "Hub", "embedded"} < names
    assert "HF_TOKEN        set" in printed
    assert "embedded        scattertext 0.2.2" in printed
    assert "hf_secret" not in printed
    for folder in (Path.home(), Path.cwd(), Path(sys.prefix)):
        assert str(folder) not in printed

    doctor.run(["two_processes=true"])  # which takes most of a minute
    assert capsys.readouterr().out == f"{printed}two processes   agree\n"
    with pytest.raises(UserError, match="agreement=true: is no option of doctor; it has one: two_processes=true"):
        doctor.run(["agreement=true"])


@pytest.mark.slow
def test_two_processes_on_this_machine_train_as_one_does():
    assert re.fullmatch(r"agree with one to \de-\d\d", two_processes.compared())


@pytest.mark.parametrize(
    ("difference", "line"),
    [
        (9.9e-7, "agree with one to 1e-06"),
        (float("nan"), "differ from one by nan, and rounding explains 1e-06; train with processes=1, and report it"),
    ],
)
def test_a_difference_is_told_in_a_line(difference: float, line: str):
    assert two_processes.verdict(difference) == line


def test_two_processes_that_fail_are_told_in_a_line(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr(two_processes, "MODULE", "this.is.not.there")
    assert two_processes.compared().startswith("failed (a process ended with exit code 1; what it said stands above)")


def test_a_hub_that_does_not_answer_is_told_and_is_no_traceback(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    assert doctor._hub() == "http://127.0.0.1:9: does not answer (ConnectError)"
