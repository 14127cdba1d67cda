"""What `--help` prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ulmfit_style.cli import CONF
from ulmfit_style.cli.compose import compose
from ulmfit_style.config.schema import Section, spelled
from ulmfit_style.console import say
from ulmfit_style.recipe import Config

USAGE = """usage: ulmfit-style COMMAND [COMMAND ...] [key=value ...] [flags]

commands:
{commands}

`ulmfit-style COMMAND --help` lists a command's options and their values.

examples:
  ulmfit-style adapt finetune
  ulmfit-style adapt finetune task.train_samples=300 finetune.learning_rate=3e-5
  ulmfit-style adapt finetune task=text_classification task.path=reviews.csv task.text=review task.label=stars
  ulmfit-style plan adapt finetune finetune.epochs=5

flags, which are Hydra's:
  --cfg job          print the composed configuration
  --multirun, -m     run every point of the grid that key=a,b spans
  --config-dir DIR   a folder of further YAMLs: DIR/task/mine.yaml is task=mine
  --info             print where each value comes from
  --hydra-help       list all of them, and how to complete commands in your shell"""

READ_TOO = {
    "pretrain": ("model", "corpus"),
    "adapt": ("model", "corpus"),
    "finetune": ("task",),
    "evaluate": ("task",),
    "push": ("hub",),
    "lr_find": ("adapt", "finetune", "task"),
}
"""Groups that a command reads beside the one that carries its name."""


def overview(commands: Mapping[str, str]) -> None:
    """Print the commands, each with its line."""
    width = max(map(len, commands))
    say(USAGE.format(commands="\n".join(f"  {name:{width}}  {what}" for name, what in commands.items())))


def options(commands: Mapping[str, str], asked: Sequence[str], overrides: Sequence[str]) -> None:
    """Print every option of the commands asked for, with its value after the overrides and its meaning.

    Raises:
        ConfigError: if an override is wrong.
    """
    config = compose(overrides)
    for word in asked:
        say(f"{word}: {commands[word]}")
    groups = [name for word in asked for name in (*READ_TOO.get(word, ()), word)]
    for name, section in config:
        if name in groups and isinstance(section, Section):
            choices = ", ".join(sorted(path.stem for path in (CONF / name).glob("*.yaml")))
            say()
            say(f"{name}={{{choices}}}" if choices else name, style="bold")
            for key, value in section.model_dump(mode="json").items():
                _option(f"{name}.{key}", value, type(section).model_fields[key].description)
    say()
    say("of every command", style="bold")
    groups_and_sections = {name for name, value in config if isinstance(value, Section) or (CONF / name).is_dir()}
    for name, value in config.model_dump(mode="json", exclude=groups_and_sections).items():
        _option(name, value, Config.model_fields[name].description)


def _option(key: str, value: Any, meaning: str | None) -> None:
    say(f"  {key}={spelled(value)}")
    say(f"      {' '.join((meaning or '').split())}")
