"""Hydra's own flags, through the command line."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from ulmfit_style.cli.compose import compose
from ulmfit_style.cli.flags import search_path

MINE = "_target_: ulmfit_style.tasks.text_classification.TextClassification\npath: my.csv\ntext: a\nlabel: b\n"


@pytest.fixture
def command(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run `ulmfit-style` as a user does, in a folder that holds `my conf/task/mine.yaml`."""
    (tmp_path / "my conf" / "task").mkdir(parents=True)
    (tmp_path / "my conf" / "task" / "mine.yaml").write_text(MINE)

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "ulmfit_style", *arguments],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def test_a_quote_in_the_name_of_a_config_dir_survives(tmp_path: Path):
    folder = tmp_path / "it's (mine), [1]"
    (folder / "task").mkdir(parents=True)
    (folder / "task" / "mine.yaml").write_text(MINE)
    assert compose([search_path([str(folder)]), "task=mine"]).task.path.train == "my.csv"


@pytest.mark.parametrize("typed", [["--config-dir", "my conf"], ["--config-dir=my conf"]], ids=str)
def test_a_config_dir_and_another_flag_go_together(command, typed: list[str]):
    shown = command("adapt", *typed, "task=mine", "--cfg", "job")
    assert yaml.safe_load(shown.stdout)["task"]["path"] == "my.csv", shown.stderr


def test_a_config_dir_without_a_name_is_refused(command):
    ended = command("adapt", "task=mine", "--config-dir")
    assert ended.returncode == 2
    assert "argument --config-dir: expected one argument" in ended.stderr


def test_info_tells_where_values_come_from(command):
    shown = command("finetune", "--info", "defaults", "finetune.seed=3")
    assert shown.returncode == 0, shown.stderr
    assert "finetune/plain" in shown.stdout


def test_every_job_of_a_multirun_is_checked_before_the_first(command):
    ended = command("adapt", "-m", "finetune.seed=1,many")
    assert ended.returncode == 2
    assert "finetune.seed=many: should be a valid integer" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_what_a_job_of_a_multirun_cannot_do_ends_with_code_2_and_no_traceback(command):
    ended = command("adapt", "--multirun", "--config-dir", "my conf", "task=mine", "adapt.seed=1,2")
    assert ended.returncode == 2
    assert ended.stderr.splitlines() == [
        "Error executing job with overrides: ['task=mine', '++adapt.seed=1']",
        "ulmfit-style: task.path=my.csv: there is no such file",
    ]


def test_a_flag_that_hydra_does_not_know_is_no_traceback(command):
    ended = command("adapt", "--confg", "job")
    assert ended.returncode == 2
    assert "Traceback" not in ended.stderr
