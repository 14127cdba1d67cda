"""new-task: looks at a file of rows with their right answers, and writes the YAML of its task, with comments."""

import re
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib import import_module
from inspect import isabstract
from itertools import islice
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

import yaml

from ulmfit_style import tasks
from ulmfit_style.cli import CONF
from ulmfit_style.config.section import FileFormat
from ulmfit_style.console import say
from ulmfit_style.data import columns, conll, labelled, reading
from ulmfit_style.data.formats import Record
from ulmfit_style.errors import UserError, listed, nearest
from ulmfit_style.tasks.base import COLUMNS, Column, Row, Task
from ulmfit_style.tasks.base_text import label_name
from ulmfit_style.tasks.files import Splits
from ulmfit_style.tasks.multi_label_classification import GIVEN, MultiLabelClassification
from ulmfit_style.words import apart

OPTIONS = ("path", "name", "text", "text_pair", "label", "format")
FOLDER = Path("conf")
SHOWN_CLASSES = 20
"""How many classes are listed, from the most frequent down."""


def run(arguments: Sequence[str]) -> None:
    """Write `conf/task/<name>.yaml` of the working directory for the file `path`; without labels, a corpus.

    Args:
        arguments: `path=<file>` and `name=<name>`; `text=`, `text_pair=` and `label=` name columns that cannot be
            identified by their own names; `format=` is what `task.format` takes.

    Raises:
        UserError: if an argument is wrong, there is such a task, or the file cannot be learnt from.
    """
    options = _options(arguments)
    for folder in [root / group for root in (FOLDER, CONF) for group in ("task", "corpus")]:
        if (existing := folder / f"{options['name']}.yaml").exists():
            raise UserError(f"new-task: name={options['name']}: {existing} exists already; choose another name")
    form = FileFormat.model_validate(options.get("format", {}))
    files = Splits.model_validate(options["path"])
    path, name = files.train or "", str(files)
    if isinstance(options["path"], str) and files.train != options["path"]:  # a folder of splits
        members = set(map(str, Path(options["path"]).expanduser().glob("[!.]*")))
        if others := sorted(members - set(files.all_files())):
            say(f"new-task: not read, because their names hold no split: {listed(others)}")
    first_row = reading.first("path", path, form)
    found = _by_columns(name, options, first_row) or _by_values(name, path, form, options, first_row)
    if found is None:
        _write_corpus(options, files, form, first_row)
        return
    kind, settings = found
    task = kind.model_validate({"path": files.files(), "format": form, **settings})
    what = (kind.__doc__ or "").partition(".")[0]
    say(f"new-task: {name} is taken for task={kind.__module__.rpartition('.')[2]}: {what[:1].lower()}{what[1:]}")
    rows = labelled.load(task)
    used = [part for value in settings.values() for part in ([value] if isinstance(value, str) else value)]
    unused = [name for name in first_row if not any(f"{part}.".startswith(f"{name}.") for part in used)]
    _write(options, "task", _yaml(task, settings, rows.pool + rows.scored, unused), "adapt finetune")


def _write(options: Mapping[str, Any], group: str, text: str, command: str) -> None:
    """Write a YAML of a group, and say what to do with it."""
    target = FOLDER / group / f"{options['name']}.yaml"
    target.parent.mkdir(parents=True, exist_ok=True)
    schema, typed = Path("schema", f"{group}.json"), f"make {command}"
    target.write_text(f"# yaml-language-server: $schema={Path('..') / schema}\n{text}", encoding="utf-8")
    if CONF.resolve() != FOLDER.resolve():
        typed = f"ulmfit-style {command} --config-dir {FOLDER}"
        (FOLDER / schema).parent.mkdir(exist_ok=True)
        shutil.copyfile(CONF / schema, FOLDER / schema)
    say(f"new-task: wrote {target}; look at it, then:\n  {typed} {group}={options['name']}")


def _write_corpus(options: Mapping[str, Any], files: Splits, form: FileFormat, first_row: Record) -> None:
    """Write the YAML of a corpus, for rows without labels."""
    wanted = {"text": Column("text", options.get("text"), COLUMNS["text"])}
    named = columns.find("path", str(files), wanted, list(first_row))
    sample = [record for _, record in islice(reading.read("path", files.all_files(), lambda _: {}, form=form), 1000)]
    lines = [line for record in sample if (line := str(record.get("text")).strip())]
    if lines and all(conll.TAGGED.fullmatch(line) or line.startswith("__label__") for line in lines):
        raise UserError(f"path={files}: each line has a label; words with tags are read by format=conll, others as csv")
    seen = {name: {str(record.get(name)) for record in sample} for name in first_row if name != named["text"]}
    if label := next((name for name, values in seen.items() if 1 < len(values) <= len(sample) / 2), None):
        remedy = f"label={label} makes a task of it; for unlabelled text, remove that column"
        raise UserError(f"path={files}: column '{label}' may be the label, because its values repeat; {remedy}")
    doubt = f"; if one of its other columns is the label, say which: label={next(iter(seen))}" if seen else ""
    say(f"new-task: {files} is taken for text without labels, so for a corpus{doubt}")
    values = _dumped({"path": files.all_files(), "text": named["text"]}, form)
    head = f"# {options['name']}: text without labels\n# document: paragraph # or file, or line, of txt and md files"
    _write(options, "corpus", f"{head}\n{values}\n", "adapt task=none")


def kinds() -> list[type[Task]]:
    """Return the kinds of task that there are: every class of the modules of `ulmfit_style.tasks` that can be used."""
    modules = [import_module(f"{tasks.__name__}.{module.name}") for module in iter_modules(tasks.__path__)]
    classes = [value for module in modules for value in vars(module).values() if isinstance(value, type)]
    return [kind for kind in dict.fromkeys(classes) if issubclass(kind, Task) and not isabstract(kind)]


def _by_columns(path: str, options: Mapping[str, Any], first_row: Record) -> tuple[type[Task], dict[str, str]] | None:
    """Return the kind of task that the names of a file's columns tell, and its settings; None where they do not."""
    if options.keys() & {"text", "label"}:
        return None
    names = _by_lower_case(first_row)
    fitting = {kind: found for kind in kinds() if (found := kind.recognised(names, first_row)) is not None}
    if not fitting:
        return None
    (kind, settings), *others = fitting.items()
    if others:
        names_of_others = " or ".join(other.__name__ for other, _ in others)
        say(f"new-task: the columns fit {kind.__name__}, which is taken, and {names_of_others} too")
    wanted = kind.model_validate({"path": path, **settings}).columns()
    present = columns.find("path", path, wanted, list(first_row))
    named = {wanted[field].option.removeprefix("task."): str(name) for field, name in present.items()}
    return kind, {**named, **settings}


def _by_lower_case(row: Record) -> dict[str, str]:
    return {name.strip().casefold(): name for name in row}


def _by_values(
    name: str, path: reading.References, form: FileFormat, options: Mapping[str, Any], first_row: Record
) -> tuple[type[Task], dict[str, Any]] | None:
    """Return the kind of task that texts and labels look like, and its settings; None where there are no labels."""
    candidates = [kind for kind in kinds() if {"text", "label"} <= kind.model_fields.keys()]
    lower = _by_lower_case(first_row)
    pair = next(([lower[part] for part in pair] for pair in COLUMNS["pairs"] if set(pair) <= lower.keys()), [])
    chosen = {**dict(zip(("text", "text_pair"), pair, strict=False)), **options}
    known = [kind.model_validate({"path": None}).columns() for kind in candidates]
    names = {field: sorted({name for each in known for name in each[field].known}) for field in ("text", "label")}
    wanted = {field: Column(field, chosen.get(field), names[field]) for field in names}
    if "text_pair" in chosen:
        wanted["text_pair"] = Column("text_pair", chosen["text_pair"])
    if wanted["label"].name is None and not lower.keys() & set(wanted["label"].known):
        del wanted["label"]
        records = [record for _, record in reading.read("path", path, lambda _: {}, form=form)]
        by_label = [column for column in first_row if all(label_name(row.get(column)) in GIVEN for row in records)]
        if len(by_label) < 2:
            return None
        settings = columns.find("path", name, wanted, list(first_row))
        say(f"new-task: the columns {', '.join(by_label)} hold 0 or 1, and are taken for a label each")
        return MultiLabelClassification, {**settings, "label": by_label}
    settings = columns.find("path", name, wanted, list(first_row))
    rows = [row.fields for row, _ in reading.read("path", path, lambda _: settings, form=form)]
    texts, labels = ([row[field] for row in rows] for field in ("text", "label"))
    kind = max(candidates, key=lambda candidate: candidate.match_score(texts, labels))
    if not settings.keys() <= kind.model_fields.keys():
        raise UserError(f"new-task: text_pair={settings['text_pair']}: rows of {kind.__name__} have no second text")
    if told := kind.settings_by(labels):
        said = ", ".join(f"{option}: {value!r}" for option, value in told.items())
        say(f"new-task: the labels look like {said}; change it in the YAML if it is not so")
    return kind, {**settings, **told}


def _options(arguments: Sequence[str]) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if key not in OPTIONS or not equals or not value:
            known = f"(options: {', '.join(f'{name}=...' for name in OPTIONS)})"
            raise UserError(f"new-task: {argument}: there is no such option{nearest(key, OPTIONS)} {known}")
        options[key] = yaml.safe_load(value) if value[0] in "[{" else value
    if not {"path", "name"} <= set(options):
        raise UserError("new-task: needs path=<file of labelled texts> name=<what to call the task>")
    if not re.fullmatch(r"\w[\w-]*", options["name"]):
        raise UserError(f"new-task: name={options['name']}: a name consists of letters, digits, - and _")
    return options


def _dumped(values: Mapping[str, Any], form: FileFormat) -> str:
    given = {"format": form.determinants()} if form.determinants() else {}
    return yaml.safe_dump({**values, **given}, allow_unicode=True, sort_keys=False, width=1000).rstrip()


def _yaml(task: Task, settings: Mapping[str, Any], rows: Sequence[Row], unused: Sequence[str]) -> str:
    """Return the YAML; `settings` name the columns that are used, `unused` are the others."""
    words = [sum(len(apart(text).split()) for text in task.texts(row)) for row in rows]
    lines = [
        f"# {len(rows):,} texts of {sum(words) / len(words):.0f} words on average, {max(words):,} at most.",
        "# finetune.max_length counts tokens, of which a word has one or more.",
        f"_target_: {type(task).__module__}.{type(task).__qualname__}",
        _dumped({"path": task.model_dump(mode="json")["path"], **settings}, task.format),
    ]
    if counts := Counter(label for row in rows for label in task.labels_of(row)):
        most = [f"{' '.join(label.split())} {count:,}" for label, count in counts.most_common(SHOWN_CLASSES)]
        lines.insert(2, f"# {len(counts)} classes: {', '.join(most)}{', ...' if len(counts) > len(most) else ''}")
    if unused and "group" not in settings:
        lines.append(f"# group: {unused[0]} # no value of this column on two sides; columns: {', '.join(unused)}")
    lines.append("# train_samples: 100 # labelled rows to use, every class first; or shots: 10, of each class")
    return "\n".join([*lines, ""])
