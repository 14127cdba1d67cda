"""What is found in labelled texts: copies, contradictions, debris, and labels that a model doubts."""

import csv
import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ulmfit_style.__main__ import main
from ulmfit_style.data import guard, labelled
from ulmfit_style.tasks.text_classification import TextClassification

LONG = "this review goes on and on about the plot and the story and every scene of the film until it ends with number"
CHINESE = "\u9019\u90e8\u96fb\u5f71\u975e\u5e38\u597d\u770b\u6211\u5f88\u559c\u6b61\u5b83\u7684\u5287\u60c5"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Training and test rows with something of each kind."""
    good = [
        (f"a film of {name} with {number} scenes", ("good", "bad")[number % 2])
        for number, name in enumerate("abcdefghijklmnopqrst")
    ]
    files = {
        "train.csv": [
            *good,
            good[0],
            (good[1][0], "good"),
            (f"{LONG} 1", "good"),
            (f"{LONG} 3", "bad"),
            (f"{CHINESE}\u4e86", "bad"),
            ("x", "good"),
            ("caf\u00c3\u00a9 noir", "bad"),
            ("Tom &amp; Jerry", "good"),
            ("the only one", "odd"),
            ("unseen  plot", "good"),
        ],
        "test.csv": [("unseen plot", "good"), (f"{LONG} 2", "good"), (CHINESE, "bad")],
        "validation.csv": [("one of the others", "good"), ("and one more", "bad")],
    }
    for name, rows in files.items():
        with (tmp_path / name).open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([("text", "label"), *rows])
    return tmp_path


EXPECTED = {
    "texts of test or validation in train, left out there": [("train.csv:31", "test.csv:2")],
    "copies": [("train.csv:22", "train.csv:2")],
    "texts with another label elsewhere": [("train.csv:23", "train.csv:3")],
    "near copies of test or validation in train": [
        ("train.csv:24", "test.csv:3"),
        ("train.csv:25", "test.csv:3"),
        ("train.csv:26", "test.csv:4"),
    ],
    "texts of one character": [("train.csv:27", "x")],
    "debris of encodings or HTML": [("train.csv:28", r"'\xc3\xa9'"), ("train.csv:29", "'&amp;'")],
    "classes of fewer than 8 training rows": [("odd", "1 rows")],
}


def test_each_kind_is_found_with_its_rows(folder: Path, capsys: pytest.CaptureFixture[str]):
    files = ", ".join(f"{split}: {folder / split}.csv" for split in ("train", "test", "validation"))
    options = [
        "task=text_classification",
        f"task.path={{{files}}}",
        f"runs={folder}",
        "model=mini_bert",
    ]
    assert main(["check-data", *options]) == 0
    assert "data: copies: 1 (train.csv:22)" in capsys.readouterr().out
    found: dict[str, list[tuple[str, str]]] = {}
    with (folder / "default/check-data.csv").open(encoding="utf-8", newline="") as file:
        for what, row, detail in list(csv.reader(file))[1:]:
            found.setdefault(what, []).append((row, detail))
    assert {what: sorted(cases) for what, cases in found.items()} == EXPECTED


def test_near_copies_are_found_among_many_texts_in_time():
    chance = random.Random(0)
    words = [f"w{number}" for number in range(5000)]
    texts = [" ".join(chance.choices(words, k=30)) for _ in range(3000)]
    copies = {(3000 + number, number): texts[number].replace(" ", " new ", 1) for number in range(100)}
    template = [f"order {number} {' '.join(words[:30])}" for number in range(2000)]
    started = time.process_time()
    found = guard.near([*texts, *copies.values(), *template])
    assert time.process_time() - started < 3
    assert set(found[:100]) == set(copies)
    assert len(found) == 100 + 1999
    assert guard.near([]) == []


def test_labels_that_other_rows_of_a_class_contradict_are_likely_wrong():
    def answer(row: int, target: str, good: float) -> dict:
        return {"file": "a.csv", "row": row, "target": target, "scores": {"good": good, "bad": 1 - good}}

    sure = [answer(number, "good", 0.9) for number in range(4)] + [answer(number, "bad", 0.1) for number in range(4, 8)]
    doubted = [answer(8, "good", 0.02), answer(9, "bad", 0.95), answer(10, "bad", 0.6)]
    # Rows of "good" have it at 0.72 on average, and rows of "bad" have that at 0.67.
    assert guard.label_errors([*sure, *doubted]) == [
        ("a.csv:8", "good, rather bad"),
        ("a.csv:9", "bad, rather good"),
    ]
    assert guard.label_errors([{"file": "a", "row": 1, "target": "a text", "generated_text": "b"}]) == []


def test_files_of_one_name_are_told_apart(tmp_path: Path):
    for split, rows in {"train": [(f"{LONG} 1", "good")], "test": [(f"{LONG} 2", "good")], "validation": []}.items():
        (tmp_path / split).mkdir()
        with (tmp_path / split / "rows.csv").open("w", newline="") as file:
            others = [(f"{split} text of the {label} kind", label) for label in ("good", "bad")]
            csv.writer(file).writerows([("text", "label"), *rows, *others])
    files = {split: str(tmp_path / split / "rows.csv") for split in ("train", "test", "validation")}
    found = guard.findings(labelled.load(TextClassification(path=files)))
    assert found["near copies of test or validation in train"] == [("rows.csv:2", "rows.csv:2")]


def test_folds_have_no_test_rows_that_train_may_not_hold(write_csv: Callable[..., Path]):
    rows = [
        (f"a film number {number} of the {'good' if number % 2 else 'bad'} kind", str(number % 2))
        for number in range(40)
    ]
    task = TextClassification(path=str(write_csv([*rows, rows[0]], ("text", "label"))))
    assert guard.findings(labelled.load(task)) == {"copies": [("reviews.csv:42", "reviews.csv:2")]}
