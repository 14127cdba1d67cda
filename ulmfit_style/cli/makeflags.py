"""What was typed after `make`, decoded from make's own record of it, so that no value passes through a shell."""

import re

from ulmfit_style.errors import UserError


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
