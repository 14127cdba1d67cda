"""report: write a page on a finished run, or on several side by side, from what lies in their artefacts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ulmfit_style.analysis import explain
from ulmfit_style.artefacts.directory import RECIPE
from ulmfit_style.console import say
from ulmfit_style.errors import UserError
from ulmfit_style.lineage import Resolved, required_task, why_missing
from ulmfit_style.publishing import report, side_by_side
from ulmfit_style.recipe import Config
from ulmfit_style.results import finished, html
from ulmfit_style.results.finished import MODELS, Run
from ulmfit_style.tasks.base import Row


def check(resolved: Resolved, stages: Sequence[str]) -> None:
    """Check the options, before anything is trained.

    Raises:
        UserError: if there is nothing to report on, or the page cannot go where it should.
    """
    config, options, output = resolved.config, resolved.config.report, _output(resolved.config)
    if output.suffix != ".html":
        raise UserError(f"report.output={options.output}: must end in .html")
    if options.output is not None and not output.parent.is_dir():
        raise UserError(f"report.output={options.output}: there is no folder {output.parent}")
    if len(set(options.runs)) < len(options.runs):
        raise UserError("report.runs: names a run twice")
    trains = bool(set(MODELS) & set(stages))
    runs = [finished.named(config.runs, name) for name in options.runs if not trains or name != config.name]
    if not options.runs and not trains:
        runs.append(_last_model(resolved))
    if len(options.runs) > 1:
        if options.explain:
            raise UserError("report.explain: is for the page on one run; give report.runs one name")
        if runs:
            side_by_side.check(runs)
    elif options.explain:
        explain.check(required_task(runs[0].config if runs else config), "report.explain")


def run(resolved: Resolved) -> None:
    """Write the page, and its figures beside it."""
    config, output = resolved.config, _output(resolved.config)
    runs = [finished.named(config.runs, name) for name in config.report.runs] or [_last_model(resolved)]
    if len(runs) > 1:
        side_by_side.check(runs)
        page = side_by_side.page(runs)
    else:
        page = report.page(runs[0], config.report.explain, lambda rows: _explain(runs[0], rows))
    folder = html.write(page, output)
    say(f"report: {output}; its figures as PNG and SVG: {folder}/", style="bold")


def _last_model(resolved: Resolved) -> Run:
    """Return the run of a config: its last model that is finished.

    Raises:
        UserError: if none is, naming the command that makes it, and the nearest one that there is.
    """
    config = resolved.config
    is_made = {
        "finetune": config.task is not None,
        "adapt": config.adapt is not None,
        "pretrain": config.pretrain is not None and config.model.init == "scratch",
    }
    stages = [stage for stage in MODELS if is_made[stage]]
    if not stages:
        raise UserError("task=none adapt=none: nothing is trained that could be reported on")
    for stage in stages:
        if resolved.artefact(stage).measured:
            return finished.read(resolved.artefact(stage).directory, config.name)
    why = f"there is no finished model for this config ({why_missing(resolved.artefact(stages[0]), config)})"
    remedy = f"run `{' '.join(reversed(stages))}` with the same options, or name a run: report.runs=<name>"
    raise UserError(f"report: {why}; {remedy}")


def _explain(run: Run, rows: Sequence[Row]) -> list[Any]:
    from ulmfit_style.predictor import Predictor

    model = Predictor(str(run.model.directory), option="report.runs")
    return [answer[explain.EXPLANATIONS] for answer in model.explained(rows)]


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
