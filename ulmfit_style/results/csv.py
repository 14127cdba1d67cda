"""Results as csv files, and answers beside what they answer."""

import csv
import json
import re
from collections.abc import Collection, Mapping
from itertools import count
from pathlib import Path
from typing import IO, Any

from ulmfit_style.artefacts.directory import whole
from ulmfit_style.console import say_once
from ulmfit_style.results.parts import Table


def write(path: Path, table: Table) -> None:
    """Write the header and rows of a table, numbers with all their digits; the file is there whole or not at all."""
    with whole(path) as file:
        csv.writer(file).writerows([table.header, *table.rows])


def write_records(records: Collection[Mapping[str, Any]], file: IO[str]) -> None:
    """Write records, which are read twice, under the columns that any has; lists and groups become JSON."""
    writer = csv.DictWriter(file, list(dict.fromkeys(name for record in records for name in record)))
    writer.writerow({name: guarded(name) for name in writer.fieldnames})
    for record in records:
        cells = {name: as_json(cell) if isinstance(cell, list | dict) else cell for name, cell in record.items()}
        writer.writerow({name: guarded(cell) for name, cell in cells.items()})


def beside(fields: Mapping[str, Any], answer: Mapping[str, Any]) -> dict[str, Any]:
    """Return an answer after the fields of its input, which get other names where they are called as one of its own."""
    names = {name: _free(f"input_{name}", fields) if name in answer else name for name in fields}
    return {**{names[name]: value for name, value in fields.items()}, **answer}


def _free(name: str, taken: Collection[str]) -> str:
    """Return a name, or where it is taken the first of those with a number after it that is not."""
    return next(free for number in count(1) if (free := name if number == 1 else f"{name}_{number}") not in taken)


def guarded(cell: Any) -> Any:
    """Put a `'` before a text that a spreadsheet would run as a formula: a text may come from anyone."""
    if not (isinstance(cell, str) and re.match(r"[=+@\t\r]|-(?![\d.]+$)", cell)):
        return cell
    say_once("predict: cells that a spreadsheet would run begin with '; .jsonl has them as they are")
    return f"'{cell}"


def as_json(value: Any) -> str:
    """Return a value as JSON; dates and the like, which a parquet file may hold, become text."""
    return json.dumps(value, ensure_ascii=False, default=str)
