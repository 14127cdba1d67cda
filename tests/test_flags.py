"""Hydra's own flags, through the command line."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from ulmfit_style.cli.compose import compose
from ulmfit_style.cli.flags import without_config_dir
from ulmfit_style.errors import UserError

MINE = "_target_: ulmfit_style.tasks.text_classification.TextClassification\npath: my.csv\ntext: a\nlabel: b\n"


@pytest.fixture
def command(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run `ulmfit-style` as a user does, in a folder that holds `my conf/task/mine.yaml`."""
    for folder in ("my conf", "own"):
        (tmp_path / folder / "task").mkdir(parents=True)
        (tmp_path / folder / "task" / "mine.yaml").write_text(MINE)

    def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "ulmfit_style", *arguments],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), **environment},
            capture_output=True,
            text=True,
            check=False,
        )

    return run


@pytest.mark.parametrize("typed", [["--config-dir", "my conf"], ["--config-dir=my conf"], ["-cd", "my conf"]], ids=str)
def test_a_config_dir_is_an_override_however_it_is_typed(typed: list[str]):
    assert without_config_dir(["task=mine", *typed, "a=1"]) == ["hydra.searchpath=['my conf']", "task=mine", "a=1"]


def test_a_quote_in_the_name_of_a_config_dir_survives(tmp_path: Path):
    folder = tmp_path / "it's (mine), [1]"
    (folder / "task").mkdir(parents=True)
    (folder / "task" / "mine.yaml").write_text(MINE)
    assert compose(without_config_dir(["--config-dir", str(folder), "task=mine"])).task.path.train == "my.csv"


def test_a_config_dir_without_a_name_is_refused():
    with pytest.raises(UserError, match="which folder"):
        without_config_dir(["task=mine", "--config-dir"])


def test_a_config_dir_is_known_to_the_checks_and_to_the_stages(command):
    ended = command("adapt", "--config-dir", "my conf", "task=mine")
    assert ended.returncode == 2
    assert ended.stderr == "ulmfit-style: task.path=my.csv: there is no such file\n"


def test_a_config_dir_and_another_flag_go_together(command):
    shown = command("adapt", "--config-dir", "my conf", "task=mine", "--cfg", "job")
    assert yaml.safe_load(shown.stdout)["task"]["path"] == "my.csv", shown.stderr


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


def test_two_flags_that_exclude_each_other_are_no_traceback(command):
    ended = command("adapt", "--cfg", "job", "-m")
    assert ended.returncode == 2
    assert ended.stderr == "ulmfit-style: --cfg -m: one of them at a time\n"


def test_a_flag_that_hydra_does_not_know_is_no_traceback(command):
    ended = command("adapt", "--confg", "job")
    assert ended.returncode == 2
    assert "Traceback" not in ended.stderr


def complete(command, line: str) -> list[str]:
    """Return what a shell is told that may follow the line."""
    asked = command("-sc", "query=bash", COMP_LINE=line, COMP_POINT=str(len(line)))
    assert asked.returncode == 0, asked.stderr
    return asked.stdout.split()


def test_a_shell_completes_the_commands(command):
    assert "finetune" in complete(command, "ulmfit-style adapt fi")
    assert {"adapt", "finetune", "plan"} <= set(complete(command, "ulmfit-style "))


def test_a_shell_completes_our_groups_and_options(command):
    assert complete(command, "ulmfit-style adapt mod") == ["model.", "model="]
    assert "task=rotten_tomatoes" in complete(command, "ulmfit-style adapt finetune task=r")
    assert complete(command, "ulmfit-style adapt finetune finetune.see") == ["finetune.seed="]


def test_a_shell_completes_after_an_option_that_no_yaml_spells_out(command):
    assert complete(command, "ulmfit-style adapt task.test_samples=5 finetune.see") == ["finetune.seed="]


def test_a_shell_completes_the_choices_of_a_config_dir(command, tmp_path: Path):
    assert complete(command, f"ulmfit-style adapt --config-dir={tmp_path / 'own'} task=mi") == ["task=mine"]


def test_a_shell_is_told_nothing_about_a_line_that_is_wrong_so_far(command):
    assert complete(command, "ulmfit-style adapt name='' task=]x finetune.see") == []


@pytest.mark.parametrize("shell", ["bash", "fish"])
def test_the_script_that_a_shell_runs_asks_the_program(command, shell: str):
    script = command("--shell-completion", f"install={shell}")
    assert script.returncode == 0, script.stderr
    assert "query=" in script.stdout
