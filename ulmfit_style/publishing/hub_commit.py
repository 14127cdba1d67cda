"""How a folder gets to the Hub: in one commit, tried again where that may help, and compared by the hashes there."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from huggingface_hub import CommitInfo, CommitOperationAdd, CommitOperationDelete, HfApi, get_session
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils import logging

from ulmfit_style.console import say
from ulmfit_style.errors import UserError
from ulmfit_style.publishing import HUB, export

T = TypeVar("T")

WAITS = (1, 2, 4)
"""Seconds before each further try."""

PASSING = (408, 429, 500, 502, 503, 504)
"""The HTTP statuses of the Hub that another try may not meet."""

SILENCE_SECONDS = 300
"""How long the Hub may say nothing before the connection counts as broken."""


def connect(token: str) -> HfApi:
    """Return the Hub's client, which shows its bars on a terminal and no warnings of its own."""
    logging.set_verbosity_error()
    get_session().timeout = SILENCE_SECONDS  # it would wait for ever
    return HfApi(token=token)


def send(api: HfApi, repo: str, folder: Path, message: str, kind: str, *, private: bool) -> CommitInfo:
    """Bring a repository to hold what a folder holds, and return its commit: a new one, or the one that did already.

    What an earlier push left there and the folder has not is removed; other files stay. It can be repeated: the Hub
    keeps the large files that have arrived, and a commit that is there is not made twice.

    Args:
        kind: What the repository is of: `model` or `space`.

    Raises:
        UserError: if the repository is public and `private` is wanted, or holds something else in the end.
    """
    sdk = "docker" if kind == "space" else None
    url = api.create_repo(repo, private=private, exist_ok=True, repo_type=kind, space_sdk=sdk)
    before = api.space_info(repo) if kind == "space" else api.model_info(repo)
    if private and not before.private:
        problem = f"{repo} exists already and is public, but hub.private=true; nothing was uploaded"
        raise UserError(f"push: {problem}. Give hub.private=false to publish in it, or choose another hub.repo")
    names = export.files(folder)
    on_hub = [file.rfilename for file in before.siblings or []]
    if stale := [name for name in on_hub if export.goes(name) and name not in names]:
        say(f"push: removes what an earlier push left there: {', '.join(stale)}")

    # `upload_folder` may split its work into several commits, between which a reader would pull a mixture.
    changes: list[CommitOperationAdd | CommitOperationDelete] = [CommitOperationDelete(name) for name in stale]
    changes += [CommitOperationAdd(name, folder / name) for name in names]
    commit = api.create_commit(repo, changes, commit_message=message, parent_commit=before.sha, repo_type=kind)
    unchanged = ", which held all of this already" if commit.oid == before.sha else ""
    say(f"push: {url} ({'private' if before.private else 'public'}){unchanged}", style="bold")

    compared = api.verify_repo_checksums(repo, repo_type=kind, revision=commit.oid, local_dir=folder)
    if wrong := [*compared.extra_paths, *(mismatch["path"] for mismatch in compared.mismatches)]:
        problem = f"{', '.join(wrong)} in commit {commit.oid} is not what was sent; do not use this commit"
        raise UserError(f"push: {problem}. Delete it or its files on the Hub, and push again")
    return commit


def patiently(call: Callable[[], T]) -> T:
    """Call the Hub, and call it again where it said that this may help, or said nothing.

    Raises:
        UserError: for whatever its client raises: its own errors and those of its libraries share no base class.
    """
    for wait in (*WAITS, None):
        try:
            return call()
        except UserError:
            raise
        except Exception as error:
            origin: BaseException = error  # the Hub's answer behind it, or what it began with if there was none
            while origin.__cause__ is not None and not isinstance(origin, HfHubHTTPError):
                origin = origin.__cause__
            if isinstance(origin, HfHubHTTPError):
                status = origin.response.status_code
                reason, may_pass = HUB["refused"].get(status, f"the Hub answered {status}"), status in PASSING
            else:
                reason = "the Hub could not be reached, or broke off"
                may_pass = not isinstance(error, OSError | ValueError)
            if wait is None or not may_pass:
                remedy = "The repository changes in one commit or not at all; run the same command again to finish"
                # What is wrong with a card stands in the ValueError alone.
                told = error if isinstance(error, ValueError) else origin
                raise UserError(f"push: {reason}\n{type(told).__name__}: {told}\n{remedy}") from error
            say(f"push: {reason}; tries again in {wait} s")
            time.sleep(wait)
    raise AssertionError  # the last try returned or raised
