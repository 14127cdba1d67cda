"""report: write a page on a finished run, or on several side by side, from what lies in their artefacts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ulmfit_style.analysis import explain
from ulmfit_style.artefacts.directory import RECIPE
from ulmfit_style.console import say
from ulmfit_style.errors import UserError
from ulmfit_style.lineage import Resolved, required_task
from ulmfit_style.publishing.report import beside, content, runs
from ulmfit_style.publishing.report.page import Drawer, write
from ulmfit_style.publishing.report.runs import Run
from ulmfit_style.recipe import Config

MAKING = {"pretrain", "adapt", "finetune"}
"""The stages after which there is a run."""


def check(resolved: Resolved, stages: Sequence[str]) -> None:
    """Check the options, before anything is trained.

    Raises:
        UserError: if there is nothing to report on, or the page cannot go where it should.
    """
    config = resolved.config
    output = _output(config)
    if output.suffix != ".html":
        raise UserError(f"report.output={config.report.output}: must end in .html")
    if config.report.output is not None and not output.parent.is_dir():
        raise UserError(f"report.output={config.report.output}: there is no folder {output.parent}")
    if len(set(config.report.runs)) < len(config.report.runs):
        raise UserError("report.runs: names a run twice")
    making = bool(MAKING & set(stages))
    found = [runs.named(config.runs, name) for name in config.report.runs if not making or name != config.name]
    if not config.report.runs and not making:
        found.append(runs.own(resolved))
    if len(config.report.runs) > 1:
        if config.report.explain:
            raise UserError("report.explain: is for the page on one run; give report.runs one name")
        if found:
            beside.check(found)
    elif config.report.explain:
        explain.check(required_task(found[0].config if found else config), "report.explain")


def run(resolved: Resolved) -> None:
    """Write the page, and its figures beside it."""
    config = resolved.config
    output, names = _output(config), config.report.runs
    draw = Drawer(output.with_suffix(""))
    found: list[Run] = [runs.named(config.runs, name) for name in names] or [runs.own(resolved)]
    if len(found) > 1:
        beside.check(found)
        write(beside.page(found, draw), output)
    else:
        write(content.page(found[0], draw, config.report.explain), output)
    say(f"report: {output}; its figures as PNG and SVG: {draw.folder}/", style="bold")


def _output(config: Config) -> Path:
    """Return where the page goes."""
    if config.report.output is not None:
        return Path(config.report.output).expanduser()
    names = config.report.runs
    if len(names) > 1:
        return config.runs / config.name / "side-by-side.html"
    (name,) = names or (config.name,)
    # The directory of a model holds nothing but what was made with it.
    is_name = Path(name).name == name and not (config.runs / name / RECIPE).exists()
    return config.runs / (name if is_name else config.name) / "report.html"
