"""Which columns of a file hold what a task needs: named by the user, or identified by their names."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial

from ulmfit_style.config.section import AS_FOUND, FileFormat
from ulmfit_style.console import say
from ulmfit_style.data import reading
from ulmfit_style.data.formats import Record
from ulmfit_style.errors import UserError, listed, nearest, together
from ulmfit_style.tasks.base import Column, Name, Row, Task


def find(option: str, reference: str, columns: Mapping[str, Column], present: Sequence[str]) -> dict[str, Name]:
    """Return the name of each field's column in a file, and say which columns were identified.

    Args:
        option: The config field that names the file, for messages.
        present: The columns that the file has.

    Raises:
        UserError: if a field's column cannot be identified.
    """
    names: dict[str, Name] = {}
    identified, problems = [], []
    for field, column in columns.items():
        candidates = _known(column, present)
        if column.name is not None:
            names[field] = column.name  # the reader says when it is missing
            if not isinstance(column.name, str) and field != "label":
                identified.append(f"{' and '.join(column.name)}, with a line break between them, as the {field}")
        elif len(candidates) == 1:
            names[field] = candidates[0]
            identified.append(f"column '{candidates[0]}' as the {field}")
        elif candidates or column.needed:
            problem = _unclear(field, candidates, present, f"name it with {column.option}=<column>")
            problems.append(f"{option}={reference}: {problem}{'' if candidates else column.hint}")
    if problems:
        raise together(f"{option}={reference}", problems)
    if identified:
        say(f"{option}={reference}: using {' and '.join(identified)}")
    return names


def find_inputs(task: Task, present: Sequence[str], source: str) -> dict[str, Name]:
    """Return which column holds each field of a row to be answered.

    It may have the name that it had in training, or the field's own, or another one by which it is identified.

    Args:
        present: The columns that there are.
        source: What has them, for error messages.

    Raises:
        UserError: if a field's column cannot be identified.
    """
    names: dict[str, Name] = {}
    for field, column in task.inputs().items():
        by_field = [name for name in (column.name, field) if name is not None and _is_in(name, present)]
        candidates: list[Name] = by_field[:1] or [*_known(column, present)]
        if len(candidates) != 1:
            name = column.name if isinstance(column.name, str) else field
            remedy = f"call it '{name}'{nearest(name, present)}"
            raise UserError(f"{source}: {_unclear(field, candidates, present, remedy)}")
        names[field] = candidates[0]
    return names


def read_inputs(task: Task, option: str, path: str, form: FileFormat = AS_FOUND) -> Iterator[tuple[Row, Record]]:
    """Yield the rows of a file that are to be answered, each beside what the file holds of it.

    Args:
        option: What names the file, for error messages.

    Raises:
        UserError: as `reading.read`, or if a row cannot be answered.
    """
    source = f"{option}={path}"
    for row, record in reading.read(option, path, partial(find_inputs, task, source=source), form=form):
        yield task.answerable(row, f"{source}: {row.place}: "), record


def _is_in(name: Name, present: Sequence[str]) -> bool:
    names = [name] if isinstance(name, str) else name
    return all(part in present or part.partition(".")[0] in present for part in names)  # a column, or one within it


def _known(column: Column, present: Sequence[str]) -> list[str]:
    return [name for name in present if name.strip().casefold() in column.known]


def _unclear(field: str, candidates: Sequence[Name], present: Sequence[str], remedy: str) -> str:
    """Return why a field's column cannot be identified, and what to do."""
    if candidates:
        return f"more than one column could be the {field} ({', '.join(map(str, candidates))}); {remedy}"
    return f"no column could be identified as the {field}; {remedy} (columns: {listed(present)})"
