"""report: write a page on a finished run, or on several side by side, from what lies in their artefacts."""

import re
from collections.abc import Sequence
from pathlib import Path

from ulmfit_style.cli.compose import compose
from ulmfit_style.console import say
from ulmfit_style.errors import UserError
from ulmfit_style.models import attributions, checkpoints
from ulmfit_style.publishing import html_report
from ulmfit_style.resolved import Resolved, require_finished
from ulmfit_style.results import finished, html, terminal
from ulmfit_style.results.parts import Prose, Table
from ulmfit_style.stages.table import resolve

EXPLAINED = 5
"""Test rows of which a page shows what their answers rest on, where `predict.explain` asks for it."""


def check(resolved: Resolved, stages: Sequence[str]) -> None:
    """Check that the runs are there which the same command does not make, before anything is trained.

    Raises:
        UserError: if one is not, or answers are to be explained that cannot be.
    """
    for name in resolved.config.report.runs:
        if name != resolved.config.name:
            finished.named(resolved.config.runs, name)
    if resolved.config.predict.explain and not resolved.config.report.runs and (task := resolved.config.task):
        attributions.check(task, checkpoints.described(resolved.config.model) if task.writes else {})


def compare(overrides: Sequence[str]) -> None:
    """Print what finished runs differ by on the same test rows, and write the page: `names=[a,b]`.

    Raises:
        UserError: if there are not two.
    """
    names = [re.sub("^names=", "report.runs=", override) for override in overrides]
    resolved = resolve(compose(["name=compare", *names]))
    if len(resolved.config.report.runs) < 2:
        raise UserError("compare: what with what? Say names=[a,b]; make runs lists the names")
    run(resolved)


def run(resolved: Resolved) -> None:
    """Write the page, and its figures beside it."""
    config, names = resolved.config, resolved.config.report.runs
    runs = [finished.named(config.runs, name) for name in names] or [_last_model(resolved)]
    page = html_report.page(runs[0]) if len(runs) == 1 else html_report.side_by_side(runs)
    if config.predict.explain:
        from ulmfit_style.predictor import Predictor

        if len(runs) > 1 or not runs[0].measured:
            raise UserError("predict.explain=true: is for the page of one model that answers; leave it out here")
        task, model = runs[0].config.require_task(), Predictor(str(runs[0].model.directory), option="report")
        rows = list(html_report.test_rows(runs[0], task).values())[:EXPLAINED]
        page.sections["What answers rest on"] = html.explained(task, zip(rows, model.explained(rows), strict=True))
    if len(runs) > 1:
        terminal.show(*(part for parts in page.sections.values() for part in parts if isinstance(part, Prose | Table)))
    output = config.runs / config.name / f"{'-'.join(['report', *(Path(name).name for name in names)])}.html"
    say(f"report: {output}; its figures as PNG and SVG: {html.write(page, output)}/", style="bold")


def _last_model(resolved: Resolved) -> finished.Run:
    """Return the run of a config: its last model that is finished.

    Raises:
        UserError: if none is, naming the command that makes it, and the nearest one that there is; or there is no task.
    """
    config = resolved.config
    pretrain = config.pretrain if config.model.init == "scratch" else None
    is_made = (config.ensemble.members or None, config.task, config.adapt, pretrain)
    stages = [stage for stage, section in zip(finished.MODELS, is_made, strict=True) if section is not None]
    stage = next((stage for stage in stages if resolved.artefact(stage).measured), [*stages, "finetune"][0])
    if not resolved.artefact(stage).measured:
        require_finished(resolved, stage, "report")
    return finished.read(resolved.artefact(stage).directory, config.name)
