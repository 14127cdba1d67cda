"""Files of data sets on the Hub: `hub:<account>/<name>@<revision>/<file>`.

A file is named, not a data set: so nobody's loading script runs, and what is read is what the path says.
"""

import re
from pathlib import Path
from typing import NamedTuple

from ulmfit_style.errors import UserError, reworded

PREFIX = "hub:"


class HubFile(NamedTuple):
    """A file of a data set on the Hub."""

    repository: str
    revision: str | None
    """A commit, tag or branch; None for the newest."""
    name: str
    """The file's path inside the repository."""


def parse(option: str, reference: str) -> HubFile:
    """Read a reference.

    Args:
        option: The config field that holds it, for error messages.

    Raises:
        UserError: if it is not of the form above.
    """
    match = re.fullmatch(r"hub:([^/@]+/[^/@]+)(?:@([^/]+))?/(.+)", reference)
    if match is None:
        form = "write hub:<account>/<name>/<file>, with @<commit> after the name to pin it"
        raise UserError(f"{option}={reference}: {form}")
    return HubFile(*match.groups())


def commit(option: str, reference: str) -> str:
    """Return the commit that a reference means now; without the network, what it meant when last asked for.

    Raises:
        UserError: if the Hub has no such file.
    """
    # The Hub's cache names the folder of a snapshot by its commit.
    return locate(option, reference).parents[parse(option, reference).name.count("/")].name


def locate(option: str, reference: str) -> Path:
    """Return where the file is on this machine, downloading it the first time.

    Args:
        option: The config field that holds the reference, for error messages.

    Raises:
        UserError: if the Hub has no such data set, revision or file, or cannot be reached.
    """
    from huggingface_hub import hf_hub_download

    file = parse(option, reference)
    # Errors of the network, the Hub, or of a name that is none.
    with reworded(f"{option}={reference}: cannot be downloaded from the Hub (", OSError, ValueError, after=")"):
        return Path(hf_hub_download(file.repository, file.name, repo_type="dataset", revision=file.revision))


def is_id(name: str) -> bool:
    """Tell whether a name is spelled as the Hub spells repositories: neither a path nor `package:<folder>`."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # its __all__ is computed

    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return True
