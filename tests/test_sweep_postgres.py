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
from dataclasses import dataclass
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


@dataclass
class Server:
    """A server of the test's own, which listens to a socket in its folder and to no port."""

    folder: str

    @property
    def url(self) -> str:
        return f"postgresql+psycopg://me@/postgres?host={self.folder}"

    def run(self, program: str, *arguments: str) -> None:
        """Run a program of PostgreSQL's on the data, which does not run as root."""
        other = {"user": "nobody", "extra_groups": []} if os.geteuid() == 0 else {}
        command = [SERVER / program, "-D", f"{self.folder}/data", *arguments]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=self.folder, **other)

    def start(self) -> None:
        listening = f"-c listen_addresses='' -c unix_socket_directories='{self.folder}' -c fsync=off"
        self.run("pg_ctl", "-w", "-l", f"{self.folder}/log", "-o", listening, "start")

    def stop(self) -> None:
        self.run("pg_ctl", "-w", "-m", "immediate", "stop")


@pytest.fixture
def server() -> Iterator[Server]:
    """A server that runs."""
    with tempfile.TemporaryDirectory() as folder:
        if os.geteuid() == 0:
            shutil.chown(folder, "nobody")
        server = Server(folder)
        server.run("initdb", "--username=me", "--auth=trust", "--no-sync")
        server.start()
        try:
            yield server
        finally:
            server.stop()


@pytest.fixture
def database(server: Server) -> str:
    """The URL of the server."""
    return server.url


@pytest.fixture
def overrides(not_adapted: list[str], tmp_path: Path) -> list[str]:
    """Those of a sweep of 24 trials."""
    path = tmp_path / "my_conf/sweep/mine.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(SPACE)
    return [f"hydra.searchpath=['{tmp_path}/my_conf']", *not_adapted, "sweep=mine", *RECIPE]


ERRORS = "errors.txt"
"""What workers say on standard error, in the folder of a test."""


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., BaseProcess]:
    """Start a worker, in a fork of a process that has imported all that it needs, so that it begins at once."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["sweep_worker"])
    monkeypatch.setenv("PYTHONPATH", f"{Path(__file__).parent}:{os.environ.get('PYTHONPATH', '')}")

    def started(overrides: list[str], seconds: float = 4) -> BaseProcess:
        worker = context.Process(target=sweep_worker.work, args=(overrides, seconds, tmp_path / ERRORS))
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
    assert undisturbed_worker.exitcode == 0, (tmp_path / ERRORS).read_text()
    undisturbed = {tuple(trial.params.items()): trial.value for trial in trials(alone, None)}

    chance = random.Random(28)
    shared = [*overrides, f"sweep.storage='{database}'"]
    workers = [start(shared) for _ in range(WORKERS)]
    killed: set[int] = set()
    deadline = time.monotonic() + 400
    while len(killed) < KILLS:
        assert time.monotonic() < deadline, (tmp_path / ERRORS).read_text()
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
    assert [worker.exitcode for worker in workers] == [0] * (WORKERS + 1), (tmp_path / ERRORS).read_text()

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


def test_a_server_that_is_stopped_in_a_trial_is_told_in_one_line_and_the_same_command_goes_on(
    overrides: list[str],
    start: Callable[..., BaseProcess],
    tmp_path: Path,
    server: Server,
):
    shared = [*overrides, "sweep.trials=4", f"sweep.storage='{server.url}'"]
    worker = start(shared)
    while not any(event == "ended" for event, _, _ in diary(tmp_path / "runs")) or not running(tmp_path / "runs"):
        assert worker.is_alive(), (tmp_path / ERRORS).read_text()
        time.sleep(0.1)
    server.stop()
    worker.join(timeout=60)
    assert worker.exitcode == 2
    *_, last = (tmp_path / ERRORS).read_text().splitlines()
    assert last.startswith("ulmfit-style: the database failed: ")
    assert last.endswith("; once it answers again, the same command goes on")

    server.start()
    (other := start(shared)).join(timeout=120)
    assert other.exitcode == 0, (tmp_path / ERRORS).read_text()
    found = trials(tmp_path / "runs", server.url)
    assert [(trial.number, trial.state) for trial in found] == [(number, TrialState.COMPLETE) for number in range(4)]
    begun = Counter(number for event, number, _ in diary(tmp_path / "runs") if event == "begins")
    assert begun == dict.fromkeys(range(4), 1)  # what the server did not hear of was trained to its end


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
