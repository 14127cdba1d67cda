"""Hydra's own flags, through the command line."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from ulmfit_style.__main__ import main

Command = Callable[..., tuple[int, str, str]]

MINE = "_target_: ulmfit_style.tasks.text_classification.TextClassification\npath: my.csv\ntext: a\nlabel: b\n"


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Run `ulmfit-style` as a user does, in a folder that holds `my conf/task/mine.yaml`."""
    (tmp_path / "my conf" / "task").mkdir(parents=True)
    (tmp_path / "my conf" / "task" / "mine.yaml").write_text(MINE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["ulmfit-style"])

    def run(*arguments: str) -> tuple[int, str, str]:
        try:
            code = main(arguments)
        except SystemExit as stop:
            code = int(stop.code or 0)
        return code, *capsys.readouterr()

    return run


@pytest.mark.parametrize("typed", [["--config-dir", "my conf"], ["--config-dir=my conf"]], ids=str)
def test_a_config_dir_and_another_flag_go_together(command: Command, typed: list[str]):
    _, shown, error = command("adapt", *typed, "task=mine", "--cfg", "job")
    assert yaml.safe_load(shown)["task"]["path"] == "my.csv", error


def test_info_tells_where_values_come_from():
    # In a process of its own: it turns on what Hydra logs.
    info = [sys.executable, "-m", "ulmfit_style", "finetune", "--info", "defaults", "finetune.seed=3"]
    shown = subprocess.run(info, capture_output=True, text=True, check=True)
    assert "finetune/plain" in shown.stdout


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (["--confg", "job"], "unrecognized arguments: --confg"),
        (["task=mine", "--config-dir"], "argument --config-dir: expected one argument"),
        (["-m", "finetune.seed=1,many"], "finetune.seed=many: should be a valid integer"),
    ],
)
def test_a_wrong_flag_and_a_wrong_job_are_told_before_the_first_job(command: Command, typed: list[str], message: str):
    code, _, error = command("adapt", *typed)
    assert code == 2
    assert message in error


def test_what_a_job_of_a_multirun_cannot_do_ends_with_code_2_and_no_traceback(command: Command):
    code, _, error = command("adapt", "--multirun", "--config-dir", "my conf", "task=mine", "adapt.seed=1,2")
    assert code == 2
    assert error.endswith("\nulmfit-style: task.path=my.csv: there is no such file\n")
    assert "Traceback" not in error


def test_options_before_the_command_are_refused(capsys: pytest.CaptureFixture[str]):
    assert main(["task=reviews", "finetune"]) == 2
    assert "task=reviews: the command comes first, and its options after it" in capsys.readouterr().err
