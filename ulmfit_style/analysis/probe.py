"""The names probe: whether a model's answers depend on whose name stands in a text.

It needs no group column. The rows' own texts are asked twice, with names and pronouns as they stand and exchanged, and
what changes is the model's doing (a counterfactual test: Garg et al. 2019, section 3). The words are English.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ulmfit_style.errors import UserError
from ulmfit_style.results import scores
from ulmfit_style.results.model import Prose, Table
from ulmfit_style.tasks.base import Answer, Row, Task

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
    if task.label_field is None:
        raise UserError(f"evaluate.probe=names: counts labels that change, and {type(task).__name__} answers none")


def exchanged(text: str, swaps: Swaps) -> str:
    """Return a text with words exchanged, each written as the one that stood there: he, He or HE."""

    def other(match: re.Match[str]) -> str:
        word = match[0]
        swap = swaps.get(word.lower()) or swaps.get(word.capitalize()) if word[0].isupper() else swaps.get(word)
        if swap is None:
            return word
        if word.lower() == "her" and re.match(r"\s+\w", text[match.end() :]):
            swap = "his"
        return swap.upper() if word.isupper() and len(word) > 1 else swap.capitalize() if word[0].isupper() else swap

    return re.sub(r"[A-Za-z]+", other, text)


def measure(task: Task, ask: Callable[[Sequence[Row]], Iterable[Answer]], rows: Sequence[Row]) -> dict[str, Any]:
    """Return of each exchange how many rows it changes, and which share of them is then answered otherwise.

    Args:
        ask: The model's answers to rows.
    """
    from scipy.stats import binomtest

    field = task.label_field
    measured: dict[str, Any] = {}
    for name, swaps in SWAPS.items():
        pairs = [(row, other) for row in rows if (other := _exchanged(task, row, swaps)) != row]
        answers = [list(ask(side)) for side in zip(*pairs, strict=True)] or [[], []]
        flipped = [
            {"row": row.place, "texts": task.texts(other), "before": before[field], "after": after[field]}
            for (row, other), before, after in zip(pairs, *answers, strict=True)
            if before[field] != after[field]
        ]
        measured[name] = {"rows": len(pairs), "share": None, "interval": None, "flipped": flipped}
        if pairs:
            # By Wilson: where nothing flips, the bootstrap would be sure that nothing ever does.
            interval = binomtest(len(flipped), len(pairs)).proportion_ci(method="wilson")
            share = len(flipped) / len(pairs)
            measured[name] |= {"share": share, "interval": [float(bound) for bound in interval]}
    return measured


def _exchanged(task: Task, row: Row, swaps: Swaps) -> Row:
    fields = {name: exchanged(text, swaps) for name, text in zip(task.inputs(), task.texts(row), strict=True)}
    return Row(row.file, row.number, {**row.fields, **fields})


def parts(probed: Mapping[str, Mapping[str, Any]]) -> list[Prose | Table]:
    """Return for each model which share of the rows flips, and which words no row holds.

    Args:
        probed: What `measure` returned, by the names of the models.
    """
    table = scores.probed(probed)
    missing = [name for name, measured in next(iter(probed.values())).items() if not measured["rows"]]
    sentences: list[Prose | Table] = [
        Prose(f"No row holds {name}, as ulmfit_style/analysis/probe.py lists them.") for name in missing
    ]
    return sentences if table is None else [table, *sentences]
