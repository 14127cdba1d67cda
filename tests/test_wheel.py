"""The built wheel, in a folder that holds nothing else."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from samples import reviews

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


def test_the_wheel_holds_every_file_that_is_read(installed: Path):
    configs = {path.relative_to(CONF) for path in CONF.rglob("*.yaml")}
    conf = installed / "ulmfit_style" / "conf"
    assert {path.relative_to(conf) for path in conf.rglob("*.yaml")} == configs
    beside_code = [path for path in (ROOT / "ulmfit_style").rglob("*.*") if path.suffix not in (".py", ".pyc")]
    assert [str(path) for path in beside_code if not (installed / path.relative_to(ROOT)).is_file()] == []


@pytest.mark.slow
def test_the_wheel_runs_the_chain_on_a_csv_with_a_conf_of_the_users(
    installed: Path, tmp_path: Path, checkpoint: Path, write_csv: Callable[..., Path]
):
    write_csv(reviews(120))
    (tmp_path / "conf" / "task").mkdir(parents=True)
    task = "defaults: [text_classification]\npath: reviews.csv\ntext: review\nlabel: stars\nfolds: 0\n"
    (tmp_path / "conf/task/reviews.yaml").write_text(task)
    chain = ["finetune", "evaluate", "report", "task=reviews", f"model.checkpoint={checkpoint}", "adapt=none"]
    run(installed, tmp_path, "--config-dir", "conf", *chain, "name=reviews", "finetune=plain", "compare=false")
    assert (tmp_path / "runs/reviews/report.html").is_file()
    answer = run(installed, tmp_path, "predict", "name=reviews", "predict.input=the film was good")
    assert json.loads(answer)["label"] in ("good", "bad")


def test_the_wheel_finds_its_configs_in_another_folder_and_takes_the_users_own(installed: Path, tmp_path: Path):
    (tmp_path / "own" / "finetune").mkdir(parents=True)
    (tmp_path / "own" / "finetune" / "long.yaml").write_text("defaults: [plain]\nepochs: 99\n")
    options = ["--config-dir", "own", "finetune=long", "model=distilbert", "--cfg", "job"]
    config = yaml.safe_load(run(installed, tmp_path, "finetune", *options))
    assert config["finetune"]["epochs"] == 99
    assert config["model"]["checkpoint"] == "distilbert/distilbert-base-uncased"
    run(installed, tmp_path, "runs")
    assert [path.name for path in tmp_path.iterdir()] == ["own"]  # nothing is written by asking
