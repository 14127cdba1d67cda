"""Labelled rows lie on the disk, and come back as they were."""

from pathlib import Path

import numpy as np
import pytest
from samples import jsonl

from ulmfit_style.data import guard, labelled
from ulmfit_style.data.rows import Rows, stored
from ulmfit_style.tasks.base import Row, Several
from ulmfit_style.tasks.text_classification import TextClassification

CELLS = [
    "a text",
    "",
    "\0not JSON",
    "🎬 영화\nof two lines",
    None,
    0,
    2.5,
    1e-300,
    True,
    ["a", ["b"]],
    {"a": {"b": None}},
    Several(a="x", b="y"),
]


@pytest.fixture
def kept() -> Rows:
    """A row of each cell and of each label; every fourth row does not belong to the task."""
    read = [
        Row(f"{number % 2}.csv", number, {"text": cell, "label": "ab"[number % 2]}) for number, cell in enumerate(CELLS)
    ]
    return stored(TextClassification(path="-"), ((row, 0, row.number % 4 > 0) for row in read))


def test_every_cell_comes_back_as_it_was_in_any_order(kept: Rows):
    order = np.array([*range(len(CELLS)), 3, 0])[::-1]
    for rows_in_order in (kept[order], kept[order[:5]] + kept[order[5:]]):
        assert [row.fields["text"] for row in rows_in_order] == [CELLS[number] for number in order]
        assert [row.place for row in rows_in_order] == [f"{number % 2}.csv:{number}" for number in order]
    assert [type(row.fields["text"]) for row in kept] == list(map(type, CELLS))
    assert kept[4] == Row("0.csv", 4, {"text": None, "label": "a"})
    assert [kept[:2][1].number, kept[-1].number, len(kept[:0]), list(kept[:0])] == [1, len(CELLS) - 1, 0, []]


def test_rows_tell_their_labels_and_which_are_alike_without_being_read(kept: Rows, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Rows, "__iter__", lambda *_: pytest.fail("rows are read"))
    wanted = kept[kept.column("wanted")]
    assert [list(labels) for labels in wanted.labels] == [["ab"[number % 2]] for number in range(12) if number % 4]
    assert wanted.one_of_each.places.tolist() == [1, 2]
    assert len(set(kept.column("key"))) == len({str("" if cell is None else cell).strip() for cell in CELLS})


def test_of_many_rows_some_of_each_split_are_looked_at_whose_copies_are_among_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    texts = [f"a film about {name} {number}" for number in range(100) for name in ("war", "love", "the sea")]
    path = jsonl(tmp_path / "a.jsonl", [{"text": text, "label": text[-1]} for text in texts * 2])
    data = labelled.load(TextClassification(path=str(path)))
    assert len(guard.findings(data, is_quick=True)["copies"]) == 300
    monkeypatch.setattr(guard, "SAMPLE", 60)
    monkeypatch.setattr(guard, "MOST", 599)
    copies = {place for place, _ in guard.findings(data, is_quick=True)["copies"]}
    assert len(copies) == 30
    assert all(copies & {row.place for row in split} for split in (data.pool, data.validation, data.test))
    assert len(guard.findings(data)["copies"]) == 300
    assert "data: of 600 rows 60 are looked at, and all of them by make check-data" in capsys.readouterr().out
