"""A Space of the Hub, on which a pushed model can be tried: this package as it is, and what runs `serve` of it."""

import sys
from importlib.metadata import requires
from pathlib import Path
from shutil import copytree, ignore_patterns

from packaging.requirements import Requirement

from ulmfit_style.artefacts.directory import installed
from ulmfit_style.cli import CONF, PACKAGE


def fill(folder: Path, repo: str) -> None:
    """Write the files of the Space of the model in a repository, account/name, into a folder."""
    for source, copy in ((PACKAGE, folder / PACKAGE.name), (CONF, folder / PACKAGE.name / CONF.name)):
        copytree(source, copy, ignore=ignore_patterns("__pycache__", "schema"), dirs_exist_ok=True)
    named = {"name": repo.rpartition("/")[2], "repo": repo, "python": "{}.{}".format(*sys.version_info)}
    for path in Path(__file__).with_name("space").iterdir():
        (folder / path.name).write_text(path.read_text(encoding="utf-8").format(**named), encoding="utf-8")
    (folder / "requirements.txt").write_text("".join(f"{line}\n" for line in _requirements()), encoding="utf-8")


def _requirements() -> list[str]:
    """Return what the package needs to serve, in the versions that are installed here."""
    needed = map(Requirement, requires("ulmfit-style") or ())
    extras = ("serve", "explain")
    wanted = [one for one in needed if any(not one.marker or one.marker.evaluate({"extra": name}) for name in extras)]
    versions = {one.name: installed(one.name).partition("+")[0] for one in wanted}
    return [str(one) if " " in (version := versions[one.name]) else f"{one.name}=={version}" for one in wanted]
