import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from ulmfit_style import processes
from ulmfit_style.composing import compose
from ulmfit_style.launch import main
from ulmfit_style.run import MANIFEST


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ulmfit_style", *arguments], capture_output=True, text=True, check=False
    )


def test_the_same_command_runs_the_chain_in_two_processes(tiny_overrides: list[str], tmp_path: Path):
    ended = command("adapt", "finetune", *tiny_overrides, "processes=2")
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr == ""
    assert "2 processes train together" in ended.stdout
    assert ended.stdout.count("[4/4] finetune: the task") == 1  # the main process alone speaks
    made = tmp_path / "runs/default/finetune"
    assert json.loads((made / MANIFEST).read_text())["processes"] == 2
    assert not (made / "checkpoints").exists()

    # The number of processes is in no fingerprint: one process finds the same artefacts.
    again = command("adapt", "finetune", *tiny_overrides, "processes=1")
    assert again.stdout.count("up to date") == 4
    # The references are made by the main process alone.
    assert again.stdout.count("\n  made with processes=2 (here 1)\n") == 3


def test_a_mistake_in_the_processes_ends_with_one_message_and_no_traceback(tiny_overrides: list[str]):
    ended = command("adapt", "finetune", *tiny_overrides, "processes=2", "adapt.batch_size=3", "compare=false")
    assert ended.returncode == 2
    assert ended.stderr.count("batch_size=3: cannot be split into rows of 1 on 2 processes") == 1
    assert "Traceback" not in ended.stderr


def test_another_number_of_processes_than_the_recipe_wants_is_refused(
    recipe_of_two: Path, capsys: pytest.CaptureFixture[str]
):
    assert main([str(recipe_of_two), "adapt", "finetune"]) == 2
    assert "processes=2: there are 1" in capsys.readouterr().err


@pytest.fixture
def recipe_of_two(tiny_overrides: list[str], tmp_path: Path) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(compose([*tiny_overrides, "processes=2"]).recipe()))
    return path


def test_one_process_agrees_with_itself_and_imports_nothing(monkeypatch: pytest.MonkeyPatch):
    assert processes.count() == 1
    assert processes.is_main()
    assert processes.from_main("value") == "value"
    assert processes.any_of(flag=True)
    assert not processes.any_of(flag=False)
    monkeypatch.setenv("RANK", "1")
    assert not processes.is_main()
