"""Results as Markdown, for the model card."""

from collections.abc import Sequence

from ulmfit_style.results.parts import Cell, Table, as_text


def table(table: Table) -> str:
    """Return a table, with its header and without its title."""
    rules = ["---:" if table.is_number(column) else "---" for column in range(len(table.header))]
    return "\n".join([_line(table.header), f"| {' | '.join(rules)} |", *map(_line, table.rows)])


def escaped(text: str) -> str:
    """Return a text as it can stand in a cell: on one line, without bars that would end the cell."""
    return " ".join(text.split()).replace("|", "\\|")


def _line(cells: Sequence[Cell]) -> str:
    return f"| {' | '.join(escaped(as_text(cell)) for cell in cells)} |"
