"""How a folder gets to the Hub: in one commit, tried again where that may help, and compared by the hashes there."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from rich.filesize import decimal

from ulmfit_style.artefacts.directory import file_digest
from ulmfit_style.config.commands import Hub
from ulmfit_style.console import say
from ulmfit_style.errors import UserError
from ulmfit_style.publishing import export

if TYPE_CHECKING:
    from huggingface_hub import CommitInfo, HfApi
    from huggingface_hub.errors import HfHubHTTPError
    from huggingface_hub.hf_api import RepoFile, RepoFolder

T = TypeVar("T")

WAITS = (1, 2, 4)
"""Seconds before each further try."""

PASSING = (408, 425, 429, 500, 502, 503, 504)
"""The HTTP statuses of the Hub that another try may not meet."""

SILENCE_SECONDS = 300
"""How long the Hub may say nothing before the connection counts as broken."""


@dataclass
class Progress:
    """How far a push has come, for the message where it breaks off."""

    large: int = 0
    sent: list[str] = field(default_factory=list)
    """The large files that the Hub has."""
    commit: str | None = None
    is_compared: bool = False

    def __str__(self) -> str:
        if self.commit is not None:
            compared = "compared" if self.is_compared else "not compared with what was sent"
            return f"commit {self.commit} is there, and was {compared}"
        if self.large:
            arrived = f"{len(self.sent)} of {self.large} large files arrived"
            return f"{arrived}, but no commit, so nobody sees anything of them"
        return "nothing arrived"


def connect(token: str) -> HfApi:
    """Return the Hub's client, silent from now on: its bars and warnings would be mixed with our lines."""
    from huggingface_hub import HfApi, get_session
    from huggingface_hub.utils import disable_progress_bars, logging  # type: ignore[attr-defined]

    disable_progress_bars()
    logging.set_verbosity_error()
    get_session().timeout = SILENCE_SECONDS  # it would wait for ever
    return HfApi(token=token)


def send(api: HfApi, repo: str, options: Hub, folder: Path, message: str, progress: Progress) -> CommitInfo:
    """Bring a repository to hold what a folder holds, and return its commit: a new one, or the one that did already.

    Large files go first, one by one; the Hub keeps those that have arrived, so a second try does not send them again.
    What an earlier push left there and the folder has not is removed.

    Raises:
        UserError: for a repository that may not or should not be written to.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    url = patiently(lambda: api.create_repo(repo, private=options.private, exist_ok=True))
    tags = _prepare(api, url.repo_id, options)
    before = patiently(lambda: api.model_info(url.repo_id, revision=options.revision))
    if options.private and not before.private:
        raise UserError(
            f"push: {before.id} exists already and is public, but hub.private=true; nothing was uploaded. Give "
            "hub.private=false to publish in it, or choose another hub.repo"
        )
    if before.private and not options.private:
        say(f"push: {before.id} exists already and stays private; hub.private=false holds for new repositories")
    if (tagged := tags.get(options.tag or "", before.sha)) != before.sha:
        raise UserError(f"push: {_tag_problem(options.tag, tagged)}; nothing was uploaded. Choose another")

    # Large files
    names = export.files(folder)
    additions = [CommitOperationAdd(name, folder / name) for name in names]
    large = [addition for addition in additions if addition.path_in_repo.endswith(".safetensors")]
    progress.large = len(large)
    for addition in large:
        say(f"push: sends {addition.path_in_repo}, {decimal(addition.upload_info.size)}, unless the Hub has it")
        api.preupload_lfs_files(repo, [addition], revision=options.revision, free_memory=False, num_threads=1)
        progress.sent.append(addition.path_in_repo)

    # Commit: `upload_folder` may split its work into several, between which a reader would pull a mixture.
    there = [file.rfilename for file in before.siblings or []]
    stale = [name for name in there if export.goes(name) and name not in names]
    if stale:
        say(f"push: removes what an earlier push left there: {', '.join(stale)}")

    def commit() -> CommitInfo:
        # New for each try: the client marks what it has sent.
        files = [CommitOperationAdd(name, folder / name) for name in names]
        operations: list[Any] = [*files, *map(CommitOperationDelete, stale)]
        return api.create_commit(
            repo, operations, commit_message=message, revision=options.revision, parent_commit=before.sha
        )

    made = patiently(commit)
    unchanged = ", which held all of this already" if made.oid == before.sha else ""
    say(f"push: {url} ({visibility(before.private)}){unchanged}", style="bold")
    progress.commit = made.oid
    return made


def require_arrived(api: HfApi, repo: str, commit: str, folder: Path, progress: Progress) -> None:
    """Compare the hashes that the Hub lists for the files of a commit with those of a folder.

    Raises:
        UserError: naming the files that differ or are missing.
    """
    names = export.files(folder)
    listed = {file.path: file for file in patiently(lambda: api.get_paths_info(repo, names, revision=commit))}
    wrong = [name for name in names if not _is_same(folder / name, listed.get(name))]
    if wrong:
        raise UserError(
            f"push: {', '.join(wrong)} in commit {commit} is not what was sent; do not use this commit. "
            "Delete it or its files on the Hub, and push again"
        )
    progress.is_compared = True


def _is_same(path: Path, listed: RepoFile | RepoFolder | None) -> bool:
    """Return whether a file has the hash of one on the Hub: that of git, or of a large file its SHA-256."""
    from huggingface_hub.hf_api import RepoFile
    from huggingface_hub.utils.sha import git_hash

    if not isinstance(listed, RepoFile):
        return False
    return file_digest(path) == listed.lfs.sha256 if listed.lfs else git_hash(path.read_bytes()) == listed.blob_id


def tag(api: HfApi, repo: str, name: str, commit: str) -> None:
    """Tag a commit.

    Raises:
        UserError: if the tag is there, at another commit.
    """
    patiently(lambda: api.create_tag(repo, tag=name, revision=commit, exist_ok=True))
    tags = patiently(lambda: {ref.name: ref.target_commit for ref in api.list_repo_refs(repo).tags})
    if (tagged := tags.get(name)) != commit:
        problem = _tag_problem(name, tagged)
        raise UserError(f"push: {problem}. Everything else was pushed: choose another tag for {commit[:8]}")


def _tag_problem(name: str | None, commit: str | None) -> str:
    return f"hub.tag={name}: exists already, at the commit {str(commit)[:8]}, and tags do not move"


def visibility(private: bool | None) -> str:
    """Return the word for it."""
    return "private" if private else "public"


def _prepare(api: HfApi, repo: str, options: Hub) -> dict[str, str]:
    """Make the branch, where there is none, and return the commits of the tags."""
    if options.revision is None and options.tag is None:
        return {}
    refs = patiently(lambda: api.list_repo_refs(repo))
    if options.revision not in (None, *(branch.name for branch in refs.branches)):
        say(f"push: makes the branch {options.revision}, from main")
        patiently(lambda: api.create_branch(repo, branch=str(options.revision), exist_ok=True))
    return {ref.name: ref.target_commit for ref in refs.tags}


# What goes wrong


def patiently(call: Callable[[], T]) -> T:
    """Call the Hub, and call it again where it said that this may help, or said nothing.

    Its client does so by itself for the bytes of large files, and for nothing else.
    """
    for wait in WAITS:
        try:
            return call()
        except Exception as error:
            if isinstance(error, UserError) or not _may_pass(error):
                raise
            say(f"push: {_reason(error)}; tries again in {wait} s")
            time.sleep(wait)
    return call()


@contextmanager
def hub_errors_in_words(repo: str, directory: Path, progress: Progress) -> Iterator[None]:
    """Turn whatever the Hub's client raises into a UserError that says what has arrived.

    Its own errors, those of its HTTP and xet libraries and plain RuntimeErrors around them share no base class.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        problem = f"push: {_in_words(error, repo)}"
        remedy = f"{directory} is untouched; run the same command again to finish"
        raise UserError(f"{problem}\n{progress}; {remedy}") from error


def _answer(error: BaseException | None) -> HfHubHTTPError | None:
    """Return the Hub's answer behind an error; None if it gave none."""
    from huggingface_hub.errors import HfHubHTTPError

    while error is not None and not isinstance(error, HfHubHTTPError):
        error = error.__cause__
    return error


def _may_pass(error: Exception) -> bool:
    from huggingface_hub.errors import OfflineModeIsEnabled

    if (answer := _answer(error)) is not None:
        return answer.response.status_code in PASSING
    return not isinstance(error, (OSError, ValueError, OfflineModeIsEnabled))


def _reason(error: BaseException) -> str:
    if (answer := _answer(error)) is not None:
        return f"the Hub answered {answer.response.status_code}"
    words = (str(error).strip() or type(error).__name__).splitlines()[0]
    return f"the Hub could not be reached, or broke off ({words})"


def _in_words(error: Exception, repo: str) -> str:
    from huggingface_hub import constants

    if (answer := _answer(error)) is None:
        return f"{constants.ENDPOINT}: {_reason(error)}"
    return {
        401: "the Hub does not accept your token; make a new one that may write",
        403: f"your token has no right to write to {repo}; choose another hub.repo, or another token",
        412: f"{repo} has changed since this push began, so nothing was written over it",
    }.get(answer.response.status_code, f"{_reason(error)}: {answer.server_message or answer.response.reason_phrase}")
