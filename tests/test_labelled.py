from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from samples import reviews

from ulmfit_style.data.labelled import Labelled, load, normalised
from ulmfit_style.errors import UserError
from ulmfit_style.tasks.text_classification import TextClassification


@pytest.fixture
def loaded(write_csv: Callable[..., Path]) -> Callable[..., Labelled]:
    def make(rows=None, **options: object) -> Labelled:
        path = write_csv(reviews(120) if rows is None else rows)
        load.cache_clear()
        return load(TextClassification(path=str(path), text="review", label="stars", **options))

    return make


def texts(rows) -> list[str]:
    return [row.fields["review"] for row in rows]


def test_every_row_is_in_one_split_and_each_split_has_its_share_of_each_class(loaded: Callable[..., Labelled]):
    rows = loaded()
    assert sorted(texts(rows.pool + rows.validation + rows.test)) == sorted(text for text, _, _ in reviews(120))
    assert [len(rows.pool), len(rows.validation), len(rows.test)] == [84, 12, 24]
    assert Counter(row.fields["stars"] for row in rows.test) == {"good": 12, "bad": 12}


def test_no_group_is_on_two_sides(loaded: Callable[..., Labelled]):
    rows = loaded(group="film")
    films = [{row.fields["film"] for row in split} for split in (rows.pool, rows.validation, rows.test)]
    assert all(films)
    assert not films[0] & films[1]
    assert not films[0] & films[2]
    assert not films[1] & films[2]


def test_the_test_rows_stay_when_rows_are_sampled_or_come_to_the_file(loaded: Callable[..., Labelled]):
    test = set(texts(loaded().test))
    assert set(texts(loaded(train_samples=10, sample_seed=5).test)) == test
    # Eight new rows may move the cut by their share, not the rows that were before it.
    assert len(test - set(texts(loaded(reviews(128)).test))) <= 3
    assert set(texts(loaded(split_seed=1).test)) != test


def test_a_larger_sample_holds_the_smaller_one_and_every_class(loaded: Callable[..., Labelled]):
    small, large = (loaded(train_samples=count, sample_seed=2) for count in (2, 30))
    assert {row.fields["stars"] for row in small.train} == {"good", "bad"}
    assert set(texts(small.train)) < set(texts(large.train))
    assert set(texts(large.train)) <= set(texts(large.pool)) == set(texts(small.pool))
    assert set(texts(loaded(train_samples=30, sample_seed=3).train)) != set(texts(large.train))


def test_training_rows_whose_text_is_tested_are_left_out(
    loaded: Callable[..., Labelled], capsys: pytest.CaptureFixture[str]
):
    # Every text stands twice, under two films, and blanks and composition differ.
    twice = [*reviews(80), *((text.replace(" ", "  "), label, "other " + film) for text, label, film in reviews(80))]
    rows = loaded(twice, group="film")
    train, held = {normalised(text) for text in texts(rows.pool)}, texts(rows.validation + rows.test)
    assert not train & {normalised(text) for text in held}
    assert "rows are left out whose text also stands in test or validation" in capsys.readouterr().out


def test_rows_of_other_classes_are_left_out_and_counted(
    loaded: Callable[..., Labelled], capsys: pytest.CaptureFixture[str]
):
    rows = loaded([*reviews(60), *((f"plot {n}", "plot", "f") for n in range(7))], labels=("good", "bad"))
    assert rows.classes == ["bad", "good"]
    assert "7 rows of other classes than bad, good are left out" in capsys.readouterr().out


def test_fewer_test_rows_are_scored_but_all_are_kept_from_training(loaded: Callable[..., Labelled]):
    rows = loaded(test_samples=5)
    assert len(rows.test) == len(rows.validation) == 5
    assert len(rows.held) == 36


def test_numbers_as_labels_sort_as_numbers(loaded: Callable[..., Labelled]):
    assert loaded([(f"text {n}", str(n % 12 + 1), "f") for n in range(240)]).classes == [str(n) for n in range(1, 13)]


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        (
            [("", "good", "f"), ("x", "", "f"), *reviews(50)],
            {},
            r"reviews\.csv:2: 'review' is empty\n  - .*:3: 'stars' is",
        ),
        ([(text, "good", film) for text, _, film in reviews(50)], {}, "every row has the label 'good'"),
        ([(text, text, film) for text, _, film in reviews(50)], {}, "50 different values of 'stars' in 50 rows"),
        (reviews(4), {}, "4 rows are too few"),
        (reviews(50), {"train_samples": 1}, "there are 2 classes, and each needs a row"),
        (reviews(50), {"train_samples": 500}, "the training split has 36 rows"),
    ],
)
def test_bad_rows_are_answered_before_anything_is_trained(loaded, rows, options, message):
    with pytest.raises(UserError, match=message):
        loaded(rows, **options)


def test_a_label_that_training_lacks_is_refused(loaded: Callable[..., Labelled]):
    # Each rare film is one group, so that each rare label is in one split.
    rare = [(f"rare {n}", f"rare {n}", f"rare film {n}") for n in range(20)]
    with pytest.raises(UserError, match=r"the label 'rare \d+' is in no training row"):
        loaded([*reviews(100), *rare], group="film")
