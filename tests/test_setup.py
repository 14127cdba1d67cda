"""The real `make setup` with the real pip, over packages that are made here: nothing is downloaded."""

import os
import platform
import shutil
import subprocess
import sys
import venv
from pathlib import Path
from zipfile import ZipFile, ZipInfo

import pytest

ROOT = Path(__file__).parents[1]
REQUIRED = "torch>=2.13.0"

PYPROJECT = f"""\
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
[project]
name = "ulmfit-style"
version = "0"
dependencies = [
    "{REQUIRED}",
]
"""

BACKEND = """\
import shutil

def build_editable(folder, *_):
    shutil.copy("ulmfit_style-0-py3-none-any.whl", folder)
    return "ulmfit_style-0-py3-none-any.whl"
"""


def wheel(folder: Path, name: str, version: str, needs: str | None = None, program: str | None = None) -> Path:
    """Make a wheel by hand."""
    path = folder / f"{name}-{version}-py3-none-any.whl"
    info = f"{name}-{version}.dist-info"
    with ZipFile(path, "w") as file:
        requires = f"Requires-Dist: {needs}\n" if needs else ""
        file.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{requires}")
        file.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        file.writestr(f"{info}/RECORD", "".join(f"{info}/{each},,\n" for each in ("METADATA", "WHEEL", "RECORD")))
        if program:
            script = ZipInfo(f"{name}-{version}.data/scripts/{program}")
            script.external_attr = 0o100755 << 16
            file.writestr(script, "#!python\n")
    return path


def index(folder: Path, *versions: str) -> str:
    """Make a package index of torch, and return its address."""
    (folder / "torch").mkdir(parents=True)
    files = [wheel(folder / "torch", "torch", version).name.replace("+", "%2B") for version in versions]
    (folder / "torch/index.html").write_text("".join(f'<a href="{file}">{file}</a>' for file in files))
    return folder.as_uri()


class Project:
    """A project that needs torch alone, under the real Makefile, with an index that has a newer one than was tested."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.environment = folder, folder / ".venv"
        (folder / "ulmfit_style").mkdir()
        (folder / "ulmfit_style/embedded.txt").touch()
        (folder / "Makefile").write_text((ROOT / "Makefile").read_text())
        (folder / "pyproject.toml").write_text(PYPROJECT)
        (folder / "constraints.txt").write_text("torch==2.13.0\n")
        (folder / "backend.py").write_text(BACKEND)
        wheel(folder, "ulmfit_style", "0", REQUIRED, "ulmfit-style")
        self.index = index(folder / "index", "2.13.0", "2.15.0")

    def setup(self, *typed: str, **environment: str) -> str:
        return self.run("make", "setup", f"PYTHON={sys.executable}", *typed, **environment)

    def python(self, *arguments: str) -> str:
        return self.run(str(self.environment / "bin/python"), *arguments)

    def run(self, *command: str, **environment: str) -> str:
        outside = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "PYTHON", "M"))}
        pip = {"PIP_CONFIG_FILE": os.devnull, "PIP_INDEX_URL": self.index, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
        ended = subprocess.run(
            command, cwd=self.folder, env=outside | pip | environment, capture_output=True, text=True, check=False
        )
        assert ended.returncode == 0, ended.stdout + ended.stderr
        return ended.stdout

    @property
    def torch(self) -> str:
        return self.python("-c", "from importlib.metadata import version; print(version('torch'))").strip()

    def again(self, **environment: str) -> str:
        (self.environment / "installed").unlink()
        return self.setup(**environment)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A project without an environment."""
    return Project(tmp_path)


STAYS, COMES = "the torch that is there stays", "torch, transformers and the rest"


def test_a_torch_that_is_there_stays_unless_it_is_too_old_and_without_one_comes_that_of_the_index(project: Project):
    venv.create(project.environment, with_pip=False, symlinks=True)
    small = index(project.folder / "small", "2.13.0+cpu", "2.15.0+cpu")
    assert COMES in project.setup(f"PIP_EXTRA_INDEX_URL={small}")
    assert project.torch == "2.13.0+cpu"
    for there, printed, after in (("2.14.0+cu130", STAYS, "2.14.0+cu130"), ("2.12.0", COMES, "2.13.0")):
        project.python("-m", "pip", "install", str(wheel(project.folder, "torch", there)))
        assert printed in project.again()
        assert project.torch == after


def test_an_environment_that_looks_outside_goes_on_doing_so_and_takes_the_torch_from_there(project: Project):
    venv.create(project.environment, with_pip=True, symlinks=True)
    settings = project.environment / "pyvenv.cfg"
    settings.write_text(settings.read_text().replace("site-packages = false", "site-packages = true"))
    outside = project.folder / "outside"
    project.python("-m", "pip", "install", "--target", str(outside), str(wheel(project.folder, "torch", "2.14.0")))
    [packages] = project.environment.glob("lib/python*/site-packages")
    (packages / "outside.pth").write_text(str(outside))

    project.setup()
    assert project.torch == "2.14.0"
    assert not list(packages.glob("torch-*"))
    assert "include-system-site-packages = true" in settings.read_text()


def test_a_new_environment_gets_the_torch_that_was_tested_and_who_has_no_gpu_is_told_of_the_small_build(
    project: Project,
):
    programs = project.folder / "programs"
    programs.mkdir()
    for name in ("make", "sh", "sed", "uname", "touch", "tail"):
        (programs / name).symlink_to(str(shutil.which(name)))
    needs_advice = platform.system() == "Linux" and platform.machine() == "x86_64" and not Path("/dev/nvidia0").exists()
    advice = "make setup PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu"
    assert (advice in project.setup(PATH=str(programs))) == needs_advice
    assert project.torch == "2.13.0"
    project.python("-m", "pip", "uninstall", "--yes", "torch")
    (programs / "nvidia-smi").symlink_to(str(shutil.which("true")))
    assert advice not in project.again(PATH=str(programs))
