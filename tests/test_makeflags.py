"""The real Makefile under the real make, with a stand-in for the program that notes how it was called."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ulmfit_style.__main__ import all_commands, main
from ulmfit_style.cli.overrides import overrides_from_make
from ulmfit_style.errors import UserError

ROOT = Path(__file__).parents[1]

STAND_IN = """#!{python}
import json, os, sys
call = {{"arguments": sys.argv[1:], "makeflags": os.environ["MAKEFLAGS"]}}
print(json.dumps(call), file=open({calls!r}, "a"))
"""


class Make:
    """Runs make with an environment that holds the stand-in alone."""

    def __init__(self, folder: Path) -> None:
        self.venv = folder / "venv"
        self.calls = folder / "calls.jsonl"
        program = self.venv / "bin" / "ulmfit-style"
        program.parent.mkdir(parents=True)
        program.write_text(STAND_IN.format(python=sys.executable, calls=str(self.calls)))
        program.chmod(0o755)

    def __call__(self, *typed: str) -> list[dict[str, Any]]:
        """Return what each call of the program was given."""
        outside = {key: value for key, value in os.environ.items() if key not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL")}
        # An "old" file is not made again, whatever it depends on: no test sets up an environment.
        command = ["make", f"VENV={self.venv}", f"--old-file={self.venv}/installed", *typed]
        subprocess.run(command, cwd=ROOT, env=outside, check=True, capture_output=True)
        return [json.loads(line) for line in self.calls.read_text().splitlines()] if self.calls.exists() else []

    def overrides(self, *typed: str) -> list[str]:
        [call] = self("adapt", *typed)
        return overrides_from_make(call["makeflags"])


@pytest.fixture
def make(tmp_path: Path) -> Make:
    return Make(tmp_path)


VALUES = [
    *("[fresh, rotten]", "{path: a.csv, labels: [1, 2]}", "my  data.csv ", "", "a=b==c"),
    *("it's", """"it's a 'quoted' name\"""", "(x);rm -rf `y` | z && w > v", "$(x)", "a$(b", "$$x$$$", "${oc.env:HOME}"),
    *("#1 and \\#2", "C:\\new\\table\\", "\\ \\\\ x", "-- sly=1", "--sly=1", "%.o:%.c", "*?~"),
    *("tab\there", "line\nbreak \\\n", "été 日本語 🙂"),
]

TYPED = [
    "finetune.learning_rate=1e-5,3e-5",
    "+adapt.extra=1",
    "++finetune.extra=1",
    "~task=none",
    "hydra/launcher=joblib",
    "hydra.searchpath=[my_conf]",
    "model@other.model=minilm",
    "NAME.x=capitals need not be make's",
    *(f"key{number}={value}" for number, value in enumerate(VALUES)),
]


def test_options_come_through_make_as_they_were_typed_and_in_that_order(make: Make) -> None:
    assert make.overrides(*TYPED) == TYPED


def test_the_door_takes_the_options_of_make(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setenv("MAKEFLAGS", "s -- finetune.lr=1")
    assert main(["adapt", "--from-make"]) == 2
    assert "finetune.lr: there is no such option" in capsys.readouterr().err


def test_of_a_key_typed_twice_the_last_value_counts(make: Make) -> None:
    assert make.overrides("a=1", "b=2", "a=3") == ["a=3", "b=2"]


@pytest.mark.parametrize("options", [[], ["a=1", "b=x y"]], ids=" ".join)
@pytest.mark.parametrize("flags", [["-k", "-s", "-j2"], ["-I", "/a b"], ["--eval=x = -- y=1"], ["--"]], ids=" ".join)
def test_flags_of_make_are_no_overrides(make: Make, flags: list[str], options: list[str]) -> None:
    assert make.overrides(*flags, *options) == options


def test_variables_of_the_makefile_are_left_out(make: Make) -> None:
    assert make.overrides("a=1", "PYTHON=python3", "HF_HUB_OFFLINE=1", "b=2") == ["a=1", "b=2"]


def test_make_before_4_writes_no_dashes_where_no_flag_was_given() -> None:
    assert overrides_from_make("b=2 a=x\\ y") == ["a=x y", "b=2"]


def test_make_dash_e_is_refused_for_it_hides_the_options(make: Make) -> None:
    with pytest.raises(UserError, match="leave -e out"):
        make.overrides("-e", "a=1")


@pytest.mark.parametrize("words", [["finetune", "adapt", "push"], ["plan", "finetune"]], ids=" ".join)
def test_commands_typed_together_are_one_call_in_the_order_typed(make: Make, words: list[str]) -> None:
    calls = make(words[0], "name=x", *words[1:])
    assert [call["arguments"] for call in calls] == [[*words, "--from-make"]]


def test_every_command_is_a_target_that_help_lists() -> None:
    listed = subprocess.run(["make", "help"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    assert [name for name in all_commands() if f"  make {name} " not in listed] == []


def test_help_fits_on_a_screen_and_beside_a_command_leaves_all_to_it(make: Make) -> None:
    lines = subprocess.run(
        ["make", "--no-print-directory", "help"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.splitlines()
    assert len(lines) < 24
    assert max(map(len, lines)) < 80
    assert [call["arguments"] for call in make("help", "adapt")] == [["adapt", "--help", "--from-make"]]


def test_a_dry_run_of_make_runs_nothing(make: Make) -> None:
    assert make("-n", "adapt", "finetune", "name=x") == []


def test_no_value_runs_as_a_command(make: Make, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    make.overrides(f"name=$(shell touch {trace})", f"a.b=`touch {trace}`", f"runs=; touch {trace}")
    assert not trace.exists()
