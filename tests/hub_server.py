"""The part of the Hugging Face Hub's HTTP API that a push and a pull use, served from memory on this machine."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socket import SHUT_RDWR
from threading import Thread
from typing import Any
from urllib.parse import unquote, urlsplit

import yaml

Commits = list[tuple[str, dict[str, bytes]]]
"""The message and all files of each commit, oldest first."""


@dataclass
class Repo:
    """A repository of a model or a data set: each commit is the whole of its files."""

    private: bool
    commits: Commits = field(default_factory=lambda: [("Initial commit", {})])

    @property
    def files(self) -> dict[str, bytes]:
        return self.commits[-1][1]

    @property
    def head(self) -> str:
        return _commit(self.commits)

    def at(self, revision: str | None) -> tuple[str, dict[str, bytes]] | None:
        """Return the commit that a revision names, and its files."""
        for end in range(len(self.commits), 0, -1):
            commit = _commit(self.commits[:end])
            if revision in (commit, "main", None):
                return commit, self.commits[end - 1][1]
        return None


Fault = Callable[["Handler"], bool]
"""What goes wrong with a request; whether that was its answer."""


@dataclass(frozen=True)
class Request:
    """What came in, as the tests look at it."""

    method: str
    path: str
    body: bytes


class Hub(ThreadingHTTPServer):
    """The server and all it knows."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.accounts = {"hf_mine": "me", "hf_theirs": "them"}
        """The account of each token."""
        self.repos: dict[str, Repo] = {}
        self.objects: dict[str, bytes] = {}
        """Large files by their SHA-256."""
        self.spoilt: dict[str, bytes] = {}
        """What the Hub holds in place of a file, by its path."""
        self.requests: list[Request] = []
        self._faults: list[tuple[str, Fault]] = []

    def fail_next(self, pattern: str, status: int, times: int = 1) -> None:
        """Answer `status` to the next requests whose `METHOD /path` matches a regular expression."""
        self._faults += [(pattern, lambda handler: handler.refuse(status))] * times

    def cut_next(self, pattern: str) -> None:
        """Hang up on the next such request when a part of its body has come."""
        self._faults.append((pattern, Handler.hang_up))

    def lose_next(self, pattern: str) -> None:
        """Do what the next such request wants, and hang up without an answer."""
        self._faults.append((pattern, Handler.hang_up_after))

    def before_next(self, pattern: str, act: Callable[[], Any]) -> None:
        """Do something before the next such request is answered: wait, or change a repository."""

        def fault(handler: Handler) -> bool:
            act()
            return False

        self._faults.append((pattern, fault))

    def handle_error(self, *_: Any) -> None:
        """Say nothing of a client that has hung up: a test wanted that."""

    def behave(self) -> None:
        """Forget what else was to go wrong."""
        self._faults.clear()

    def fault(self, request: str) -> Fault | None:
        """Return what is to go wrong with a request, if that was asked for."""
        for fault in self._faults:
            if re.search(fault[0], request):
                self._faults.remove(fault)
                return fault[1]
        return None


@contextmanager
def serve() -> Iterator[Hub]:
    """Run a Hub while the block runs."""
    with Hub() as hub:
        Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        try:
            yield hub
        finally:
            hub.shutdown()


class Handler(BaseHTTPRequestHandler):
    """Answers one connection's requests by the table of routes below."""

    protocol_version = "HTTP/1.1"
    server: Hub

    def log_message(self, *_: Any) -> None:
        """Keep the tests' output clean."""

    def _serve(self) -> None:
        authorization = self.headers.get("Authorization")
        token = authorization.removeprefix("Bearer ") if authorization else None
        self.account = self.server.accounts.get(token or "")
        address = urlsplit(self.path)
        path, self.lost = unquote(address.path), False
        fault = self.server.fault(f"{self.command} {path}")
        if fault is not Handler.hang_up:
            self.request_ = Request(self.command, path, self._body())
        if fault is not None and fault(self):
            return
        self.server.requests.append(self.request_)
        if token is not None and self.account is None:
            self._fail(401, "Invalid credentials in Authorization header")
        else:
            self._answer()

    def refuse(self, status: int) -> bool:
        self.server.requests.append(self.request_)
        self._fail(status, "asked for by a test")
        return True

    def hang_up(self) -> bool:
        if not self.lost:
            self.rfile.read(min(100, int(self.headers.get("Content-Length", 0))))
        self.close_connection = True
        self.connection.shutdown(SHUT_RDWR)
        return True

    def hang_up_after(self) -> bool:
        self.lost = True
        return False

    do_GET = do_HEAD = do_POST = do_PUT = _serve

    def _answer(self) -> None:
        for methods, pattern, answer in ROUTES:
            match = re.fullmatch(pattern, self.request_.path)
            if match and self.command in methods.split():
                answer(self, *match.groups())
                return
        self._fail(404, "Not found")

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    # Answers

    def _send(self, status: int, body: bytes, **headers: str) -> None:
        if self.lost:
            self.hang_up()
            return
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _json(self, value: Any, status: int = 200, **headers: str) -> None:
        self._send(status, json.dumps(value).encode(), Content_Type="application/json", **headers)

    def _fail(self, status: int, message: str, code: str = "") -> None:
        self._json({"error": message}, status, X_Error_Message=message, X_Error_Code=code)

    def _owns(self, name: str) -> bool:
        return name.removeprefix("spaces/").startswith(f"{self.account}/")

    def _repo(self, name: str, *, to_write: bool = False) -> Repo | None:
        """Return a repository that may be read, or written, or answer 403 or 404: those of others are hidden."""
        repo, mine = self.server.repos.get(name), self._owns(name)
        if to_write and not mine:
            self._fail(403, f"You don't have the rights to write to {name}")
        elif repo is None or (repo.private and not mine):
            self._fail(404, "Repository not found", "RepoNotFound")
        else:
            return repo
        return None

    def _commit_of(self, repo: Repo | None, revision: str | None) -> tuple[str, dict[str, bytes]] | None:
        """Return the commit that a revision names, and its files, or answer 404."""
        commit = repo.at(revision) if repo else None
        if repo and commit is None:
            self._fail(404, "Invalid rev id", "RevisionNotFound")
        return commit

    # Pushing

    def whoami(self) -> None:
        self._json({"type": "user", "name": self.account})

    def create(self) -> None:
        wanted = json.loads(self.request_.body)
        kind = "spaces/" if wanted.get("type") == "space" else ""
        name = f"{kind}{wanted.get('organization') or self.account}/{wanted['name']}"
        url = f"{self.server.url}/{name}"
        if not self._owns(name):
            self._fail(403, f"You don't have the rights to write to {name}")
        elif name in self.server.repos:
            self._json({"error": "You already created this model repo", "url": url}, 409)
        else:
            # Public unless told otherwise, as on the Hub.
            self.server.repos[name] = Repo(private=wanted.get("visibility") == "private")
            self._json({"url": url, "id": name})

    def validate_yaml(self) -> None:
        """Refuse, as the Hub does, a licence that it does not know, and a Space without its kit."""
        told = json.loads(self.request_.body)
        values = yaml.safe_load(told["content"].split("---")[1])
        errors = []
        if not re.fullmatch(r"[a-z0-9.-]+", values.get("license", "mit")):
            errors.append({"message": '"license" must be one of [apache-2.0, mit, ...]'})
        if told["repoType"] == "space" and values.get("sdk") not in ("docker", "gradio", "static"):
            errors.append({"message": '"sdk" must be one of [gradio, docker, static]'})
        self._json({"errors": errors, "warnings": []}, 400 if errors else 200)

    def preupload(self, name: str, revision: str) -> None:
        if not (commit := self._commit_of(self._repo(name, to_write=True), revision)):
            return
        files = []
        for path in (wanted["path"] for wanted in json.loads(self.request_.body)["files"]):
            large = path.endswith(".safetensors")
            there = commit[1].get(path)
            oid = None if there is None else (_sha256 if large else _git_oid)(there)
            files.append({"path": path, "uploadMode": "lfs" if large else "regular", "shouldIgnore": False, "oid": oid})
        self._json({"files": files})

    def lfs_batch(self, name: str) -> None:
        if not self._repo(name):
            return
        objects = []
        for wanted in json.loads(self.request_.body)["objects"]:
            href = f"{self.server.url}/lfs/{wanted['oid']}"
            upload = {"upload": {"href": href}, "verify": {"href": f"{href}/verify"}}
            objects.append(wanted if wanted["oid"] in self.server.objects else {**wanted, "actions": upload})
        self._json({"transfer": "basic", "objects": objects})

    def lfs_put(self, oid: str) -> None:
        whole = _sha256(self.request_.body) == oid
        if whole:
            self.server.objects[oid] = self.request_.body
        self._send(200 if whole else 400, b"")

    def lfs_verify(self, oid: str) -> None:
        self._send(200 if oid in self.server.objects else 404, b"")

    def commit(self, name: str, revision: str) -> None:
        if not (repo := self._repo(name, to_write=True)):
            return
        commits = repo.commits
        operations = [json.loads(line) for line in self.request_.body.splitlines()]
        parent = operations[0]["value"].get("parentCommit")
        if parent is not None and parent != _commit(commits):
            self._fail(412, "A commit has happened since. Please refresh and try again.")
            return
        files, message = dict(commits[-1][1]), operations[0]["value"]["summary"]
        for operation in operations[1:]:
            key, value = operation["key"], operation["value"]
            if key == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif key == "lfsFile":
                files[value["path"]] = self.server.objects[value["oid"]]
            elif key == "deletedFile":
                del files[value["path"]]
        commits.append((message, files))
        url = f"{self.server.url}/{name}/commit/{_commit(commits)}"
        self._json({"success": True, "commitOid": _commit(commits), "commitUrl": url})

    # Pulling

    def info(self, name: str, revision: str | None) -> None:
        repo = self._repo(name)
        if repo and (commit := self._commit_of(repo, revision)):
            siblings = [{"rfilename": path} for path in commit[1]]
            self._json({"id": name, "private": repo.private, "sha": commit[0], "siblings": siblings})

    def tree(self, name: str, revision: str, folder: str | None) -> None:
        if folder is not None:
            self._fail(404, "There are no folders here", "EntryNotFound")
        elif commit := self._commit_of(self._repo(name), revision):
            self._json([self._entry(path, content) for path, content in commit[1].items()])

    def _entry(self, path: str, content: bytes) -> dict[str, Any]:
        """Return how the Hub lists a file: with git's hash, a large one with its SHA-256 beside that of a pointer."""
        content = self.server.spoilt.get(path, content)
        entry = {"type": "file", "path": path, "size": len(content), "oid": _git_oid(content)}
        if (oid := _sha256(content)) in self.server.objects:
            pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{oid}\nsize {len(content)}\n".encode()
            large = {"oid": oid, "size": len(content), "pointerSize": len(pointer)}
            entry |= {"oid": _git_oid(pointer), "lfs": large}
        return entry

    def resolve(self, name: str, revision: str, path: str) -> None:
        if not (found := self._commit_of(self._repo(name), revision)):
            return
        commit, files = found
        if path not in files:
            self._json({}, 404, X_Error_Code="EntryNotFound", X_Repo_Commit=commit)
            return
        content = self.server.spoilt.get(path, files[path])
        self._send(200, content, X_Repo_Commit=commit, ETag=f'"{_sha256(content)}"')


def _commit(commits: Commits) -> str:
    """Return the name of the last of some commits: that of its place and its content."""
    message, files = commits[-1]
    content = [len(commits), message, {path: _sha256(content) for path, content in files.items()}]
    return hashlib.sha1(json.dumps(content).encode()).hexdigest()


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _git_oid(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


NAME = r"((?:spaces/)?[\w.-]+/[\w.-]+)"
OF_KIND = rf"/api/(?:models/|datasets/|(?=spaces/)){NAME}"

ROUTES: list[tuple[str, str, Callable[..., None]]] = [
    ("POST", "/api/repos/create", Handler.create),
    ("GET", "/api/whoami-v2", Handler.whoami),
    ("POST", "/api/validate-yaml", Handler.validate_yaml),
    ("POST", f"{OF_KIND}/preupload/(.+)", Handler.preupload),
    ("POST", rf"/{NAME}\.git/info/lfs/objects/batch", Handler.lfs_batch),
    ("PUT", "/lfs/([0-9a-f]{64})", Handler.lfs_put),
    ("POST", "/lfs/([0-9a-f]{64})/verify", Handler.lfs_verify),
    ("POST", f"{OF_KIND}/commit/(.+)", Handler.commit),
    ("GET", f"{OF_KIND}(?:/revision/(.+))?", Handler.info),
    ("GET", f"{OF_KIND}/tree/([^/]+)(?:/(.+))?", Handler.tree),
    ("GET HEAD", f"(?:/datasets)?/{NAME}/resolve/([^/]+)/(.+)", Handler.resolve),
]
