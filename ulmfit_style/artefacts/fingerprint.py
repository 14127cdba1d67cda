"""Digests, of which fingerprints are the beginning: an artefact is named by a hash of all that determines it.

What that is, each stage says in its `determinants`, and each section of the config by its fields (`config/section.py`).
"""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

_JSON = json.JSONEncoder(sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def digest(value: Any) -> str:
    """Return the SHA-256, in hex, of any JSON value."""
    return hashlib.sha256(_JSON.encode(value).encode("utf-8")).hexdigest()


def digest_of_all(values: Iterable[Any]) -> str:
    """Return the `digest` of the list of the values, of which one at a time is in memory."""
    hasher = hashlib.sha256(b"[")
    for number, value in enumerate(values):
        hasher.update(f"{',' * (number > 0)}{_JSON.encode(value)}".encode())
    hasher.update(b"]")
    return hasher.hexdigest()


def file_digest(path: Path) -> str:
    """Return the SHA-256, in hex, of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
