"""Small data for the tests."""

import json
import random
from collections.abc import Sequence
from pathlib import Path

GOOD, BAD = ("wonderful", "moving", "unforgettable"), ("dreadful", "tedious")


def reviews(count: int, seed: int = 0) -> list[tuple[str, str, str]]:
    """Return (text, label, film) rows whose label is in the text."""
    chance = random.Random(seed)
    rows = []
    for number in range(count):
        label = ("bad", "good")[number % 2]
        start = f"{chance.choice(['a', 'the'])} {chance.choice(['film', 'plot', 'story'])} number {number}"
        rows.append((f"{start} is {chance.choice(GOOD if label == 'good' else BAD)}", label, f"film {number // 4}"))
    return rows


def jsonl(path: Path, rows: Sequence[object]) -> Path:
    """Write rows as JSON lines."""
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path
