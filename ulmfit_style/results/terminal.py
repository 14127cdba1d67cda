"""Results on the terminal."""

from rich.markup import escape
from rich.table import Table as RichTable

from ulmfit_style import console
from ulmfit_style.results.parts import Prose, Table, as_text


def show(*parts: Prose | Table) -> None:
    """Print prose and tables, one after another."""
    for part in parts:
        if isinstance(part, Prose):
            console.say(part.text)
        else:
            console.OUT.print(_table(part))


def _table(table: Table) -> RichTable:
    rich = RichTable(title=escape(table.title) or None, title_justify="left")
    for column, name in enumerate(table.header):
        rich.add_column(escape(name), justify="right" if table.is_number(column) else "left", overflow="fold")
    for row in table.rows:
        rich.add_row(*(escape(as_text(cell)) for cell in row))
    return rich
