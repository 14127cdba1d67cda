"""new-task: looks at a file of rows with their right answers, and writes the YAML of its task, with comments."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib import import_module
from inspect import isabstract
from pathlib import Path
from pkgutil import iter_modules

import yaml

from ulmfit_style import tasks
from ulmfit_style.cli import CONF
from ulmfit_style.console import say
from ulmfit_style.data import columns, labelled, reading
from ulmfit_style.data.formats import Record
from ulmfit_style.errors import UserError, nearest
from ulmfit_style.tasks.base import Column, Row, Task
from ulmfit_style.tasks.base_text import separator_in

OPTIONS = ("path", "name", "text", "text_pair", "label")
FOLDER = Path("conf/task")
SHOWN_CLASSES = 20
"""How many classes are listed, from the most frequent down."""


def run(arguments: Sequence[str]) -> None:
    """Write `conf/task/<name>.yaml` of the working directory for the file `path`.

    Args:
        arguments: `path=<file>` and `name=<name>`; `text=`, `text_pair=` and `label=` name columns that cannot be
            identified by their own names.

    Raises:
        UserError: if an argument is wrong, there is such a task, or the file cannot be learnt from.
    """
    options = _options(arguments)
    target = FOLDER / f"{options['name']}.yaml"
    for existing in (target, CONF / "task" / target.name):
        if existing.exists():
            raise UserError(f"new-task: name={options['name']}: {existing} exists already; choose another name")
    path = options["path"]
    first_row = reading.first("path", path)
    kind, settings = _by_columns(path, options, first_row) or _by_values(path, options, first_row)
    task = kind.model_validate({"path": path, **settings})
    rows = labelled.load(task)
    every_row = rows.pool if rows.folds else [*rows.pool, *rows.validation, *rows.test]
    unused = [name for name in first_row if name not in settings.values()]
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(_yaml(task, settings, every_row, unused), encoding="utf-8")
    is_shipped = CONF.resolve() == FOLDER.parent.resolve()
    command = "make adapt finetune" if is_shipped else f"ulmfit-style adapt finetune --config-dir {FOLDER.parent}"
    say(f"new-task: wrote {target}; look at it, then:\n  {command} task={options['name']}")


def kinds() -> list[type[Task]]:
    """Return the kinds of task that there are: every class of the modules of `ulmfit_style.tasks` that can be used."""
    modules = [import_module(f"{tasks.__name__}.{module.name}") for module in iter_modules(tasks.__path__)]
    classes = [value for module in modules for value in vars(module).values() if isinstance(value, type)]
    return [kind for kind in dict.fromkeys(classes) if issubclass(kind, Task) and not isabstract(kind)]


def _by_columns(path: str, options: Mapping[str, str], first_row: Record) -> tuple[type[Task], dict[str, str]] | None:
    """Return the kind of task that the names of a file's columns tell, and its settings; None where they do not."""
    if options.keys() & {"text", "label"}:
        return None
    names = {name.strip().casefold(): name for name in first_row}
    recognised = {kind: kind.recognised(names, first_row) for kind in kinds()}
    fitting = {kind: settings for kind, settings in recognised.items() if settings is not None}
    if not fitting:
        return None
    (kind, settings), *others = fitting.items()
    if others:
        names_of_others = " or ".join(other.__name__ for other, _ in others)
        say(f"new-task: the columns fit {kind.__name__}, which is taken, and {names_of_others} too")
    wanted = kind.model_validate({"path": path, **settings}).columns()
    present = columns.find("path", path, wanted, list(first_row))
    named = {wanted[field].option.removeprefix("task."): name for field, name in present.items()}
    return kind, {**named, **settings}


def _by_values(path: str, options: Mapping[str, str], first_row: Record) -> tuple[type[Task], dict[str, str]]:
    """Return the kind of task that texts and labels look like, and the columns that hold them."""
    candidates = [kind for kind in kinds() if {"text", "label"} <= kind.model_fields.keys()]
    wanted = {}
    for field in ("text", "label"):
        known = {name for kind in candidates for name in kind.model_validate({"path": path}).columns()[field].known}
        wanted[field] = Column(field, options.get(field), sorted(known))
    if "text_pair" in options:
        wanted["text_pair"] = Column("text_pair", options["text_pair"])
    settings = columns.find("path", path, wanted, list(first_row))
    rows = list(reading.rows("path", path, list(settings.values())))
    texts, labels = ([row.fields[settings[field]] for row in rows] for field in ("text", "label"))
    kind = max(candidates, key=lambda candidate: candidate.match_score(texts, labels))
    if not settings.keys() <= kind.model_fields.keys():
        raise UserError(f"new-task: text_pair={settings['text_pair']}: rows of {kind.__name__} have no second text")
    if "label_separator" in kind.model_fields and (separator := separator_in(labels)):
        say(f"new-task: the labels of a row seem to have '{separator}' between them (label_separator)")
        settings["label_separator"] = separator
    return kind, settings


def _options(arguments: Sequence[str]) -> dict[str, str]:
    options = {}
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if key not in OPTIONS or not equals or not value:
            known = f"(options: {', '.join(f'{name}=...' for name in OPTIONS)})"
            raise UserError(f"new-task: {argument}: there is no such option{nearest(key, OPTIONS)} {known}")
        options[key] = value
    if not {"path", "name"} <= set(options):
        raise UserError("new-task: needs path=<file of labelled texts> name=<what to call the task>")
    if not re.fullmatch(r"\w[\w-]*", options["name"]):
        raise UserError(f"new-task: name={options['name']}: a name consists of letters, digits, - and _")
    return options


def _yaml(task: Task, settings: dict[str, str], rows: Sequence[Row], unused: Sequence[str]) -> str:
    """Return the YAML; `settings` name the columns that are used, `unused` are the others."""
    words = [sum(len(text.split()) for text in task.texts(row)) for row in rows]
    lines = [
        f"# {len(rows):,} texts of {sum(words) / len(words):.0f} words on average, {max(words):,} at most.",
        "# finetune.max_length counts tokens, of which a word has one or more.",
        f"_target_: {type(task).__module__}.{type(task).__qualname__}",
        yaml.safe_dump({"path": str(task.path), **settings}, allow_unicode=True, sort_keys=False, width=1000).rstrip(),
    ]
    counts = Counter(label for row in rows for label in task.labels_of(row))
    if counts:
        most = [f"{' '.join(label.split())} {count:,}" for label, count in counts.most_common(SHOWN_CLASSES)]
        lines.insert(2, f"# {len(counts)} classes: {', '.join(most)}{', ...' if len(counts) > len(most) else ''}")
    if unused and "group" not in settings:
        lines.append(f"# group: {unused[0]} # no value of this column on two sides; columns: {', '.join(unused)}")
    lines.append("# train_samples: 100 # labelled rows to use, every class first; or shots: 10, of each class")
    return "\n".join([*lines, ""])
