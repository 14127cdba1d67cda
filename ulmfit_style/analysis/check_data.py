"""check-data: tell what is wrong with labelled texts, row by row, before a model suffers from it."""

from collections.abc import Sequence

from ulmfit_style.artefacts import predictions
from ulmfit_style.cli.compose import compose
from ulmfit_style.console import say
from ulmfit_style.data import guard, labelled, pins
from ulmfit_style.results import csv, finished
from ulmfit_style.results.parts import Table


def run(overrides: Sequence[str]) -> None:
    """Print what is found in the labelled rows of a config, and write all of it to a csv file in `runs/<name>/`.

    Raises:
        UserError: if the rows cannot be read.
    """
    config = pins.pinned(compose(overrides))
    rows = labelled.load(config.require_task())
    found, folder = {**guard.findings(rows)}, config.runs / config.name
    if (made := finished.find(folder / "finetune")) is not None and made.determinants.get("data") == rows.digest:
        answers = [answer for split in ("validation", "test") for answer in predictions.read(made.directory, split)]
        if errors := guard.label_errors(answers):
            found["labels that are likely wrong, by the model"] = errors
    guard.tell(found)
    rows_found = [(what, *case) for what, cases in found.items() for case in cases]
    csv.write(folder / "check-data.csv", Table(("found", "row", "detail"), rows_found))
    say(f"All of these rows: {folder / 'check-data.csv'}")
