"""The power fails at any moment: what has a manifest then is whole, and the same command goes on from there.

The folder `runs` is an ext4 image. A copy of the image, taken while it is mounted, holds what the disk would hold.
"""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from test_kills import RECIPE, ULMFIT, files, prepare

from ulmfit_style.artefacts import seal
from ulmfit_style.artefacts.directory import MANIFEST

COMMAND = ["adapt", "finetune", *RECIPE, *ULMFIT]


@contextmanager
def mounted(image: Path, folder: Path) -> Iterator[None]:
    folder.mkdir(exist_ok=True)
    done = subprocess.run(["mount", "-o", "loop,commit=1", image, folder], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no image can be mounted here: {done.stderr}")
    try:
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


def run(folder: Path, command: list[str]) -> subprocess.Popen[str]:
    arguments = [sys.executable, "-m", "ulmfit_style", *command]
    return subprocess.Popen(arguments, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def ended(process: subprocess.Popen[str]) -> None:
    said = process.communicate(timeout=300)[0]
    assert process.returncode == 0, said


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="only root mounts images")
def test_what_has_a_manifest_when_the_power_fails_is_whole_and_the_rest_goes_on(tmp_path: Path):
    folder, image = tmp_path / "work", tmp_path / "disk.img"
    folder.mkdir()
    prepare(folder)
    with image.open("wb") as file:
        file.truncate(128 * 2**20)
    subprocess.run(["mkfs.ext4", "-q", image], check=True)
    copies: list[Path] = []

    def copy() -> None:
        copies.append(tmp_path / f"copy-{len(copies)}.img")
        subprocess.run(["cp", "--sparse=always", image, copies[-1]], check=True)

    with mounted(image, folder / "runs"):
        process = run(folder, COMMAND)
        while process.poll() is None:
            time.sleep(0.3)
            copy()
        ended(process)
        copy()
        whole = files(folder)

    finished = []
    for lost in copies:
        with mounted(lost, folder / "runs"):
            manifests = list((folder / "runs").glob(f"*-*/{MANIFEST}"))
            assert [seal.damage(path.parent, MANIFEST, "*") for path in manifests] == [None] * len(manifests)
        finished.append(len(manifests))
    assert finished[-1] == len({name.partition("/")[0] for name in whole})
    assert finished == sorted(finished)
    for place in {len(copies) // 3, 2 * len(copies) // 3, len(copies) - 1}:
        with mounted(copies[place], folder / "runs"):
            ended(run(folder, COMMAND))
            assert files(folder) == whole
    print(f"{len(copies)} losses of power; artefacts finished then: {finished}")
