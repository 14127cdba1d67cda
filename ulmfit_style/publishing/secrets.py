"""Secrets that must not leave this machine: tokens and keys by the shapes in `secrets.yaml`."""

import re
from collections.abc import Iterator
from pathlib import Path

import yaml

SHAPES = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
"""What each kind looks like, as regular expressions. A group is what has to have `LEAST_SIGNS`."""

LEAST_SIGNS = 8
"""How many different signs a secret has at least that is known by the word beside it, about three bits a sign."""


def find(text: str, token: str | None) -> Iterator[tuple[int, str]]:
    """Yield the line, from 1, and the kind of each secret in a text, and never the secret.

    Args:
        token: The one in use, which counts whatever it looks like.
    """
    shapes = {**({"your own token": re.escape(token)} if token else {}), **SHAPES}
    matches = ((kind, match) for kind, shape in shapes.items() for match in re.finditer(shape, text))
    places = [(one.start(), kind) for kind, one in matches if not one.lastindex or len(set(one[1])) >= LEAST_SIGNS]
    kinds = {text.count("\n", 0, start) + 1: kind for start, kind in sorted(places, reverse=True)}  # one of each line
    yield from sorted(kinds.items())
