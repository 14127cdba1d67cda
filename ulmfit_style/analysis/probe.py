"""The names probe: whether a model's answers depend on whose name stands in a text.

It needs no group column. The rows' own texts are asked twice, with names and pronouns as they stand and exchanged, and
what changes is the model's doing (a counterfactual test: Garg et al. 2019, section 3). The words are English.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from rich.table import Table

from ulmfit_style.console import say, show
from ulmfit_style.errors import UserError
from ulmfit_style.tasks.base import Answer, Row, Task
from ulmfit_style.tasks.text import LabelTask

WHITE_WOMEN = ("Allison", "Anne", "Carrie", "Emily", "Jill", "Laurie", "Kristen", "Meredith", "Sarah")
WHITE_MEN = ("Brad", "Brendan", "Geoffrey", "Greg", "Brett", "Jay", "Matthew", "Neil", "Todd")
BLACK_WOMEN = ("Aisha", "Ebony", "Keisha", "Kenya", "Lakisha", "Latonya", "Latoya", "Tamika", "Tanisha")
BLACK_MEN = ("Darnell", "Hakim", "Jamal", "Jermaine", "Kareem", "Leroy", "Rasheed", "Tremayne", "Tyrone")
"""First names that told employers most clearly whose they are (Bertrand and Mullainathan 2004, table 8)."""

WORDS = (
    *(("he", "she"), ("himself", "herself"), ("man", "woman"), ("men", "women"), ("boy", "girl"), ("boys", "girls")),
    *(("father", "mother"), ("dad", "mom"), ("son", "daughter"), ("sons", "daughters"), ("brother", "sister")),
    *(("brothers", "sisters"), ("husband", "wife"), ("uncle", "aunt"), ("king", "queen"), ("actor", "actress")),
    *(("actors", "actresses"), ("male", "female"), ("gentleman", "lady"), ("mr", "ms"), ("sir", "madam")),
)

Swaps = Mapping[str, str]


def _both_ways(*pairs: tuple[str, str]) -> dict[str, str]:
    return {**dict(pairs), **{second: first for first, second in pairs}}


_NOT_BOTH_WAYS = {"him": "her", "his": "her", "hers": "his", "her": "him"}
"""But before a word, her is his."""

SWAPS: Mapping[str, Swaps] = {
    "women's and men's names and words": {
        **_both_ways(*WORDS, *zip(WHITE_WOMEN, WHITE_MEN, strict=True), *zip(BLACK_WOMEN, BLACK_MEN, strict=True)),
        **_NOT_BOTH_WAYS,
    },
    "white and black Americans' names": _both_ways(*zip(WHITE_WOMEN + WHITE_MEN, BLACK_WOMEN + BLACK_MEN, strict=True)),
}
"""What is exchanged, word for word. Names count with a capital alone, for some are words too."""


def check(task: Task) -> None:
    """Check that a task's answers can flip.

    Raises:
        UserError: if they are not labels.
    """
    if not isinstance(task, LabelTask):
        raise UserError(f"evaluate.probe=names: counts labels that change, and {type(task).__name__} answers none")


def exchanged(text: str, swaps: Swaps) -> str:
    """Return a text with words exchanged, each written as the one that stood there: he, He or HE."""

    def other(match: re.Match[str]) -> str:
        word = match[0]
        found = swaps.get(word.lower()) or swaps.get(word.capitalize()) if word[0].isupper() else swaps.get(word)
        if found is None:
            return word
        if word.lower() == "her" and re.match(r"\s+\w", text[match.end() :]):
            found = "his"
        return found.upper() if word.isupper() and len(word) > 1 else found.capitalize() if word[0].isupper() else found

    return re.sub(r"[A-Za-z]+", other, text)


def measure(task: Task, ask: Callable[[Sequence[Row]], Iterable[Answer]], rows: Sequence[Row]) -> dict[str, Any]:
    """Return of each exchange how many rows it changes, and which share of them is then answered otherwise.

    Args:
        ask: The model's answers to rows.
    """
    from scipy.stats import binomtest

    assert isinstance(task, LabelTask)  # it was checked
    found: dict[str, Any] = {}
    for name, swaps in SWAPS.items():
        pairs = [(row, other) for row in rows if (other := _exchanged(task, row, swaps)) != row]
        answers = [list(ask(side)) for side in zip(*pairs, strict=True)]
        flips = [first[task.answer_field] != second[task.answer_field] for first, second in zip(*answers, strict=True)]
        flipped = [
            {
                "row": row.place,
                "texts": task.texts(other),
                "before": first[task.answer_field],
                "after": second[task.answer_field],
            }
            for flip, (row, other), first, second in zip(flips, pairs, *(answers or ([], [])), strict=True)
            if flip
        ]
        found[name] = {"rows": len(pairs), "share": None, "interval": None, "flipped": flipped}
        if flips:
            # By Wilson: where nothing flips, the bootstrap would be sure that nothing ever does.
            interval = binomtest(sum(flips), len(flips)).proportion_ci(method="wilson")
            found[name] |= {"share": sum(flips) / len(flips), "interval": [float(bound) for bound in interval]}
    return found


def _exchanged(task: LabelTask, row: Row, swaps: Swaps) -> Row:
    fields = {name: exchanged(text, swaps) for name, text in zip(task.inputs(), task.texts(row), strict=True)}
    return Row(row.file, row.number, {**row.fields, **fields})


def tell(probed: Mapping[str, Mapping[str, Any]]) -> None:
    """Print for each model which share of the rows flips.

    Args:
        probed: What `measure` found, by the names of the models.
    """
    table = Table(title="answers that change when names and words are exchanged", title_justify="left")
    table.add_column("exchanged")
    table.add_column("model")
    for column in ("rows", "changed", "95 % interval"):
        table.add_column(column, justify="right")
    for name in SWAPS:
        for model, found in probed.items():
            one = found[name]
            if one["rows"]:
                low, high = one["interval"]
                table.add_row(name, model, f"{one['rows']:,}", f"{one['share']:.3f}", f"{low:.3f} to {high:.3f}")
    if table.row_count:
        show(table)
    for name, one in next(iter(probed.values())).items():
        if not one["rows"]:
            say(f"No row holds {name}, as ulmfit_style/analysis/probe.py lists them.")
