"""Results as Markdown, for the model card."""

import re
from collections.abc import Sequence

from ulmfit_style.results.parts import Cell, Table, as_text


def table(table: Table) -> str:
    """Return a table, with its header and without its title."""
    rules = ["---:" if table.is_number(column) else "---" for column in range(len(table.header))]
    return "\n".join([_line(table.header), f"| {' | '.join(rules)} |", *map(_line, table.rows)])


def escaped(text: str) -> str:
    """Return a text on one line that is no link, no HTML and no code, and ends no cell."""
    return re.sub(r"([\\`\[<|])", r"\\\1", " ".join(text.split()))


def code(text: str) -> str:
    """Return a text as code on one line, which a bar does not end, nor a backtick of its own."""
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    space = " " if "`" in text else ""
    return f"{fence}{space}{' '.join(text.split())}{space}{fence}".replace("|", "\\|")


def _line(cells: Sequence[Cell]) -> str:
    return f"| {' | '.join(escaped(as_text(cell)) for cell in cells)} |"
