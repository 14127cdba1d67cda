"""predict: answer a text, a file of them or standard input, one row after another."""

from __future__ import annotations

import csv
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from itertools import chain, tee
from pathlib import Path
from typing import IO, TYPE_CHECKING

from ulmfit_style.artefacts.directory import RECIPE
from ulmfit_style.console import progress, say
from ulmfit_style.data import columns, reading
from ulmfit_style.data.formats import FORMATS, Record
from ulmfit_style.errors import UserError
from ulmfit_style.lineage import Resolved, require_finished, required_task
from ulmfit_style.models import attributions, checkpoints
from ulmfit_style.recipe import Config, load
from ulmfit_style.results import html
from ulmfit_style.tasks.base import Answer, Row, Task

if TYPE_CHECKING:
    from ulmfit_style.predictor import Predictor

STDIN = "-"
ENDINGS = (".jsonl", ".csv")


def check(resolved: Resolved, stages: Sequence[str]) -> None:
    """Check the options, before anything is trained or loaded.

    Raises:
        UserError: if there is nothing to answer, or the answers cannot go where they should.
    """
    options = resolved.config.predict
    if options.input is None:
        raise UserError(f"predict: what? Say predict.input=<a text, a file, or {STDIN} for standard input>")
    if _is_file(options.input):
        reading.first("predict.input", options.input)
    if options.pair is not None and not _is_text(options.input):
        raise UserError(f"predict.pair: goes with one text, and predict.input={options.input} is a file; put it there")
    if options.explain:
        attributions.check(resolved.task if options.model is None else _task(find_model(resolved)))
    if options.output is None:
        return
    source, output = Path(options.input).expanduser(), Path(options.output).expanduser()
    if output.suffix not in ENDINGS:
        raise UserError(f"predict.output={options.output}: must end in {' or '.join(ENDINGS)}")
    if not output.parent.is_dir():
        raise UserError(f"predict.output={options.output}: there is no folder {output.parent}")
    if output.is_dir():
        raise UserError(f"predict.output={options.output}: is a folder; name a file")
    if output.exists() and _is_file(options.input) and source.exists() and output.samefile(source):
        raise UserError(f"predict.output={options.output}: is the input; choose another name")


def find_model(resolved: Resolved) -> Path:
    """Return the directory of the model that answers: the one that is named, or the config's own.

    Where `runs/<name>/finetune` was made by the same options, it is taken as it is, and no training data are read.

    Raises:
        UserError: if it is not there.
    """
    if (named := resolved.config.predict.model) is not None:
        return checkpoints.find_finetuned(named, "predict.model")
    if (linked := resolved.linked("finetune")) is not None:
        return linked
    require_finished(resolved, "finetune", "predict")
    return resolved.artefact("finetune").directory


def _task(directory: Path) -> Task:
    """Return the task that a fine-tuned model was trained on."""
    return required_task(load(directory / RECIPE))


def run(resolved: Resolved) -> None:
    """Answer the rows of the input, and write each answer with all that stood in its row.

    No more than a window of rows is in memory. A file of answers is there whole or not at all.

    Raises:
        UserError: if there is no model, or something in the input or the options is wrong.
    """
    config, source = resolved.config, find_model(resolved)
    given, output = str(config.predict.input), config.predict.output
    task = _task(source).with_answer_options(config.predict.task)
    rows = _rows(task, given, config.predict.pair)
    first = next(rows, None)
    if first is None:
        raise UserError(f"predict.input={given}: holds no rows")
    page = _page(config)
    try:
        with _writer(output) as write:
            from ulmfit_style.predictor import Predictor

            model = Predictor(str(source), task=config.predict.task, option="predict.model")
            count = _answer(model, chain([first], rows), write, output, page)
    except BrokenPipeError:
        # Whoever reads our output has enough. Python would complain at its end, when it writes what is left.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return
    say(f"predict: rows answered by {source}: {count:,}{f', in {output}' if output else ''}")
    if page is not None:
        say(f"predict: what the answers rest on: {page}")


def _page(config: Config) -> Path | None:
    """Return where the page goes that explains the answers, if they are to be explained."""
    if not config.predict.explain:
        return None
    if config.predict.output is not None:
        return Path(config.predict.output).expanduser().with_suffix(".html")
    folder = config.runs / config.name
    folder.mkdir(parents=True, exist_ok=True)
    return folder / "explained.html"


def _is_file(given: str) -> bool:
    """Tell a file from a text: there is one, or its ending says that there should be."""
    try:
        named = given.startswith(("package:", "hub:")) or reading.kind(given) in FORMATS
        return named or Path(given).expanduser().is_file()
    except (OSError, RuntimeError):  # too long for a name, or it starts with ~
        return False


def _is_text(given: str) -> bool:
    """Tell a text that is to be answered from what holds some."""
    return given != STDIN and not _is_file(given)


def _rows(task: Task, given: str, pair: str | None) -> Iterator[tuple[Row, Record]]:
    """Yield the rows as the model reads them, each beside what the input holds of it."""
    if given == STDIN:
        for number, line in enumerate(sys.stdin.buffer, start=1):
            try:
                row = task.row(line.decode("utf-8").rstrip("\r\n"))
            except UnicodeDecodeError as error:
                raise UserError(f"predict.input={STDIN}: line {number:,} is not UTF-8; convert it by iconv") from error
            yield row, row.fields
    elif _is_file(given):
        source = f"predict.input={given}"
        yield from reading.read("predict.input", given, lambda present: columns.find_inputs(task, present, source))
    else:
        row = task.row(given) if pair is None else task.row(given, pair)
        yield row, row.fields


def _answer(
    model: Predictor,
    rows: Iterator[tuple[Row, Record]],
    write: Callable[[Record], None],
    output: str | None,
    page: Path | None,
) -> int:
    """Write the answers to rows, and what they rest on to a page if there is one; return how many answers there are."""
    count = longer = empty = 0
    explained: list[tuple[Row, Answer]] = []

    def done(rows: int, long: int) -> None:
        nonlocal longer
        longer += long
        if steps is not None:
            steps.advance(rows)

    asked, carried = tee(rows)  # which holds the rows between the two: a window of them
    # Answers on standard output tell by themselves how far it is.
    with progress("predicting", None) if output else nullcontext() as steps:
        questions = (row for row, _ in asked)
        answers = model.stream(questions, done) if page is None else model.explained(questions, done)
        for (row, fields), answer in zip(carried, answers, strict=True):
            if not count:
                _say_renamed(fields, answer)
            write({**{_renamed(name, answer): value for name, value in fields.items()}, **answer})
            if page is not None:
                explained.append((row, answer))
            count += 1
            empty += not all(text.strip() for text in model.task.texts(row))
    if page is not None:
        title, source = "What answers rest on", f"Model: {model.model.name_or_path}"
        html.write(html.Page(title, source, {"Answers": html.explained(model.task, explained)}), page)
    if longer:
        told = f"longer than the {model.max_length} tokens that the model was trained on; {model.task.long_texts}"
        say(f"predict: {longer:,} rows are {told}")
    if empty:
        say(f"predict: {empty:,} rows have an empty text; what is answered to them says nothing")
    return count


def _renamed(name: str, answer: Answer) -> str:
    """Return what a column of the input is called in the output, where the answer may have one of the same name."""
    return f"input_{name}" if name in answer else name


def _say_renamed(fields: Record, answer: Answer) -> None:
    for name in fields:
        if name in answer:
            say(f"predict: the input's own column '{name}' is '{_renamed(name, answer)}' in the output")


@contextmanager
def _writer(output: str | None) -> Iterator[Callable[[Record], None]]:
    """Open the output, and return what writes a record to it."""
    if output is None:
        yield _jsonl(sys.stdout)
        sys.stdout.flush()
        return
    path = Path(output).expanduser()
    with _fresh(path, f"predict.output={output}") as file:
        yield _csv(file, output) if path.suffix == ".csv" else _jsonl(file)


@contextmanager
def _fresh(path: Path, name: str) -> Iterator[IO[str]]:
    """Open a file that is there whole in the end, or not at all.

    Raises:
        UserError: if it cannot be written, with the name that the user knows it by.
    """
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        file = fresh.open("w", encoding="utf-8", newline="")
    except OSError as error:
        raise UserError(f"{name}: cannot be written ({error.strerror})") from error
    try:
        with file:
            yield file
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)


def _jsonl(file: IO[str]) -> Callable[[Record], None]:
    def write(record: Record) -> None:
        # Dates and the like, which a parquet file may hold, become text.
        file.write(json.dumps(record, ensure_ascii=False, default=str) + "\n")

    return write


def _csv(file: IO[str], output: str) -> Callable[[Record], None]:
    """Return what writes records under the header that the first one gives; lists and groups become JSON."""
    writer: csv.DictWriter[str] | None = None

    def write(record: Record) -> None:
        nonlocal writer
        if writer is None:
            writer = csv.DictWriter(file, list(record))
            writer.writeheader()
        new = [name for name in record if name not in writer.fieldnames]
        if new:
            raise UserError(
                f"predict.output={output}: the column '{new[0]}' is in a later row of the input, and not in the first; "
                "csv needs the same in each, so write .jsonl"
            )
        writer.writerow(
            {
                name: json.dumps(value, ensure_ascii=False, default=str) if isinstance(value, (list, dict)) else value
                for name, value in record.items()
            }
        )

    return write
