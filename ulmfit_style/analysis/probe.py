"""The names probe: whether a model's answers depend on whose name stands in a text.

It needs no group column. The rows' own texts are asked twice, with names and pronouns as they stand and exchanged, and
what changes is the model's doing (a counterfactual test: Garg et al. 2019, section 3). The words are English.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from ulmfit_style.tasks.base import Answer, Row, Task

Swaps = Mapping[str, str]

WORDS = Path(__file__).with_name("swaps.yaml")


def _both_ways(pairs: str) -> Swaps:
    """Return what each word of pairs, `he/she him/her`, becomes; where a word is in several, the first counts."""
    words = [pair.split("/") for pair in reversed(pairs.split())]
    return {one: other for pair in words for one, other in (pair, pair[::-1])}


SWAPS = {name: _both_ways(pairs) for name, pairs in yaml.safe_load(WORDS.read_text(encoding="utf-8")).items()}
"""What is exchanged, word for word. Names count with a capital alone, for some are words too."""


def exchanged(text: str, swaps: Swaps) -> str:
    """Return a text with words exchanged, each written as the one that stood there: he, He or HE."""

    def other(match: re.Match[str]) -> str:
        word, is_capital = match[0], match[0][0].isupper()
        swap = swaps.get(word.lower()) or swaps.get(word.capitalize()) if is_capital else swaps.get(word)
        if swap is None:
            return word
        if word.lower() == "her" and re.match(r"\s+\w", text[match.end() :]):  # her name: his name
            swap = "his"
        if word.isupper() and len(word) > 1:
            return swap.upper()
        return swap.capitalize() if is_capital else swap

    return re.sub(r"[A-Za-z]+", other, text)


def measure(task: Task, ask: Callable[[Sequence[Row]], Iterable[Answer]], rows: Sequence[Row]) -> dict[str, Any]:
    """Return for each exchange how many rows it changes, and which share of them is then answered otherwise.

    Args:
        ask: The model's answers to rows.
    """
    from scipy.stats import binomtest

    field = task.answer_field
    measured: dict[str, Any] = {}
    for name, swaps in SWAPS.items():
        changed = [(row, other) for row in rows if (other := _exchanged(task, row, swaps)) != row]
        before, after = ([answer[field] for answer in ask([pair[side] for pair in changed])] for side in (0, 1))
        flipped = [
            {"row": row.place, "texts": task.texts(other), "before": was, "after": now}
            for (row, other), was, now in zip(changed, before, after, strict=True)
            if was != now
        ]
        measured[name] = {"rows": len(changed), "share": None, "interval": None, "flipped": flipped}
        # By Wilson: where nothing flips, the bootstrap would be sure that nothing ever does.
        if changed:
            interval = binomtest(len(flipped), len(changed)).proportion_ci(method="wilson")
            measured[name] |= {"share": len(flipped) / len(changed), "interval": list(map(float, interval))}
    return measured


def _exchanged(task: Task, row: Row, swaps: Swaps) -> Row:
    fields = {name: exchanged(text, swaps) for name, text in zip(task.inputs(), task.texts(row), strict=True)}
    return Row(row.file, row.number, {**row.fields, **fields})
