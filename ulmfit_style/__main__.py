"""The command line: `ulmfit-style adapt finetune key=value ...`.

Only Hydra is imported to answer a wrong option, `--help` and `--cfg job`; torch comes when there is work to do.
"""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Sequence

from ulmfit_style.console import say
from ulmfit_style.errors import UserError, nearest

COMMANDS = {
    "adapt": "continue the checkpoint's pretraining on your unlabelled text",
    "finetune": "train on the labelled rows, score the test rows, tell what adaptation was worth",
    "push": "upload the fine-tuned model to the Hub: hub.repo=<name>",
    "sweep": "run a grid over one shared adapt: finetune.learning_rate=2e-5,5e-5",
    "setup": "install the embedded model and data",
}

ALONE = ("setup", "sweep")
"""Commands that are no stages of a chain."""

USAGE = """usage: ulmfit-style COMMAND [COMMAND ...] [key=value ...]

commands:
{commands}

examples:
  ulmfit-style adapt finetune
  ulmfit-style adapt finetune task.train_samples=300 finetune.learning_rate=3e-5
  ulmfit-style adapt finetune task=text_classification task.path=reviews.csv task.text=review task.label=stars

--cfg job shows the composed configuration; the options and their defaults are in conf/config.yaml."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit code: 0, 2 for what the user can mend, 130 after Ctrl-C."""
    try:
        return _main(list(sys.argv[1:] if arguments is None else arguments))
    except UserError as error:
        print(f"ulmfit-style: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("ulmfit-style: interrupted; what was finished is kept", file=sys.stderr)
        return 130


def _main(arguments: list[str]) -> int:
    if "--from-make" in arguments:
        from ulmfit_style.makeflags import overrides_from_make

        arguments.remove("--from-make")
        arguments += overrides_from_make(os.environ.pop("MAKEFLAGS", ""))
    words = list(itertools.takewhile(str.isidentifier, arguments))
    rest = arguments[len(words) :]
    if not words or {"-h", "--help"} & set(rest):
        width = max(map(len, COMMANDS))
        say(USAGE.format(commands="\n".join(f"  {name:{width}}  {what}" for name, what in COMMANDS.items())))
        return 0
    for word in words:
        if word not in COMMANDS:
            there = ", ".join(COMMANDS)
            raise UserError(f"{word}: there is no such command{nearest(word, COMMANDS)} (there are: {there})")
        if word in ALONE and len(words) > 1:
            raise UserError(f"{word}: goes alone, without {' '.join(other for other in words if other != word)}")

    if words == ["setup"]:
        from ulmfit_style import embedded

        embedded.install()
    elif words == ["sweep"]:
        from ulmfit_style import sweep

        sweep.run(rest)
    elif any(argument.startswith("-") for argument in rest):
        from ulmfit_style import sweep

        sweep.through_hydra(words, rest)
    else:
        from ulmfit_style import config, launch

        launch.run(config.compose(rest), words)
    return 0


if __name__ == "__main__":
    sys.exit(main())
