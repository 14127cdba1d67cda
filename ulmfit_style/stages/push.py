"""push: publish a finished model on the Hub, in one commit, with a card that its own files wrote."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from rich.filesize import decimal
from rich.table import Table

from ulmfit_style import card
from ulmfit_style.config import Config, from_recipe, load
from ulmfit_style.console import say, show
from ulmfit_style.errors import UserError
from ulmfit_style.run import MANIFEST, METRICS, RECIPE, read_json
from ulmfit_style.tokenizer_pair import FOLDER

if TYPE_CHECKING:
    from huggingface_hub import ModelInfo

EXPORTED = (
    "model*.safetensors",
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
    METRICS,
    # These two are written for the Hub, not copied.
    RECIPE,
    "README.md",
)
"""All that is ever uploaded. Whatever else lies in a directory (rows of the user's text, logs, a library's pickles
with a token in them) stays behind."""

Files = Mapping[str, Path | bytes]
"""What is uploaded, by its name in the repository: a file of the directory, or bytes written for the Hub."""


def run(config: Config, directory: Path) -> None:
    """Upload the model of a finished directory to the repository `hub.repo`, or list what would be uploaded.

    Raises:
        UserError: for a directory that is not finished, a missing or refused token, a repository that may not or should
            not be written to, and whatever goes wrong on the way. The directory is only read, and the repository
            changes in one commit or not at all.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

    wanted = _repository(config)
    if not (directory / MANIFEST).exists():
        stage = directory.name.partition("-")[0]
        raise UserError(f"push: there is no finished model in {directory}; make it with the same options: make {stage}")
    if config.hub.dry_run:
        files = _export(wanted if "/" in wanted else f"your-account/{wanted}", directory)
        _list(files, directory)
        say(f"push: would go to {wanted}, {_visibility(config.hub.private)} if it is new; nothing was sent")
        return

    token = _token()
    _quieten()
    api = HfApi(token=token)

    # Repository
    with _hub_errors_in_words(wanted, directory):
        url = api.create_repo(wanted, private=config.hub.private, exist_ok=True)
        before = api.model_info(url.repo_id)
    _check_visibility(config, before)

    # Files
    files = _export(url.repo_id, directory)
    _list(files, directory)
    there = [sibling.rfilename for sibling in before.siblings or []]
    stale = [name for name in there if _is_exported(name) and name not in files]
    if stale:
        say(f"push: removes what an earlier push left in the repository: {', '.join(stale)}")

    # Upload: `upload_folder` may split its work into several commits, between which a reader would pull a mixture.
    manifest = read_json(directory / MANIFEST)
    with _hub_errors_in_words(url.repo_id, directory):
        commit = api.create_commit(
            url.repo_id,
            [
                *(CommitOperationAdd(name, content) for name, content in files.items()),
                *(CommitOperationDelete(name) for name in stale),
            ],
            commit_message=f"Push {manifest['stage']}-{manifest['fingerprint']}",
        )

    # Finish
    unchanged = ", which held all of this already" if commit.oid == before.sha else ""
    say(f"push: {url} ({_visibility(before.private)}){unchanged}", style="bold")
    say(f"      commit {commit.commit_url}")
    call = card.pipeline_call(read_json(directory / "config.json"), url.repo_id)
    if call is not None:
        say(f"try:  {call}, from transformers")


def _repository(config: Config) -> str:
    if config.hub.repo is None:
        raise UserError("push: where to? Say hub.repo=<name> for your own account, or hub.repo=<account>/<name>")
    if not card.is_hub_id(config.hub.repo):
        raise UserError(f"hub.repo={config.hub.repo}: is no name for a repository; write <name> or <account>/<name>")
    return config.hub.repo


def _token() -> str:
    token = os.environ.get("HF_TOKEN", "").strip()
    if not token:
        raise UserError(
            "push: there is no token; nothing was sent. Make one that may write, at "
            "https://huggingface.co/settings/tokens, and set HF_TOKEN to it in the environment"
        )
    if not token.isascii() or not token.isprintable() or " " in token:
        # The HTTP library would quote such a token in its error.
        raise UserError("push: HF_TOKEN holds characters that no token has; nothing was sent. Copy the token again")
    return token


def _quieten() -> None:
    """Silence the Hub client for the rest of the process: its bars and warnings would be mixed with our lines."""
    from huggingface_hub.utils import disable_progress_bars, logging  # type: ignore[attr-defined]

    disable_progress_bars()
    logging.set_verbosity_error()


def _check_visibility(config: Config, info: ModelInfo) -> None:
    """Say, or refuse, that a repository which was there already is not as visible as the config wants it."""
    if config.hub.private and not info.private:
        raise UserError(
            f"push: {info.id} is there already, and public, and hub.private=true; nothing was uploaded. Say "
            "hub.private=false to publish in it, or choose another hub.repo"
        )
    if info.private and not config.hub.private:
        say(f"push: {info.id} was there already, and stays private; hub.private=false holds for new repositories")


def _export(repo: str, directory: Path) -> Files:
    """Return what goes to `repo` of a directory, with a recipe and a card fit to be read by others."""
    recipe = without_private_paths(load(directory / RECIPE))
    readme = card.write(
        repo,
        read_json(directory / MANIFEST),
        from_recipe(recipe),
        read_json(directory / METRICS),
        read_json(directory / "config.json"),
    )
    found = {path.relative_to(directory).as_posix(): path for path in sorted(directory.rglob("*")) if path.is_file()}
    copied = {name: path for name, path in found.items() if _is_exported(name)}
    written = {RECIPE: yaml.safe_dump(recipe, sort_keys=False).encode(), "README.md": readme.encode()}
    return {**copied, **written}


def without_private_paths(recipe: Config) -> dict[str, Any]:
    """Return the recipe's values, from which `config.from_recipe` makes a config, without the paths of this disk.

    Files keep their names, a checkpoint's folder becomes `./<name>`, and what did not train the model (where it is
    evaluated, what it predicts, where it is pushed) goes back to its defaults.
    """
    values = recipe.recipe()
    values["runs"] = "runs"
    values |= {"hub": {}, "evaluate": {}, "predict": {}, "report": {}}
    for section in ("corpus", "task"):
        if values[section] and values[section]["path"]:
            values[section]["path"] = _without_folders(values[section]["path"])
    for name in ("checkpoint", "decoder"):
        checkpoint = values["model"][name]
        if checkpoint is not None and (not card.is_hub_id(checkpoint) or Path(checkpoint).is_dir()):
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


def _is_exported(name: str) -> bool:
    own = name.removeprefix(f"{FOLDER}/")
    return "/" not in own and any(fnmatch(own, pattern) for pattern in EXPORTED)


def _list(files: Files, directory: Path) -> None:
    sizes = {name: len(it) if isinstance(it, bytes) else it.stat().st_size for name, it in files.items()}
    table = Table(title=f"push: from {directory}", title_justify="left", show_footer=True)
    table.add_column("file", footer=f"{len(files)} files")
    table.add_column("size", footer=decimal(sum(sizes.values())), justify="right")
    for name, size in sizes.items():
        table.add_row(name, decimal(size))
    show(table)
    behind = sorted(path.name for path in directory.iterdir() if path.name not in files)
    say(f"push: stays behind: {', '.join(behind) or 'nothing'}")


def _visibility(private: bool | None) -> str:
    return "private" if private else "public"


@contextmanager
def _hub_errors_in_words(repo: str, directory: Path) -> Iterator[None]:
    """Turn whatever the Hub's client raises into a UserError.

    Its own errors, those of its HTTP and xet libraries and plain RuntimeErrors around them share no base class.
    """
    try:
        yield
    except Exception as error:
        problem = _in_words(error, repo)
        raise UserError(f"push: {problem}\n{directory} is untouched; the same command tries again") from error


def _in_words(error: Exception, repo: str) -> str:
    from huggingface_hub import constants
    from huggingface_hub.errors import HfHubHTTPError

    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, HfHubHTTPError):
        cause = cause.__cause__
    if cause is None:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        return f"{constants.ENDPOINT} could not be reached, or broke off ({reason})"
    status = cause.response.status_code
    if status == 401:
        return "the Hub does not accept the token in HF_TOKEN; make a new one that may write"
    if status == 403:
        return f"the token in HF_TOKEN has no right to write to {repo}; choose another hub.repo, or another token"
    message = cause.server_message or cause.response.reason_phrase
    return f"the Hub answered {status}: {message}"
