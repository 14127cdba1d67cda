"""push: publish a finished model on the Hub, in one commit, with a card that its own files wrote."""

import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from ulmfit_style.console import say
from ulmfit_style.data import hub
from ulmfit_style.errors import UserError
from ulmfit_style.publishing import export, hub_commit, space
from ulmfit_style.recipe import Config
from ulmfit_style.resolved import Resolved, require_finished


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
    if config.push.stage == "adapt" and config.adapt is None:
        raise UserError("push.stage=adapt: with adapt=none there is no adapted model to push")
    if config.hub.space and (config.push.stage == "adapt" or config.task is None):
        raise UserError("hub.space=true: serves a fine-tuned model, and an adapted one is to be pushed; leave it out")
    _notes(config)
    if not config.hub.dry_run:
        _token()


def run(resolved: Resolved) -> None:
    """Upload the finished model of a config: by default the fine-tuned one, or without a task the adapted one.

    Raises:
        UserError: if it is not finished; and as `publish`.
    """
    stage = resolved.config.push.stage or ("adapt" if resolved.config.task is None else resolved.answering)
    publish(resolved.config, require_finished(resolved, stage, "push"))


def publish(config: Config, directory: Path) -> None:
    """Upload the model of a finished directory to the repository `hub.repo`, or list what would be uploaded.

    The directory is only read, and the repository changes in one commit or not at all.

    Raises:
        UserError: for a missing or refused token, secrets in what would go, a repository that may not or should not be
            written to, and whatever goes wrong on the way.
    """
    options, repo, notes = config.hub, str(config.hub.repo), _notes(config)
    with TemporaryDirectory() as temporary:
        folder, of_space = Path(temporary, "model"), Path(temporary, "space")
        folder.mkdir()
        if options.dry_run:
            named = repo if "/" in repo else f"your-account/{repo}"
            export.fill(folder, config, directory, named, notes)
            path = directory.parent / config.name / "card.md"
            path.parent.mkdir(exist_ok=True)
            shutil.copyfile(folder / export.CARD, path)
            visibility = "private" if options.private else "public"
            if options.space:
                space.fill(path.with_name("space"), named)
            say(f"push: would go to {repo}, {visibility} if it is new; nothing was sent")
            say(f"push: read the card first: {path}{'; and the files of the Space beside it' if options.space else ''}")
            return
        token = _token()
        api = hub_commit.connect(token)
        if "/" not in repo:
            repo = hub_commit.patiently(lambda: api.get_full_repo_name(repo))
        export.fill(folder, config, directory, repo, notes, token)
        if options.space:
            space.fill(of_space, repo)
        for kind, content in {"model": folder, **({"space": of_space} if options.space else {})}.items():
            send = partial(hub_commit.send, api, repo, content, f"Push {directory.name}", kind, private=options.private)
            commit, count = hub_commit.patiently(send), len(export.files(content))
            say(f"pushed: {commit.commit_url}; the Hub lists its {count} files with the hashes of what was sent")


def _notes(config: Config) -> str:
    """Return the author's paragraphs."""
    path = config.push.notes
    if path is not None and not Path(path).expanduser().is_file():
        raise UserError(f"push.notes={path}: there is no such file; name a Markdown file")
    return "" if path is None else Path(path).expanduser().read_text(encoding="utf-8", errors="replace")


def _token() -> str:
    """Return the token of the environment, or of the Hub's own login."""
    from huggingface_hub import get_token

    if (token := get_token()) is None:
        make = "Make one that may write, at https://huggingface.co/settings/tokens"
        give = "set HF_TOKEN to it in the environment, or log in with `hf auth login`"
        raise UserError(f"push: there is no token; nothing was sent. {make}, and {give}")
    return token
