"""A sweep whose trials are kept by a PostgreSQL server, and whose workers are killed at random."""

import multiprocessing
import os
import random
import shutil
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from multiprocessing.process import BaseProcess
from pathlib import Path

import optuna
import pytest
import sweep_worker
from optuna.trial import FrozenTrial, TrialState
from sweep_worker import STARTED

from ulmfit_style.__main__ import main
from ulmfit_style.experiments.trial_queue import DIED, failures, open_journal

WORKERS, KILLS = 10, 8
SPACE = """
space:
  finetune.weight_decay: {low: 0.01, high: 0.056, step: 0.002}
sampler: BruteForce
pruner: none
trials: 24
max_failures: 24
"""

RECIPE = ["finetune.weight_decay=0.01"]

SERVER = max(Path("/usr/lib/postgresql").glob("*/bin"), default=Path(shutil.which("pg_ctl") or "/none").parent)
MISSING = [
    what
    for what, is_there in (
        ("a PostgreSQL server (Debian's package postgresql)", (SERVER / "initdb").exists()),
        ("its driver (pip install 'psycopg[binary]')", find_spec("psycopg") is not None),
    )
    if not is_there
]
pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(MISSING), reason=f"there is no {' and no '.join(MISSING)}")]


@pytest.fixture
def database() -> Iterator[str]:
    """The URL of a server of the test's own, which listens to a socket in its folder and to no port."""
    other = {"user": "nobody", "extra_groups": []} if os.geteuid() == 0 else {}  # it does not run as root
    with tempfile.TemporaryDirectory() as folder:
        if other:
            shutil.chown(folder, "nobody")
        data = f"{folder}/data"

        def server(program: str, *arguments: str) -> None:
            command = [SERVER / program, "-D", data, *arguments]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=folder, **other)

        server("initdb", "--username=me", "--auth=trust", "--no-sync")
        listening = f"-c listen_addresses='' -c unix_socket_directories='{folder}' -c fsync=off"
        server("pg_ctl", "-w", "-l", f"{folder}/log", "-o", listening, "start")
        try:
            yield f"postgresql+psycopg://me@/postgres?host={folder}"
        finally:
            server("pg_ctl", "-w", "-m", "immediate", "stop")


@pytest.fixture
def overrides(not_adapted: list[str], tmp_path: Path) -> list[str]:
    """Those of a sweep of 24 trials."""
    path = tmp_path / "my_conf/sweep/mine.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(SPACE)
    return [f"hydra.searchpath=['{tmp_path}/my_conf']", *not_adapted, "sweep=mine", *RECIPE]


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Callable[..., BaseProcess]:
    """Start a worker, in a fork of a process that has imported all that it needs, so that it begins at once."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["sweep_worker"])
    monkeypatch.setenv("PYTHONPATH", f"{Path(__file__).parent}:{os.environ.get('PYTHONPATH', '')}")

    def started(overrides: list[str], seconds: float = 1) -> BaseProcess:
        worker = context.Process(target=sweep_worker.work, args=(overrides, seconds))
        worker.start()
        return worker

    return started


def scores(runs: Path, database: str | None) -> tuple[optuna.Study, dict[tuple[object, ...], FrozenTrial]]:
    """Return the study in a folder `runs`, and its trials by what they tried."""
    study = optuna.load_study(study_name="default-sweep", storage=open_journal(runs / "default-sweep", database))
    return study, {tuple(sorted(trial.params.items())): trial for trial in study.trials}


def test_ten_workers_that_are_killed_at_random_lose_no_trial_and_run_none_twice(
    overrides: list[str], start: Callable[..., BaseProcess], tmp_path: Path, database: str, capfd: pytest.CaptureFixture
):
    alone = [text if not text.startswith("runs=") else f"runs={tmp_path / 'alone'}" for text in overrides]
    (undisturbed_worker := start(alone, 0)).join()
    _, undisturbed = scores(tmp_path / "alone", None)
    assert undisturbed_worker.exitcode == 0

    chance = random.Random(28)
    shared = [*overrides, f"sweep.storage='{database}'"]
    workers = [start(shared) for _ in range(WORKERS)]
    while not (tmp_path / "runs" / STARTED).exists():
        time.sleep(0.1)
    for _ in range(KILLS):
        time.sleep(chance.uniform(0.2, 0.8))
        victim = chance.randrange(WORKERS)
        workers[victim].kill()
        workers[victim].join()
        workers[victim] = start(shared)
    for worker in workers:
        worker.join(timeout=120)
    # What the last ones to be killed had begun is left when nobody asks for more trials: the same command goes on.
    workers.append(start(shared))
    workers[-1].join(timeout=120)
    assert [worker.exitcode for worker in workers] == [0] * (WORKERS + 1), capfd.readouterr().err

    study, found = scores(tmp_path / "runs", database)
    died = {trial.number for trial in study.trials if "died" in trial.user_attrs}
    assert len(died) > 2, "the kills met no trial"
    assert [trial.number for trial in study.trials] == list(range(24))
    assert len(found) == 24
    assert {reason for _, reason in failures(study)} <= {DIED}
    started = Counter(map(int, (tmp_path / "runs" / STARTED).read_text().split()))
    assert {number for number, times in started.items() if times > 1} <= died
    assert max(started.values()) <= 2

    assert undisturbed.keys() == found.keys()
    for options, trial in found.items():
        if trial.state == TrialState.COMPLETE:
            assert trial.value == undisturbed[options].value
    assert sum(trial.state == TrialState.COMPLETE for trial in found.values()) >= 20
    assert not (tmp_path / "runs/default-sweep/journal.log").exists()

    assert main(["sweep-report", *shared]) == 0
    assert "the best by the validation rows, over one seed" in capfd.readouterr().out


def test_a_server_that_does_not_answer_is_told_before_anything_is_trained(
    overrides: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
):
    assert main(["sweep", *overrides, f"sweep.storage='postgresql+psycopg://me@/postgres?host={tmp_path}'"]) == 2
    assert "sweep.storage: (psycopg.OperationalError) connection is bad" in capsys.readouterr().err


def test_a_report_of_a_sweep_that_the_database_has_not_tells_how_one_begins(
    overrides: list[str], database: str, capsys: pytest.CaptureFixture
):
    assert main(["sweep-report", *overrides, f"sweep.storage='{database}'"]) == 2
    assert "there is no sweep default-sweep in postgresql" in capsys.readouterr().err
