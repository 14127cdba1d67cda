"""The built wheel, in a folder that holds nothing else."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from ulmfit_style.cli import CONF

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel and unpack it, over the dependencies of the environment that the tests run in."""
    target = tmp_path_factory.mktemp("wheel") / "site"
    quiet = ["--quiet", "--disable-pip-version-check", "--no-deps", "--no-index", "--no-build-isolation"]
    command = [sys.executable, "-m", "pip", "install", *quiet, "--target", str(target), str(ROOT)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    return target


def run(installed: Path, folder: Path, *arguments: str) -> str:
    program = [sys.executable, str(installed / "bin" / "ulmfit-style"), *arguments]
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    ended = subprocess.run(program, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_the_wheel_holds_every_config(installed: Path):
    here = {path.relative_to(CONF) for path in CONF.rglob("*.yaml")}
    there = {path.relative_to(installed / "ulmfit_style" / "conf") for path in installed.rglob("*.yaml")}
    assert there == here


def test_the_wheel_holds_the_page_of_a_report(installed: Path):
    assert (installed / "ulmfit_style/results/page.html").is_file()


def test_the_wheel_finds_its_configs_in_an_empty_folder(installed: Path, tmp_path: Path):
    assert str(installed) in run(installed, tmp_path, "adapt", "--info", "searchpath")
    config = yaml.safe_load(run(installed, tmp_path, "adapt", "--cfg", "job", "model=distilbert"))
    assert config["model"]["checkpoint"] == "distilbert/distilbert-base-uncased"


def test_the_wheel_takes_configs_of_the_users_own(installed: Path, tmp_path: Path):
    (tmp_path / "own" / "finetune").mkdir(parents=True)
    (tmp_path / "own" / "finetune" / "long.yaml").write_text("defaults: [plain]\nepochs: 99\n")
    shown = run(installed, tmp_path, "finetune", "--config-dir", "own", "finetune=long", "--cfg", "job")
    assert yaml.safe_load(shown)["finetune"]["epochs"] == 99


def test_nothing_is_written_by_asking(installed: Path, tmp_path: Path):
    run(installed, tmp_path, "runs")
    assert list(tmp_path.iterdir()) == []
