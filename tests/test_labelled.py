import csv
import re
import unicodedata
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, strategies
from pydantic import ValidationError
from samples import artefact, jsonl, reviews

from ulmfit_style.data import splits
from ulmfit_style.data.columns import find_inputs
from ulmfit_style.data.labelled import Labelled, load
from ulmfit_style.data.rows import normalised
from ulmfit_style.errors import UserError
from ulmfit_style.tasks.multi_label_classification import MultiLabelClassification
from ulmfit_style.tasks.text_classification import TextClassification
from ulmfit_style.tasks.text_regression import TextRegression


@pytest.fixture
def loaded(write_csv: Callable[..., Path]) -> Callable[..., Labelled]:
    """Load rows of text, label and film from a csv file, as a new command does."""

    def make(rows=None, **options: object) -> Labelled:
        load.cache_clear()
        path = write_csv(reviews(120) if rows is None else rows)
        return load(TextClassification(path=str(path), text="review", label="stars", **{"folds": 0, **options}))

    return make


@pytest.fixture
def split_files(tmp_path: Path) -> Callable[..., dict[str, str]]:
    """Write one csv file for each split, and return what `task.path` takes."""

    def write(**splits) -> dict[str, str]:
        for split, rows in splits.items():
            with (tmp_path / f"{split}.csv").open("w", encoding="utf-8", newline="") as file:
                csv.writer(file).writerows([("review", "stars", "film"), *rows])
        return {split: str(tmp_path / f"{split}.csv") for split in splits}

    return write


def texts(rows) -> list[str]:
    """Return the texts of rows, or of what was written to a file."""
    return [row[0] if isinstance(row, tuple) else row.fields["text"] for row in rows]


def labels(rows) -> Counter[str]:
    return Counter(row.fields["label"] for row in rows)


def test_every_row_is_in_one_split_and_each_split_has_its_share_of_each_class(loaded: Callable[..., Labelled]):
    rows = loaded()
    assert sorted(texts(rows.pool + rows.validation + rows.test)) == sorted(texts(reviews(120)))
    assert [len(rows.pool), len(rows.validation), len(rows.test)] == [84, 12, 24]
    assert labels(rows.test) == {"good": 12, "bad": 12}


def test_no_group_is_on_two_sides(loaded: Callable[..., Labelled]):
    rows = loaded(group="film")
    films = [{row.fields["group"] for row in split} for split in (rows.pool, rows.validation, rows.test)]
    assert all(films)
    assert sum(map(len, films)) == len(set().union(*films)) == 30


def test_the_test_rows_stay_when_rows_are_sampled_or_come_to_the_file(loaded: Callable[..., Labelled]):
    def test(rows=None, **options: object) -> set[str]:
        return set(texts(loaded(rows, **options).test))

    assert test(train_samples=10, sample_seed=5) == test() != test(split_seed=1)
    # Eight new rows may move the cut by their share, not the rows that were before it.
    assert len(test() - test(reviews(128))) <= 3


@pytest.mark.parametrize(("given", "made"), [("test", "validation"), ("validation", "test")])
def test_a_split_that_is_given_stays_and_the_other_is_made_from_train(split_files, given: str, made: str, capsys):
    given_rows = [(f"given {text}", *rest) for text, *rest in reviews(30)]
    paths = split_files(train=reviews(100), **{given: given_rows})
    rows = load(TextClassification(path=paths, text="review", label="stars", test_ratio=0.2, validation_ratio=0.2))
    assert texts(rows.split(given)) == texts(given_rows)
    assert len(rows.split(made)) == 20
    assert sorted(texts([*rows.split(made), *rows.pool])) == sorted(texts(reviews(100)))
    assert f"test rows of train.csv, {given}.csv; {made} split off train\n" in capsys.readouterr().out


def test_a_row_in_two_of_the_given_splits_stays_in_test_alone(split_files, capsys: pytest.CaptureFixture[str]):
    paths = split_files(train=reviews(60), validation=reviews(120)[50:80], test=reviews(120)[70:90])
    rows = load(TextClassification(path=paths, text="review", label="stars"))
    assert texts(rows.test) == texts(reviews(120)[70:90])
    assert texts(rows.validation) == texts(reviews(120)[50:70])
    assert sorted(texts(rows.pool)) == sorted(texts(reviews(50)))
    assert "20 rows are left out because their text is also in test or validation" in capsys.readouterr().out


def test_the_same_rows_have_one_digest_in_one_file_or_under_other_names(split_files, tmp_path: Path):
    parts = {"train": reviews(60), "test": [(f"other {text}", *rest) for text, *rest in reviews(30)]}
    task = TextClassification(path=split_files(**parts), text="review", label="stars")
    for split, rows in parts.items():
        jsonl(tmp_path / f"{split}.jsonl", [{"Body": text, "Class": label} for text, label, _ in rows])
    other = TextClassification(path={split: str(tmp_path / f"{split}.jsonl") for split in parts})
    # The line numbers differ, and break ties of the sample's order alone.
    assert load(task).digest == load(other).digest
    assert task.determinants() == other.determinants()


@pytest.mark.parametrize(("option", "few", "many", "each"), [("train_samples", 2, 30, 1), ("shots", 3, 8, 3)])
def test_a_larger_sample_holds_the_smaller_one_and_so_many_of_each_class(loaded, option, few, many, each):
    small, large = (loaded(sample_seed=2, **{option: size}) for size in (few, many))
    assert labels(small.train) == {"good": each, "bad": each}
    assert set(texts(small.train)) < set(texts(large.train)) <= set(texts(large.pool))
    assert set(texts(loaded(sample_seed=3, **{option: many}).train)) != set(texts(large.train))


def test_a_class_with_fewer_rows_than_shots_is_named(loaded: Callable[..., Labelled], capsys):
    rows = loaded([*reviews(60), *((f"rare {n}", "10", "f") for n in range(4))], shots=10)
    assert labels(rows.train) == {"good": 10, "bad": 10, "10": 3}
    assert "classes with fewer than 10 training rows: 10 (3)" in capsys.readouterr().out


def test_shots_and_a_total_do_not_go_together():
    with pytest.raises(ValidationError, match=r"goes without task\.train_samples; add"):
        TextClassification(path="a.csv", train_samples=100, shots=5)


def test_training_rows_whose_text_is_tested_are_left_out(loaded: Callable[..., Labelled], capsys):
    # Every text stands twice, under two films, and blanks and composition differ.
    twice = [*reviews(80), *((text.replace(" ", "  "), label, "other " + film) for text, label, film in reviews(80))]
    rows = loaded(twice, group="film")
    train, held = ({normalised(text) for text in texts(split)} for split in (rows.pool, rows.validation + rows.test))
    assert not train & held
    assert "rows are left out because their text is also in test or validation" in capsys.readouterr().out


def test_hangul_in_parts_equals_hangul_in_syllables_as_text_and_as_label(loaded: Callable[..., Labelled]):
    syllables = [(f"재미있는 영화 {n}", ("긍정", "부정")[n % 2], "f") for n in range(60)]
    rows = loaded([*syllables, *(tuple(unicodedata.normalize("NFD", cell) for cell in row) for row in syllables)])
    assert rows.classes == ["긍정", "부정"]
    sides = [{normalised(text) for text in texts(split)} for split in (rows.pool, rows.validation, rows.test)]
    assert sum(map(len, sides)) == len(set().union(*sides)) == 60


def test_rows_of_other_classes_are_left_out_and_counted(loaded: Callable[..., Labelled], capsys):
    rows = loaded([*reviews(60), *((f"plot {n}", "plot", "f") for n in range(7))], labels=("good", "bad"))
    assert rows.classes == ["bad", "good"]
    assert "7 rows of other classes than bad, good are left out" in capsys.readouterr().out


def test_fewer_test_rows_are_scored_but_all_are_kept_from_training(loaded: Callable[..., Labelled]):
    rows = loaded([(f"text {n}", str(n % 12 + 1), "f") for n in range(120)], test_samples=5)
    assert (len(rows.test), len(rows.validation), len(rows.scored)) == (5, 5, 36)
    assert rows.classes == [str(n) for n in range(1, 13)]  # in the order of numbers


@pytest.mark.parametrize("header", [("Review", "Stars", "film"), ("내용", "라벨", "film"), ("TEXT", "label", "film")])
def test_columns_whose_names_leave_no_doubt_are_found_and_said(write_csv, capsys, header: tuple[str, ...]):
    path = write_csv(reviews(60), header)
    assert load(TextClassification(path=str(path))).classes == ["bad", "good"]
    line = f"task.path={path}: using column '{header[0]}' as the text and column '{header[1]}' as the label\n"
    assert line in capsys.readouterr().out


def test_a_column_to_be_answered_may_lie_within_another():
    task = TextClassification(path="a.jsonl", text="review.body")
    assert find_inputs(task, ["id", "review"], "a.jsonl") == {"text": "review.body"}


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("text content label", r"more than one column could be the text \(text, content\); name it with task.text="),
        ("text stars Label", r"more than one column could be the label \(stars, Label\); name it with task.label="),
        ("a label c", r"no column could be identified as the text; name it with task.text=<column> \(columns: a, la"),
    ],
)
def test_columns_that_leave_doubt_are_asked_for(write_csv, header: str, message: str):
    with pytest.raises(UserError, match=message):
        load(TextClassification(path=str(write_csv(reviews(60), header.split()))))


EMPTY = r"reviews\.csv has 2 problems:\n  - reviews\.csv:2: the text is empty\n  - reviews\.csv:3: the label is"


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        ([("", "good", "f"), ("x", "", "f"), *reviews(50)], {}, EMPTY),
        ([("x", "good", ""), *reviews(50)], {"group": "film"}, r"reviews\.csv:2: 'film' is empty, which task\.group"),
        ([(text, "good", film) for text, _, film in reviews(50)], {}, "every row has the label 'good'"),
        ([(text, text, film) for text, _, film in reviews(50)], {}, "50 different labels in 50 rows; is task.label"),
        (reviews(50), {"labels": ("bad", "goood")}, "no row has the label 'goood' of task.labels; did you mean 'good'"),
        (reviews(4), {}, "4 rows are too few"),
        (reviews(50), {"train_samples": 1}, "there are 2 classes, and it takes 2 rows for each to have one"),
        (reviews(50), {"train_samples": 500}, "the training split has 36 rows"),
    ],
)
def test_bad_rows_are_answered_before_anything_is_trained(loaded, rows, options, message):
    with pytest.raises(UserError, match=message):
        loaded(rows, **options)


def test_labels_that_training_lacks_are_all_told_with_file_and_row(split_files):
    rows = [("w", "good", "f"), ("x", "great", "f"), ("y", "great", "f"), ("z", "awful", "f")]
    with pytest.raises(UserError) as caught:
        load(TextClassification(path=split_files(train=reviews(60), test=rows), text="review", label="stars"))
    assert "test.csv:3: the label 'great' is in no training row; add training rows with it" in str(caught.value)
    assert "test.csv:5: the label 'awful' is in no training row" in str(caught.value)
    assert "test.csv:4" not in str(caught.value)


def test_each_split_and_shots_have_their_share_of_a_rare_one_of_several_labels(tmp_path: Path):
    every = {"war": 2, "love": 5, "crime": 8, "space": 11}
    films = [{"text": f"film {n}", "labels": [topic for topic in every if n % every[topic] == 0]} for n in range(220)]
    rows = load(task := MultiLabelClassification(path=str(jsonl(tmp_path / "a.jsonl", films)), shots=5))
    assert rows.classes == sorted(every)
    counts = [sum("space" in row.fields["label"] for row in split) for split in (rows.pool, rows.validation, rows.test)]
    assert counts == [14, 2, 4]
    drawn = Counter(label for row in rows.train for label in task.target(row))
    assert drawn["space"] == 5 <= min(drawn[topic] for topic in every)


def test_numbers_are_split_and_sampled_without_classes(tmp_path: Path):
    path = jsonl(tmp_path / "a.jsonl", [{"text": f"text {n}", "score": n / 7} for n in range(100)])
    rows = load(TextRegression(path=str(path), train_samples=10))
    assert [len(split) for split in (rows.pool, rows.train, rows.validation, rows.test)] == [70, 10, 10, 20]
    assert rows.classes == []
    with pytest.raises(UserError, match=r"task\.shots=3: there are no classes here; use task\.train_samples"):
        load(TextRegression(path=str(path), shots=3))


def test_the_watched_rows_are_a_fifth_of_the_sample_and_of_each_class(loaded: Callable[..., Labelled]):
    rows = loaded(train_samples=40)
    trained, watched = rows.watched
    assert sorted(texts(trained + watched)) == sorted(texts(rows.train))
    assert len(watched) == 8
    assert labels(watched) == {label: round(count / 5) for label, count in labels(rows.train).items()}
    whole = loaded()
    assert whole.watched == (whole.train, whole.validation)  # where all labels are used


def test_no_group_and_no_equal_text_is_both_trained_on_and_watched(loaded: Callable[..., Labelled]):
    twice = [(f"{text} {copy}", *rest) for text, *rest in reviews(120) for copy in ("", " ")]
    for options in ({"shots": 40}, {"shots": 40, "group": "film"}):
        trained, watched = loaded(twice, **options).watched
        assert 16 <= len(watched) <= 24
        for key in ("text", *(["group"] if "group" in options else [])):
            sides = [{normalised(row.fields[key]) for row in rows} for rows in (trained, watched)]
            assert not sides[0] & sides[1]


@pytest.mark.parametrize("parts", [1, 2, 3])
def test_each_row_is_held_out_in_turn_unless_none_would_be_left_to_train_on(
    loaded: Callable[..., Labelled], parts: int
):
    rows = loaded(train_samples=40)
    turns = list(splits.held_out_in_turn(rows.task, rows.train, parts))
    assert len(turns) == (parts if parts > 1 else 0)
    for learnt, held in turns:
        assert sorted(texts(learnt + held)) == sorted(texts(rows.train))
    assert sum(len(held) for _, held in turns) == (40 if turns else 0)


TWICE = [("alone", "other", "f"), *(("the same", "other", "f") for _ in range(8)), *reviews(60)]


def test_the_share_of_a_split_is_of_the_whole_where_classes_are_small(loaded: Callable[..., Labelled]):
    rows = loaded([(f"text {n}", f"class {n % 70}", "f") for n in range(350)])
    assert [len(rows.pool), len(rows.validation), len(rows.test)] == [245, 35, 70]
    assert set(labels(rows.pool)) == set(labels([*rows.validation, *rows.test])) == set(rows.classes)


def test_few_groups_are_dealt_so_that_each_split_has_one(loaded: Callable[..., Labelled]):
    rows = loaded([(f"text {n}", "ab"[n % 2], f"film {n // 50}") for n in range(300)], group="film")
    films = [{row.fields["group"] for row in split} for split in (rows.pool, rows.validation, rows.test)]
    assert [len(side) for side in films] == [4, 1, 1]


@pytest.mark.parametrize("group", [None, "film"])
def test_what_is_in_one_text_or_group_alone_is_learnt(loaded: Callable[..., Labelled], group: str | None):
    rare = [("the same", f"rare {n}" if group else "rare", f"film {n}") for n in range(5) for _ in range(9)]
    rows = loaded(
        [(f"{text} {n if group else ''}", *rest) for n, (text, *rest) in enumerate(rare)] + reviews(200), group=group
    )
    assert {label for label in labels(rows.pool) if label.startswith("rare")} == {label for _, label, _ in rare}


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        (
            [(text, label, "one film") for text, label, _ in reviews(60)],
            {"group": "film"},
            "60 rows of 1 group, never divided, are too few; none is left for",
        ),
        ([("the same", "ab"[n % 2], "f") for n in range(60)], {}, "60 rows of 1 different text, never divided"),
        (
            reviews(1) * 60 + [("b", "bad", "f")],
            {"folds": 5},
            "61 rows of 2 different texts, never divided, are too few for 5 folds",
        ),
    ],
)
def test_why_rows_are_too_few_is_said(loaded: Callable[..., Labelled], rows: list, options: dict, message: str):
    with pytest.raises(UserError, match=message):
        loaded([*rows[:-1], (rows[-1][0], "good", rows[-1][2])], **options)


FEW = {"shots": 9, "validation_ratio": 0.05, "test_ratio": 0.05}


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        (reviews(60), {"shots": 2}, r"20% of the 4 labelled rows are watched, and these are too few to divide; use "),
        (TWICE, FEW, "of the 27 labelled rows are watched, and no row of 'other' is left to train on"),
    ],
)
def test_a_sample_that_is_too_small_to_be_watched_is_refused(loaded, rows, options, message: str):
    with pytest.raises(UserError, match=rf"finetune\.patience: .*{message}"):
        _ = loaded(rows, **options).watched


def test_other_watched_rows_are_another_artefact(split_files, compose_tiny):
    """The split seed moves no split that has its file, but it moves the watched rows."""
    splits = ("train", "validation", "test")
    files = split_files(**{split: [(f"{split} {text}", *rest) for text, *rest in reviews(40)] for split in splits})
    path = f"task.path={{{', '.join(f'{split}: {file}' for split, file in files.items())}}}"

    def fingerprint(patience: str, seed: int) -> str:
        config = compose_tiny(path, f"task.split_seed={seed}", f"finetune.patience={patience}")
        return artefact("finetune", config.model_copy(update={"adapt": None})).fingerprint

    assert fingerprint("null", 0) == fingerprint("null", 1)
    assert len({fingerprint("null", 0), fingerprint("2", 0), fingerprint("2", 1)}) == 3


@pytest.mark.parametrize("before", ["", "films_"])
def test_a_folder_or_a_mapping_may_call_the_splits_as_people_do(before: str, split_files, tmp_path: Path):
    rows = {"train": reviews(60), "dev": reviews(90)[60:], "test": reviews(120)[90:]}
    files = split_files(**{f"{before}{split}": rows[split] for split in rows})
    paths = dict(zip(rows, files.values(), strict=True))
    for path in (str(tmp_path), paths):
        task = TextClassification(path=path, text="review", label="stars")
        assert task.path.files() == {name.replace("dev", "validation"): file for name, file in paths.items()}
    assert [len(load(task).split(name)) for name in ("train", "validation", "test")] == [60, 30, 30]


def test_shards_are_the_rows_of_one_split(split_files):
    paths = split_files(a=reviews(60), b=reviews(120)[60:])
    task = TextClassification(path=list(paths.values()), text="review", label="stars", folds=0)
    assert len(load(task).pool) + len(load(task).validation) + len(load(task).test) == 120


def test_a_label_a_column_makes_several_labels(write_csv):
    rows = [(f"text {n}", str(n % 2), str(int(n % 3 == 0)), "") for n in range(60)]
    path = write_csv(rows, ("text", "late", "broken", "kind"))
    task = MultiLabelClassification(path=str(path), label=("late", "broken", "kind"), folds=0)
    assert load(task).classes == ["broken", "late"]
    assert {tuple(task.target(row)) for row in load(task).pool} == {(), ("broken",), ("late",), ("broken", "late")}


def test_several_columns_are_one_text_and_it_is_said_how(write_csv, capsys: pytest.CaptureFixture[str]):
    path = write_csv([(f"subject {n}", f"body {n}", "ab"[n % 2]) for n in range(60)], ("subject", "body", "label"))
    task = TextClassification(path=str(path), text=("subject", "body"), folds=0)
    assert all(re.fullmatch(r"subject (\d+)\nbody \1", text) for row in load(task).pool for text in task.texts(row))
    assert "using subject and body, with a line break between them, as the text" in capsys.readouterr().out
    assert find_inputs(task, ["body", "subject"], "new.csv") == {"text": ("subject", "body")}


ROWS = strategies.lists(
    strategies.tuples(strategies.integers(0, 30), strategies.sampled_from("ab"), strategies.integers(0, 9)),
    min_size=12,
    max_size=60,
)


@given(rows=ROWS, group=strategies.sampled_from([None, "film"]), ratio=strategies.sampled_from([0.1, 0.3]))
def test_each_row_is_in_one_split_and_what_belongs_together_stays_together(
    rows: list[tuple[int, str, int]], group: str | None, ratio: float, tmp_path_factory: pytest.TempPathFactory
):
    path = tmp_path_factory.mktemp("split") / "a.csv"
    lines = [f"text {text},{label},{film}" for text, label, film in rows]
    path.write_text("\n".join(["text,label,film", *lines]), encoding="utf-8")
    task = TextClassification(path=str(path), group=group, test_ratio=ratio, folds=0)
    try:
        found = load(task)
    except UserError:  # too few of something
        return
    splits = {"train": found.pool, "validation": found.validation, "test": found.test, "left out": found.repeats}
    places = {name: [row.number for row in members] for name, members in splits.items()}
    assert sorted(number for numbers in places.values() for number in numbers) == list(range(2, len(rows) + 2))
    for column in (0, 2) if group else (0,):
        sides = {
            name: {rows[number - 2][column] for number in places[name]} for name in ("train", "validation", "test")
        }
        assert not sides["train"] & sides["test"]
        assert not sides["train"] & sides["validation"]
        assert not sides["validation"] & sides["test"]
    load.cache_clear()
    again = load(task)
    assert [row.number for row in (*again.pool, *again.validation, *again.test)] == [
        number for name in ("train", "validation", "test") for number in places[name]
    ]
