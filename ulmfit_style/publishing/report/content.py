"""What the page on one run tells, section by section; what its artefacts do not hold is left out."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from markupsafe import Markup

from ulmfit_style.analysis import comparison, explain, slices
from ulmfit_style.artefacts import predictions
from ulmfit_style.artefacts.directory import RECIPE
from ulmfit_style.artefacts.finished import Made
from ulmfit_style.artefacts.predictions import Prediction
from ulmfit_style.console import duration, muted
from ulmfit_style.data import labelled
from ulmfit_style.data.labelled import Labelled
from ulmfit_style.errors import UserError
from ulmfit_style.publishing.report.page import Drawer, Folded, Page, Part, Prose, Section, Table, Tile
from ulmfit_style.publishing.report.runs import Run
from ulmfit_style.recipe import load
from ulmfit_style.results import figures
from ulmfit_style.tasks.base import Row, Task
from ulmfit_style.tasks.report_parts import Matrix, Scatter

MOST_ERRORS = 200
"""Wrong answers that stand on a page."""

MOST_SHOWN = 20
"""Examples of anything else."""

MOST_NAMES = 40
"""Classes that a figure can hold."""

MOST_NAMED = 4
"""Classes that are named at the top."""

PARTS = 4
"""Ranges that numbers are told in, of about as many rows each."""

EXPLAINED = """Green tokens raised the logit of what was answered, and red ones lowered it; the strongest of a text has
the fullest colour, and each tells its share when pointed at. Integrated gradients from a text of padding (Sundararajan
et al. 2017)."""


@dataclass(frozen=True)
class Scored:
    """The test rows of a fine-tuned model, with its answers."""

    task: Task
    answers: Sequence[Prediction]
    rows: Sequence[Row | None]
    """None where the labelled rows are not what they were."""
    labelled: Labelled | None
    problem: str | None
    """Why the rows are not there."""

    @property
    def targets(self) -> list[Any]:
        """What is right of each row."""
        return [answer["target"] for answer in self.answers]


def scored(run: Run) -> Scored | None:
    """Return the test rows of a run with their answers; None where there are no predictions."""
    task = run.config.task
    if task is None or run.model.stage != "finetune" or not (run.model.directory / predictions.FILE).exists():
        return None
    answers = predictions.read(run.model.directory, "test")
    found, problem = None, None
    try:
        with muted():
            found = labelled.load(task)
        if found.digest(task) != run.model.determinants["data"]:
            found, problem = None, "The labelled rows are others now than those of this run; their texts are not shown."
    except UserError as error:
        problem = f"The labelled rows cannot be read any more: {error}"
    places = {(row.file, row.number): row for row in ([] if found is None else found.test)}
    return Scored(task, answers, [places.get((one["file"], one["row"])) for one in answers], found, problem)


def page(run: Run, draw: Drawer, explained: int) -> Page:
    """Return the page on a run.

    Args:
        explained: Of how many errors it is told what they rest on.
    """
    test, worth = scored(run), _worth(run)
    sections = [Section("Scores", list(_scores(run, draw)))]
    if test is not None:
        wrong = _wrong(test)
        sections += [
            Section("Which answers are wrong", list(_kinds(test, draw))),
            Section("Calibration", list(_calibration(test, draw))),
            Section("Most confident errors" if wrong.is_sure else "Worst answers", list(_errors(test, wrong))),
            Section("What the errors rest on", list(_explained(run, test, wrong.places[:explained]))),
        ]
    sections += [
        Section("Groups of rows", list(_slices(run))),
        Section("Language model", list(_language_model(run, draw))),
        Section("Training", list(_training(run, draw))),
        Section("Data", list(_data(run, test))),
        Section("How it was made", list(_chain(run))),
    ]
    return Page(run.name, lead(run), list(_tiles(run, worth)), sections, list(_remarks(run, test, worth)))


def lead(run: Run) -> str:
    """Say in a sentence what a run made, of what."""
    told = []
    for made in run.chain:
        metrics = made.metrics
        if made.stage in ("pretrain", "adapt") and metrics:
            verb = {"pretrain": "pretrained on", "adapt": "adapted to"}[made.stage]
            told.append(f"{verb} {metrics['documents']['train']:,} documents ({metrics['tokens']:,} tokens)")
        elif made.stage == "finetune":
            kind = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", metrics["task"]).lower()
            told.append(f"fine-tuned on {metrics['train']['rows']:,} labelled rows for {kind}")
    weights = " with random weights" if run.config.model.init == "scratch" else ""
    return f"{run.config.model.title()}{weights}, {' and '.join(told)}."


def _worth(run: Run) -> tuple[float, float, float] | None:
    """Return what adaptation was worth, if there is a model without it, and the predictions of both."""
    task, bare = run.config.task, run.bare
    if task is None or bare is None or not (bare.directory / predictions.FILE).exists():
        return None
    ours = run.model.directory
    return predictions.difference(task, ours, bare.directory) if (ours / predictions.FILE).exists() else None


def _points(value: float) -> str:
    return f"{100 * value:+.1f} points"


def _tiles(run: Run, worth: tuple[float, float, float] | None) -> Iterator[Tile]:
    metrics = run.model.metrics
    if "test" in metrics:
        test, metric = metrics["test"], metrics["metric"]
        score, (low, high) = test["scores"][metric], test["interval"]
        rows = f"{metric.replace('_', ' ')} on {test['rows']:,} test rows"
        yield Tile(f"{score:.3f}", rows, f"95 % interval {low:.3f} to {high:.3f}")
        if worth is not None:
            gain, low, high = worth
            verdict = "cannot be told from zero" if low <= 0 <= high else "one seed"
            span = f"{100 * low:+.1f} to {100 * high:+.1f}, {verdict}"
            yield Tile(_points(gain), "is what adaptation was worth", span)
        simple = {name: one["scores"][metric] for made in run.references for name, one in made.metrics["test"].items()}
        if simple:
            best = max(simple, key=lambda name: simple[name])
            yield Tile(_points(score - simple[best]), "over the best simple model", best)
        classes = metrics["train"]["classes"]
        of = ", ".join(classes) if len(classes) <= MOST_NAMED else f"{len(classes)} classes"
        yield Tile(f"{metrics['train']['rows']:,}", "labelled training rows", of)
    else:
        before, after = metrics["heldout"][0]["loss"], metrics["heldout"][-1]["loss"]
        yield Tile(f"{after:.3f}", f"nats a {metrics['per']} on held-out text", f"{before:.3f} before")
    spent = sum(made.manifest["seconds"] for made in _all(run))
    yield Tile(duration(spent), "of computing", str(run.model.manifest["machine"]))


def _remarks(run: Run, test: Scored | None, worth: tuple[float, float, float] | None) -> Iterator[str]:
    if worth is not None:
        yield comparison.worth(run.model.metrics["metric"], *worth)
    if test is not None and test.problem is not None:
        yield test.problem
    if run.model.stage == "finetune" and test is None:
        missing = run.model.directory / predictions.FILE
        yield f"The predictions are not there any more ({missing}), and so neither is what follows from them."


def _scores(run: Run, draw: Drawer) -> Iterator[Part]:
    metrics = run.model.metrics
    if "test" not in metrics:
        return
    metric = metrics["metric"]
    found = {name: one for made in run.references for name, one in made.metrics["test"].items()}
    if run.bare is not None:
        found["fine-tuned, not adapted"] = run.bare.metrics["test"]
    found["fine-tuned" if run.stage("adapt") is None else "adapted + fine-tuned"] = metrics["test"]
    spans = {name: (one["scores"][metric], *one["interval"]) for name, one in found.items()}
    if len(spans) > 1:
        yield draw("scores", f"{metric} on the same test rows, with 95 % intervals", figures.whiskers, spans, metric)
    splits = {"test": metrics["test"], "validation": metrics["validation"]}
    for made in run.evaluations:
        which = made.metrics["split"]
        title = load(made.directory / RECIPE).evaluate.path if which == "all" else which
        splits.setdefault(str(title), made.metrics[which])
    scores = dict.fromkeys(name for one in splits.values() for name in one["scores"])
    header = [part for title, one in splits.items() for part in (f"{title} ({one['rows']:,} rows)", "95 % interval")]
    rows = [(score, *(part for one in splits.values() for part in _with_interval(one, score))) for score in scores]
    yield Table(("score", *header), rows)
    for name, signature in metrics["test"].get("signatures", {}).items():
        yield Prose(f"{name}: {signature}", is_remark=True)
    if report := metrics["test"]["report"]:
        yield Table(list(report[0]), [list(entry.values()) for entry in report], "Test rows by class")
        if (small := slices.small_classes(report)) is not None:
            yield Prose(small, is_remark=True)


def _with_interval(measured: Mapping[str, Any], score: str) -> tuple[float | None, str]:
    low_high = measured["intervals"].get(score)
    return measured["scores"].get(score), "" if low_high is None else "{:.3f} to {:.3f}".format(*low_high)


def _kinds(test: Scored, draw: Drawer) -> Iterator[Part]:
    task, answers, targets = test.task, test.answers, test.targets
    for number, shown in enumerate(task.report_parts(answers, targets), start=1):
        if isinstance(shown, Scatter):
            yield draw(f"scatter-{number}", shown.title, figures.scatter, shown.targets, shown.predictions)
        elif not isinstance(shown, Matrix):
            yield Table(shown.header, shown.rows, shown.title)
        elif len(shown.targets) <= MOST_NAMES:
            sides = (shown.targets, shown.predictions, shown.counts)
            yield draw(f"matrix-{number}", f"{shown.title} (test rows)", figures.matrix, *sides)
    groups = dict(task.groups(answers, targets))
    if all(row is not None for row in test.rows):
        groups["words of the text"] = [len(" ".join(task.texts(row)).split()) for row in test.rows if row is not None]
    for number, (title, names) in enumerate(groups.items(), start=1):
        spans = dict(_by_group(test, _ranged(names)))
        if len(spans) > 1:
            yield draw(f"groups-{number}", f"{task.metric} by {title}", figures.whiskers, spans, task.metric)


def _ranged(values: Sequence[str] | Sequence[int]) -> list[str]:
    """Return names as they are, and numbers as the ranges that they are in, in order."""
    numbers = sorted(value for value in values if isinstance(value, int))
    if not numbers:
        return [str(value) for value in values]
    ends = sorted({numbers[len(numbers) * part // PARTS] for part in range(PARTS)} | {numbers[-1] + 1})
    names = [f"{start} to {end - 1}" if start < end - 1 else f"{start}" for start, end in pairwise(ends)]
    return [names[bisect_right(ends, int(value)) - 1] for value in values]


def _by_group(test: Scored, names: Sequence[str]) -> Iterator[tuple[str, tuple[float, float, float]]]:
    """Yield the metric of each group of rows, with its interval."""
    import numpy as np

    from ulmfit_style.metrics import interval

    order = sorted(set(names), key=lambda name: (int(found[0]) if (found := re.findall(r"^\d+", name)) else -1, name))
    for name in order:
        own = [place for place, other in enumerate(names) if other == name]
        answers, targets = [test.answers[place] for place in own], [test.targets[place] for place in own]
        points = test.task.points(answers, targets)
        score = float(test.task.of_means(np.asarray(points, dtype=float).reshape(len(own), -1).mean(axis=0)))
        yield f"{name} ({len(own):,} rows)", (score, *interval(points, test.task.of_means))


def _calibration(test: Scored, draw: Drawer) -> Iterator[Part]:
    from ulmfit_style.metrics import calibration

    claims = test.task.calibration_pairs(test.answers, test.targets)
    if not claims:
        return
    found = calibration.bins(claims)
    surest, share = sum(told for told, _ in claims) / len(claims), sum(right for _, right in claims) / len(claims)
    way = "surer than it is right" if surest > share else "less sure than it is right"
    error = f"Expected calibration error {calibration.expected_error(found):.3f}"
    method = f"over {calibration.BINS} equal parts of the probabilities (Guo et al. 2017, section 2)"
    means = f"its probabilities are {surest:.3f} on average, and {share:.3f} of what it tells is so"
    yield Prose(f"{error}, {method}. On {len(claims):,} answers the model is {way}: {means}.")
    parts = [(one.confidence, one.right, one.count) for one in found]
    title = "Share that is right, by the probability that the model tells"
    yield draw("calibration", title, figures.reliability, parts)


@dataclass(frozen=True)
class Wrong:
    """The wrong answers to test rows, the surest first; where nothing tells how sure they are, the worst."""

    places: Sequence[int]
    errors: Sequence[float]
    confidences: Sequence[float | None]
    is_sure: bool


def _wrong(test: Scored) -> Wrong:
    errors = list(test.task.errors(test.answers, test.targets))
    pairs = zip(test.answers, test.targets, strict=True)
    sure = [test.task.confidence(answer, target) for answer, target in pairs]
    places = [place for place, error in enumerate(errors) if error > 0]
    places.sort(key=lambda place: (sure[place] or 0, errors[place]), reverse=True)
    return Wrong(places, errors, sure, any(sure[place] is not None for place in places))


def _errors(test: Scored, wrong: Wrong) -> Iterator[Part]:
    places = wrong.places
    if not places:
        yield Prose(f"None of the {len(test.answers):,} test rows is answered wrongly.")
        return
    order = "those of which the model is surest come first" if wrong.is_sure else "the worst come first"
    shown = f", and the first {MOST_ERRORS} are shown" if len(places) > MOST_ERRORS else ""
    files = ", ".join(dict.fromkeys(test.answers[place]["file"] for place in places))
    wrong_rows = f"{len(places):,} of {len(test.answers):,} test rows are not wholly right"
    yield Prose(f"{wrong_rows}; {order}{shown} (of {files}).")
    yield _answers(test, wrong, places[:MOST_ERRORS], is_searched=True)
    if not wrong.is_sure and len(places) > MOST_SHOWN:
        best = sorted(range(len(wrong.errors)), key=lambda place: wrong.errors[place])[:MOST_SHOWN]
        yield _answers(test, wrong, best, title="Best answers")


def _answers(test: Scored, wrong: Wrong, places: Sequence[int], title: str = "", *, is_searched: bool = False) -> Table:
    """Return the table of some answers; what is the same for all of them has no column."""
    errors = {wrong.errors[place] for place in places}
    texts = list(test.task.inputs()) if all(test.rows[place] is not None for place in places) else []
    header = [*texts, "right", "answered", *["confidence"] * wrong.is_sure, *["error"] * (len(errors) > 1), "row"]
    rows = []
    for place in places:
        answer, row = test.answers[place], test.rows[place]
        told = test.task.in_words(row, answer, answer["target"])
        own = test.task.texts(row) if texts and row is not None else []
        numbers = [wrong.confidences[place]] * wrong.is_sure + [wrong.errors[place]] * (len(errors) > 1)
        rows.append([*own, *told, *numbers, answer["row"]])
    return Table(header, rows, title, is_searched)


def _explained(run: Run, test: Scored, places: Sequence[int]) -> Iterator[Part]:
    rows = [row for place in places if (row := test.rows[place]) is not None]
    if not rows:
        return
    from ulmfit_style.predictor import Predictor

    model = Predictor(str(run.model.directory), option="report.runs")
    cells = []
    for row, answer in zip(rows, model.explained(rows), strict=True):
        right, ours = test.task.in_words(row, answer, test.task.target(row))
        for one in answer[explain.EXPLANATIONS]:
            most = max((abs(token["score"]) for token in one["tokens"]), default=1) or 1
            told = [
                explain.coloured(text, [token for token in one["tokens"] if token["text"] == number], most)
                for number, text in enumerate(test.task.texts(row))
            ]
            cells.append([Markup("<br>").join(map(Markup, told)), right, ours, one["of"], one["logit"]])
    yield Prose(EXPLAINED)
    yield Table(("text", "right", "answered", "explained", "logit"), cells)


def _slices(run: Run) -> Iterator[Part]:
    for made in run.evaluations:
        metrics, metric = made.metrics, made.metrics["metric"]
        for column, found in metrics.get("slices", {}).items():
            groups = found["groups"].items()
            rows = [(name, one["rows"], one["scores"][metric], *one["interval"]) for name, one in groups]
            yield Table((column, "rows", metric, "95 % from", "to"), rows, f"By {column}")
            if found["gap"] is not None:
                judged = sum(one["rows"] >= slices.FEWEST for _, one in groups)
                yield Prose(slices.gap_in_words(column, metric, found["gap"], judged), is_remark=True)
        probed = [
            (exchanged, model, one["rows"], one["share"], *one["interval"])
            for model, found in metrics.get("probe", {}).items()
            for exchanged, one in found.items()
            if one["rows"]
        ]
        if probed:
            header = ("exchanged", "model", "rows", "changed", "95 % from", "to")
            yield Table(header, probed, "Answers that change when names and words are exchanged")


def _language_model(run: Run, draw: Drawer) -> Iterator[Part]:
    for made in run.chain:
        heldout = made.metrics.get("heldout")
        if heldout is None:
            continue
        metrics, unit = made.metrics, f"nats a {made.metrics['per']}"
        lines = {"held-out text of the domain": [entry["loss"] for entry in heldout]}
        if "general_loss" in heldout[0]:
            lines["general text, which it may forget"] = [entry["general_loss"] for entry in heldout]
        names = [entry["after"] for entry in heldout]
        yield draw(f"loss-{made.stage}", f"Loss before and after ({made.stage})", figures.stations, names, lines, unit)
        columns = [name for name in heldout[0] if name != "after"]
        header = ("after", *(name.replace("_", " ") for name in columns))
        yield Table(header, [(entry["after"], *(float(entry[name]) for name in columns)) for entry in heldout])
        yield Prose(f"Losses are in {unit}, on {metrics['documents']['heldout']:,} documents.", is_remark=True)
        if "general_loss" in heldout[0]:
            risen = heldout[-1]["general_loss"] - heldout[-2]["general_loss"]
            yield Prose(f"Forgetting: the loss on general text changed by {risen:+.3f} in the last phase.")
        samples = [list(sample.values()) for sample in metrics["samples"]]
        yield Table(list(metrics["samples"][0]), samples, "Held-out text, completed before and after")


def _training(run: Run, draw: Drawer) -> Iterator[Part]:
    for made in run.chain:
        log = losses(made)
        if len(log) > 1:
            unit = f"nats a {made.metrics['per']}" if "per" in made.metrics else "mean"
            title = f"Loss and learning rates of {made.stage}, over all phases"
            yield draw(f"course-{made.stage}", title, figures.course, log, made.directory.name, unit)
        if (kept := made.metrics.get("kept")) is not None:
            which = f"the state after epoch {kept['epoch']:g} of '{kept['phase']}'"
            yield Prose(f"Kept: {which}, the best on {kept['rows']:,} watched rows.")


def losses(made: Made) -> list[Mapping[str, Any]]:
    """Return the entries of an artefact's log that have a loss."""
    return [entry for entry in made.metrics.get("log", []) if "loss" in entry]


def _data(run: Run, test: Scored | None) -> Iterator[Part]:
    if test is None or test.labelled is None:
        return
    task, found = test.task, test.labelled
    splits = {"train": found.train, "validation": found.validation, "test": found.test}
    counts = {name: Counter(label for row in rows for label in task.labels_of(row)) for name, rows in splits.items()}
    rows: list[list[Any]] = [["rows", *map(len, splits.values())]]
    if len(found.classes) <= MOST_NAMES:
        rows += [[label, *(own[label] for own in counts.values())] for label in found.classes]
    yield Table(("", "trained on", "validation", "test"), rows, "Labelled rows")
    if len(found.pool) > len(found.train):
        unused = len(found.pool) - len(found.train)
        yield Prose(f"The labels of {unused:,} more training rows are not used.", is_remark=True)
    for finding in found.findings:
        yield Prose(finding)
    double, several = labelled.repeated(task, found.pool)
    if double:
        yield Prose(f"{double:,} of {len(found.pool):,} training rows repeat the text of another one.")
    if several:
        title = f"Training texts with several right answers ({len(several):,})"
        said = [
            (
                " / ".join(task.texts(own[0])),
                "; ".join(dict.fromkeys(str(task.target(row)) for row in own)),
                own[0].place,
            )
            for own in several[:MOST_SHOWN]
        ]
        yield Table(("text", "right", "first row"), said, title)
    if not (found.findings or double or several):
        yield Prose("No row is left out, repeated or contradicted by another.")


def _all(run: Run) -> list[Made]:
    """Return all artefacts that a run tells of."""
    return [*run.references, *([] if run.bare is None else [run.bare]), *run.chain, *run.evaluations]


def _chain(run: Run) -> Iterator[Part]:
    rows = []
    for made in run.chain:
        known = made.determinants
        init = ", ".join(f"{stage} {str(identity)[:8]}" for stage, identity in known.get("init", {}).items())
        data = known.get("data") or (known.get("corpus") or {}).get("text", "")
        where = f"{made.manifest['device'] or ''}, processes: {made.manifest['processes']}"
        rows.append((made.stage, made.manifest["fingerprint"], init, data[:16], made.manifest["finished"], where))
    yield Table(("stage", "fingerprint", "made from", "its data", "finished", "on"), rows, "The chain")
    versions = dict.fromkeys(
        ", ".join(f"{name} {number}" for name, number in made.manifest["versions"].items()) for made in run.chain
    )
    for told in versions:
        yield Prose(f"Versions: {told}.", is_remark=True)
    spent = [("not adapted" if made is run.bare else made.stage, made.manifest["seconds"]) for made in _all(run)]
    most = max(seconds for _, seconds in spent) or 1
    bars = [
        (name, round(seconds), Markup('<span class="bar" style="width:{:.1f}rem"></span>').format(14 * seconds / most))
        for name, seconds in spent
    ]
    yield Table(("stage", "seconds", ""), bars, "Time spent")
    recipe = (run.model.directory / RECIPE).read_text(encoding="utf-8")
    yield Folded("Every option (recipe.yaml)", recipe)
