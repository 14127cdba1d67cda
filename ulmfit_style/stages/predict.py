"""predict: answer a text, a file of them or standard input, one row after another."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from itertools import chain, islice, tee
from pathlib import Path
from typing import TYPE_CHECKING

from ulmfit_style.artefacts import fingerprint, predictions
from ulmfit_style.artefacts.directory import RECIPE, read_json, versions, whole, write_json
from ulmfit_style.compute import processes
from ulmfit_style.config.commands import Predict
from ulmfit_style.config.training import Model
from ulmfit_style.console import lines_on_stderr, progress, say
from ulmfit_style.data import columns, conll, reading
from ulmfit_style.data.disk_list import DiskList
from ulmfit_style.data.formats import FORMATS, TEXT_COLUMN, Record
from ulmfit_style.errors import UserError, listed
from ulmfit_style.metrics import intervals, selective
from ulmfit_style.models import attributions, checkpoints
from ulmfit_style.recipe import load
from ulmfit_style.resolved import Resolved
from ulmfit_style.results import csv, html
from ulmfit_style.tasks.base import Answer, Row, Task

if TYPE_CHECKING:
    from ulmfit_style.predictor import Predictor
    from ulmfit_style.training.scoring import Advance

STDIN = "-"

SLOW_WINDOW = 256
"""Rows whose answers are kept together where each takes long, because it is written or explained."""


def check(resolved: Resolved, stages: Sequence[str]) -> None:
    """Check the options, before anything is trained or loaded.

    Raises:
        UserError: if there is nothing to answer, or the answers cannot go where they should.
    """
    options = resolved.config.predict
    if not options.input:
        raise UserError(f"predict: what? Say predict.input=<a text, a file, or {STDIN} for standard input>")
    if _is_file(options.input):
        reading.first("predict.input", options.input, options.format)
    elif os.path.isdir(os.path.expanduser(options.input)):  # noqa: PTH111, PTH112
        raise UserError(f"predict.input={options.input}: is a folder; name one of its files")
    if options.pair is not None and (options.input == STDIN or _is_file(options.input)):
        raise UserError(f"predict.pair: goes with one text, and predict.input={options.input} is a file; put it there")
    if options.explain or options.threshold is not None:
        named = None if options.model is None else resolved.finished_model("predict")
        task = resolved.task if named is None else load(named / RECIPE).require_task()
        if options.explain and options.model is None:
            attributions.check(task, checkpoints.described(resolved.config.model) if task.writes else {})
        if options.threshold is not None and not task.is_single_label:
            kind = f"{type(task).__name__} answers otherwise"
            raise UserError(f"predict.threshold={options.threshold}: is for tasks with one class a text, and {kind}")
    if options.output is not None:
        output = Path(options.output).expanduser()
        require_writable("predict.output", output, (".jsonl", ".csv"))
        if _is_file(options.input) and output.resolve() == Path(options.input).expanduser().resolve():
            raise UserError(f"predict.output={options.output}: is the input; choose another name")


def require_writable(option: str, output: Path, endings: Sequence[str]) -> None:
    """Check that a file can be written where an option names it, in the format that its name ends in.

    Raises:
        UserError: if it cannot.
    """
    if output.suffix not in endings:
        raise UserError(f"{option}={output}: must end in {' or '.join(endings)}")
    if not os.access(output.parent, os.W_OK):
        raise UserError(f"{option}={output}: there is no folder {output.parent} that can be written to")


def run(resolved: Resolved) -> None:
    """Answer the rows of the input, and write each answer with all that stood in its row.

    No more than a window of rows is in memory. A file of answers is there whole or not at all: until then the answers
    to each window are kept beside it, for the same command to go on from there.

    Raises:
        UserError: if there is no model, or something in the input or the options is wrong.
    """
    options, source = resolved.config.predict, resolved.finished_model("predict")
    own = {} if options.model else {name: getattr(resolved.task, name) for name in resolved.task.answer_options()}
    options = options.model_copy(update={"model": str(source), "task": {**own, **options.task}})
    task = load(source / RECIPE).require_task().with_answer_options(options.task)
    rows = _rows(task, str(options.input), options)
    first = list(islice(rows, 5))
    lines = [line for _, record in first if (line := str(record.get(TEXT_COLUMN)).strip())]
    if len(lines) > 1 and all(map(conll.TAGGED.fullmatch, lines)):
        raise UserError(f"predict.input={options.input}: holds a word and its tag a line; as a file call it .conll")
    lowest = None if options.threshold is None else _lowest(options.threshold, source, task)
    output = None if options.output is None else Path(options.output).expanduser()
    page = (output or resolved.config.runs / resolved.config.name / "explained").with_suffix(".html")
    folder = None if output is None else output.with_name(f".{output.name}.windows")
    if folder is not None and (kept := len(list(folder.glob("*.json")))):
        say(f"predict: goes on: of {kept:,} windows of answers in {folder} those that fit are taken")
    if folder is None or not _is_file(str(options.input)):
        if (count := resolved.config.processes or 1) > 1:
            say(f"processes={count}: one answers; several can share a file that is answered to predict.output")
    elif (count := processes.wanted(resolved.config.processes)) > 1:
        processes.start(count, "ulmfit_style.launch", ["predict", str(folder), options.model_dump_json()])

    from ulmfit_style.predictor import Predictor  # not before the mistakes that can be told without torch

    model = Predictor(str(source), task=options.task, option="predict.model")
    try:
        _write(_answered(model, chain(first, rows), folder, page if options.explain else None, lowest), output)
    except BrokenPipeError:
        # Whoever reads our output has enough. Python would complain at its end, when it writes what is left.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)
        say(f"predict: the answers: {output}")
    if options.explain:
        say(f"predict: what the answers rest on: {page}")


def answer_share(folder: str, options: str) -> None:
    """Answer the windows of this process, one of several, and leave the answers in a folder.

    Args:
        options: `Predict` as JSON, with the model's directory and how it answers.
    """
    from ulmfit_style.predictor import Predictor

    asked = Predict.model_validate_json(options)
    model = Predictor(str(asked.model), task=asked.task, option="predict.model")
    rows = (row for row, _ in _rows(model.task, str(asked.input), asked))
    ask, count = model.explained if asked.explain else model.stream, processes.count()
    with lines_on_stderr(), progress("predicting", None) as steps:  # in which the others are about as far
        deque(_kept(model, ask, rows, Path(folder), lambda rows, _: steps.advance(rows * count)), maxlen=0)


def _lowest(threshold: float | str, directory: Path, task: Task) -> float:
    """Return the lowest probability that is answered, and say what it was worth on rows that were not trained on.

    Raises:
        UserError: if there are none, or no probability has such a precision on them.
    """
    claims = {}
    for split in ("validation", "test"):
        answered = predictions.read(directory, split) if (directory / predictions.FILE).exists() else []
        claims[split] = task.calibration_pairs(answered, [answer["target"] for answer in answered])
    lowest = threshold if isinstance(threshold, float) else None
    if lowest is None:
        chosen_on, option = "validation" if claims["validation"] else "test", f"predict.threshold={threshold}"
        if not claims[chosen_on]:
            raise UserError(f"{option}: {directory} holds no answered rows to choose it on; give a probability")
        cut = selective.for_precision(claims[chosen_on], float(str(threshold).partition(":")[2]))
        rows = f"the {len(claims[chosen_on]):,} {chosen_on} rows"
        if cut is None:
            raise UserError(f"{option}: no {selective.FEWEST} answers of {rows} are right so often; ask for less")
        lowest = cut.probability
        say(f"{option}: from a probability of {lowest:.3f} on, chosen on {rows}")
    if claims["test"]:
        left = [is_right for confidence, is_right in claims["test"] if confidence >= lowest]
        share = f"{len(left) / len(claims['test']):.1%} of the {len(claims['test']):,} test rows are answered"
        if left:
            low, high = intervals.interval(left)
            share += f", and {sum(left) / len(left):.1%} of these right (95 % interval {low:.1%} to {high:.1%})"
        say(f"predict: from a probability of {lowest:.3f} on, {share}")
    return lowest


def _is_file(given: str) -> bool:
    """Tell a file from a text: there is one, or it has no blank, and the ending of a file."""
    is_name = not re.search(r"\s", given) and (re.match("package:|hub:.*/", given) or reading.kind(given) in FORMATS)
    # Not by pathlib, to which a text that is too long for a name, or starts with ~, would be an error.
    is_there = os.path.isfile(os.path.expanduser(given))  # noqa: PTH111, PTH113
    return given.startswith(reading.SQLITE) or bool(is_name) or is_there


def _rows(task: Task, given: str, options: Predict) -> Iterator[tuple[Row, Record]]:
    """Yield the rows as the model reads them, each beside what the input holds of it."""
    if given == STDIN:
        for number, line in enumerate(sys.stdin.buffer, start=1):
            try:
                row = task.row(line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n"))
            except UnicodeDecodeError as error:
                raise UserError(f"predict.input={STDIN}: line {number:,} is not UTF-8; convert it by iconv") from error
            yield row, row.fields
    elif _is_file(given):
        yield from columns.read_inputs(task, "predict.input", given, options.format)
    else:
        if reading.kind(given) in FORMATS or re.fullmatch(r"\S+[./\\]\w+", given):
            say(f"predict: there is no file '{given}', so it is answered as a text")
        row = task.row(given, *([] if options.pair is None else [options.pair]))
        yield row, row.fields


def _answered(
    model: Predictor, rows: Iterator[tuple[Row, Record]], folder: Path | None, page: Path | None, lowest: float | None
) -> Iterator[Record]:
    """Yield each row of the input with its answer; say in the end how many there were, and how many were cut.

    Args:
        folder: Where the answers to each window are kept; None for standard output.
        page: Where it is shown what the answers rest on, for which all of them stay in memory.
        lowest: The probability below which a label is a guess alone; None: all are answers.
    """
    counts: Counter[str] = Counter()
    explained: list[tuple[Row, Answer]] = []
    empty: list[str] = []

    def advance(rows: int, long: int) -> None:
        counts["long"] += long
        if steps is not None:
            steps.advance(rows)

    asked, carried = tee(rows)  # which holds the rows between the two: a window of them
    questions = (row for row, _ in asked)
    ask = model.stream if page is None else model.explained
    answers = ask(questions, advance) if folder is None else _kept(model, ask, questions, folder, advance)
    # Answers on standard output tell by themselves how far it is.
    with nullcontext() if folder is None else progress("predicting", None) as steps:
        for (row, fields), given in zip(carried, answers, strict=True):
            is_sure = lowest is None or given["score"] >= lowest
            guess = {} if lowest is None else {"label": given["label"] if is_sure else None, "guess": given["label"]}
            answer = {**given, **guess}
            counts["guesses"] += not is_sure
            if page is not None:
                explained.append((row, answer))
            counts["rows"] += 1
            counts["unlike"] += answer.get("unlike", False)
            if not all(map(str.strip, model.task.texts(row))):
                empty.append(f"{counts['rows']:,}")
            yield csv.beside(fields, answer)
    if page is not None:
        title, lead = "What answers rest on", f"Model: {model.name}"
        html.write(html.Page(title, lead, {"Answers": html.explained(model.task, explained)}), page)
    say(f"predict: rows answered by {model.name}: {counts['rows'] - counts['guesses']:,}")
    if counts["guesses"]:
        say(f"predict: rows not answered, with a guess alone: {counts['guesses']:,} (predict.threshold)")
    if counts["unlike"]:
        say(f"predict: rows that may belong to no class, unlike those that it was trained on: {counts['unlike']:,}")
    if empty:
        say(f"predict: {len(empty):,} rows have an empty text, and are answered all the same: row {listed(empty, 3)}")
    if counts["long"]:
        treatment = f"longer than the {model.max_length} tokens that the model was trained on; {model.task.long_texts}"
        remedy = f": train with {model.task.reads_more}" if model.task.long_texts.startswith("cut") else ""
        say(f"predict: {counts['long']:,} rows are {treatment}{remedy}")


def _kept(
    model: Predictor, ask: Callable[..., Iterator[Answer]], rows: Iterator[Row], folder: Path, advance: Advance
) -> Iterator[Answer]:
    """Yield the answer to each row, and keep those to each window of rows in a folder; kept ones are not asked again.

    A window goes by its content, so it is known again in another file. Of several processes each answers every so
    many-th window, and yields these answers alone.

    Args:
        ask: The model's `stream` or `explained`.
        folder: Gets a file for each window, which is there whole or not at all.
        advance: As `stream` takes it; called after each window.
    """
    from ulmfit_style.training import scoring

    checkpoint = checkpoints.resolve(Model(checkpoint=model.name), "predict.model", is_single=False)
    determinants = [checkpoint.identity, model.task.model_dump(mode="json"), ask.__name__, versions()]
    size = SLOW_WINDOW if model.task.writes or ask == model.explained else scoring.WINDOW
    windows = iter(lambda: list(islice(rows, size)), [])
    for window in islice(windows, processes.rank(), None, processes.count()):
        path = folder / f"{fingerprint.digest(csv.as_json([determinants, [row.fields for row in window]]))}.json"
        if not path.exists():
            longs: list[int] = []
            # They are counted when all answers are there.
            write_json(path, [*ask(window, lambda _, long, longs=longs: longs.append(long)), sum(longs)], indent=None)
        *kept, long = read_json(path)
        advance(len(window), long)
        yield from kept


def _write(records: Iterator[Record], output: Path | None) -> None:
    """Write records to a file, or as JSON lines to standard output."""
    with nullcontext(sys.stdout) if output is None else whole(output) as file:
        if output is not None and output.suffix == ".csv":
            csv.write_records(DiskList(records), file)
        else:
            file.writelines(f"{csv.as_json(record)}\n" for record in records)
        file.flush()
