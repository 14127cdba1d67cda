import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from torch.distributed import TCPStore

from ulmfit_style import __main__, launch
from ulmfit_style.__main__ import main as run
from ulmfit_style.artefacts import predictions
from ulmfit_style.artefacts.directory import MANIFEST
from ulmfit_style.cli.compose import compose
from ulmfit_style.compute import processes
from ulmfit_style.errors import UserError
from ulmfit_style.launch import main


def test_one_command_runs_the_chain_in_two_processes_which_share_the_rows_that_are_scored(
    not_adapted: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    stages, options = ["finetune", "evaluate"], not_adapted
    command = [sys.executable, "-m", "ulmfit_style", *stages, *options, "processes=2"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "2 processes train together" in ended.stdout
    assert ended.stdout.count("[1/2] finetune: fine-tuned model") == 1  # the main process alone speaks
    model = tmp_path / "runs/default/finetune"
    assert json.loads((model / MANIFEST).read_text())["processes"] == 2
    assert not (model / "checkpoints").exists()

    # The number of processes is in no fingerprint: one process finds the same artefacts.
    assert run([*stages, *options, "processes=1"]) == 0
    shown = capsys.readouterr().out
    assert shown.count("up to date") == 2
    # It is said of what was trained, and not of the scores.
    assert shown.count("\n  made with processes=2 (here 1)\n") == 1

    # One process finds the same scores.
    alone = [f"runs={tmp_path / 'alone'}", f"evaluate.model={model}", "processes=1"]
    assert run(["evaluate", *options, *alone]) == 0
    shared, whole = (predictions.read(next(tmp_path.glob(f"{runs}/evaluate-*")), "test") for runs in ("runs", "alone"))
    assert len(whole) > 20
    for one, other in zip(shared, whole, strict=True):
        assert one["score"] == pytest.approx(other["score"], abs=1e-6)
        assert {**one, "score": 0, "scores": 0} == {**other, "score": 0, "scores": 0}


def test_a_batch_that_processes_cannot_share_is_refused():
    with pytest.raises(
        UserError, match="batch_size=3: take a multiple of 2, because each of 2 processes reads 1 texts at once"
    ):
        processes.split(3, None, among=2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["recipe.yaml"],
            "usage: -m ulmfit_style.launch <recipe> and one or several of pretrain, adapt, finetune, ensem",
        ),
        (["no.yaml", "adapt"], "no.yaml: there is no such file; `ulmfit-style adapt --cfg job >no.yaml` writes it"),
    ],
)
def test_a_wrong_launch_is_told_what_to_say(capsys: pytest.CaptureFixture[str], arguments: list[str], message: str):
    assert main(arguments) == 2
    assert message in capsys.readouterr().err


def test_a_recipe_that_holds_nothing_is_told_what_it_lacks(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "recipe.yaml").touch()
    assert main([str(tmp_path / "recipe.yaml"), "adapt"]) == 2
    assert "name: is required" in capsys.readouterr().err


def test_another_number_of_processes_than_the_recipe_wants_is_refused(recipe: Path, capsys):
    recipe.write_text(yaml.safe_dump({**yaml.safe_load(recipe.read_text()), "processes": 2}))
    assert main([str(recipe), "adapt", "finetune"]) == 2
    assert f"processes=2: there are 1; start as many, or put null in {recipe}" in capsys.readouterr().err


@pytest.fixture
def recipe(tiny_overrides: list[str], tmp_path: Path) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(compose(tiny_overrides).recipe()))
    return path


OTHER = "machine 1 (b)"


@pytest.mark.parametrize(
    ("problem", "determinants", "message"),
    [
        ("task.path=a.csv: there is no such file", {}, "task.path=a.csv: there is no such file"),
        (
            None,
            {("adapt: the model learns", "corpus"): "other"},
            r"differs from machine 0 \(\S+\) in corpus; give them",
        ),
    ],
)
def test_what_is_wrong_on_one_machine_is_told_on_all_before_anything_is_made(
    recipe: Path, tmp_path: Path, monkeypatch, capsys, problem: str | None, determinants: dict, message: str
):
    def plans(plan: tuple) -> list[tuple]:
        return [plan, (OTHER, problem and f"{OTHER}: {problem}", {**plan[2], **determinants})]

    monkeypatch.setattr(processes, "from_all", plans)
    assert main([str(recipe), "adapt"]) == 2
    assert re.search(rf"machine 1 \(b\): {message}", capsys.readouterr().err)
    assert not list((tmp_path / "runs").glob("adapt-*"))


def test_machines_need_one_folder_of_artefacts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(processes, "from_all", lambda seen: [seen, (OTHER, False)])
    with pytest.raises(UserError, match=r"machine 1 \(b\) does not see there what machine 0 \(\S+\) writes"):
        launch._require_shared(tmp_path / "runs")
    assert list((tmp_path / "runs").iterdir()) == []


def test_one_process_agrees_with_itself_and_imports_nothing(monkeypatch: pytest.MonkeyPatch):
    assert processes.count() == 1
    assert processes.is_main()
    assert processes.from_main("value") == "value"
    monkeypatch.setenv("RANK", "1")
    assert not processes.is_main()


@pytest.fixture
def joining(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, int], None]:
    """Join as one of two processes that no launcher of torch's started, by its number and the port of the first."""
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    kept = {"GLOO_SOCKET_IFNAME": "lo", "TORCH_CPP_LOG_LEVEL": "FATAL"}  # what `join` sets

    def join(rank: int, port: int) -> None:
        variables = {"RANK": rank, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, **kept}
        for name, value in variables.items():
            monkeypatch.setenv(name, str(value))
        processes.join()

    return join


def test_a_port_that_is_taken_is_told(joining: Callable[[int, int], None]):
    with socket.create_server(("", 0)) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(UserError, match=f"^MASTER_PORT={port}: another program has it; take another one, on all"):
            joining(0, port)


def test_where_another_run_has_met_no_process_takes_part_in_it(joining: Callable[[int, int], None]):
    others = TCPStore("127.0.0.1", 0, 2, True, wait_for_workers=False)
    others.add("met", 2)
    with pytest.raises(UserError, match=f"^MASTER_PORT={others.port}: another program has it"):
        joining(1, others.port)


AS_UNDER_SRUN = """
import sys
from ulmfit_style.compute import processes
from ulmfit_style.launch import main
processes.JOINING_SECONDS = 10
processes.end(main(sys.argv[1:]))
"""


def start_as_srun(recipe: Path, port: int, ranks: str) -> list[tuple[int, str, str]]:
    """Return the exit code, the output and the errors of some of two processes."""
    here = {**os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", AS_UNDER_SRUN, str(recipe), "adapt"],
            env={**here, "RANK": rank, "LOCAL_RANK": rank, "GROUP_RANK": rank},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in ranks
    ]
    said = [process.communicate(timeout=120) for process in started]
    return [(process.returncode, *each) for process, each in zip(started, said, strict=True)]


@pytest.mark.slow
@pytest.mark.parametrize("is_taken", [True, False])
def test_two_processes_of_srun_train_together_and_say_one_line_each_where_their_port_is_taken_or_one_is_missing(
    recipe: Path, is_taken: bool
):
    not_met = "the 2 processes did not meet there in time; see what the others say, and whether it is machine 0"
    with socket.create_server(("", 0)) as listener:  # which answers nobody
        port = listener.getsockname()[1]
        alone = f"ulmfit-style: MASTER_ADDR=127.0.0.1 MASTER_PORT={port}: {not_met}\n"
        if is_taken:
            first, second = start_as_srun(recipe, port, "01")
            problem = f"MASTER_PORT={port}: another program has it; take another one, on all machines"
            assert first == (2, "", f"ulmfit-style: {problem}\n")
            assert second == (2, "", alone)
            return
    assert start_as_srun(recipe, port, "0") == [(2, "", alone)]
    assert start_as_srun(recipe, port, "1") == [(2, "", alone)]
    (code, output, errors), other = start_as_srun(recipe, port, "01")
    assert (code, errors, other) == (0, "", (0, "", ""))
    assert "2 processes train together" in output


class Machines:
    """Two launches with a folder each: to the launcher they are two machines, and both are this one."""

    def __init__(self, parent: Path, overrides: list[str]) -> None:
        self.folders = [parent / "first", parent / "second"]
        self.runs = parent / "runs"
        config = compose(["adapt.general=null", *overrides, "task.path=reviews.csv"])
        for folder in self.folders:
            folder.mkdir(exist_ok=True)
            (folder / "recipe.yaml").write_text(yaml.safe_dump(config.recipe()))
            shutil.copy(parent / "reviews.csv", folder)

    def start(self, *stages: str) -> list[subprocess.Popen[str]]:
        with socket.socket() as probe:
            probe.bind(("localhost", 0))
            port = probe.getsockname()[1]
        launch = [sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc_per_node=1"]
        address = ["--master_addr=localhost", f"--master_port={port}", "-m", "ulmfit_style.launch", "recipe.yaml"]
        return [
            subprocess.Popen(
                [*launch, f"--node_rank={rank}", *address, *stages],
                cwd=folder,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for rank, folder in enumerate(self.folders)
        ]

    def run(self, *stages: str) -> list[tuple[int, str, str]]:
        """Return the exit code, the output and the errors of each."""
        started = self.start(*stages)
        said = [machine.communicate(timeout=300) for machine in started]
        return [(machine.returncode, *each) for machine, each in zip(started, said, strict=True)]


@pytest.mark.slow
def test_when_a_machine_dies_the_other_ends_and_both_go_on_from_the_newest_checkpoint(
    tmp_path: Path, tiny_overrides: list[str]
):
    machines = Machines(tmp_path, [*tiny_overrides, "adapt.epochs=100", "adapt.head_epochs=0", "save_minutes=0.001"])
    first, second = machines.start("adapt")
    while not list(machines.runs.glob("adapt-*/checkpoints/*/checkpoint-*/whole.json")) and first.poll() is None:
        time.sleep(0.1)
    [rank] = children(second.pid)
    os.kill(rank, signal.SIGKILL)
    _, errors = first.communicate(timeout=60)
    second.communicate(timeout=60)
    assert first.returncode == 1
    lost = r"another process ended, or the network to it did( \(\S+\))?; the same command resumes from the newest"
    assert re.search(lost, errors)
    assert "[rank0]" not in errors

    (code, output, errors), other = machines.run("adapt", "finetune")
    assert code == other[0] == 0, errors + other[2]
    assert re.match(r"2 processes train together on machine 0 \(\S+\), machine 1 \(\S+\)\n", output)
    assert re.search(r"every weight: goes on from \S+/checkpoint-\d+\n", output)
    assert f"The model is in {machines.runs}/default/finetune" in output
    assert other[1] == ""
    assert json.loads((machines.runs / "default/finetune" / MANIFEST).read_text())["processes"] == 2


def children(process: int) -> list[int]:
    listed = subprocess.run(["ps", "-o", "pid=", "--ppid", str(process)], capture_output=True, text=True, check=True)
    return [int(line) for line in listed.stdout.split()]


CHILD = """
import time
from ulmfit_style.compute import processes
processes.end_with_launcher()
print("started", flush=True)
time.sleep(60)
"""


def test_a_process_ends_with_the_launcher_that_was_killed():
    launch = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {CHILD!r}])"
    environment = {**os.environ, "WORLD_SIZE": "2"}
    with subprocess.Popen([sys.executable, "-c", launch], env=environment, stdout=subprocess.PIPE) as launcher:
        launcher.stdout.readline()
        launcher.kill()
        started = time.monotonic()
        assert launcher.stdout.read() == b""  # which the other process held open
    assert time.monotonic() - started < 20


def test_sigterm_says_its_line_and_ctrl_c_is_no_problem_of_a_library(monkeypatch, capsys):
    def work(arguments: list[signal.Signals]) -> None:
        try:
            signal.raise_signal(arguments[0])
        except KeyboardInterrupt as error:
            raise UserError("the configuration has 1 problem") from error

    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(__main__, "_main", work)
    assert run([signal.SIGTERM]) == 143
    assert capsys.readouterr().err == "ulmfit-style: stopped; the same command goes on from there\n"
    assert run([signal.SIGINT]) == 130
    assert capsys.readouterr().err == "ulmfit-style: interrupted; what was finished is kept\n"
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_a_second_signal_ends_a_process_at_once(monkeypatch: pytest.MonkeyPatch):
    handlers = []

    def work(arguments: list[str]) -> None:
        try:
            signal.raise_signal(signal.SIGINT)
        finally:
            handlers.extend(map(signal.getsignal, (signal.SIGINT, signal.SIGTERM)))

    monkeypatch.setattr(__main__, "_main", work)
    assert run([]) == 130
    assert handlers == [signal.SIG_DFL, signal.SIG_DFL]


@pytest.mark.slow
@pytest.mark.parametrize("times", [1, 2])
def test_ctrl_c_stops_two_processes_which_save_and_twice_stops_them_at_once(
    not_adapted: list[str], tmp_path: Path, times: int
):
    options = [*not_adapted, "finetune.epochs=1000", "save_minutes=0.001", "processes=2"]
    command = [sys.executable, "-m", "ulmfit_style", "finetune", *options]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True) as launcher:
        while not list(tmp_path.glob("runs/finetune-*/checkpoints/*/checkpoint-*/whole.json")):
            assert launcher.poll() is None
            time.sleep(0.1)
        ranks = children(launcher.pid)
        for _ in range(times):
            os.killpg(launcher.pid, signal.SIGINT)  # as a terminal does
            time.sleep(0.02)  # no more, or all is saved before the second one
        _, errors = launcher.communicate(timeout=60)
    if times == 1:
        assert launcher.returncode == 130
        assert re.fullmatch(r".*: stopped and saved at step .*\nulmfit-style: interrupted; .*\n", errors)
    else:
        assert launcher.returncode == -signal.SIGINT
    if times == 2:
        time.sleep(3)
    states = subprocess.run(
        ["ps", "-o", "stat=", "-p", ",".join(map(str, ranks))], check=False, capture_output=True, text=True
    )
    assert all(state.startswith("Z") for state in states.stdout.split())
