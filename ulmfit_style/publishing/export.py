"""What of a finished model goes to the Hub: files on a list, in a clean folder, without paths and secrets."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from ulmfit_style.artefacts.directory import METRICS, RECIPE
from ulmfit_style.cli.compose import compose
from ulmfit_style.data import hub
from ulmfit_style.errors import UserError
from ulmfit_style.models.tokenizer_pair import FOLDER
from ulmfit_style.publishing import secrets
from ulmfit_style.recipe import Config

CARD = "README.md"

WEIGHTS = "model*.safetensors"

COPIED = (
    WEIGHTS,
    "model.safetensors.index.json",
    "config.json",
    "pooling.py",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "vocab.txt",
    "vocab.json",
    "*.spm",
)
WRITTEN = (CARD, RECIPE, METRICS)
"""These two lists are all that is ever uploaded: what is taken as it is, and what is written for the Hub. Whatever else
lies in a directory (rows of the user's text, logs, a library's pickles with a token in them) stays behind."""

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""The errors of a disk without room."""


def fill(folder: Path, directory: Path, written: Mapping[str, str]) -> None:
    """Put what goes to the Hub of a directory into an empty folder; files are linked where the disk can do so.

    Args:
        written: The text of each file of `WRITTEN`.

    Raises:
        UserError: if the disk is full.
    """
    try:
        for path in sorted(directory.rglob("*")):
            name = path.relative_to(directory).as_posix()
            if path.is_file() and goes(name) and name not in WRITTEN:
                (folder / name).parent.mkdir(exist_ok=True)
                try:
                    os.link(path, folder / name)
                except OSError:
                    shutil.copyfile(path, folder / name)
        for name, text in written.items():
            (folder / name).write_text(text, encoding="utf-8")
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise UserError(f"push: {error.strerror} ({folder.parent}); make room there, nothing was sent") from error


def goes(name: str) -> bool:
    """Tell whether a file of this name is one that is uploaded."""
    name = name.removeprefix(f"{FOLDER}/")
    return "/" not in name and any(fnmatch(name, pattern) for pattern in (*COPIED, *WRITTEN))


def files(folder: Path) -> list[str]:
    """Return the names of a folder's files, within its folders too."""
    return [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if path.is_file()]


def require_no_secrets(folder: Path, token: str | None) -> None:
    """Look for tokens and keys in all that is not weights.

    Args:
        token: The one in use, whatever it looks like.

    Raises:
        UserError: naming the file, the line and the kind of each, and never the secret.
    """
    problems = [
        f"{name}:{line}: {kind}"
        for name in files(folder)
        if not fnmatch(name, WEIGHTS)
        for line, kind in secrets.find((folder / name).read_text(encoding="utf-8", errors="replace"), token)
    ]
    if problems:
        listed = "\n  - ".join(["push: these files seem to hold secrets; nothing was sent:", *problems])
        raise UserError(
            f"{listed}\nRemove them from what these files were made from (the data, the tokenizer, push.notes, "
            "the options), and replace every token that was there with a new one"
        )


def without_private_paths(recipe: Config) -> dict[str, Any]:
    """Return the recipe's values, from which `config.from_recipe` makes a config, without the paths of this disk.

    Files keep their names, a checkpoint's folder becomes `./<name>`, and what did not train the model (where it is
    evaluated, what it predicts, where it is pushed, what a study compares) goes back to what is shipped.
    """
    values = recipe.recipe()
    values |= {"runs": "runs", "processes": None}
    values |= {name: {} for name in ("hub", "push", "evaluate", "predict", "report", "lr_find")}
    values["study"] = compose().study.model_dump(mode="json")
    for section in ("corpus", "task", "pretrain"):
        if values[section] and values[section]["path"]:
            values[section]["path"] = _without_folders(values[section]["path"])
    if values["adapt"] and values["adapt"]["general"]:
        values["adapt"]["general"] = _without_folder(values["adapt"]["general"])
    for name in ("checkpoint", "decoder"):
        checkpoint = values["model"][name]
        if checkpoint is not None and (not hub.is_id(checkpoint) or Path(checkpoint).is_dir()):
            values["model"][name] = _without_folder(checkpoint, mark="./")
    return values


def _without_folders(paths: Any) -> Any:
    """Return a path, or several in a list or by name, without their folders."""
    if isinstance(paths, dict):
        return {name: _without_folder(path) for name, path in paths.items()}
    return [_without_folder(path) for path in paths] if isinstance(paths, list) else _without_folder(paths)


def _without_folder(path: str, mark: str = "") -> str:
    # What a package or the Hub holds is in the same place for everyone.
    return path if path.startswith(("package:", "hub:")) else mark + Path(path).name
