"""new-task: looks at a file of rows with their right answers, and writes the YAML of its task, with comments."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from ulmfit_style.cli import CONF
from ulmfit_style.console import say
from ulmfit_style.data import columns, labelled, reading
from ulmfit_style.errors import UserError, nearest
from ulmfit_style.tasks import token_classification
from ulmfit_style.tasks.base import Column, Row, Task
from ulmfit_style.tasks.generation import GenerationTask
from ulmfit_style.tasks.multi_label_classification import MultiLabelClassification
from ulmfit_style.tasks.question_answering import CONTEXT_COLUMNS, QUESTION_COLUMNS, QuestionAnswering
from ulmfit_style.tasks.summarization import DOCUMENT_COLUMNS, Summarization
from ulmfit_style.tasks.text import TEXT_COLUMNS, plain
from ulmfit_style.tasks.text_classification import TextClassification
from ulmfit_style.tasks.text_generation import TextGeneration
from ulmfit_style.tasks.text_regression import TextRegression
from ulmfit_style.tasks.token_classification import TokenClassification
from ulmfit_style.tasks.translation import Translation

OPTIONS = ("path", "name", "text", "text_pair", "label")
OF_TEXTS = (TextClassification, MultiLabelClassification, TextRegression)
LABEL_COLUMNS = sorted(
    {*token_classification.LABEL_COLUMNS, *(name for kind in OF_TEXTS for name in kind.label_columns)}
)
FOLDER = Path("conf/task")
SHOWN_CLASSES = 20
"""How many classes are listed before the rest is counted."""


def run(arguments: Sequence[str]) -> None:
    """Write `conf/task/<name>.yaml` of the working directory for the file `path`.

    Args:
        arguments: `path=<file>` and `name=<name>`; `text=`, `text_pair=` and `label=` name columns that their own names
            do not tell.

    Raises:
        UserError: if an argument is wrong, there is such a task, or the file cannot be learnt from.
    """
    options = _options(arguments)
    target = FOLDER / f"{options['name']}.yaml"
    for there in (target, CONF / "task" / target.name):
        if there.exists():
            raise UserError(f"new-task: name={options['name']}: there is {there} already; choose another name")
    path = options["path"]
    kind, found = _found(path, options)
    task = kind.model_validate({"path": path, **found})
    rows = labelled.load(task)
    target.parent.mkdir(parents=True, exist_ok=True)
    others = [name for name in reading.header("path", path) if name not in found.values()]
    target.write_text(_yaml(task, found, [*rows.pool, *rows.validation, *rows.test], others), encoding="utf-8")
    say(f"new-task: wrote {target}; look at it, then:")
    if CONF.resolve() == FOLDER.parent.resolve():
        say(f"  make adapt finetune task={options['name']}")
    else:
        say(f"  ulmfit-style adapt finetune --config-dir {FOLDER.parent} task={options['name']}")


def _found(path: str, options: Mapping[str, str]) -> tuple[type[Task], dict[str, str]]:
    """Return the kind of task that a file holds, and the columns that it needs, by the options that name them."""
    if not options.keys() & {"text", "label"} and (own := _by_its_columns(path)) is not None:
        kind, more = own
        wanted = kind.model_validate({"path": path, **more}).columns()
        there = columns.find("path", path, wanted)
        return kind, {**{wanted[field].option.removeprefix("task."): name for field, name in there.items()}, **more}
    texts = (*token_classification.TOKEN_COLUMNS, *TEXT_COLUMNS)
    known = {"text": texts, "label": LABEL_COLUMNS, **({"text_pair": ()} if "text_pair" in options else {})}
    found = columns.find("path", path, {field: Column(field, options.get(field), known[field]) for field in known})
    rows = reading.rows("path", path, [found["text"], found["label"]])
    kind = _kind([(row.fields[found["text"]], row.fields[found["label"]]) for row in rows])
    if kind is TokenClassification and "text_pair" in found:
        raise UserError(f"new-task: text_pair={found['text_pair']}: words and entities have no second text")
    return kind, found


def _by_its_columns(path: str) -> tuple[type[Task], dict[str, str]] | None:
    """Return the kind of task that the names of columns tell, with the options that it needs beside them; or None."""
    header = {name.strip().casefold(): name for name in reading.header("path", path)}
    if header.keys() & set(QUESTION_COLUMNS) and header.keys() & set(CONTEXT_COLUMNS):
        return QuestionAnswering, {}
    if "messages" in header:
        return TextGeneration, {"form": "messages"}
    if "prompt" in header and header.keys() & {"completion", "response"}:
        return TextGeneration, {}
    if header.keys() & {"summary", "highlights"} and header.keys() & set(DOCUMENT_COLUMNS):
        return Summarization, {}
    if "translation" in header:
        first = next(reading.rows("path", path, [header["translation"]]), None)
        pair = None if first is None else first.fields[header["translation"]]
        if isinstance(pair, dict) and len(pair) == 2:
            return Translation, dict(zip(("source_language", "target_language"), pair, strict=True))
    return None


def _options(arguments: Sequence[str]) -> dict[str, str]:
    options = {}
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if key not in OPTIONS or not equals or not value:
            there = ", ".join(f"{name}=..." for name in OPTIONS)
            raise UserError(
                f"new-task: {argument}: there is no such option{nearest(key, OPTIONS)} (there are: {there})"
            )
        options[key] = value
    if not {"path", "name"} <= set(options):
        raise UserError("new-task: say new-task path=<file of labelled texts> name=<what to call the task>")
    if not re.fullmatch(r"\w[\w-]*", options["name"]):
        raise UserError(f"new-task: name={options['name']}: letters, digits, - and _ make a name")
    return options


def _kind(rows: Sequence[tuple[Any, Any]]) -> type[Task]:
    """Return the kind of task that texts and right answers look like: words, entities, lists, fractions, or classes."""
    labels = [label for _, label in rows]
    lists = [label for label in labels if isinstance(label, list)]
    if any(isinstance(text, list) for text, _ in rows) or any(
        isinstance(one, (dict, list)) for own in lists for one in own
    ):
        return TokenClassification
    if lists:
        return MultiLabelClassification
    return TextRegression if _fractions(labels) else TextClassification


def _fractions(labels: Sequence[Any]) -> bool:
    """Tell whether all labels are numbers, and not all whole ones."""
    try:
        numbers = [float(plain(label)) for label in labels]
    except ValueError:
        return False
    return all(map(math.isfinite, numbers)) and any(number % 1 for number in numbers)


def _yaml(task: Task, found: dict[str, str], rows: Sequence[Row], others: Sequence[str]) -> str:
    """Return the YAML; `found` names the columns that are used, `others` the rest."""
    words = [sum(len(text.split()) for text in task.texts(row)) for row in rows]
    lines = [
        f"# {len(rows):,} texts of {sum(words) / len(words):.0f} words on average, {max(words):,} at most.",
        "# finetune.max_length counts tokens, of which a word has one or more.",
        f"# {_labels(task, rows)}",
        f"_target_: {type(task).__module__}.{type(task).__qualname__}",
        yaml.safe_dump({"path": str(task.path), **found}, allow_unicode=True, sort_keys=False, width=1000).rstrip(),
    ]
    if others and "group" not in found:
        lines.append(f"# group: {others[0]} # no value of this column on two sides; columns: {', '.join(others)}")
    lines.append("# train_samples: 100 # labelled rows to use, every class first; or shots: 10, of each class")
    return "\n".join([*lines, ""])


def _labels(task: Task, rows: Sequence[Row]) -> str:
    """Tell what the right answers are."""
    if isinstance(task, GenerationTask):
        words = [len(task.target(row).split()) for row in rows]
        return f"Right answers of {sum(words) / len(words):.0f} words on average, {max(words):,} at most."
    counts = Counter(label for row in rows for label in task.labels_of(row))
    if not counts:
        numbers = [task.target(row) for row in rows]
        return f"Numbers from {min(numbers):g} to {max(numbers):g}, {sum(numbers) / len(numbers):.3g} on average."
    shown = ", ".join(f"{' '.join(label.split())} {count:,}" for label, count in counts.most_common(SHOWN_CLASSES))
    more = f" and {len(counts) - SHOWN_CLASSES} more" if len(counts) > SHOWN_CLASSES else ""
    return f"{len(counts)} classes: {shown}{more}."
