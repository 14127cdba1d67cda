"""The page on several runs: their scores, how far and in what they differ, and their losses in one figure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ulmfit_style.config.schema import spelled
from ulmfit_style.console import duration
from ulmfit_style.errors import UserError
from ulmfit_style.publishing import answered
from ulmfit_style.publishing.report import headline, summary
from ulmfit_style.results import figures, scores
from ulmfit_style.results.finished import MODELS, Run
from ulmfit_style.results.html import Page, Section
from ulmfit_style.results.model import Difference, Figure, Part, Prose, Table

LEFT_OUT = ("name", "runs", "evaluate", "predict", "report", "hub", "lr_find", "study")
"""Sections of a recipe that make no difference to a model."""


def check(runs: Sequence[Run]) -> None:
    """Check that runs can be compared.

    Raises:
        UserError: if they are of different kinds.
    """
    kinds = {run.name: run.model.metrics.get("task", "a language model") for run in runs}
    first, *others = kinds
    for other in others:
        if kinds[other] != kinds[first]:
            both = f"{first} is {kinds[first]}, and {other} {kinds[other]}"
            raise UserError(f"report.runs: {both}: scores of two kinds cannot be compared; report each by itself")


def page(runs: Sequence[Run]) -> Page:
    """Return the page on several runs, of which the others are compared with the first."""
    rows = [
        (
            run.name,
            summary(run),
            run.model.manifest["finished"],
            duration(sum(made.manifest["seconds"] for made in run.chain)),
        )
        for run in runs
    ]
    sections = [
        Section("Runs", [Table(("run", "what it is", "finished", "time"), rows)]),
        Section("Scores", list(_scores(runs))),
        Section("Differences", list(_differences(runs))),
        Section("What they differ in", list(_options(runs))),
        Section("Training", list(_losses(runs))),
    ]
    title, lead = " / ".join(run.name for run in runs), f"{len(runs)} runs side by side."
    return Page(title, lead, [headline(run, run.name) for run in runs], sections)


def _scores(runs: Sequence[Run]) -> Iterator[Part]:
    tests = {run.name: run.model.metrics["test"] for run in runs if "test" in run.model.metrics}
    if tests:
        metric = runs[0].model.metrics["metric"]
        title = f"{metric} on the test rows, with 95 % intervals"
        yield Figure("scores", title, figures.whiskers, (scores.spans(metric, tests), metric))
        names = list(dict.fromkeys(name for test in tests.values() for name in test["scores"]))
        rows = [(run, test["rows"], *map(test["scores"].get, names)) for run, test in tests.items()]
        yield Table(("run", "test rows", *names), rows)
    learnt = [(run.name, made.stage, made.metrics) for run in runs for made in run.chain if "heldout" in made.metrics]
    if learnt:
        rows = [
            (name, stage, metrics["per"], *(float(metrics["heldout"][place]["loss"]) for place in (0, -1)))
            for name, stage, metrics in learnt
        ]
        yield Table(("run", "stage", "nats per", "before", "after"), rows, "Language-model loss on held-out text")


def _differences(runs: Sequence[Run]) -> Iterator[Part]:
    """Compare the others with the first, on the same rows."""
    from ulmfit_style.metrics.intervals import difference

    tests = {run.name: answered.read(run) for run in runs}
    (first, baseline), *others = tests.items()
    rows = []
    for other, test in others:
        if test is None or baseline is None:
            if "test" in runs[0].model.metrics:
                yield Prose(f"{other} and {first}: the predictions of one are gone.")
        elif test.places != baseline.places:
            yield Prose(f"{other} and {first} were scored on different test rows, so their difference says little.")
        else:
            task = test.task
            points, theirs = (task.points(one.answers, one.targets) for one in (test, baseline))
            change = Difference(*difference(points, theirs, task.of_means))
            rows.append((f"{other} less {first}", change, scores.verdict(change)))
    if rows:
        yield Table(("difference", "points (95 % interval)", ""), rows)
        yield Prose("Paired bootstrap over the same test rows; it does not cover other seeds.", is_remark=True)


def _options(runs: Sequence[Run]) -> Iterator[Part]:
    recipes = [
        {key: spelled(value) for key, value in _flat(run.config.recipe()) if key.partition(".")[0] not in LEFT_OUT}
        for run in runs
    ]
    keys = list(dict.fromkeys(key for recipe in recipes for key in recipe))
    values = {key: [recipe.get(key, "") for recipe in recipes] for key in keys}
    rows = [(key, *row) for key, row in values.items() if len(set(row)) > 1]
    yield Table(("option", *(run.name for run in runs)), rows) if rows else Prose("They have the same options.")


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _losses(runs: Sequence[Run]) -> Iterator[Part]:
    for stage in reversed(MODELS):
        models = {run.name: made for run in runs if (made := run.stage(stage)) is not None}
        logs = {name: log for name, made in models.items() if (log := made.losses)}
        if logs and len({made.directory for made in models.values()}) > 1:
            yield Figure(f"course-{stage}", f"Loss of {stage}, over all phases", figures.overlaid, (logs,))
