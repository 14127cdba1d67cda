"""What the page on several runs tells: their scores, what they differ by and in, and their courses laid over."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ulmfit_style.config.schema import spelled
from ulmfit_style.console import duration
from ulmfit_style.errors import UserError
from ulmfit_style.publishing.report.content import Scored, lead, losses, scored
from ulmfit_style.publishing.report.page import Drawer, Page, Part, Prose, Section, Table, Tile
from ulmfit_style.publishing.report.runs import Run
from ulmfit_style.results import figures

UNTOLD = ("name", "runs", "evaluate", "predict", "report", "hub", "lr_find", "study")
"""Sections of a recipe that made no difference to a model."""


def check(runs: Sequence[Run]) -> None:
    """Check that runs can be held against each other.

    Raises:
        UserError: if they are of other kinds.
    """
    kinds = {run.name: run.model.metrics.get("task", "a language model") for run in runs}
    first, *others = kinds
    for other in others:
        if kinds[other] != kinds[first]:
            both = f"{first} is {kinds[first]}, and {other} {kinds[other]}"
            raise UserError(f"report.runs: {both}: scores of two kinds cannot be compared; report each by itself")


def page(runs: Sequence[Run], draw: Drawer) -> Page:
    """Return the page on several runs, of which the others are held against the first."""
    spent = [duration(sum(made.manifest["seconds"] for made in run.chain)) for run in runs]
    told = [(run.name, lead(run), run.model.manifest["finished"], time) for run, time in zip(runs, spent, strict=True)]
    sections = [
        Section("Runs", [Table(("run", "what it is", "finished", "time"), told)]),
        Section("Scores", list(_scores(runs, draw))),
        Section("Differences", list(_differences(runs))),
        Section("What they differ in", list(_options(runs))),
        Section("Training", list(_courses(runs, draw))),
    ]
    return Page(
        " / ".join(run.name for run in runs), f"{len(runs)} runs side by side.", list(_tiles(runs)), sections, []
    )


def _tiles(runs: Sequence[Run]) -> Iterator[Tile]:
    for run in runs:
        metrics = run.model.metrics
        if "test" in metrics:
            low, high = metrics["test"]["interval"]
            value = f"{metrics['test']['scores'][metrics['metric']]:.3f}"
            yield Tile(value, run.name, f"{metrics['metric']}, {low:.3f} to {high:.3f}")
        else:
            yield Tile(f"{metrics['heldout'][-1]['loss']:.3f}", run.name, f"nats a {metrics['per']} on held-out text")


def _scores(runs: Sequence[Run], draw: Drawer) -> Iterator[Part]:
    tested = [run for run in runs if "test" in run.model.metrics]
    if tested:
        metric = tested[0].model.metrics["metric"]
        found = {run.name: run.model.metrics["test"] for run in tested}
        spans = {name: (one["scores"][metric], *one["interval"]) for name, one in found.items()}
        yield draw("scores", f"{metric} on the test rows, with 95 % intervals", figures.whiskers, spans, metric)
        scores = list(dict.fromkeys(name for one in found.values() for name in one["scores"]))
        rows = [(name, one["rows"], *(one["scores"].get(score) for score in scores)) for name, one in found.items()]
        yield Table(("run", "test rows", *scores), rows)
    learnt = [(run.name, made) for run in runs for made in run.chain if "heldout" in made.metrics]
    if learnt:
        rows = [
            (name, made.stage, made.metrics["per"], float(stations[0]["loss"]), float(stations[-1]["loss"]))
            for name, made in learnt
            for stations in [made.metrics["heldout"]]
        ]
        yield Table(("run", "stage", "nats a", "before", "after"), rows, "Language-model loss on held-out text")


def _differences(runs: Sequence[Run]) -> Iterator[Part]:
    """Tell what the others differ from the first by, on the same rows."""
    from ulmfit_style.metrics import difference

    tests = {run.name: scored(run) for run in runs}
    first, *others = tests
    theirs, rows = tests[first], []
    for other in others:
        ours = tests[other]
        if ours is None or theirs is None:
            if "test" in runs[0].model.metrics:
                yield Prose(f"{other} and {first}: the predictions of one are not there any more.")
        elif _places(ours) != _places(theirs):
            yield Prose(f"{other} and {first} were scored on other test rows, so that their difference says little.")
        else:
            task = ours.task
            points, baseline = (task.points(test.answers, test.targets) for test in (ours, theirs))
            gain, low, high = difference(points, baseline, task.of_means)
            verdict = "cannot be told from zero" if low <= 0 <= high else "the interval excludes zero"
            rows.append((f"{other} less {first}", gain, low, high, verdict))
    if rows:
        yield Table(("difference", "of the metric", "95 % from", "to", ""), rows)
        yield Prose("Paired bootstrap over the same test rows; other seeds are not in it.", is_remark=True)


def _places(test: Scored) -> list[tuple[Any, ...]]:
    return [(answer["file"], answer["row"], spelled(answer["target"])) for answer in test.answers]


def _options(runs: Sequence[Run]) -> Iterator[Part]:
    recipes = [dict(_flat({k: v for k, v in run.config.recipe().items() if k not in UNTOLD})) for run in runs]
    keys = list(dict.fromkeys(key for recipe in recipes for key in recipe))
    rows = [
        (key, *(spelled(recipe[key]) if key in recipe else "" for recipe in recipes))
        for key in keys
        if len({spelled(recipe[key]) if key in recipe else None for recipe in recipes}) > 1
    ]
    if rows:
        yield Table(("option", *(run.name for run in runs)), rows)
    else:
        yield Prose("They have the same options.")


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _courses(runs: Sequence[Run], draw: Drawer) -> Iterator[Part]:
    for stage in ("pretrain", "adapt", "finetune"):
        made = {run.name: one for run in runs if (one := run.stage(stage)) is not None}
        logs = {name: log for name, one in made.items() if (log := losses(one))}
        if logs and len({one.directory for one in made.values()}) > 1:
            yield draw(f"course-{stage}", f"Loss of {stage}, over all phases", figures.overlaid, logs)
