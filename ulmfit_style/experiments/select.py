"""select: pick the texts that are worth labelling next, and take their labels back."""

from __future__ import annotations

import csv
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ulmfit_style import chain
from ulmfit_style.analysis import strategies
from ulmfit_style.analysis.strategies import Array
from ulmfit_style.artefacts import predictions
from ulmfit_style.artefacts.directory import whole
from ulmfit_style.cli.compose import compose
from ulmfit_style.config.section import spelled
from ulmfit_style.console import say
from ulmfit_style.data import guard, labelled
from ulmfit_style.data.splits import key, normalised, position
from ulmfit_style.errors import UserError, listed
from ulmfit_style.resolved import Resolved
from ulmfit_style.results import finished, terminal
from ulmfit_style.results.parts import Difference, Interval, Table
from ulmfit_style.stages import predict, references
from ulmfit_style.stages.table import resolve
from ulmfit_style.tasks.base import Answer, Row
from ulmfit_style.tasks.base_text import LabelTask, clean_text
from ulmfit_style.tasks.files import Splits

ENDINGS = (".xlsx", ".csv")

CHOSEN = "chosen.csv"
"""The file beside the one that came back in which rows are gathered, where the task names none."""

MOST = 20_000
"""Texts of which some are picked: as many, by chance, where there are more."""

LONGEST = 32_767
"""Characters of a cell of a spreadsheet."""

DRAWS = 10
"""Halves of the labels that are drawn to tell what more labels would bring."""

MOST_HALVED = 2000
"""Labels beyond which that is not told."""


def run(overrides: Sequence[str]) -> None:
    """Pick texts of a config's corpus to be labelled, or with `select.merge` add those that came back to its rows.

    Raises:
        UserError: if the task has no single texts with classes, no text is left, or something in a file is wrong.
    """
    resolved = resolve(compose(overrides))
    task, given = resolved.task, resolved.config.select.merge
    if not isinstance(task, LabelTask) or list(task.inputs()) != ["text"] or isinstance(task.text, tuple):
        kinds = "task=text_classification or task=multi_label_classification, with one text in one column"
        raise UserError(f"select: picks texts for classes: {kinds}")
    if given is None:
        _pick(resolved, task)
    else:
        _merge(resolved, task, given)


def _pick(resolved: Resolved, task: LabelTask) -> None:
    """Write the texts to label next to a file, with what the model there is says of them."""
    options, output = resolved.config.select, Path(resolved.config.select.output).expanduser()
    if output.suffix not in ENDINGS:
        raise UserError(f"select.output={output}: must end in {' or '.join(ENDINGS)}")
    if output.exists():
        remedy = f"take them in with select.merge={output}, or choose another name"
        raise UserError(f"select.output={output}: is there already, and may hold labels; {remedy}")
    rows = None if task.path.train is None else resolved.rows
    learnt = [] if rows is None else [task.texts(row)[0] for row in rows.train]
    pool = _unlabelled(resolved, learnt)
    if len(pool) < options.count:
        say(f"select.count={options.count:,}: only {len(pool):,} texts have no label, and all of them are picked")
    chain.quiet_libraries()
    texts = sorted({*pool, *learnt})  # which labels do not change, so that the features are kept
    features = references.features_of(resolved, texts)[1]
    model, answers = _answers(resolved, task, texts, features)
    probabilities = [list(answer["scores"].values()) for answer in answers] if task.is_single_label else []
    known = set(learnt)
    candidates = strategies.Candidates(
        features,
        frozenset(number for number, text in enumerate(texts) if text in known),
        np.array(probabilities) if probabilities else None,
        options.seed,
    )
    name = strategies.best(candidates) if options.strategy == "auto" else options.strategy
    picked = strategies.STRATEGIES[name](candidates, min(options.count, len(pool)))
    columns = _columns(task)
    records = [(*columns, "guess", "probability")]
    for number in picked:
        answer = answers[number] if answers else {}
        guess = answer.get(task.label_field, "")
        records.append((texts[number], "", guess if isinstance(guess, str) else spelled(guess), answer.get("score")))
    _write(output, records, rows.classes if rows is not None and task.is_single_label else [])
    say(f"select: {len(picked):,} of {len(pool):,} texts without a label, {name}, guesses by {model}: {output}")
    say(f"Fill in the column '{columns[1]}'; what stays empty stays without a label. Next, with the same options:")
    say(f"  make select select.merge={output}")
    if rows is not None:
        _outlook(resolved, task)


def _columns(task: LabelTask) -> tuple[str, str]:
    """Return what the columns of the text and the label are called in the files that are written."""
    return str(task.text or "text"), task.label if isinstance(task.label, str) else "label"


def _unlabelled(resolved: Resolved, learnt: Collection[str]) -> list[str]:
    """Return the texts of the corpus, each once, that no labelled row has."""
    documents = (resolved.variant(task=None) if resolved.task.path.train is None else resolved).corpus
    texts = {_bare(text): text for part in (documents.train, documents.heldout) for text in part}
    known = set(map(_bare, learnt))
    left = [text for bare, text in texts.items() if bare not in known]
    if not left:
        remedy = "name more text: corpus=file corpus.path=<file>"
        raise UserError(f"select: all {len(texts):,} texts of the corpus have labels; {remedy}")
    if len(left) > MOST:
        say(f"select: of {len(left):,} texts without a label, {MOST:,} are looked at")
    return sorted(left, key=lambda text: position(0, text))[:MOST]


def _bare(text: str) -> str:
    return normalised(text).lstrip("'")  # with which `predict.guarded` begins a cell


def _answers(resolved: Resolved, task: LabelTask, texts: Sequence[str], features: Array) -> tuple[str, list[Answer]]:
    """Return what the model there is says of texts, and which it is: a finished one, or a regression of the labels."""
    if (directory := resolved.unchanged("finetune")) is not None:
        from ulmfit_style.predictor import Predictor

        model = Predictor(str(directory), task={"top_k": "all"})
        return str(directory), list(model.stream(map(task.row, texts)))
    if task.path.train is None or not resolved.rows.train or not task.is_single_label:
        return "no model", []
    from scipy.special import softmax

    places = {text: number for number, text in enumerate(texts)}
    learnt = features[[places[task.texts(row)[0]] for row in resolved.rows.train]]
    probabilities = softmax(_logits(resolved, resolved.rows.train, learnt, features), axis=1)
    scores = [dict(zip(resolved.rows.classes, row, strict=True)) for row in probabilities.tolist()]
    return finished.FROZEN, [{**task.answer_from(each), "scores": each} for each in scores]


def _logits(resolved: Resolved, rows: Sequence[Row], learnt: Array, asked: Array) -> Array:
    """Return the logits of features, (texts, classes), by a regression of the classes of rows on theirs."""
    from ulmfit_style.training import solving

    classes = resolved.rows.classes
    labels = np.array([classes.index(resolved.task.target(row)) for row in rows])
    inputs = solving.HeadInputs(learnt, labels, np.ones(len(rows), dtype=np.float32))
    weights, bias = solving.regression(inputs, len(classes), solving.AFTER_CONTRAST)
    return asked @ weights.T + bias


def _write(output: Path, records: Sequence[Sequence[Any]], classes: Sequence[str]) -> None:
    """Write a csv file, or a spreadsheet that offers the classes for its second column."""
    if output.suffix == ".csv":
        with whole(output) as file:
            csv.writer(file).writerows(map(predict.guarded, record) for record in records)
        return
    if any(len(record[0]) > LONGEST for record in records):
        raise UserError(f"select.output={output}: a text is longer than a cell of a spreadsheet; take a .csv file")
    import xlsxwriter

    with xlsxwriter.Workbook(output, {"strings_to_formulas": False, "strings_to_urls": False}) as book:
        sheet = book.add_worksheet("texts")
        sheet.freeze_panes(1, 0)
        sheet.set_column(0, 0, 100, book.add_format({"text_wrap": True}))
        for number, record in enumerate(records):
            sheet.write_row(number, 0, record)
        if classes:
            book.add_worksheet("classes").write_column(0, 0, classes)
            source = f"=classes!$A$1:$A${len(classes)}"
            choice = {"validate": "list", "source": source, "error_type": "warning"}
            sheet.data_validation(1, 1, len(records) - 1, 1, choice)


def _merge(resolved: Resolved, task: LabelTask, given: str) -> None:
    """Check the rows of a file that was filled in, and add those that are new to the chosen rows of the task."""
    source, path = f"select.merge={given}", task.path
    rows = labelled.read(task, "select.merge", given, has_group=False)
    filled = [row for row in rows if clean_text(row.fields["label"])]
    if not filled:
        raise UserError(f"{source}: no row has a label yet; fill in the column of labels")
    labelled.require_right(task, source, filled)
    before = labelled.Labelled(task, [], [], [], [], frozenset(), [], {}) if path.train is None else resolved.rows
    if known := [*(task.labels or before.classes), *resolved.config.select.new_classes]:
        problem = "is in no labelled row; correct it, or let it be a new class with select.new_classes=[...]"
        labelled.require_known(task, known, filled, source, problem)
    places = {row.place for row in filled}
    found = guard.findings(replace(before, pool=[*before.pool, *filled]))
    ours = {what: [case for case in cases if case[0] in places] for what, cases in found.items()}
    for line in guard.lines({what: cases for what, cases in ours.items() if cases}):
        say(line)

    # Add
    into = path.chosen if isinstance(path.chosen, str) else str(Path(given).with_name(CHOSEN))
    kept = [list(_columns(task))]
    if Path(into).exists():
        with Path(into).open(encoding="utf-8", newline="") as file:
            there = list(csv.reader(file))
        if there[:1] != kept:
            raise UserError(f"{into}: would be added to, and has other columns than {' and '.join(kept[0])}; rename it")
        kept = there
    taken = {key(task, row) for row in (*before.pool, *before.validation, *before.test)}
    new = {name: row for row in filled if (name := key(task, row)) not in taken}
    with whole(Path(into)) as file:
        csv.writer(file).writerows([*kept, *((task.texts(row)[0], row.fields["label"]) for row in new.values())])
    say(f"select: {len(new):,} of the {len(rows):,} rows of {given} are added to {into}")
    if others := len(filled) - len(new):
        say(f"select: {others:,} rows are left out because their text has a label already")
    if len(filled) < len(rows):
        empty = listed((row.place for row in rows if row not in filled), 3)
        say(f"select: {len(rows) - len(filled):,} rows have no label yet ({empty}); fill them in, and merge again")

    # Go on
    if path.train is None:
        path = Splits.model_validate(into)
    elif into not in path.all_files():
        path = path.model_copy(update={"chosen": into})
    labelled.load.cache_clear()
    chain.quiet_libraries()
    _outlook(resolved.variant(task=task.model_copy(update={"path": path})), task)
    typed = "" if path == task.path else f" 'task.path={path}'"
    say("Next, with the same options, to train on these rows, and then to pick more:")
    say(f"  make finetune{typed}")
    say(f"  make select{typed} select.output=<another file>")


def _outlook(resolved: Resolved, task: LabelTask) -> None:
    """Print what finished models scored on the test rows, and what more labels would bring."""
    rows, curve = resolved.rows, []
    asked = {(row.file, row.number, task.target(row)) for row in rows.test}
    for made in filter(None, map(finished.find, resolved.config.runs.glob("finetune-*"))):
        if "test" in made.metrics and set(predictions.rows(made.directory)) == asked:
            score, interval = made.metrics["test"]["scores"][task.metric], made.metrics["test"]["interval"]
            curve.append((made.metrics["train"]["rows"], score, Interval(*interval), made.directory.name))
    if curve:
        terminal.show(Table(("labels", task.metric, "95 % interval", "model"), sorted(curve), "On the same test rows"))
    labels, more = len(rows.train), resolved.config.select.count
    if not task.is_single_label or labels > MOST_HALVED:
        return
    *halves, error = _errors(resolved, task)
    rates = np.log2(np.maximum(halves, 1e-9) / max(error, 1e-9))
    low, gain, high = (error * (1 - (1 + more / labels) ** -rate) for rate in (min(rates), np.mean(rates), max(rates)))
    with_half, with_all = 1 - np.mean(halves), 1 - error
    say(f"{finished.FROZEN}: {task.metric} {with_half:.3f} with half of {labels:,} labels, {with_all:.3f} with all.")
    say(f"If the error goes on falling so, {more:,} more bring {Difference(gain, low, high)} points; in brackets")
    say("what the halves that were drawn say at least and at most, which leaves out that other texts may differ.")


def _errors(resolved: Resolved, task: LabelTask) -> list[float]:
    """Return the test errors of a regression on frozen features: by halves of the labels, and last by all of them."""
    rows = resolved.rows
    unseen = [*rows.validation, *rows.test]
    compute, features = references.features_of(resolved, [task.texts(row)[0] for row in unseen])
    of_row = dict(zip((row.place for row in unseen), features, strict=True))
    if new := [row for row in rows.train if row.place not in of_row]:  # with folds, they are the chosen ones
        of_row |= dict(zip((row.place for row in new), compute([task.texts(row)[0] for row in new]), strict=True))
    wrong, chance = np.zeros(DRAWS + 1), np.random.default_rng(0)
    for part in resolved.folds or [resolved]:
        train, test = part.rows.train, part.rows.test
        learnt, asked = (np.array([of_row[row.place] for row in members]) for members in (train, test))
        right = np.array([rows.classes.index(task.target(row)) for row in test])
        for draw in range(DRAWS + 1):
            drawn = chance.permutation(len(train))[: len(train) if draw == DRAWS else len(train) // 2]
            logits = _logits(resolved, [train[number] for number in drawn], learnt[drawn], asked)
            wrong[draw] += (logits.argmax(axis=1) != right).sum()
    return (wrong / len(rows.test)).tolist()
