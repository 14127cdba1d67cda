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
            table = RichTable(title=escape(part.title) or None, title_justify="left")
            for column, name in enumerate(part.header):
                table.add_column(escape(name), justify="right" if part.is_number(column) else "left", overflow="fold")
            for row in part.rows:
                table.add_row(*(escape(as_text(cell)) for cell in row))
            console.OUT.print(table)
