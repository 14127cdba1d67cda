"""The page on one run, section by section, or on several side by side; what artefacts do not hold is left out."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from itertools import groupby
from typing import Any

import numpy as np

from ulmfit_style.artefacts import differences, predictions
from ulmfit_style.artefacts.directory import RECIPE, read_json
from ulmfit_style.config.section import MODEL_SECTIONS
from ulmfit_style.console import duration, muted
from ulmfit_style.data import guard, labelled
from ulmfit_style.errors import UserError, listed
from ulmfit_style.results import figures, scores
from ulmfit_style.results.finished import Run
from ulmfit_style.results.html import Page, with_names
from ulmfit_style.results.parts import Figure, Interval, Part, Prose, Table
from ulmfit_style.tasks.base import Row, Task, in_order

MOST_ERRORS = 200
"""Wrong answers that a page shows."""

MOST_CLASSES = 40
"""Classes that a confusion matrix can hold."""

Answered = Sequence[tuple[predictions.Prediction, Row | None]]
"""The answers to the test rows, each with its row, where that is what it was."""

MOST_CONFUSED = 20
"""Pairs of classes that are listed."""

MOST_ADVISED, GAP, FELL = 3, 0.1, 0.01
"""Where it is told what to do next: classes or rows that are named; how far below the mean recall a class is found too
seldom; by which part of it a loss falls that has not come to its end, from the third quarter of the steps to the last.
"""


def page(run: Run) -> Page:
    """Return the page on a run."""
    sections: dict[str, Iterator[Part]] = {"Scores": _scores(run)}
    if (task := run.config.task) is not None and run.measured:
        answers = predictions.read(run.model.directory, "test")
        targets = [answer["target"] for answer in answers]
        rows = test_rows(run, task)
        answered = [(answer, rows.get((answer["file"], answer["row"]))) for answer in answers]
        sections |= {
            "What to do next": _next(run, answers),
            "Which answers are wrong": _wrong(task, answered),
            "Calibration": _calibration(task, task.calibration_pairs(answers, targets)),
            "Errors": _errors(task, answered, task.errors(answers, targets)),
        }
    sections |= {
        "Data": _data(run),
        "Groups of rows": (part for made in run.evaluations for part in scores.groups(made.metrics)),
        "Language model": _language_model(run),
        "Training": _training(run),
        "How it was made": _origin(run),
    }
    lead = f"{run.title} after {' and '.join(made.stage for made in run.chain)}: {_headline(run)}."
    return Page(run.name, lead, {title: list(parts) for title, parts in sections.items()})


def side_by_side(runs: Sequence[Run]) -> Page:
    """Return the page on several runs, of which the others are compared with the first.

    Raises:
        UserError: if they are of different kinds.
    """
    kinds = {run.name: run.model.metrics.get("task", "a language model") for run in runs}
    if len(set(kinds.values())) > 1:
        each = ", ".join(f"{name} is {kind}" for name, kind in kinds.items())
        raise UserError(f"report.runs: {each}: scores of different kinds cannot be compared; report each by itself")
    sections: dict[str, list[Part]] = {"Scores": list(_differences(runs)), "What they differ in": [_options(runs)]}
    return Page(" / ".join(kinds), f"{len(runs)} runs side by side.", sections)


def _headline(run: Run) -> str:
    """Say the one number that a run is judged by."""
    metrics = run.model.metrics
    if run.is_finetuned and not run.measured:
        return f"learnt from the names of {len(metrics['train']['classes'])} classes, and not scored"
    if "test" not in metrics:
        before, after = metrics["heldout"][0]["loss"], metrics["heldout"][-1]["loss"]
        return f"{before:.3f} before and {after:.3f} after, in nats per {metrics['per']} on held-out text"
    name, test, train = metrics["metric"].replace("_", " "), metrics["test"], metrics["train"]
    score = f"{name} {test['scores'][metrics['metric']]:.3f} ({Interval(*test['interval'])})"
    return f"{score} {scores.measured_how(metrics)}, trained on {train['rows']:,} of {train['of']:,} labelled rows"


def _scores(run: Run) -> Iterator[Part]:
    metrics = run.model.metrics
    if len(run.measured) > 1:
        yield scores.by_name(metrics["metric"], run.measured)
    yield from map(Prose, run.verdicts)
    if run.measured:
        yield from _learning_curve(metrics["metric"], run.by_labels)
    splits = {split: metrics[split] for split in ("test", "validation") if split in metrics}
    splits |= {made.metrics["path"]: made.metrics["all"] for made in run.evaluations if "all" in made.metrics}
    if splits:
        yield scores.by_score(splits)
        yield from scores.classes(metrics.get("test", {}).get("report", ()))


def _learning_curve(metric: str, runs: Sequence[Run]) -> Iterator[Part]:
    """Show what more labels brought, if there are runs of several numbers of them."""
    tests, counts = [run.model.metrics["test"] for run in runs], [run.model.metrics["train"]["rows"] for run in runs]
    if len(set(counts)) > 1:
        values = [test["scores"][metric] for test in tests]
        line = figures.Line(counts, values, np.abs(np.transpose([test["interval"] for test in tests]) - values))
        title = f"{metric} by the number of labels, with 95 % intervals: {', '.join(run.name for run in runs)}"
        yield Figure("labels", title, partial(figures.over_labels, by_name={"_": line}, counts=counts, metric=metric))


def _next(run: Run, answers: Sequence[predictions.Prediction]) -> Iterator[Part]:
    """Say what may make the model better, by what is seen on the page."""
    report = sorted(run.model.metrics["test"].get("report", ()), key=lambda entry: entry["recall"])
    enough = np.mean([entry["recall"] for entry in report] or [0]) - GAP
    if low := [f"{one['class']} ({one['recall']:.3f})" for one in report[:MOST_ADVISED] if one["recall"] < enough]:
        yield Prose(f"Label more rows of the classes that are found least often, by their recall: {', '.join(low)}.")
    if wrong := [place for place, _ in guard.label_errors(answers)]:
        look = f"Look at the {len(wrong):,} rows whose labels look wrong to this model, listed under Data"
        yield Prose(f"{look}: {listed(wrong, MOST_ADVISED)}.")
    adapted = run.stage("adapt")
    losses = [entry["loss"] for entry in adapted.metrics["log"] if "loss" in entry] if adapted is not None else []
    if len(losses) >= 4:
        *_, third, last = map(np.mean, np.array_split(losses, 4))
        if last < (1 - FELL) * third:
            fell = f"from {third:.3f} to {last:.3f} in the last quarters"
            yield Prose(f"Adapt longer (adapt.epochs): its loss fell {fell}.")


def _wrong(task: Task, answered: Answered) -> Iterator[Part]:
    """Show which classes are taken for which others, where each row has one."""
    if not task.is_single_label:
        return
    ours, right = task.sides([answer for answer, _ in answered], [answer["target"] for answer, _ in answered])
    texts = defaultdict[tuple[str, str], list[str]](list)
    for pair, (_, row) in zip(zip(right, ours, strict=True), answered, strict=True):
        texts[pair].append("" if row is None else " / ".join(task.texts(row)))
    if len(names := in_order({*ours, *right})) <= MOST_CLASSES:
        counts = [[len(texts.get((name, other), ())) for other in names] for name in names]
        yield Figure("confusion", "Confusion", partial(figures.matrix, classes=names, counts=counts))
    ranked = sorted((pair for pair in texts if len(set(pair)) > 1), key=lambda pair: -len(texts[pair]))
    if rows := [(*pair, len(texts[pair]), texts[pair][0]) for pair in ranked[:MOST_CONFUSED]]:
        yield Table(("right", "answered", "rows", "such as"), rows, "Classes most often taken for another")


def _calibration(task: Task, pairs: Sequence[tuple[float, bool]]) -> Iterator[Part]:
    from ulmfit_style.metrics import selective

    if not pairs:
        return
    bins = selective.bins(pairs)
    yield Prose(f"Expected calibration error {selective.expected_error(bins):.3f} (Guo et al. 2017, section 2).")
    rows = [(part.confidence, part.right, part.claims) for part in bins]
    yield Table(("mean probability", "share that is right", "answers"), rows)
    if task.is_single_label:
        cuts = [cut for cut in selective.cuts(pairs) if cut.coverage * len(pairs) >= selective.FEWEST]
        line = figures.Line([cut.coverage for cut in cuts], [cut.precision for cut in cuts], style={"marker": ""})
        draw = partial(figures.lines, lines={"precision": line}, xlabel="share answered", ylabel="share that is right")
        yield Figure("coverage", "Right answers, if only the surest are given (predict.threshold)", draw)


def _errors(task: Task, answered: Answered, errors: Sequence[float]) -> Iterator[Part]:
    """Show the wrong answers, the most confident first, or the worst where answers have no probability."""
    if not any(row for _, row in answered):
        yield Prose("The labelled rows are gone or have changed since this run, so their texts are not shown.")
    ranked, header = [], ["right", "answered", "confidence", "file", "row"]
    for (answer, row), error in zip(answered, errors, strict=True):
        if error > 0:
            texts, confidence = [] if row is None else task.texts(row), task.confidence(answer, answer["target"])
            sides: Sequence[str] = task.display(row, answer, answer["target"])
            if row is not None and (spans := task.spans(row, answer)) is not None:
                texts, sides = [], [with_names(texts[0], of_side) for of_side in spans]
            ranked.append((confidence or 0, error, [*texts, *sides, confidence, answer["file"], answer["row"]]))
    if not ranked:
        yield Prose(f"All {len(answered):,} test rows are answered right.")
        return
    ranked.sort(key=lambda entry: entry[:2], reverse=True)
    wrong = f"{len(ranked):,} of {len(answered):,} test rows are not answered quite right"
    yield Prose(f"{wrong}; the most confident answers, or else the worst, come first.")
    cells = [cells for *_, cells in ranked[:MOST_ERRORS]]
    yield Table([*list(task.inputs())[: len(cells[0]) - len(header)], *header], cells, is_searched=True)


def test_rows(run: Run, task: Task) -> dict[tuple[str, int], Row]:
    """Return the test rows by their places; none where they are gone, or not what they were."""
    with suppress(UserError), muted():
        data = labelled.load(task)
        for made in run.chain[:-1]:
            if made.stage == "finetune":  # the tests of an update lack what was learnt before
                data = data.unseen(read_json(made.directory / predictions.LEARNT))
        if data.digest == run.model.determinants["data"]:
            return {(row.file, row.number): row for row in data.test}
    return {}


def _data(run: Run) -> Iterator[Part]:
    for what, (count, first) in run.model.metrics.get("data", {}).items():
        yield Table(("row", "detail"), first, f"{what}: {count:,}")
    if run.measured and (errors := guard.label_errors(predictions.read(run.model.directory, "test"))):
        yield Table(("row", "detail"), errors, f"labels that are likely wrong, by the model: {len(errors):,}")


def _language_model(run: Run) -> Iterator[Part]:
    for made in run.chain:
        if "heldout" in (metrics := made.metrics):
            documents = f"{metrics['documents']['heldout']:,} held-out documents"
            yield scores.losses(metrics["heldout"], f"{made.stage}: nats per {metrics['per']}, on {documents}")
            if "tokenizers" in metrics:
                yield scores.losses(metrics["tokenizers"], f"{made.stage}: with and without new tokens, on {documents}")


def _training(run: Run) -> Iterator[Part]:
    for made in run.chain:
        if log := [entry for entry in made.metrics.get("log", []) if "loss" in entry]:
            unit = f"loss (nats per {made.metrics['per']})" if "per" in made.metrics else "loss"
            for name, label in (("loss", unit), ("learning_rate", "learning rate")):
                draw = partial(figures.lines, lines=_by_phase(log, name), xlabel="optimizer step", ylabel=label)
                yield Figure(f"{name}-{made.stage}", f"{made.stage}: {label}", draw)


def _by_phase(log: Sequence[Mapping[str, Any]], name: str) -> dict[str, figures.Line]:
    """Return what was logged in each phase, over the optimizer steps of all phases: each counts its own."""
    lines, before = {}, 0
    for phase, group in groupby(log, lambda entry: str(entry["phase"])):
        entries = list(group)
        steps = [before + entry["step"] for entry in entries]
        lines[phase] = figures.Line(steps, [entry[name] for entry in entries])
        before = steps[-1]
    return lines


def _origin(run: Run) -> Iterator[Part]:
    rows = []
    for made in run.chain:
        manifest = made.manifest
        ((source, identity),) = made.init.items()
        device = f"{manifest['device'] or manifest['machine']}, processes: {manifest['processes']}"
        time = (manifest["finished"], duration(manifest["seconds"]))
        rows.append((made.stage, manifest["fingerprint"], f"{source} {identity[:8]}", *time, device))
    yield Table(("stage", "fingerprint", "made from", "finished", "time", "on"), rows)
    versions = ", ".join(f"{name} {number}" for name, number in run.model.manifest["versions"].items())
    yield Prose(f"Versions: {versions}. Every option: {run.model.directory / RECIPE}.", is_remark=True)


def _differences(runs: Sequence[Run]) -> Iterator[Part]:
    first, *others = runs
    if first.config.task is None or not all(run.is_finetuned and run.measured for run in runs):
        return
    yield scores.by_score({run.name: run.model.metrics["test"] for run in runs})
    rows = []
    for other in others:
        difference = other.difference(first.model)
        verdict = "they have no predictions of the same test rows" if difference is None else scores.verdict(difference)
        common = len(predictions.in_common(other.model.directory, first.model.directory))
        rows.append((f"{other.name} less {first.name}", difference, common, verdict))
    yield Table(("difference", "points (95 % interval)", "rows", ""), rows)
    yield Prose("Paired bootstrap over the same test rows; it does not cover other seeds.", is_remark=True)


def _options(runs: Sequence[Run]) -> Table:
    """Return the options in which the other runs differ from the first."""
    (first, ours), *others = ((run.name, {key: run.config.recipe()[key] for key in MODEL_SECTIONS}) for run in runs)
    rows = [(name, line) for name, recipe in others for line in differences.changes(recipe, ours)]
    return Table(("run", f"beside {first}"), rows, "" if rows else "They have the same options")
