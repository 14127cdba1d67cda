"""Which texts are picked to be labelled, and what becomes of the labels that come back."""

import csv
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from ulmfit_style.__main__ import main
from ulmfit_style.data import labelled
from ulmfit_style.data.reading import rows
from ulmfit_style.experiments.select import _outlook, mixed, typical
from ulmfit_style.stages.table import resolve
from ulmfit_style.tasks.files import Splits
from ulmfit_style.tasks.text_classification import TextClassification

TEXTS = [
    f"the {what} number {number} is {how}"
    for number in range(15)
    for what, how in (("film", "moving"), ("plot", "tedious"))
]


def write(path: Path, *table: Sequence[str]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(table)
    return path


@pytest.fixture
def select(tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Run `select` in a folder with a corpus."""
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "texts.csv", ["text"], *([text] for text in TEXTS))
    corpus = ["corpus=file", "corpus.path=texts.csv", "adapt=none", f"model.checkpoint={checkpoint}", "task.path=null"]
    return lambda *options: main(["select", "task=text_classification", *corpus, *options])


def test_typical_texts_are_of_all_clusters_and_not_of_those_that_have_a_label():
    chance = np.random.default_rng(0)
    centres = np.repeat(np.eye(4), 30, axis=0)
    features, is_known = centres + chance.normal(0, 0.01, centres.shape), np.zeros(120, dtype=bool)
    assert {number // 30 for number in typical(features, is_known, 4)} == {0, 1, 2, 3}
    is_known[:2] = True  # of the first cluster, and with 2 more there are 4 clusters
    assert 0 not in {number // 30 for number in typical(features, is_known, 2)}


def test_mixed_texts_are_uncertain_without_a_label_and_of_several_clusters():
    features = np.repeat(np.eye(4), 50, axis=0)
    features += np.random.default_rng(0).normal(0, 0.01, features.shape)
    is_known, sure = np.zeros(200, dtype=bool), np.arange(200) % 50 > 8
    is_known[[0, 50, 100, 150]] = True
    picked = mixed(features, np.where(sure[:, None], [0.9, 0.1], [0.51, 0.49]), is_known, 3)
    assert len({number // 50 for number in picked}) == 3
    assert not sure[picked].any()
    assert not is_known[picked].any()


def test_texts_go_to_a_spreadsheet_and_their_labels_come_back(select: Callable[..., int], tmp_path: Path, capsys):
    assert select("select.count=24") == 0
    picked = [row.fields["text"] for row in rows("x", str(tmp_path / "to-label.xlsx"), ["text", "label"])]
    assert len(set(picked)) == 24
    assert set(picked) <= set(TEXTS)
    assert select() == 2
    assert "is there already" in capsys.readouterr().err

    labels = ["" if number < 2 else "good" if "moving" in text else "bad" for number, text in enumerate(picked)]
    filled = write(tmp_path / "filled.csv", ["text", "label"], *zip(picked, labels, strict=True))
    assert select(f"select.merge={filled}") == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "22 of the 24 rows" in out
    assert f"'task.path={{chosen: [{filled}]}}'" in out
    assert "by half of them" in out

    assert select(f"task.path={{chosen: {filled}}}", "select.output=next.csv") == 0
    found = list(csv.DictReader((tmp_path / "next.csv").read_text(encoding="utf-8").splitlines()))
    assert {row["text"] for row in found} == set(TEXTS) - set(picked[2:])
    assert {row["guess"] for row in found} <= {"good", "bad"}
    assert all(0.5 <= float(row["probability"]) <= 1 for row in found)


@pytest.mark.parametrize(
    ("label", "message"),
    [("", "no row has a label yet"), ("godo", "filled.csv:2: the label 'godo' is in no labelled row")],
)
def test_what_comes_back_wrong_is_told(select: Callable[..., int], tmp_path: Path, capsys, label: str, message: str):
    there = write(
        tmp_path / "there.csv", ["text", "label"], *([text, ("good", "bad")[n % 2]] for n, text in enumerate(TEXTS))
    )
    filled = write(tmp_path / "filled.csv", ["text", "label"], ["a new text", label])
    assert select(f"task.path={there}", f"select.merge={filled}") == 2
    assert message in capsys.readouterr().err


def test_where_all_texts_have_labels_more_are_asked_for(select: Callable[..., int], tmp_path: Path, capsys):
    there = write(
        tmp_path / "there.csv", ["text", "label"], *([text, ("good", "bad")[n % 2]] for n, text in enumerate(TEXTS))
    )
    assert select(f"task.path={there}") == 2
    assert "all texts of the corpus have labels" in capsys.readouterr().err


def test_chosen_rows_are_only_trained_on(tmp_path: Path):
    train = write(
        tmp_path / "a.csv",
        ["text", "label", "film"],
        *([text, ("good", "bad")[n % 2], n // 3] for n, text in enumerate(TEXTS)),
    )
    chosen = write(tmp_path / "b.csv", ["text", "label"], ["one more", "good"], ["not yet", ""], [TEXTS[0], "good"])
    path = Splits.model_validate({"train": str(train), "chosen": str(chosen)})
    for options in ({"folds": 0}, {"folds": 0, "train_samples": 4}, {"folds": 3, "fold": 0}):
        found = labelled.load(TextClassification(path=path, group="film", **options))
        assert "b.csv:2" in [row.place.rsplit("/", 1)[-1] for row in found.train]
        assert not [row for row in found.test + found.validation if "b.csv" in row.file]
        assert all(row.fields["text"] != "not yet" for row in found.pool)


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (["a"] * 30, ""),
        (["a"] * 29 + ["b"], ""),
        (["a", "b"] * 15, "30 labelled texts: accuracy"),
        (["a"] * 15 + ["b"] * 13 + ["c", "c"], "28 labelled texts: accuracy"),
    ],
)
def test_the_outlook_rests_on_classes_that_have_some_labels(
    labels: list[str], said: str, capsys, compose_tiny: Callable
):
    random, right = np.random.default_rng(0), np.array(labels, dtype=object)
    features = random.normal(size=(30, 4)) + 9 * (right == "a")[:, None]
    _outlook(resolve(compose_tiny()), features, right)
    printed = capsys.readouterr().out
    assert said in printed
    assert bool(printed) == bool(said)
    assert "nan" not in printed
