"""The page on one run, section by section, or on several side by side; what artefacts do not hold is left out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

from ulmfit_style.artefacts import predictions
from ulmfit_style.artefacts.directory import RECIPE
from ulmfit_style.artefacts.predictions import Prediction
from ulmfit_style.config.schema import spelled
from ulmfit_style.console import duration, muted
from ulmfit_style.data import labelled
from ulmfit_style.errors import UserError
from ulmfit_style.lineage import MODEL_SECTIONS
from ulmfit_style.recipe import options
from ulmfit_style.results import figures, scores
from ulmfit_style.results.figures import Line
from ulmfit_style.results.finished import Run
from ulmfit_style.results.html import Page, Tile
from ulmfit_style.results.model import Figure, Folded, Interval, Part, Prose, Table
from ulmfit_style.tasks.base import Row, Task
from ulmfit_style.tasks.interface import Matrix, ReportPart, Scatter

MOST_ERRORS = 200
"""Wrong answers that a page shows."""

MOST_CLASSES = 40
"""Classes that a confusion matrix can hold."""

PAST = {"pretrain": "pretrained", "adapt": "adapted", "finetune": "fine-tuned"}


def page(run: Run) -> Page:
    """Return the page on a run."""
    sections: dict[str, Iterator[Part]] = {"Scores": _scores(run)}
    if (test := _answered(run)) is not None:
        sections |= {
            "Which answers are wrong": _answers(test),
            "Calibration": _calibration(test),
            "Errors": _errors(test),
        }
    sections |= {
        "Groups of rows": _groups(run),
        "Language model": _language_model(run),
        "Training": _training(run),
        "How it was made": _origin(run),
    }
    lead = f"{run.config.model.title()}, {' and '.join(PAST[made.stage] for made in run.chain)}."
    return Page(run.name, lead, {title: list(parts) for title, parts in sections.items()}, list(_tiles(run)))


def side_by_side(runs: Sequence[Run]) -> Page:
    """Return the page on several runs, of which the others are compared with the first.

    Raises:
        UserError: if they are of different kinds.
    """
    kinds = {run.name: run.model.metrics.get("task", "a language model") for run in runs}
    if len(set(kinds.values())) > 1:
        listed = ", ".join(f"{name} is {kind}" for name, kind in kinds.items())
        raise UserError(f"report.runs: {listed}: scores of different kinds cannot be compared; report each by itself")
    sections: dict[str, list[Part]] = {"Scores": list(_differences(runs)), "What they differ in": [_options(runs)]}
    tiles = [replace(_headline(run), meaning=f"{run.name}: {_headline(run).meaning}") for run in runs]
    return Page(" / ".join(kinds), f"{len(runs)} runs side by side.", sections, tiles)


@dataclass(frozen=True)
class Answered:
    """The test rows of a run, with what the model answered."""

    task: Task
    answers: Sequence[Prediction]
    rows: Mapping[tuple[str, int], Row]
    """The rows by their places; none where the data are not what they were."""

    @property
    def targets(self) -> list[Any]:
        """What is right of each row."""
        return [answer["target"] for answer in self.answers]

    @cached_property
    def wrong(self) -> Sequence[Prediction]:
        """The wrong answers, the most confident first; the worst first where none has a confidence."""
        errors = self.task.errors(self.answers, self.targets)
        wrong = [(answer, error) for answer, error in zip(self.answers, errors, strict=True) if error > 0]
        wrong.sort(key=lambda pair: (self.confidence(pair[0]) or 0, pair[1]), reverse=True)
        return [answer for answer, _ in wrong]

    def confidence(self, answer: Prediction) -> float | None:
        """Return the probability that the model gave an answer; None if it has none."""
        return self.task.confidence(answer, answer["target"])


def _answered(run: Run) -> Answered | None:
    """Return the test rows of a run with the answers; None where there are no predictions."""
    task = run.config.task
    if task is None or not run.has_predictions:
        return None
    answers, rows = predictions.read(run.model.directory, "test"), {}
    with suppress(UserError), muted():  # they may be gone
        data = labelled.load(task)
        if data.digest == run.model.determinants["data"]:
            rows = {(row.file, row.number): row for row in data.test}
    return Answered(task, answers, rows)


def _headline(run: Run) -> Tile:
    """Return the one number that a run is judged by."""
    metrics = run.model.metrics
    if "test" not in metrics:
        before, after = metrics["heldout"][0]["loss"], metrics["heldout"][-1]["loss"]
        return Tile(f"{after:.3f}", f"nats per {metrics['per']} on held-out text", f"{before:.3f} before")
    metric, test = metrics["metric"], metrics["test"]
    meaning = f"{metric.replace('_', ' ')} on {test['rows']:,} test rows"
    return Tile(f"{test['scores'][metric]:.3f}", meaning, f"95 % interval {Interval(*test['interval'])}")


def _tiles(run: Run) -> Iterator[Tile]:
    yield _headline(run)
    metrics = run.model.metrics
    if run.worth is not None:
        verdict = "one seed" if run.worth.is_clear else "cannot be told from zero"
        yield Tile(f"{run.worth.points} points", "difference made by adaptation", f"{run.worth.span}, {verdict}")
    if run.references:
        metric = metrics["metric"]
        best = max(run.references, key=lambda name: run.references[name]["scores"][metric])
        lead = metrics["test"]["scores"][metric] - run.references[best]["scores"][metric]
        yield Tile(f"{100 * lead:+.1f} points", "over the best simple model", best)
    if "train" in metrics:
        yield Tile(f"{metrics['train']['rows']:,}", "labelled training rows", f"of {metrics['train']['of']:,}")


def _scores(run: Run) -> Iterator[Part]:
    metrics = run.model.metrics
    if "test" not in metrics:
        return
    if not run.has_predictions:
        missing = run.model.directory / predictions.FILE
        yield Prose(f"The predictions are gone ({missing}), and with them all that is computed from them.")
    metric, spans = metrics["metric"], scores.spans(metrics["metric"], run.measured)
    if len(spans) > 1:
        title = f"{metric} on the same test rows, with 95 % intervals"
        yield Figure("scores", title, partial(figures.whiskers, values=spans, label=metric))
    splits = {"test": metrics["test"], "validation": metrics["validation"]}
    splits |= {made.metrics["path"]: made.metrics["all"] for made in run.evaluations if "all" in made.metrics}
    yield scores.by_score(splits)
    yield from scores.classes(metrics["test"]["report"])


def _answers(test: Answered) -> Iterator[Part]:
    for number, part in enumerate(test.task.report_parts(test.answers, test.targets), start=1):
        if not isinstance(part, Matrix) or len(part.targets) <= MOST_CLASSES:
            yield _part(f"answers-{number}", part)


def _part(name: str, part: ReportPart) -> Part:
    """Return what a task tells in plain values as a figure or a table."""
    if isinstance(part, Matrix):
        return Figure(name, part.title, partial(figures.matrix, classes=part.targets, counts=part.counts))
    if not isinstance(part, Scatter):
        return Table(part.header, part.rows, part.title)
    ends = [min(*part.targets, *part.predictions), max(*part.targets, *part.predictions)]
    lines = {
        "_equal": Line(ends, ends, style={"linestyle": "--", "marker": "", "color": "grey"}),
        "_rows": Line(part.targets, part.predictions, style={"linestyle": "", "marker": "o", "alpha": 0.35}),
    }
    return Figure(name, part.title, partial(figures.lines, lines=lines, xlabel="right", ylabel="answered"))


def _calibration(test: Answered) -> Iterator[Part]:
    from ulmfit_style.metrics import calibration

    pairs = test.task.calibration_pairs(test.answers, test.targets)
    if not pairs:
        return
    bins = calibration.bins(pairs)
    confidence, accuracy = (sum(side) / len(pairs) for side in zip(*pairs, strict=True))
    yield Prose(
        f"Expected calibration error {calibration.expected_error(bins):.3f} (Guo et al. 2017, section 2): the mean "
        f"probability of {len(pairs):,} answers is {confidence:.3f}, and {accuracy:.3f} of them are right."
    )
    rows = [(part.confidence, part.right, part.count) for part in bins]
    yield Table(("mean probability", "share that is right", "answers"), rows)


def _errors(test: Answered) -> Iterator[Part]:
    wrong = f"{len(test.wrong):,} of {len(test.answers):,} test rows are not answered quite right"
    shown = test.wrong[:MOST_ERRORS]
    has_confidence = any(test.confidence(answer) is not None for answer in shown)
    order = "most confident" if has_confidence else "worst"
    yield Prose(f"{wrong}; the {order} {len(shown)} are shown.")
    if not test.rows:
        yield Prose("The labelled rows are gone or have changed since this run, so their texts are not shown.")
    header = [*(test.task.inputs() if test.rows else ()), "right", "answered", "confidence", "file", "row"]
    rows = []
    for answer in shown:
        row = test.rows.get((answer["file"], answer["row"]))
        texts = [] if row is None else test.task.texts(row)
        words = test.task.in_words(row, answer, answer["target"])
        rows.append([*texts, *words, test.confidence(answer), answer["file"], answer["row"]])
    yield Table(header, rows, is_searched=True)


def _groups(run: Run) -> Iterator[Part]:
    for made in run.evaluations:
        yield from scores.slices(made.metrics["metric"], made.metrics.get("slices", {}))
        yield from scores.probed(made.metrics.get("probe", {}))


def _language_model(run: Run) -> Iterator[Part]:
    for made in run.chain:
        if "heldout" in (metrics := made.metrics):
            documents = f"{metrics['documents']['heldout']:,} held-out documents"
            yield scores.losses(metrics["heldout"], f"{made.stage}: nats per {metrics['per']}, on {documents}")


def _training(run: Run) -> Iterator[Part]:
    for made in run.chain:
        if len(log := made.losses) > 1:
            unit = f"nats per {made.metrics['per']}" if "per" in made.metrics else "mean"
            draw = partial(figures.course, log=log, title=made.directory.name, unit=unit)
            yield Figure(f"course-{made.stage}", f"Loss and learning rate of {made.stage}, over all phases", draw)


def _origin(run: Run) -> Iterator[Part]:
    rows = []
    for made in run.chain:
        manifest = made.manifest
        ((source, identity),) = made.init.items()
        device = f"{manifest['device'] or manifest['machine']}, processes: {manifest['processes']}"
        time = (manifest["finished"], duration(manifest["seconds"]))
        rows.append((made.stage, manifest["fingerprint"], f"{source} {identity[:8]}", *time, device))
    yield Table(("stage", "fingerprint", "made from", "finished", "time", "on"), rows)
    versions = run.model.manifest["versions"].items()
    yield Prose(f"Versions: {', '.join(f'{name} {number}' for name, number in versions)}.", is_remark=True)
    yield Folded("Every option (recipe.yaml)", (run.model.directory / RECIPE).read_text(encoding="utf-8"))


def _differences(runs: Sequence[Run]) -> Iterator[Part]:
    first, *others = runs
    task = first.config.task
    if task is None or not first.is_finetuned:
        return
    tests = {run.name: run.model.metrics["test"] for run in runs}
    draw = partial(figures.whiskers, values=scores.spans(task.metric, tests), label=task.metric)
    yield Figure("scores", f"{task.metric} on the test rows, with 95 % intervals", draw)
    yield scores.by_score(tests)
    rows = []
    for other in others:
        difference = other.difference(first.model)
        verdict = "they have no predictions of the same test rows" if difference is None else scores.verdict(difference)
        rows.append((f"{other.name} less {first.name}", difference, verdict))
    yield Table(("difference", "points (95 % interval)", ""), rows)
    yield Prose("Paired bootstrap over the same test rows; it does not cover other seeds.", is_remark=True)


def _options(runs: Sequence[Run]) -> Table:
    """Return the options of which the runs have different values."""
    recipes, rows = [run.config.recipe() for run in runs], []
    for option in options(Task if (task := runs[0].config.task) is None else type(task)):
        section, _, field = option.partition(".")
        if field and section in MODEL_SECTIONS:
            values = [spelled((recipe[section] or {}).get(field)) for recipe in recipes]
            if len(set(values)) > 1:
                rows.append((option, *values))
    return Table(("option", *(run.name for run in runs)), rows, "" if rows else "They have the same options")
