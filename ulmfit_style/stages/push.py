"""push: publish a finished model on the Hub, in one commit, with a card that its own files wrote."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import yaml

from ulmfit_style.artefacts.directory import MANIFEST, METRICS, RECIPE
from ulmfit_style.console import say
from ulmfit_style.data import hub
from ulmfit_style.errors import UserError
from ulmfit_style.lineage import Resolved, require_finished
from ulmfit_style.publishing import card, export, upload
from ulmfit_style.recipe import Config, from_recipe, load
from ulmfit_style.results import finished, terminal
from ulmfit_style.results.finished import Run
from ulmfit_style.results.model import Size, Table


def check(resolved: Resolved, stages: Sequence[str]) -> None:
    """Check what can be known before anything is trained: where to, with which token, and the author's paragraphs.

    Raises:
        UserError: if something of it is missing or wrong.
    """
    config, repo = resolved.config, resolved.config.hub.repo
    if repo is None:
        raise UserError("push: where to? Say hub.repo=<name> for your own account, or hub.repo=<account>/<name>")
    if not hub.is_id(repo):
        raise UserError(f"hub.repo={repo}: is not the name of a repository; write <name> or <account>/<name>")
    _notes(config)
    if not config.hub.dry_run:
        _token()


def run(resolved: Resolved) -> None:
    """Upload the finished model of a config: by default the fine-tuned one, or without a task the adapted one.

    Raises:
        UserError: if it is not finished; and as `upload_directory`.
    """
    stage = resolved.config.push.stage or ("adapt" if resolved.config.task is None else "finetune")
    require_finished(resolved, stage, "push")
    upload_directory(resolved.config, resolved.artefact(stage).directory)


def upload_directory(config: Config, directory: Path) -> None:
    """Upload the model of a finished directory to the repository `hub.repo`, or list what would be uploaded.

    Raises:
        UserError: for a directory that is not finished, a missing or refused token, secrets in what would go, a
            repository that may not or should not be written to, and whatever goes wrong on the way. The directory is
            only read, and the repository changes in one commit or not at all.
    """
    if not (directory / MANIFEST).exists():
        stage = directory.name.partition("-")[0]
        raise UserError(f"push: there is no finished model in {directory}; make it with the same options: make {stage}")
    options, progress, repo = config.hub, upload.Progress(), str(config.hub.repo)
    with TemporaryDirectory(dir=directory.parent, prefix=".push-") as scratch:
        folder = Path(scratch)
        if options.dry_run:
            _export(folder, config, directory, repo if "/" in repo else f"your-account/{repo}", None)
            card_path = directory.parent / config.name / "card.md"
            card_path.parent.mkdir(exist_ok=True)
            shutil.copyfile(folder / export.CARD, card_path)
            say(f"push: would go to {repo}, {upload.visibility(options.private)} if it is new; nothing was sent")
            say(f"push: read the card first: {card_path}")
            return
        token = _token()
        api = upload.connect(token)
        with upload.hub_errors_in_words(repo, directory, progress):
            repo = repo if "/" in repo else f"{upload.patiently(api.whoami)['name']}/{repo}"
        run = _export(folder, config, directory, repo, token)
        with upload.hub_errors_in_words(repo, directory, progress):
            commit = upload.send(api, repo, options, folder, f"Push {directory.name}", progress)
            upload.require_arrived(api, repo, commit.oid, folder, progress)
            if options.tag is not None:
                upload.tag(api, repo, options.tag, commit.oid)
        tagged = f", tagged {options.tag}" if options.tag else ""
        count = len(export.files(folder))
        say(f"pushed: {commit.commit_url}{tagged}; the Hub lists its {count} files with the hashes of what was sent")
        call = card.pipeline_call(run, repo)
        if call is not None and options.revision is None:
            say(f"try:  {call}, from transformers")


def _export(folder: Path, config: Config, directory: Path, repo: str, token: str | None) -> Run:
    """Fill the folder that is uploaded, refuse secrets in it, list it, and return the run with the recipe in it."""
    values = export.without_private_paths(load(directory / RECIPE))
    # Licences are what is known of them now.
    licences = {"model": config.model, "corpus": config.corpus, "task": config.task}
    for name, section in licences.items():
        if values[name] is not None and section is not None:
            values[name]["license"] = section.license
    model = finished.find(directory)
    assert model is not None  # it was checked
    run = Run(config.name, model, from_recipe(values))
    written = {
        export.CARD: card.write(repo, run, config.hub.license, _notes(config)),
        RECIPE: yaml.safe_dump(values, sort_keys=False),
        METRICS: json.dumps(model.metrics, indent=2, ensure_ascii=False),
    }
    export.fill(folder, directory, written)
    export.require_no_secrets(folder, token)
    sizes = {name: Size((folder / name).stat().st_size) for name in export.files(folder)}
    footer = (f"{len(sizes)} files", Size(sum(sizes.values())))
    terminal.show(Table(("file", "size"), list(sizes.items()), f"push: from {directory}", footer))
    behind = sorted(path.name for path in directory.iterdir() if not (folder / path.name).exists())
    say(f"push: stays behind: {', '.join(behind) or 'nothing'}")
    return run


def _notes(config: Config) -> str:
    path = config.push.notes
    if path is None:
        return ""
    try:
        return Path(path).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise UserError(f"push.notes={path}: cannot be read ({reason}); name a Markdown file") from error


def _token() -> str:
    """Return the token of the environment, or of the Hub's own login."""
    from huggingface_hub import get_token

    token = get_token()
    if not token:
        raise UserError(
            "push: there is no token; nothing was sent. Make one that may write, at "
            "https://huggingface.co/settings/tokens, and set HF_TOKEN to it in the environment, or log in with "
            "`hf auth login`"
        )
    if not token.isascii() or not token.isprintable() or " " in token:
        # The HTTP library would quote such a token in its error.
        raise UserError("push: the token holds characters that no token has; nothing was sent. Copy it again")
    return token
