"""The parts of the documentation that are made from the code: mkdocs calls the functions `on_...`.

A line `<!-- options -->` of a page becomes the tables of all options, `<!-- floors -->` the rooms of the house, and
`<!-- files -->` what the readers are tried on. A notebook becomes a page with the outputs that are stored in it, so
that no kernel is needed.
"""

import ast
import importlib.util
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import nbformat
import yaml
from pydantic_core import PydanticUndefined

from ulmfit_style.cli import CONF
from ulmfit_style.cli.compose import compose
from ulmfit_style.config.section import Section, spelled
from ulmfit_style.recipe import Config, section_of, task_class_of
from ulmfit_style.tasks.base import Task

ROOT = Path(__file__).parents[1]

NOTEBOOK = ".ipynb"

TYPES = {"string": "text", "integer": "whole number", "boolean": "true or false", "object": "keys and values"}
LIMITS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}


def on_files(files: Any, config: Any) -> Any:
    """Make a page of each notebook, which itself can be fetched from there, and one that lists the decisions."""
    from mkdocs.structure.files import File  # the tests of these pages have no mkdocs

    files.append(File.generated(config, "decisions.md", content="\n".join(decisions())))
    for file in [file for file in files if file.src_uri.endswith(NOTEBOOK)]:
        name = file.src_uri.removesuffix(NOTEBOOK) + ".md"
        files.append(File.generated(config, name, content=notebook(Path(file.abs_src_path))))
    return files


def decisions() -> Iterator[str]:
    """Yield the list of decisions, each with what it decided."""
    yield from ["# Decisions", "", "Each choice that a newcomer would question has half a page:", ""]
    for path in sorted(ROOT.glob("docs/adr/*.md")):
        title = path.read_text("utf-8").partition("\n")[0].removeprefix("# ")
        yield f"- [{title}](adr/{path.name})"


def notebook(path: Path) -> str:
    """Return the cells of a notebook as Markdown, each followed by what it gave when it was run."""
    cells = nbformat.read(path, as_version=4).cells
    return "\n\n".join(block for cell in cells for block in _blocks(cell))


def _blocks(cell: Any) -> Iterator[str]:
    if cell.cell_type == "markdown":
        yield cell.source
        return
    yield f"```python\n{cell.source}\n```"
    for output in cell.outputs:
        text = output["text"] if "text" in output else output["data"]["text/plain"]
        yield f"```text\n{text.rstrip()}\n```"


def on_page_markdown(markdown: str, **page: Any) -> str:
    """Fill in what comes from the code, and link the page of a notebook where it itself is linked."""
    markdown = markdown.replace(f"{NOTEBOOK})", ".md)")
    for mark, lines in (("<!-- options -->", options), ("<!-- floors -->", floors), ("<!-- files -->", files)):
        if mark in markdown:
            markdown = markdown.replace(mark, "\n".join(lines()))
    return markdown


def options() -> Iterator[str]:
    """Yield every option of the schema, with the value that it has in the shipped recipe, or in a sweep."""
    config = compose(["sweep=finetune"])
    values = config.model_dump(mode="json")
    yield from _table("Of every command", Config, {n: values[n] for n in values if section_of(n, Task) is None})
    for name in values:
        section = section_of(name, Task)
        if section is Task:
            yield from _tasks()
        elif section is not None:
            yield from _table(name, section, values[name])
    yield from ["## experiment", "", *_choices("experiment")]


def _tasks() -> Iterator[str]:
    """Yield the options that all kinds of tasks have, and those of some, together where they mean the same."""
    targets = {yaml.safe_load(path.read_text("utf-8")).get("_target_") for path in CONF.glob("task/*.yaml")}
    kinds = sorted((task_class_of(target) for target in targets if target), key=lambda kind: kind.__name__)
    having: dict[tuple[str, str | None], list[type[Task]]] = {}
    for kind in kinds:
        for name, field in kind.model_fields.items():
            having.setdefault((name, field.description), []).append(kind)
    groups: dict[tuple[type[Task], ...], dict[str, Any]] = {tuple(kinds): {}}
    for (name, _), those in having.items():
        groups.setdefault(tuple(those), {})[name] = those[0].model_fields[name].get_default()
    for those, values in groups.items():
        which = "" if len(those) == len(kinds) else f", when it is {' or '.join(kind.__name__ for kind in those)}"
        yield from _table(f"task{which}", those[0], values)


def _table(title: str, section: type[Section], values: Mapping[str, Any]) -> Iterator[str]:
    """Yield the table of the options that `values` holds."""
    group = title.partition(",")[0]
    yield from [f"## {title}", ""]
    if title == group and group != "task" and section is not Config:
        yield from [section.__doc__ or "", ""]
    if title == group:
        yield from _choices(group)
    yield from ["| option | what it takes | default | meaning |", "| --- | --- | --- | --- |"]
    properties = section.model_json_schema()["properties"]
    for name, value in values.items():
        key = name if section is Config else f"{group}.{name}"
        plain = value.determinants() if isinstance(value, Section) else value
        default = "required" if value is PydanticUndefined else f"`{spelled(plain)}`"
        meaning = " ".join((section.model_fields[name].description or "").split()).replace("|", "\\|")
        yield f"| `{key}` | {_type(properties[name])} | {default} | {meaning} |"
    yield ""


def _choices(group: str) -> Iterator[str]:
    """Yield the YAMLs of a group, each with its first comment."""
    for path in sorted(CONF.glob(f"{group}/*.yaml")):
        comments = [
            line for line in path.read_text("utf-8").splitlines() if re.match("# (?!@|yaml-language-server)", line)
        ]
        yield f"- `{group}={path.stem}`: {comments[0].removeprefix('# ')}"
    yield ""


def _type(schema: Mapping[str, Any]) -> str:
    """Say in words what a JSON schema allows."""
    if "anyOf" in schema:
        return " or ".join(map(_type, schema["anyOf"]))
    if "enum" in schema:
        return " or ".join(f"`{value}`" for value in schema["enum"])
    if "$ref" in schema:
        return {"Splits": "files"}.get(schema["$ref"].rpartition("/")[2], "an ending, or keys and values")
    if schema["type"] == "array":
        return f"list of {_type(schema.get('items') or schema['prefixItems'][0])}"
    limits = [f"{sign} {schema[name]}" for name, sign in LIMITS.items() if name in schema]
    return ", ".join([TYPES.get(schema["type"], schema["type"]), *limits])


def files() -> Iterator[str]:
    """Yield the tables of what is read and what is refused, of what tests/test_reading.py tries."""
    path = ROOT / "tests" / "readable.py"
    spec = importlib.util.spec_from_file_location("readable", path)
    assert spec is not None
    assert spec.loader is not None
    readable = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(readable)
    for title, tried in (("read", readable.READ), ("refused, with its place", readable.REFUSED)):
        yield from [f"| {title} | for example |", "| --- | --- |"]
        yield from (f"| {what} | `{name}` |" for what, (name, *_) in tried.items())
        yield ""


def floors() -> Iterator[str]:
    """Yield the table of floors as tests/test_house.py holds them, with what each room is for, from the top down."""
    tree = ast.parse((ROOT / "tests" / "test_house.py").read_text("utf-8"))
    listed = next(
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "FLOORS"
    )
    yield from ["| floor | room | what it is for |", "| --- | --- | --- |"]
    for number, rooms in reversed(list(enumerate(listed, start=1))):
        for room in sorted(rooms):
            file = ROOT / "ulmfit_style" / f"{room}.py"
            file = file if file.exists() else file.with_suffix("") / "__init__.py"
            purpose = (ast.get_docstring(ast.parse(file.read_text("utf-8"))) or "").partition("\n\n")[0]
            yield f"| {number} | `{room}` | {' '.join(purpose.split())} |"
