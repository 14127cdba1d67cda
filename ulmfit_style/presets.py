"""check-presets: whether the models and data sets that `conf/` names are on the Hub, as `conf/` expects them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import yaml
from rich.table import Table

from ulmfit_style.cli import CONF
from ulmfit_style.console import show
from ulmfit_style.data.hub import PREFIX, parse
from ulmfit_style.errors import UserError
from ulmfit_style.models.checkpoints import WEIGHTS


class Preset(NamedTuple):
    """What a YAML wants of the Hub."""

    name: str
    """As it is typed: `model=bert`."""
    kind: str
    """The Hub's kind of repository: `model` or `dataset`."""
    repository: str
    revision: str | None
    files: tuple[str, ...]
    """What the repository has to hold."""


def check(conf: Path = CONF) -> None:
    """Ask the Hub for every preset, and print a table.

    Raises:
        UserError: if one of them is not there, or not as it has to be.
    """
    table = Table(title="presets that come from the Hub", title_justify="left")
    for heading in ("preset", "repository", "commit", "state"):
        table.add_column(heading, overflow="fold")
    wrong = 0
    for preset in _presets(conf):
        commit, problem = _resolve(preset)
        table.add_row(preset.name, preset.repository, commit[:8], problem or "there")
        wrong += problem is not None
    show(table)
    if wrong:
        raise UserError(f"check-presets: {wrong} of {table.row_count} presets cannot be had as conf/ expects them")


def _presets(conf: Path) -> Iterator[Preset]:
    """Read what the YAMLs want, by repository and revision."""
    for path in sorted(conf.glob("model/*.yaml")):
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
        checkpoint = values.get("checkpoint", "")
        if "/" in checkpoint and ":" not in checkpoint:
            yield Preset(f"model={path.stem}", "model", checkpoint, values.get("revision"), ("config.json", WEIGHTS))
    for path in sorted(conf.glob("task/*.yaml")):
        source = yaml.safe_load(path.read_text(encoding="utf-8")).get("path")
        references = list(source.values()) if isinstance(source, dict) else [str(source)]
        files = [parse("task.path", reference) for reference in references if reference.startswith(PREFIX)]
        if files:
            names = tuple(file.name for file in files)
            yield Preset(f"task={path.stem}", "dataset", files[0].repository, files[0].revision, names)


def _resolve(preset: Preset) -> tuple[str, str | None]:
    """Return the commit that a preset means, and what is wrong with it, if anything.

    Raises:
        UserError: if the Hub does not answer.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    try:
        ask = HfApi().model_info if preset.kind == "model" else HfApi().dataset_info
        found = ask(preset.repository, revision=preset.revision)
    except HfHubHTTPError as error:
        return "", f"HTTP {error.response.status_code}"
    except Exception as error:  # whichever HTTP library it is, and whatever it raises
        raise UserError(
            f"check-presets: the Hub does not answer ({type(error).__name__}: {str(error).strip().splitlines()[0]})"
        ) from error
    there = {sibling.rfilename for sibling in found.siblings or []}
    missing = [name for name in preset.files if name not in there]
    return found.sha or "", f"has no {', '.join(missing)}" if missing else None
