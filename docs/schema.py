"""JSON schemas of the YAMLs of `conf/`, for editors: `python docs/schema.py` writes them to `conf/schema/`.

An editor with a YAML language server completes and checks a file that begins with
`# yaml-language-server: $schema=../schema/task.json`. A test holds the files equal to the sections of the config.
"""

import json
from typing import Any

from ulmfit_style.cli import CONF
from ulmfit_style.data.new_task import kinds
from ulmfit_style.recipe import Config, section_of
from ulmfit_style.tasks.base import Task

FOLDER = CONF / "schema"

DEFAULTS = {
    "type": "array",
    "description": "The YAMLs that this one is laid over, as Hydra's defaults lists have them.",
}

PLAIN = [{"type": "string"}, {"type": "number"}, {"type": "array"}]
"""What is taken for a list or a mapping too: a single value, a file's name, a choice of values."""


def schemas() -> dict[str, Any]:
    """Return the schema of each group's YAMLs, and of a whole recipe's, `experiment`."""
    tasks = {kind.__name__: _of_task(kind) for kind in sorted(kinds(), key=lambda kind: kind.__name__)}
    definitions = tasks | {name: part for task in tasks.values() for name, part in task.pop("$defs", {}).items()}
    any_task = [{"$ref": f"#/$defs/{name}"} for name in tasks]
    task = {"anyOf": any_task, "$defs": definitions}
    whole = _relaxed(Config.model_json_schema())
    whole["$defs"] |= definitions
    whole["properties"] |= {"task": {"anyOf": [*any_task, {"type": "null"}]}, "defaults": DEFAULTS}
    groups = {group: section_of(group, Task) for group in Config.model_fields if (CONF / group).is_dir()}
    alone = {group: _relaxed(section.model_json_schema()) for group, section in groups.items() if section}
    for schema in alone.values():
        schema["properties"]["defaults"] = DEFAULTS
    return {**alone, "task": task, "experiment": whole}


def _of_task(kind: type[Task]) -> dict[str, Any]:
    schema = _relaxed(kind.model_json_schema())
    target = {"const": f"{kind.__module__}.{kind.__qualname__}", "description": "The kind of task."}
    # By its target an editor knows which kind is meant; without one, a recipe changes options of whichever it is.
    return {**schema, "properties": {"_target_": target, "defaults": DEFAULTS, **schema["properties"]}}


def _relaxed(schema: Any) -> Any:
    """Return a schema that requires nothing, for a YAML may leave all to others, and takes single values for lists."""
    if isinstance(schema, list):
        return [_relaxed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    relaxed = {key: _relaxed(part) for key, part in schema.items() if key not in ("required", "title")}
    for name, part in relaxed.get("properties", {}).items():
        relaxed["properties"][name] = _or_plain(part)
    if isinstance(relaxed.get("additionalProperties"), dict):
        relaxed["additionalProperties"] = _or_plain(relaxed["additionalProperties"])
    return relaxed


def _or_plain(schema: dict[str, Any]) -> dict[str, Any]:
    """Return a schema that takes a plain value too, where it takes a list or a section."""
    alternatives = schema.get("anyOf", [schema])
    if not any(part.get("type") in ("array", "object") or "$ref" in part for part in alternatives):
        return schema
    told = {key: schema[key] for key in ("description", "default") if key in schema}
    return {**told, "anyOf": [*({key: part[key] for key in part if key not in told} for part in alternatives), *PLAIN]}


def text(schema: Any) -> str:
    """Return a schema as its file holds it."""
    return json.dumps(schema, indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, schema in schemas().items():
        (FOLDER / f"{name}.json").write_text(text(schema), encoding="utf-8")
