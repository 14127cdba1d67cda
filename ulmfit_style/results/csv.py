"""Results as csv files."""

import csv
from pathlib import Path

from ulmfit_style.results.parts import Table


def write(path: Path, table: Table) -> None:
    """Write the header and rows of a table, numbers with all their digits."""
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([table.header, *table.rows])
