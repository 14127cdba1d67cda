"""Results as csv files."""

import csv
from pathlib import Path

from ulmfit_style.artefacts.directory import whole
from ulmfit_style.results.parts import Table


def write(path: Path, table: Table) -> None:
    """Write the header and rows of a table, numbers with all their digits; the file is there whole or not at all."""
    with whole(path) as file:
        csv.writer(file).writerows([table.header, *table.rows])
