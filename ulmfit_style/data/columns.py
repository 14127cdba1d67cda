"""Which columns of a file hold what a task needs: named by the user, or found by names that leave no doubt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ulmfit_style.console import say
from ulmfit_style.data.reading import composed, header
from ulmfit_style.errors import UserError, nearest, together
from ulmfit_style.tasks.base import Column, Task


def find(option: str, reference: str, columns: Mapping[str, Column]) -> dict[str, str]:
    """Return the name of each column in a file, and say in one line which were found.

    Args:
        option: The config field that names the file, for messages.

    Raises:
        UserError: if the file cannot be read, or no column, or more than one, is surely what is looked for.
    """
    there = header(option, reference)
    names, found, problems = {}, [], []
    for field, column in columns.items():
        if column.name is not None:
            names[field] = composed(column.name)  # the reader says when it is missing
            continue
        likely = [name for name in there if name.strip().casefold() in column.known]
        if len(likely) == 1:
            names[field] = likely[0]
            found.append(f"the {field} is column '{likely[0]}'")
        elif likely or column.needed:
            problems.append(f"{option}={reference}: {_unclear(field, column, likely, there)}")
    if problems:
        raise together(f"{option}={reference}", problems)
    if found:
        say(f"{option}={reference}: {' and '.join(found)}, by its name")
    return names


def find_inputs(task: Task, there: Sequence[str], source: str) -> dict[str, str]:
    """Return which column holds each field of a row to be answered.

    It may have the name that it had in training, or the field's own, or another one that leaves no doubt.

    Args:
        there: The columns that there are.
        source: What has them, for error messages.

    Raises:
        UserError: if no column, or more than one, is surely what is looked for.
    """
    names = {}
    for field, column in task.inputs().items():
        likely = [name for name in (column.name, field) if name is not None and name in there][:1]
        likely = likely or [name for name in there if name.strip().casefold() in column.known]
        if len(likely) != 1:
            name = column.name or field
            problem = f"no column is surely the {field}; call it '{name}'{nearest(name, there)}"
            raise UserError(f"{source}: {problem} (there are: {', '.join(there)})")
        names[field] = likely[0]
    return names


def _unclear(field: str, column: Column, likely: Sequence[str], there: Sequence[str]) -> str:
    if likely:
        either = " and ".join(f"'{name}'" for name in likely)
        return f"{either} may both be the {field}; say which one: {column.option}={likely[0]}"
    remedy = f"name it: {column.option}=<column> (there are: {', '.join(there)}){column.hint}"
    return f"no column is surely the {field}; {remedy}"
