"""What of a finished model goes to the Hub: files on a list, in a clean folder, without paths and secrets."""

import re
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import yaml

from ulmfit_style.artefacts.directory import RECIPE
from ulmfit_style.cli import CONF, PACKAGE
from ulmfit_style.console import say
from ulmfit_style.data import hub
from ulmfit_style.errors import UserError
from ulmfit_style.models import checkpoints, tokenizer_pair
from ulmfit_style.publishing import HUB, card, secrets
from ulmfit_style.recipe import AFTERWARDS, Config, from_recipe, load
from ulmfit_style.results import finished, terminal
from ulmfit_style.results.parts import Size, Table

CARD = "README.md"

WEIGHTS = "model*.safetensors"

ONNX = "onnx"
"""The folder in which transformers.js looks for weights."""


def fill(folder: Path, config: Config, directory: Path, repo: str, notes: str, token: str | None = None) -> None:
    """Put what goes to the Hub of a finished directory into an empty folder, most of it as links, and list it.

    Args:
        config: The present one, which knows the licences.
        repo: The repository that it goes to, account/name.
        notes: The author's own paragraphs of the card, in Markdown.
        token: The one in use.

    Raises:
        UserError: if there are secrets in what would go.
    """
    run = finished.read(directory, config.name)
    values = without_private_paths(run.config)
    for name, section in {"model": config.model, "corpus": config.corpus, "task": config.task}.items():
        if values[name] is not None and section is not None:
            values[name]["license"] = section.license
    run = replace(run, config=from_recipe(values))
    folders = checkpoints.members(run.model.directory)
    recipes = {"": values, **{member.name: without_private_paths(load(member / RECIPE)) for member in folders}}
    for name, recipe in recipes.items():
        (folder / name).mkdir(exist_ok=True)
        text = yaml.safe_dump(recipe, allow_unicode=True, sort_keys=False)
        (folder / name / RECIPE).write_text(text, encoding="utf-8")
    members = {name: from_recipe(recipe) for name, recipe in recipes.items() if name}
    (folder / CARD).write_text(card.write(repo, run, config.hub, notes, members), encoding="utf-8")
    if config.hub.onnx and not run.exports:
        raise UserError(f"hub.onnx=true: {directory} has no ONNX yet; run `export` with the same options before")
    sources = {path: path.relative_to(run.model.directory) for path in run.model.directory.rglob("*")}
    # Its config stands beside the weights: the one above is of the model in torch, with its own head.
    for made in run.exports[:1] if config.hub.onnx else ():
        beside = [made.directory / "config.json", *(made.directory / ONNX).iterdir()]
        sources |= {path: Path(ONNX, path.name) for path in beside}
    for path, relative in sources.items():
        copy = folder / relative
        if path.is_file() and goes(relative.as_posix()) and not copy.exists():
            copy.parent.mkdir(exist_ok=True)
            copy.symlink_to(path.absolute())
    require_no_secrets(folder, token)
    sizes = {name: Size((folder / name).stat().st_size) for name in files(folder)}
    rows = [*sizes.items(), (f"{len(sizes)} files", Size(sum(sizes.values())))]
    terminal.show(Table(("file", "size"), rows, f"push: from {directory}"))
    behind = sorted({path.name for path in directory.iterdir()} - {path.name for path in folder.iterdir()})
    say(f"push: stays behind: {', '.join(behind) or 'nothing'}")


def goes(name: str) -> bool:
    """Tell whether a file of this name is one that is uploaded."""
    name = re.sub(rf"^({tokenizer_pair.FOLDER}|{ONNX}|member-\d+)/", "", name)
    is_listed = "/" not in name and any(fnmatch(name, pattern) for pattern in HUB["uploaded"])
    return is_listed or name.startswith(f"{PACKAGE.name}/")  # which a Space holds


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
        if not fnmatch(Path(name).name, WEIGHTS) and not name.endswith(".onnx")
        for line, kind in secrets.find((folder / name).read_text(encoding="utf-8", errors="replace"), token)
    ]
    if problems:
        listed = "\n  - ".join(["push: these files seem to hold secrets; nothing was sent:", *problems])
        remedy = "Remove them from what these files were made from (the data, the tokenizer, push.notes, the options)"
        raise UserError(f"{listed}\n{remedy}, and replace every token that was there with a new one")


def without_private_paths(recipe: Config) -> dict[str, Any]:
    """Return the recipe's values, from which `config.from_recipe` makes a config, without the paths of this disk.

    Files keep their names, a checkpoint's folder becomes `./<name>`, and what did not train the model (where it is
    evaluated, what it predicts, where it is pushed, what a study compares) goes back to what is shipped.
    """
    values = recipe.recipe()
    values |= {"runs": "runs", "processes": None}
    values |= {name: {} for name in AFTERWARDS}
    values["ensemble"] = {"members": [f"member-{number}" for number, _ in enumerate(recipe.ensemble.members, start=1)]}
    values["study"] = yaml.safe_load((CONF / "study/label_curve.yaml").read_text(encoding="utf-8"))
    for section, option in (("corpus", "path"), ("task", "path"), ("pretrain", "path"), ("adapt", "general")):
        if values[section]:
            values[section][option] = _without_folders(values[section][option])
    for name in ("checkpoint", "decoder"):
        checkpoint = values["model"][name]
        if checkpoint is not None and (not hub.is_id(checkpoint) or Path(checkpoint).is_dir()):
            values["model"][name] = _without_folders(checkpoint, mark="./")
    return values


def _without_folders(path: Any, mark: str = "") -> Any:
    """Return a path without its folder, or each of several, in a list or by name."""
    if isinstance(path, dict):
        return {name: _without_folders(each) for name, each in path.items()}
    if isinstance(path, list):
        return [_without_folders(each) for each in path]
    # What a package or the Hub holds is in the same place for everyone.
    return path if path is None or path.startswith(("package:", hub.PREFIX)) else mark + Path(path).name
