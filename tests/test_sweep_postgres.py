"""A sweep whose trials are kept by a PostgreSQL server, and whose workers are killed while they train."""

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
from optuna.trial import TrialState
from sweep_worker import diary

from ulmfit_style.__main__ import main
from ulmfit_style.experiments.trial_queue import open_journal

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
NEEDED = {
    "a PostgreSQL server, of Debian's package postgresql": (SERVER / "initdb").exists(),
    "its driver, of pip install 'psycopg[binary]'": find_spec("psycopg") is not None,
}
MISSING = " and ".join(what for what, is_there in NEEDED.items() if not is_there)
pytestmark = [pytest.mark.slow, pytest.mark.skipif(MISSING != "", reason=f"needs {MISSING}")]


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

    def started(overrides: list[str], seconds: float = 4) -> BaseProcess:
        worker = context.Process(target=sweep_worker.work, args=(overrides, seconds))
        worker.start()
        return worker

    return started


def trials(runs: Path, database: str | None) -> list[optuna.trial.FrozenTrial]:
    """Return the trials of the study in a folder `runs`."""
    journal = open_journal(runs / "default-sweep", database)
    return optuna.load_study(study_name="default-sweep", storage=journal).trials


def running(runs: Path) -> dict[int, int]:
    """Return the trials that were begun once and have not ended, and the process that trains each."""
    events = diary(runs)
    times = Counter(number for _, number, _ in events)  # once begun and once ended, or twice begun, make two
    return {number: process for _, number, process in events if times[number] == 1}


def test_ten_workers_eight_of_which_are_killed_in_a_trial_lose_none_and_train_none_twice(
    overrides: list[str], start: Callable[..., BaseProcess], tmp_path: Path, database: str, capfd: pytest.CaptureFixture
):
    runs, alone = tmp_path / "runs", tmp_path / "alone"
    (undisturbed_worker := start([*overrides, f"runs={alone}"], 0)).join()
    assert undisturbed_worker.exitcode == 0, capfd.readouterr().err
    undisturbed = {tuple(trial.params.items()): trial.value for trial in trials(alone, None)}

    chance = random.Random(28)
    shared = [*overrides, f"sweep.storage='{database}'"]
    workers = [start(shared) for _ in range(WORKERS)]
    killed: set[int] = set()
    deadline = time.monotonic() + 400
    while len(killed) < KILLS:
        assert time.monotonic() < deadline, capfd.readouterr().err
        time.sleep(chance.uniform(0, 0.5))
        at = {process: number for number, process in running(runs).items()}
        if victims := [place for place, worker in enumerate(workers) if worker.is_alive() and worker.pid in at]:
            place = chance.choice(victims)
            workers[place].kill()
            workers[place].join()
            killed.add(at[workers[place].pid])
            workers[place] = start(shared)
    for worker in workers:
        worker.join(timeout=120)
    # What the last ones to be killed had begun is left when nobody asks for more trials: the same command goes on.
    workers.append(start(shared))
    workers[-1].join(timeout=120)
    assert [worker.exitcode for worker in workers] == [0] * (WORKERS + 1), capfd.readouterr().err

    found = trials(runs, database)
    assert [(trial.number, trial.state) for trial in found] == [(number, TrialState.COMPLETE) for number in range(24)]
    assert {tuple(trial.params.items()): trial.value for trial in found} == undisturbed
    assert {trial.number for trial in found if "died" in trial.user_attrs} == killed
    begun, ended = (Counter(number for event, number, _ in diary(runs) if event == of) for of in ("begins", "ended"))
    assert begun == {number: 1 + (number in killed) for number in range(24)}
    assert ended == dict.fromkeys(range(24), 1)
    assert not (runs / "default-sweep/journal.log").exists()

    assert main(["sweep-report", *shared]) == 0
    assert "the best by the validation rows, over one seed" in capfd.readouterr().out


def test_a_server_that_does_not_answer_is_told_before_anything_is_trained(
    overrides: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
):
    assert main(["sweep", *overrides, f"sweep.storage='postgresql+psycopg://me@/postgres?host={tmp_path}'"]) == 2
    assert "sweep.storage: connection is bad" in capsys.readouterr().err


def test_a_report_of_a_sweep_that_the_database_has_not_tells_how_one_begins(
    overrides: list[str], database: str, capsys: pytest.CaptureFixture
):
    assert main(["sweep-report", *overrides, f"sweep.storage='{database}'"]) == 2
    assert "there is no sweep default-sweep in postgresql" in capsys.readouterr().err
