"""How a folder gets to the Hub: in one commit, tried again where that may help, and downloaded again to be compared."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, TypeVar

from rich.filesize import decimal

from ulmfit_style.artefacts.directory import file_digest
from ulmfit_style.config.commands import Hub
from ulmfit_style.console import say
from ulmfit_style.errors import UserError
from ulmfit_style.publishing import export

if TYPE_CHECKING:
    from huggingface_hub import CommitInfo, HfApi, ModelInfo

T = TypeVar("T")

WAITS = (1, 2, 4)
"""Seconds before each further try."""

PASSING = (408, 425, 429, 500, 502, 503, 504)
"""What the Hub answers when it may answer otherwise later."""

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""What a disk says that has no room."""

SILENCE_SECONDS = 300
"""How long the Hub may say nothing before that counts as broken off."""


@dataclass
class Progress:
    """How far a push has come, to be told where it breaks off."""

    large: int = 0
    sent: list[str] = field(default_factory=list)
    """The large files that the Hub has."""
    commit: str | None = None
    compared: bool = False

    def told(self) -> str:
        """Tell what has arrived."""
        if self.compared:
            return f"commit {self.commit} is there, and was compared"
        if self.commit is not None:
            return f"commit {self.commit} is there, but was not compared with what was sent"
        if self.large:
            return (
                f"{len(self.sent)} of {self.large} large files arrived, and no commit, so nobody sees anything of them"
            )
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

    private, request = options.private, options.pull_request
    url = patiently(lambda: api.create_repo(repo, private=private, exist_ok=True))
    tags = _prepare(api, url.repo_id, options)
    before = patiently(lambda: api.model_info(url.repo_id, revision=options.revision))
    _check_visibility(before, private=private)
    if (at := tags.get(options.tag or "", before.sha)) != before.sha:
        raise UserError(f"push: {_tag_problem(options.tag, at)}; nothing was uploaded. Choose another")

    # Large files
    names = export.files(folder)
    additions = [CommitOperationAdd(name, folder / name) for name in names]
    large = [addition for addition in additions if addition.path_in_repo.endswith(".safetensors")]
    progress.large = len(large)
    for addition in large:
        say(f"push: sends {addition.path_in_repo}, {decimal(addition.upload_info.size)}, unless the Hub has it")
        api.preupload_lfs_files(
            repo, [addition], revision=options.revision, create_pr=request, free_memory=False, num_threads=1
        )
        progress.sent.append(addition.path_in_repo)

    # Commit: `upload_folder` may split its work into several, between which a reader would pull a mixture.
    def committed() -> CommitInfo:
        there, revision, new = before, options.revision, request
        if request and (number := _open_request(api, repo, message)) is not None:
            revision, new = f"refs/pr/{number}", False
            there = api.model_info(repo, revision=revision)
        stale = [
            one.rfilename for one in there.siblings or [] if export.goes(one.rfilename) and one.rfilename not in names
        ]
        if stale:
            say(f"push: removes what an earlier push left there: {', '.join(stale)}")
        operations: list[CommitOperationAdd | CommitOperationDelete] = [
            *(CommitOperationAdd(name, folder / name) for name in names),
            *(CommitOperationDelete(name) for name in stale),
        ]
        made = api.create_commit(
            repo, operations, commit_message=message, revision=revision, create_pr=new, parent_commit=there.sha
        )
        unchanged = ", which held all of this already" if made.oid == there.sha else ""
        say(f"push: {url} ({visibility(before.private)}){unchanged}", style="bold")
        return made

    made = patiently(committed)
    progress.commit = made.oid
    return made


def require_arrived(api: HfApi, repo: str, commit: str, folder: Path, scratch: Path, progress: Progress) -> None:
    """Download a commit, file by file, and compare it with a folder.

    Args:
        scratch: Where a file lies meanwhile.

    Raises:
        UserError: naming the files that came back otherwise.
    """
    wrong = []
    for name in export.files(folder):
        with TemporaryDirectory(dir=scratch) as cache:
            back = patiently(lambda: api.hf_hub_download(repo, name, revision=commit, cache_dir=cache))  # noqa: B023
            if file_digest(Path(back)) != file_digest(folder / name):
                wrong.append(name)
    if wrong:
        raise UserError(
            f"push: {', '.join(wrong)} came back from commit {commit} otherwise than sent; do not use this commit. "
            "Delete it or its files on the Hub, and push again"
        )
    progress.compared = True


def tag(api: HfApi, repo: str, name: str, commit: str) -> None:
    """Tag a commit.

    Raises:
        UserError: if the tag is there, at another commit.
    """
    patiently(lambda: api.create_tag(repo, tag=name, revision=commit, exist_ok=True))
    there = patiently(lambda: {ref.name: ref.target_commit for ref in api.list_repo_refs(repo).tags})
    if (at := there.get(name)) != commit:
        raise UserError(f"push: {_tag_problem(name, at)}. All else was pushed: choose another for {commit[:8]}")


def _tag_problem(name: str | None, commit: str | None) -> str:
    return f"hub.tag={name}: is there already, at the commit {str(commit)[:8]}, and tags do not move"


def visibility(private: bool | None) -> str:
    """Return the word for it."""
    return "private" if private else "public"


def _prepare(api: HfApi, repo: str, options: Hub) -> dict[str, str]:
    """Make the branch, where there is none, and return the commits of the tags."""
    if options.revision is None and options.tag is None:
        return {}
    refs = patiently(lambda: api.list_repo_refs(repo))
    if options.revision not in (None, *(branch.name for branch in refs.branches)):
        if options.pull_request:
            raise UserError(
                f"push: hub.revision={options.revision}: there is no such branch of {repo} to be merged into"
            )
        say(f"push: makes the branch {options.revision}, from main")
        patiently(lambda: api.create_branch(repo, branch=str(options.revision), exist_ok=True))
    return {ref.name: ref.target_commit for ref in refs.tags}


def _open_request(api: HfApi, repo: str, message: str) -> int | None:
    """Return the number of the pull request that an earlier push of the same model opened, if it is open still."""
    found = api.get_repo_discussions(repo, discussion_type="pull_request", discussion_status="open")
    return next((one.num for one in found if one.title == message), None)


def _check_visibility(info: ModelInfo, *, private: bool) -> None:
    """Say, or refuse, that a repository which was there already is not as visible as the config wants it."""
    if private and not info.private:
        raise UserError(
            f"push: {info.id} is there already, and public, and hub.private=true; nothing was uploaded. Say "
            "hub.private=false to publish in it, or choose another hub.repo"
        )
    if info.private and not private:
        say(f"push: {info.id} was there already, and stays private; hub.private=false holds for new repositories")


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
        problem = f"push: {_in_words(error, repo, directory)}"
        raise UserError(
            f"{problem}\n{progress.told()}; {directory} is untouched, and the same command goes on"
        ) from error


def _status(error: BaseException) -> int | None:
    """Return the HTTP status behind an error, if the Hub answered at all."""
    from huggingface_hub.errors import HfHubHTTPError

    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, HfHubHTTPError):
        cause = cause.__cause__
    return None if cause is None else cause.response.status_code


def _may_pass(error: Exception) -> bool:
    from huggingface_hub.errors import LocalEntryNotFoundError, OfflineModeIsEnabled

    status = _status(error)
    if status is not None:
        return status in PASSING
    # The client wraps a download that broke off in a FileNotFoundError.
    return isinstance(error, LocalEntryNotFoundError) or not isinstance(
        error, (OSError, ValueError, OfflineModeIsEnabled)
    )


def _reason(error: BaseException) -> str:
    status = _status(error)
    words = (str(error).strip() or type(error).__name__).splitlines()[0]
    return (
        f"the Hub answered {status}" if status is not None else f"the Hub could not be reached, or broke off ({words})"
    )


def _in_words(error: Exception, repo: str, directory: Path) -> str:
    from huggingface_hub import constants
    from huggingface_hub.errors import HfHubHTTPError

    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, HfHubHTTPError):
        if isinstance(cause, OSError) and cause.errno in FULL:
            return f"{cause.strerror} ({directory.parent}); make room there"
        cause = cause.__cause__
    if cause is None:
        return f"{constants.ENDPOINT}: {_reason(error)}"
    status = cause.response.status_code
    message = cause.server_message or cause.response.reason_phrase
    return {
        401: "the Hub does not accept your token; make a new one that may write",
        403: f"your token has no right to write to {repo}; choose another hub.repo, or another token",
        412: f"{repo} has changed since this push began, so nothing was written over it",
    }.get(status, f"the Hub answered {status}: {message}")
