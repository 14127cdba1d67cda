"""Overrides out of what is none: make's own record of what was typed after it, and `--config-dir`.

Make's record is decoded here, so that no value passes through a shell.
"""

import re
from collections.abc import Sequence

from ulmfit_style.errors import UserError

SEARCH_PATH = "hydra.searchpath"
"""Hydra's list of further folders of YAMLs, which `--config-dir` adds to."""


def overrides_from_make(makeflags: str) -> list[str]:
    r"""Return the `key=value` arguments of a make command in the order typed, each as it was typed.

    `makeflags` is the environment's MAKEFLAGS: flags, ` -- `, then the arguments, the last one first, with every `$`
    doubled and a backslash before every blank and backslash. Names in capitals (PYTHON, VENV) are variables of the
    Makefile and left out. Two things are lost before they come here: make trims blanks around a key and before its
    value, and of a key typed twice it keeps the last value alone, in the first one's place.

    Raises:
        UserError: under `make -e`, which hands nothing over.
    """
    words = re.findall(r"(?:[^ \\]|\\.)+", makeflags)
    if "$(MAKEOVERRIDES)" in words:
        raise UserError("make -e keeps the options typed after it to itself; leave -e out")
    # Where no flag was given, make 3.81 (macOS) leaves out the `--` too; but only an argument has a `=` and no dash.
    assignments = [word for word in words if "=" in word and not word.startswith("-")]
    typed = [re.sub(r"\\(.)", r"\1", word).replace("$$", "$") for word in reversed(assignments)]
    return [text for text in typed if not re.match(r"[A-Z][A-Z0-9_]*=", text)]


def config_dirs(folders: Sequence[str]) -> str:
    """Return the override that `--config-dir` is short for.

    So the folders are known wherever overrides go: to our own checks, to a trial of a sweep, and through make.
    """
    quoted = ["'" + folder.replace("'", r"\'") + "'" for folder in folders]
    return f"{SEARCH_PATH}=[{','.join(quoted)}]"
