"""The page on one run, section by section; what its artefacts do not hold is left out."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

from markupsafe import Markup

from ulmfit_style.artefacts import predictions
from ulmfit_style.artefacts.directory import RECIPE
from ulmfit_style.console import duration
from ulmfit_style.data import labelled
from ulmfit_style.publishing import answered
from ulmfit_style.publishing.answered import Answered
from ulmfit_style.recipe import load
from ulmfit_style.results import figures, html, scores
from ulmfit_style.results.finished import Run
from ulmfit_style.results.html import Page, Section, Tile
from ulmfit_style.results.model import Figure, Folded, Interval, Part, Prose, Table
from ulmfit_style.tasks.base import Row
from ulmfit_style.tasks.interface import Matrix, Scatter

MOST_ERRORS = 200
"""Wrong answers that a page shows."""

MOST_SHOWN = 20
"""Examples of anything else."""

MOST_NAMES = 40
"""Classes that a figure can hold."""

MOST_NAMED = 4
"""Classes that are named at the top."""

PARTS = 4
"""Ranges into which numbers are divided, of about as many rows each."""

EXPLAINED = """Green tokens raised the logit of the answer, and red ones lowered it; the strongest of a text has the
fullest colour. Point at a token to see its share. Integrated gradients from a text of padding (Sundararajan et al.
2017)."""

Explain = Callable[[Sequence[Row]], Iterable[Sequence[Mapping[str, Any]]]]
"""Returns for each row the explanations of the model's answer (ulmfit_style/analysis/explain.py)."""


def page(run: Run, explained: int = 0, explain: Explain | None = None) -> Page:
    """Return the page on a run.

    Args:
        explained: How many of the wrong answers are explained.
        explain: Explains them.
    """
    test = answered.read(run)
    sections: dict[str, Iterator[Part]] = {"Scores": _scores(run)}
    if test is not None:
        errors = "Most confident errors" if test.has_confidences else "Worst answers"
        sections |= {
            "Which answers are wrong": _kinds(test),
            "Calibration": _calibration(test),
            errors: _errors(test),
            "What the errors rest on": _explanations(test, test.wrong[:explained], explain),
        }
    sections |= {
        "Groups of rows": _groups(run),
        "Language model": _language_model(run),
        "Training": _training(run),
        "Data": _data(test),
        "How it was made": _origin(run),
    }
    parts = [Section(title, list(content)) for title, content in sections.items()]
    return Page(run.name, summary(run), list(_tiles(run)), parts, list(_remarks(run, test)))


def summary(run: Run) -> str:
    """Say in a sentence what a run made, of what."""
    steps = []
    for made in run.chain:
        metrics = made.metrics
        if made.stage == "finetune":
            kind = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", metrics["task"]).lower()
            steps.append(f"fine-tuned on {metrics['train']['rows']:,} labelled rows for {kind}")
        elif metrics:
            verb = {"pretrain": "pretrained on", "adapt": "adapted to"}[made.stage]
            steps.append(f"{verb} {metrics['documents']['train']:,} documents ({metrics['tokens']:,} tokens)")
    weights = " with random weights" if run.config.model.init == "scratch" else ""
    return f"{run.config.model.title()}{weights}, {' and '.join(steps)}."


def _tiles(run: Run) -> Iterator[Tile]:
    yield headline(run)
    metrics = run.model.metrics
    if run.worth is not None:
        verdict = "one seed" if run.worth.is_clear else "cannot be told from zero"
        yield Tile(f"{run.worth.points} points", "difference made by adaptation", f"{run.worth.span}, {verdict}")
    if "test" in metrics:
        metric, train = metrics["metric"], metrics["train"]
        simple = {} if run.references is None else run.references.metrics["test"]
        if simple:
            best = max(simple, key=lambda name: simple[name]["scores"][metric])
            over = metrics["test"]["scores"][metric] - simple[best]["scores"][metric]
            yield Tile(f"{100 * over:+.1f} points", "over the best simple model", best)
        classes = train["classes"]
        of = ", ".join(classes) if len(classes) <= MOST_NAMED else f"{len(classes)} classes"
        yield Tile(f"{train['rows']:,}", "labelled training rows", of)
    seconds = sum(made.manifest["seconds"] for made in run.artefacts)
    yield Tile(duration(seconds), "of computing", str(run.model.manifest["machine"]))


def headline(run: Run, meaning: str = "") -> Tile:
    """Return the one number that a run is judged by.

    Args:
        meaning: What is said under it instead of what it is, which then becomes the remark.
    """
    metrics = run.model.metrics
    if "test" not in metrics:
        before, after = metrics["heldout"][0]["loss"], metrics["heldout"][-1]["loss"]
        unit = f"nats per {metrics['per']} on held-out text"
        return Tile(f"{after:.3f}", meaning or unit, unit if meaning else f"{before:.3f} before")
    metric, test = metrics["metric"], metrics["test"]
    interval = Interval(*test["interval"])
    if meaning:
        return Tile(f"{test['scores'][metric]:.3f}", meaning, f"{metric}, {interval}")
    rows = f"{metric.replace('_', ' ')} on {test['rows']:,} test rows"
    return Tile(f"{test['scores'][metric]:.3f}", rows, f"95 % interval {interval}")


def _remarks(run: Run, test: Answered | None) -> Iterator[str]:
    if run.worth is not None:
        yield scores.adaptation(run.model.metrics["metric"], run.worth)
    if test is not None and test.problem is not None:
        yield test.problem
    if run.model.stage == "finetune" and test is None:
        missing = run.model.directory / predictions.FILE
        yield f"The predictions are gone ({missing}), and with them all that is computed from them."


def _scores(run: Run) -> Iterator[Part]:
    metrics = run.model.metrics
    if "test" not in metrics:
        return
    metric, spans = metrics["metric"], scores.spans(metrics["metric"], run.measured)
    if len(spans) > 1:
        title = f"{metric} on the same test rows, with 95 % intervals"
        yield Figure("scores", title, figures.whiskers, (spans, metric))
    splits = {"test": metrics["test"], "validation": metrics["validation"]}
    for made in run.evaluations:
        split = made.metrics["split"]
        name = load(made.directory / RECIPE).evaluate.path if split == "all" else split
        splits.setdefault(str(name), made.metrics[split])
    yield scores.by_score(splits)
    for name, signature in metrics["test"].get("signatures", {}).items():
        yield Prose(f"{name}: {signature}", is_remark=True)
    if report := metrics["test"]["report"]:
        yield scores.by_class(report, "Test rows by class")
        if (small := scores.small_classes(report)) is not None:
            yield Prose(small, is_remark=True)


def _kinds(test: Answered) -> Iterator[Part]:
    task, answers, targets = test.task, test.answers, test.targets
    for number, shown in enumerate(task.report_parts(answers, targets), start=1):
        if isinstance(shown, Scatter):
            yield Figure(f"scatter-{number}", shown.title, figures.scatter, (shown.targets, shown.predictions))
        elif not isinstance(shown, Matrix):
            yield Table(shown.header, shown.rows, shown.title)
        elif len(shown.targets) <= MOST_NAMES:
            counts = (shown.targets, shown.predictions, shown.counts)
            yield Figure(f"matrix-{number}", f"{shown.title} (test rows)", figures.matrix, counts)
    if None not in test.rows:
        words = [len(" ".join(task.texts(row)).split()) for row in test.rows if row is not None]
        spans = dict(_by_kind(test, _in_ranges(words)))
        if len(spans) > 1:
            title = f"{task.metric} by words of the text"
            yield Figure("groups", title, figures.whiskers, (spans, task.metric))


def _in_ranges(values: Sequence[int]) -> list[str]:
    """Return the range of numbers that each number is in."""
    numbers = sorted(values)
    ends = sorted({numbers[len(numbers) * part // PARTS] for part in range(PARTS)} | {numbers[-1] + 1})
    names = [f"{start} to {end - 1}" if start < end - 1 else f"{start}" for start, end in pairwise(ends)]
    return [names[bisect_right(ends, value) - 1] for value in values]


def _by_kind(test: Answered, names: Sequence[str]) -> Iterator[tuple[str, tuple[float, float, float]]]:
    """Yield the metric of each kind of rows, with its interval."""
    import numpy as np

    from ulmfit_style.metrics.intervals import interval

    def order(name: str) -> tuple[int, str]:
        number = re.match(r"\d+", name)
        return int(number[0]) if number else -1, name

    for name in sorted(set(names), key=order):
        numbers = [number for number, other in enumerate(names) if other == name]
        points = test.task.points([test.answers[n] for n in numbers], [test.targets[n] for n in numbers])
        score = float(test.task.of_means(np.asarray(points, dtype=float).reshape(len(numbers), -1).mean(axis=0)))
        yield f"{name} ({len(numbers):,} rows)", (score, *interval(points, test.task.of_means))


def _calibration(test: Answered) -> Iterator[Part]:
    from ulmfit_style.metrics import calibration

    claims = test.task.calibration_pairs(test.answers, test.targets)
    if not claims:
        return
    bins = calibration.bins(claims)
    confidence, right = sum(told for told, _ in claims) / len(claims), sum(so for _, so in claims) / len(claims)
    yield Prose(
        f"Expected calibration error {calibration.expected_error(bins):.3f}, over {calibration.BINS} equal parts of "
        f"the probabilities (Guo et al. 2017, section 2). The model is {'over' if confidence > right else 'under'}"
        f"confident: on {len(claims):,} answers its mean probability is {confidence:.3f}, and {right:.3f} are right."
    )
    parts = [(part.confidence, part.right, part.count) for part in bins]
    yield Figure("calibration", "Share of right answers by the model's probability", figures.reliability, (parts,))


def _errors(test: Answered) -> Iterator[Part]:
    if not test.wrong:
        yield Prose(f"None of the {len(test.answers):,} test rows is answered wrongly.")
        return
    order = "the most confident come first" if test.has_confidences else "the worst come first"
    shown = f", and the first {MOST_ERRORS} are shown" if len(test.wrong) > MOST_ERRORS else ""
    files = ", ".join(dict.fromkeys(test.answers[number]["file"] for number in test.wrong))
    wrong_rows = f"{len(test.wrong):,} of {len(test.answers):,} test rows are not answered quite right"
    yield Prose(f"{wrong_rows}; {order}{shown} (rows of {files}).")
    yield _answers(test, test.wrong[:MOST_ERRORS], is_searched=True)
    if not test.has_confidences and len(test.wrong) > MOST_SHOWN:
        best = sorted(range(len(test.errors)), key=lambda number: test.errors[number])
        yield _answers(test, best[:MOST_SHOWN], "Best answers")


def _answers(test: Answered, numbers: Sequence[int], title: str = "", *, is_searched: bool = False) -> Table:
    """Return the table of some answers; what is the same for all of them has no column."""
    rows = [row for number in numbers if (row := test.rows[number]) is not None]
    answers = [test.answers[number] for number in numbers]
    columns: dict[str, Sequence[Any]] = {}
    if len(rows) == len(numbers):
        columns |= zip(test.task.inputs(), zip(*map(test.task.texts, rows), strict=True), strict=True)
    words = [test.task.in_words(test.rows[n], test.answers[n], test.answers[n]["target"]) for n in numbers]
    columns |= zip(("right", "answered"), zip(*words, strict=True), strict=True)
    if test.has_confidences:
        columns["confidence"] = [test.confidences[number] for number in numbers]
    errors = [test.errors[number] for number in numbers]
    if len(set(errors)) > 1:
        columns["error"] = errors
    columns["row"] = [answer["row"] for answer in answers]
    return Table(list(columns), list(zip(*columns.values(), strict=True)), title, is_searched=is_searched)


def _explanations(test: Answered, numbers: Sequence[int], explain: Explain | None) -> Iterator[Part]:
    rows = {number: row for number in numbers if (row := test.rows[number]) is not None}
    if not rows or explain is None:
        return
    cells = []
    for (number, row), explanations in zip(rows.items(), explain(list(rows.values())), strict=True):
        right, answer = test.task.in_words(row, test.answers[number], test.answers[number]["target"])
        for part in explanations:
            texts = Markup("<br>").join(html.coloured(test.task.texts(row), part["tokens"]))
            cells.append([texts, right, answer, part["of"], part["logit"]])
    yield Prose(EXPLAINED)
    yield Table(("text", "right", "answered", "explained", "logit"), cells)


def _groups(run: Run) -> Iterator[Part]:
    for made in run.evaluations:
        metric = made.metrics["metric"]
        for column, measured in made.metrics.get("slices", {}).items():
            groups, gap = measured["groups"], measured["gap"]
            yield scores.by_name(metric, groups, f"By {column}", of=column)
            if gap is not None:
                judged = sum(group["rows"] >= scores.FEWEST for group in groups.values())
                yield Prose(scores.widest_gap(column, metric, gap, judged), is_remark=True)
        if probed := scores.probed(made.metrics.get("probe", {})):
            yield probed


def _language_model(run: Run) -> Iterator[Part]:
    for made in run.chain:
        heldout = made.metrics.get("heldout")
        if heldout is None:
            continue
        metrics, unit = made.metrics, f"nats per {made.metrics['per']}"
        lines = {"held-out text of the domain": [entry["loss"] for entry in heldout]}
        if "general_loss" in heldout[0]:
            lines["general text, which it may forget"] = [entry["general_loss"] for entry in heldout]
        title, names = f"Loss before and after ({made.stage})", [entry["after"] for entry in heldout]
        yield Figure(f"loss-{made.stage}", title, figures.stations, (names, lines, unit))
        yield scores.losses(heldout)
        yield Prose(f"Losses are in {unit}, on {metrics['documents']['heldout']:,} documents.", is_remark=True)
        if "general_loss" in heldout[0]:
            change = heldout[-1]["general_loss"] - heldout[-2]["general_loss"]
            yield Prose(f"Forgetting: the loss on general text changed by {change:+.3f} in the last phase.")


def _training(run: Run) -> Iterator[Part]:
    for made in run.chain:
        log, metrics = made.losses, made.metrics
        if len(log) > 1:
            unit = f"nats per {metrics['per']}" if "per" in metrics else "mean"
            title = f"Loss and learning rates of {made.stage}, over all phases"
            yield Figure(f"course-{made.stage}", title, figures.course, (log, made.directory.name, unit))
        if (kept := metrics.get("kept")) is not None:
            state = f"the state after epoch {kept['epoch']:g} of '{kept['phase']}'"
            yield Prose(f"Kept: {state}, the best on {kept['rows']:,} watched rows.")


def _data(test: Answered | None) -> Iterator[Part]:
    if test is None or test.labelled is None:
        return
    task, data = test.task, test.labelled
    splits = {"trained on": data.train, "validation": data.validation, "test": data.test}
    counts = [Counter(label for row in rows for label in task.labels_of(row)) for rows in splits.values()]
    table: list[list[Any]] = [["rows", *map(len, splits.values())]]
    if len(data.classes) <= MOST_NAMES:
        table += [[label, *(count[label] for count in counts)] for label in data.classes]
    yield Table(("", *splits), table, "Labelled rows")
    if unused := len(data.pool) - len(data.train):
        yield Prose(f"The labels of {unused:,} more training rows are not used.", is_remark=True)
    for finding in data.findings:
        yield Prose(finding)
    repeated, contradicted = labelled.repeated(task, data.pool)
    if repeated:
        yield Prose(f"{repeated:,} of {len(data.pool):,} training rows repeat the text of another one.")
    if contradicted:
        examples = [
            (
                " / ".join(task.texts(rows[0])),
                "; ".join(dict.fromkeys(str(task.target(row)) for row in rows)),
                rows[0].place,
            )
            for rows in contradicted[:MOST_SHOWN]
        ]
        title = f"Training texts with several right answers ({len(contradicted):,})"
        yield Table(("text", "right", "first row"), examples, title)
    if not (data.findings or repeated or contradicted):
        yield Prose("No row is left out, repeated or contradicted by another.")


def _origin(run: Run) -> Iterator[Part]:
    chain = []
    for made in run.chain:
        known, manifest = made.determinants, made.manifest
        init = ", ".join(f"{stage} {str(identity)[:8]}" for stage, identity in known.get("init", {}).items())
        data = known.get("data") or (known.get("corpus") or {}).get("text", "")
        where = f"{manifest['device'] or ''}, processes: {manifest['processes']}"
        chain.append((made.stage, manifest["fingerprint"], init, data[:16], manifest["finished"], where))
    yield Table(("stage", "fingerprint", "made from", "its data", "finished", "on"), chain, "The chain")
    versions = [
        ", ".join(f"{name} {number}" for name, number in made.manifest["versions"].items()) for made in run.chain
    ]
    for line in dict.fromkeys(versions):
        yield Prose(f"Versions: {line}.", is_remark=True)
    most = max(made.manifest["seconds"] for made in run.artefacts) or 1
    seconds = [
        (
            "not adapted" if made is run.not_adapted else made.stage,
            round(made.manifest["seconds"]),
            html.bar(made.manifest["seconds"] / most),
        )
        for made in run.artefacts
    ]
    yield Table(("stage", "seconds", ""), seconds, "Time spent")
    yield Folded("Every option (recipe.yaml)", (run.model.directory / RECIPE).read_text(encoding="utf-8"))
