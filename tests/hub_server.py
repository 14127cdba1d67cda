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
from threading import Thread
from typing import Any
from urllib.parse import unquote, urlsplit


@dataclass
class Repo:
    """A repository of a model or a data set: each commit is the whole of its files."""

    private: bool
    commits: list[tuple[str, dict[str, bytes]]] = field(default_factory=lambda: [("Initial commit", {})])
    """The message and the files of each commit, oldest first."""

    @property
    def files(self) -> dict[str, bytes]:
        return self.commits[-1][1]

    @property
    def head(self) -> str:
        return _commit(len(self.commits))

    def at(self, revision: str | None) -> tuple[str, dict[str, bytes]]:
        """Return the commit that a revision names, and its files; whatever is no commit is a branch."""
        for number, (_, files) in enumerate(self.commits, start=1):
            if _commit(number) == revision:
                return revision, files
        return self.head, self.files


@dataclass(frozen=True)
class Request:
    """What came in, as the tests look at it."""

    method: str
    path: str
    token: str | None
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
        self.requests: list[Request] = []
        self._faults: list[tuple[str, int]] = []

    def fail_next(self, pattern: str, status: int) -> None:
        """Answer `status` to the next request whose `METHOD /path` matches a regular expression."""
        self._faults.append((pattern, status))

    def fault(self, request: Request) -> int | None:
        """Return the status that this request is to fail with, if one was asked for."""
        for fault in self._faults:
            if re.search(fault[0], f"{request.method} {request.path}"):
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
        path = unquote(urlsplit(self.path).path)
        self.request_ = Request(self.command, path, token, self._body())
        self.server.requests.append(self.request_)
        if status := self.server.fault(self.request_):
            self._fail(status, "asked for by a test")
        elif token is not None and token not in self.server.accounts:
            self._fail(401, "Invalid credentials in Authorization header")
        else:
            self._answer()

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

    @property
    def account(self) -> str | None:
        return self.server.accounts.get(self.request_.token or "")

    # Answers

    def _send(self, status: int, body: bytes, **headers: str) -> None:
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

    def _readable(self, name: str) -> Repo | None:
        """Return a repository that this request may read, or answer 404: the Hub hides those of others."""
        repo = self.server.repos.get(name)
        if repo is None or (repo.private and not self._owns(name)):
            self._fail(404, "Repository not found", "RepoNotFound")
            return None
        return repo

    def _writable(self, name: str) -> Repo | None:
        """Return a repository that this request may write, or answer 401, 403 or 404."""
        return self._readable(name) if self._may_write(name) else None

    def _may_write(self, name: str) -> bool:
        """Tell whether a repository is this account's, or answer 401 or 403."""
        if self.account is None:
            self._fail(401, "Invalid username or password.")
        elif not self._owns(name):
            self._fail(403, f"You don't have the rights to write to {name}")
        return self._owns(name)

    def _owns(self, name: str) -> bool:
        return self.account is not None and name.startswith(f"{self.account}/")

    # Pushing

    def create(self) -> None:
        wanted = json.loads(self.request_.body)
        name = f"{wanted.get('organization') or self.account}/{wanted['name']}"
        url = f"{self.server.url}/{name}"
        if not self._may_write(name):
            return
        if name in self.server.repos:
            self._json({"error": "You already created this model repo", "url": url}, 409)
        else:
            # Public unless told otherwise, as on the Hub.
            self.server.repos[name] = Repo(private=wanted.get("visibility") == "private")
            self._json({"url": url, "id": name})

    def validate_yaml(self) -> None:
        self._json({"errors": [], "warnings": []})

    def preupload(self, name: str, _revision: str) -> None:
        if repo := self._writable(name):
            files = []
            for wanted in json.loads(self.request_.body)["files"]:
                large, there = wanted["path"].endswith(".safetensors"), repo.files.get(wanted["path"])
                files.append(
                    {
                        "path": wanted["path"],
                        "uploadMode": "lfs" if large else "regular",
                        "shouldIgnore": False,
                        "oid": None if there is None else (_sha256 if large else _git_oid)(there),
                    }
                )
            self._json({"files": files})

    def lfs_batch(self, name: str) -> None:
        if self._writable(name):
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

    def commit(self, name: str, _revision: str) -> None:
        if repo := self._writable(name):
            files, message = dict(repo.files), ""
            for line in self.request_.body.splitlines():
                operation = json.loads(line)
                key, value = operation["key"], operation["value"]
                if key == "header":
                    message = value["summary"]
                elif key == "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                elif key == "lfsFile":
                    files[value["path"]] = self.server.objects[value["oid"]]
                elif key == "deletedFile":
                    del files[value["path"]]
            repo.commits.append((message, files))
            url = f"{self.server.url}/{name}/commit/{repo.head}"
            self._json({"success": True, "commitOid": repo.head, "commitUrl": url})

    # Pulling

    def info(self, name: str, revision: str | None) -> None:
        if repo := self._readable(name):
            commit, files = repo.at(revision)
            siblings = [{"rfilename": path} for path in files]
            self._json({"id": name, "private": repo.private, "sha": commit, "siblings": siblings})

    def tree(self, name: str, revision: str, folder: str | None) -> None:
        if folder is not None:
            self._fail(404, "There are no folders here", "EntryNotFound")
        elif repo := self._readable(name):
            entries = [
                {"type": "file", "path": path, "size": len(content), "oid": _git_oid(content)}
                for path, content in repo.at(revision)[1].items()
            ]
            self._json(entries)

    def resolve(self, name: str, revision: str, path: str) -> None:
        repo = self._readable(name)
        if repo is None:
            return
        commit, files = repo.at(revision)
        if path not in files:
            self._json({}, 404, X_Error_Code="EntryNotFound", X_Repo_Commit=commit)
            return
        content = files[path]
        headers = {"X_Repo_Commit": commit, "Accept_Ranges": "bytes", "ETag": f'"{_sha256(content)}"'}
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if wanted is None:
            self._send(200, content, **headers)
        else:
            start, end = int(wanted[1]), int(wanted[2] or len(content) - 1)
            self._send(206, content[start : end + 1], Content_Range=f"bytes {start}-{end}/{len(content)}", **headers)


def _commit(number: int) -> str:
    return hashlib.sha1(str(number).encode()).hexdigest()


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _git_oid(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


NAME = r"([\w.-]+/[\w.-]+)"

ROUTES: list[tuple[str, str, Callable[..., None]]] = [
    ("POST", "/api/repos/create", Handler.create),
    ("POST", "/api/validate-yaml", Handler.validate_yaml),
    ("POST", f"/api/models/{NAME}/preupload/([^/]+)", Handler.preupload),
    ("POST", rf"/{NAME}\.git/info/lfs/objects/batch", Handler.lfs_batch),
    ("PUT", "/lfs/([0-9a-f]{64})", Handler.lfs_put),
    ("POST", "/lfs/([0-9a-f]{64})/verify", Handler.lfs_verify),
    ("POST", f"/api/models/{NAME}/commit/([^/]+)", Handler.commit),
    ("GET", f"/api/(?:models|datasets)/{NAME}(?:/revision/([^/]+))?", Handler.info),
    ("GET", f"/api/(?:models|datasets)/{NAME}/tree/([^/]+)(?:/(.+))?", Handler.tree),
    ("GET HEAD", f"(?:/datasets)?/{NAME}/resolve/([^/]+)/(.+)", Handler.resolve),
]
