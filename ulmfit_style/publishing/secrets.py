"""Secrets that must not leave this machine: tokens and keys by the shapes that their makers gave them."""

import re
from collections.abc import Iterator

SHAPES = {
    "a token of Hugging Face": r"\b(?:hf|api_org)_[A-Za-z0-9]{30,}",
    "a token of GitHub": r"\b(?:gh[pousr]_[A-Za-z0-9]{36,}|github_pat_\w{60,})",
    "a token of GitLab": r"\bglpat-[\w-]{20,}",
    "a token of Slack": r"\bxox[abeprs]-[A-Za-z0-9-]{10,}",
    "a key of AWS": r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b",
    "a key of Google": r"\bAIza[\w-]{35}",
    "a key of OpenAI or Anthropic": r"\bsk-[\w-]{20,}",
    "a JSON web token": r"\beyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{10,}",
    "a private key": r"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----",
    "a password in an address": r"\b[a-z][a-z+]*://[^\s/:@\"']+:[^\s/:@\"']+@",
}
"""What each kind looks like, as regular expressions."""

NAMED = re.compile(
    r"(?i:key|secret|token|passw(?:or)?d|passphrase|pwd|credentials?|auth(?:orization)?|bearer)[\"']?"
    r"\s*[:=]\s*[\"']?(?:(?:Bearer|Basic)\s+)?(?=\S*\d)(?=\S*[A-Za-z])([^\s\"'`,;<>(){}\[\]|]{12,})"
)
"""A word beside which a secret stands, and what stands there: long, with a digit; `"pad_token": "[PAD]"` is none."""

LEAST_SIGNS = 8
"""How many different signs a secret has at least, about three bits a sign."""


def find(text: str, token: str | None) -> Iterator[tuple[int, str]]:
    """Yield the line, from 1, and the kind of each secret in a text, and never the secret.

    Args:
        token: The one in use, which counts whatever it looks like.
    """
    shapes = {**({"your own token": re.escape(token)} if token else {}), **SHAPES}
    places = [(match.start(), kind) for kind, shape in shapes.items() for match in re.finditer(shape, text)]
    named = [match.start() for match in NAMED.finditer(text) if len(set(match[1])) >= LEAST_SIGNS]
    places += [(start, "what is called a secret") for start in named]
    kinds = {text.count("\n", 0, start) + 1: kind for start, kind in sorted(places, reverse=True)}  # one of each line
    yield from sorted(kinds.items())
