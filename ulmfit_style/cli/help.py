"""What `--help` prints."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ulmfit_style.cli import CONF
from ulmfit_style.config.section import Section, spelled
from ulmfit_style.console import say


def overview(commands: Mapping[str, str]) -> None:
    """Print the commands, each with its line."""
    width = max(map(len, commands))
    lines = "\n".join(f"  {name:{width}}  {line}" for name, line in commands.items())
    say(Path(__file__).with_name("usage.txt").read_text(encoding="utf-8").rstrip().format(commands=lines))


def options(commands: Mapping[str, str], sections: Sequence[str], overrides: Sequence[str]) -> None:
    """Print every option that commands read, with its value after the overrides and its meaning.

    Args:
        commands: The line of help of each command that was typed.
        sections: The sections of the config that they read.

    Raises:
        ConfigError: if an override is wrong.
    """
    from ulmfit_style.cli.compose import compose  # which loads Hydra

    config = compose(overrides)
    for name, line in commands.items():
        say(f"{name}: {line}")
    for name, section in config:
        if name in sections and isinstance(section, Section):
            choices = ", ".join(sorted(path.stem for path in (CONF / name).glob("*.yaml")))
            say(f"\n{name}={{{choices}}}" if choices else f"\n{name}", style="bold")
            _print(f"{name}.", section, section.model_dump(mode="json"))
    say("\nof every command", style="bold")
    kept_apart = {name for name, value in config if isinstance(value, Section) or (CONF / name).is_dir()}
    _print("", config, config.model_dump(mode="json", exclude=kept_apart))


def _print(prefix: str, section: Section, values: Mapping[str, Any]) -> None:
    for name, value in values.items():
        say(f"  {prefix}{name}={spelled(value)}")
        say(f"      {' '.join((type(section).model_fields[name].description or '').split())}")
