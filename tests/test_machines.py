"""Two machines, each of them a network namespace with an address, a name and a network cable of its own."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from safetensors.torch import load_file

from ulmfit_style.artefacts.directory import MANIFEST
from ulmfit_style.cli.compose import compose

ADDRESSES = ["10.213.0.1", "10.213.0.2"]
ADAPT = ["adapt.general=null", "adapt.epochs=10", "adapt.head_epochs=0", "save_minutes=0.001"]
LOOPBACK = "127.0.0.1 localhost\n127.0.1.1 {}\n"
"""What Debian writes to /etc/hosts: the name of a machine is no address that another one can reach."""


def ip(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)


class Machines:
    """Two machines that share the files of this one, and nothing of its network."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.names = [f"machine-{letter}-{os.getpid()}" for letter in "ab"]
        for name in self.names:
            (folder / f"{name}.hosts").write_text(LOOPBACK.format(name))

    def connect(self) -> None:
        """Make the machines and the cable, or skip the test."""
        ends = [f"ufs{letter}{os.getpid()}" for letter in "ab"]
        for name in self.names:
            if (made := ip("netns", "add", name)).returncode:
                pytest.skip(f"no network namespace can be made here: {made.stderr.strip()}")
        cable = ("link", "add", ends[0], "netns", self.names[0], "type", "veth", "peer", "name", ends[1])
        if (made := ip(*cable, "netns", self.names[1])).returncode:
            pytest.skip(f"no pair of network devices can be made here: {made.stderr.strip()}")
        for name, end, address in zip(self.names, ends, ADDRESSES, strict=True):
            for arguments in (["addr", "add", f"{address}/24", "dev", end], ["link", "set", end, "up"]):
                assert ip("-n", name, *arguments).returncode == 0
            assert ip("-n", name, "link", "set", "lo", "up").returncode == 0

    def slow_down(self) -> None:
        """Let the cable carry two megabits a second, and drop what waits for half a second; or skip the test."""
        for name in self.names:
            end = json.loads(ip("-n", name, "-json", "link", "show", "type", "veth").stdout)[0]["ifname"]
            rate = ["root", "tbf", "rate", "2mbit", "burst", "16kbit", "latency", "500ms"]
            tc = ["tc", "-n", name, "qdisc", "add", "dev", end, *rate]
            if (made := subprocess.run(tc, capture_output=True, text=True, check=False)).returncode:
                pytest.skip(f"no network can be slowed down here: {made.stderr.strip()}")

    def waited(self) -> list[int]:
        """Return how often packets of each machine had to wait."""
        shown = [["tc", "-n", name, "-s", "-json", "qdisc", "show", "root"] for name in self.names]
        told = [json.loads(subprocess.run(tc, capture_output=True, text=True, check=True).stdout) for tc in shown]
        return [sum(queue.get("overlimits", 0) for queue in queues if queue["kind"] == "tbf") for queues in told]

    def disconnect(self) -> None:
        """Remove both, and the cable with them."""
        for name in self.names:
            ip("netns", "del", name)

    def start(self, *command: str, c10d: bool = False, on_second: str = "true") -> list[subprocess.Popen[str]]:
        """Start a command of torchrun on both, as `docs/how-to/processes.md` has it.

        Args:
            c10d: Let them find each other by torchrun's c10d.
            on_second: A shell command that changes the second machine before.
        """
        started = []
        for rank, (name, address) in enumerate(zip(self.names, ADDRESSES, strict=True)):
            how = ["--node_rank", str(rank), "--master_addr", ADDRESSES[0], "--master_port", "29500"]
            if c10d:
                how = ["--rdzv-backend", "c10d", "--rdzv-endpoint", f"{ADDRESSES[0]}:29500", "--rdzv-id", "reviews"]
                how += ["--local-addr", address, "--rdzv-conf", f"is_host={rank == 0}"]
            launch = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc_per_node", "1", *how]
            is_named = f"mount --bind {self.folder}/{name}.hosts /etc/hosts && hostname {name}"
            script = f'{is_named} && {on_second if rank else "true"} && exec "$@"'
            entered = ["ip", "netns", "exec", name, "unshare", "--uts", "--mount", "sh", "-c", script, "sh"]
            started.append(
                subprocess.Popen(
                    [*entered, *launch, "-m", "ulmfit_style.launch", *command],
                    cwd=self.folder,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                )
            )
        return started


def ended(machines: list[subprocess.Popen[str]], seconds: float = 120) -> list[tuple[int, str, str]]:
    """Return the exit code, the output and the errors of each."""
    said = [machine.communicate(timeout=seconds) for machine in machines]
    return [(machine.returncode, *each) for machine, each in zip(machines, said, strict=True)]


@pytest.fixture
def machines(tmp_path: Path, tiny_overrides: list[str]) -> Iterator[Machines]:
    """Two machines with the recipe of an adaptation, which is to have the weights of one machine."""
    if os.geteuid() != 0 or not all(map(shutil.which, ("ip", "unshare", "mount"))):
        pytest.skip("only root makes network namespaces, by ip (Debian's package iproute2) and unshare")
    for runs in ("runs", "alone"):
        recipe = compose([*tiny_overrides, *ADAPT, f"runs={tmp_path / runs}"]).recipe()
        (tmp_path / f"{runs}.yaml").write_text(yaml.safe_dump(recipe))
    two = Machines(tmp_path)
    try:
        two.connect()
        yield two
    finally:
        two.disconnect()


def assert_same_weights(tmp_path: Path) -> None:
    """Train on one machine alone, and compare."""
    alone = [sys.executable, "-m", "ulmfit_style.launch", "alone.yaml", "adapt"]
    subprocess.run(alone, cwd=tmp_path, check=True, capture_output=True)
    one, two = weights(tmp_path / "alone"), weights(tmp_path / "runs")
    assert one.keys() == two.keys()
    assert max(float((one[name] - two[name]).abs().max()) for name in one) < 1e-6


def weights(runs: Path) -> dict:
    [manifest] = runs.glob(f"adapt-*/{MANIFEST}")
    return load_file(manifest.parent / "model.safetensors")


@pytest.mark.slow
def test_two_machines_adapt_as_one_and_so_they_do_when_one_is_killed_on_the_way(machines: Machines, tmp_path: Path):
    first, second = started = machines.start("runs.yaml", "adapt", c10d=True)
    while not list(tmp_path.glob("runs/adapt-*/checkpoints/*/checkpoint-*/whole.json")):
        assert first.poll() is None, ended(started)
        time.sleep(0.1)
    # `sh` became torchrun; what it started is the only process of the machine beside it.
    listed = subprocess.run(["ps", "-o", "pid=", "--ppid", str(second.pid)], capture_output=True, text=True, check=True)
    for process in [*map(int, listed.stdout.split()), second.pid]:
        os.kill(process, signal.SIGKILL)
    (code, _, errors), _ = ended(started)
    assert code == 1
    assert re.search(r"ulmfit-style: another process ended, or the network to it did \(10\.213\.0\.2\); ", errors)

    (code, output, errors), other = ended(machines.start("runs.yaml", "adapt"))
    assert code == other[0] == 0, errors + other[2]
    names = r", ".join(rf"machine {rank} \({name}\)" for rank, name in enumerate(machines.names))
    assert re.match(rf"2 processes train together on {names}\n", output)
    assert re.search(r"every weight: goes on from \S+/checkpoint-\d+\n", output)
    assert_same_weights(tmp_path)


@pytest.mark.slow
def test_a_slow_network_only_takes_time(machines: Machines, tmp_path: Path):
    machines.slow_down()
    (code, _, errors), other = ended(machines.start("runs.yaml", "adapt"), seconds=170)
    assert code == other[0] == 0, errors + other[2]
    assert all(waited > 100 for waited in machines.waited())
    assert_same_weights(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("on_second", "message"),
    [
        (
            "mkdir -p runs && mount -t tmpfs none runs",
            r"machine 1 \({b}\) does not see there what machine 0 \({a}\) wri",
        ),
        (
            "mount --bind other.csv reviews.csv",
            r"machine 1 \({b}\): differs from machine 0 \({a}\) in corpus; give them",
        ),
        ("mount --bind other.yaml runs.yaml", r"machine 1 \({b}\): differs from machine 0 \({a}\) in adapt; give them"),
    ],
)
def test_what_differs_between_machines_is_told_on_both(
    machines: Machines, tmp_path: Path, on_second: str, message: str
):
    lines = (tmp_path / "reviews.csv").read_text().splitlines(keepends=True)
    (tmp_path / "other.csv").write_text("".join(lines[:-1]))
    recipe = yaml.safe_load((tmp_path / "runs.yaml").read_text())
    recipe["adapt"]["seed"] = 7
    (tmp_path / "other.yaml").write_text(yaml.safe_dump(recipe))
    first, second = ended(machines.start("runs.yaml", "adapt", on_second=on_second))
    expected = message.format(**dict(zip("ab", machines.names, strict=True)))
    for code, _, errors in (first, second):
        assert code == 1  # torchrun's, whatever that of the program is
        assert re.search(expected, errors)
    assert not list((tmp_path / "runs").glob(f"adapt-*/{MANIFEST}"))
