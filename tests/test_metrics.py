from pathlib import Path

import evaluate
import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef, precision_recall_fscore_support
from sklearn.preprocessing import MultiLabelBinarizer

from ulmfit_style.metrics import classification, entities, regression, selective, squad
from ulmfit_style.metrics.intervals import combined, difference, draws, interval


def test_scoring_leaves_nothing_in_the_users_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(evaluate.config, "HF_METRICS_CACHE", str(tmp_path / "cache"))
    assert set(classification.scores([["a", "b"]], [["b", "a"]]).values()) == {1.0}  # in any order
    assert not (tmp_path / "cache").exists()


def test_a_single_label_that_rows_may_have_is_not_taken_for_two_classes():
    assert classification.scores([[], ["a"]], [["a"], ["a"]]) == pytest.approx(
        {"accuracy": 1 / 2, "macro_f1": 2 / 3, "micro_f1": 2 / 3}
    )
    assert classification.scores([[]], [[]]) == {"accuracy": 1.0, "macro_f1": 0.0, "micro_f1": 0.0}


def test_the_scores_of_numbers_are_those_worked_by_hand():
    # Deviations from the mean: -1.5, .5, -.5, 1.5 and -1.5, -.5, .5, 1.5.
    assert regression.scores([1, 3, 2, 4], [1, 2, 3, 4]) == pytest.approx({"pearson": 0.8, "spearman": 0.8, "mse": 0.5})
    assert regression.scores([1, 2, 100], [1, 2, 3])["spearman"] == pytest.approx(1)
    assert regression.scores([1, 2, 2], [1, 2, 3])["spearman"] == pytest.approx(np.sqrt(3) / 2)


def test_constant_predictions_are_uncorrelated():
    assert regression.scores([2.5] * 3, [1, 2, 3]) == pytest.approx({"pearson": 0, "spearman": 0, "mse": 11 / 12})
    assert regression.intervals([2.5] * 3, [1, 2, 3])["pearson"] == (0, 0)


@pytest.mark.parametrize("single", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_the_scores_and_the_report_are_those_of_scikit_learn(single: bool, seed: int):
    random = np.random.default_rng(seed)
    names = list("abcd")
    if single:
        predictions, references = ([names[place] for place in random.integers(4, size=30)] for _ in range(2))
        ours, right = predictions, references
    else:
        rows = random.integers(2, size=(2, 30, 4)).astype(bool)
        predictions, references = ([list(np.array(names)[row]) for row in side] for side in rows)
        ours, right = map(MultiLabelBinarizer(classes=names).fit_transform, (predictions, references))
    expected = {
        "accuracy": accuracy_score(right, ours),
        **{f"{average}_f1": f1_score(right, ours, average=average) for average in ("macro", "micro")},
        **({"matthews": matthews_corrcoef(right, ours)} if single else {}),
    }
    assert classification.scores(predictions, references) == pytest.approx(expected)
    report = [list(entry.values())[1:] for entry in classification.report(predictions, references)]
    assert np.transpose(report) == pytest.approx(np.array(precision_recall_fscore_support(right, ours)))


@pytest.mark.parametrize(
    ("module", "predictions", "references"),
    [
        (classification, [*"abcabc"] * 10, [*"abbabb"] * 10),
        (classification, [["a"], ["a", "b"], []] * 20, [["a"], ["b"], ["c"]] * 20),
        (regression, [0.1, 0.7, 0.4, 0.9] * 10, [0.2, 0.6, 0.6, 0.8] * 10),
        (
            entities,
            [["B-a", "I-a", "O", "I-b"], ["B-a", "B-b"], ["O", "O"]] * 30,
            [["B-a", "I-a", "O", "B-b"], ["B-a", "O"], ["O", "B-b"]] * 30,
        ),
        (squad, ["Ada", "Bo", "", "", "Bo"] * 20, [["Ada"], ["Ada"], [], ["London"], []] * 20),
    ],
)
def test_every_score_has_an_interval_around_it(module, predictions: list, references: list):
    scores, intervals = module.scores(predictions, references), module.intervals(predictions, references)
    assert list(intervals) == list(scores)
    for name, (low, high) in intervals.items():
        assert low < scores[name] < high
    assert module.intervals(predictions, references) == intervals  # whenever it is asked for


def test_the_interval_of_a_mean_is_that_of_the_normal_approximation_where_that_holds():
    points = [1.0] * 700 + [0.0] * 300
    low, high = interval(points)
    half = 1.96 * np.sqrt(0.7 * 0.3 / 1000)
    assert (low, high) == pytest.approx((0.7 - half, 0.7 + half), abs=0.003)


def test_the_interval_where_all_rows_are_right_or_wrong_is_wilsons():
    right = ["a", "b"] * 3
    wilson = (pytest.approx(0.6097, abs=1e-4), 1)  # of 6 of 6 by hand: 6 / (6 + 1.96 ** 2)
    assert classification.intervals(right, right) == dict.fromkeys(
        ("accuracy", "macro_f1", "micro_f1", "matthews"), wilson
    )
    wrong = classification.intervals(right[::-1], right)
    assert wrong["accuracy"] == (0, pytest.approx(0.3903, abs=1e-4))
    assert wrong["matthews"] == (-1, -1)
    assert classification.intervals(["a"] * 6, right)["matthews"] == (0, 0)  # chance, and not all wrong
    one_unanswerable = squad.intervals(["x", "y", "z"], [["x"], ["y"], []])
    assert one_unanswerable["no_answer_accuracy"] == (0, pytest.approx(0.7935, abs=1e-4))  # of one question


def test_pairs_give_a_narrower_interval_than_two_models_by_themselves():
    chance = np.random.default_rng(0)
    baseline = (chance.random(400) < 0.7).astype(float)
    ours = baseline.copy()
    ours[:12] = 1.0
    gain, low, high = difference([ours], [baseline], combined)
    assert gain == pytest.approx((ours - baseline).mean())
    assert low <= gain <= high
    assert high - low < 0.5 * (interval(ours)[1] - interval(ours)[0])


def test_the_difference_of_two_ratios_is_resampled_as_a_difference_of_ratios():
    chance = np.random.default_rng(0)
    ours, theirs = (np.stack([chance.integers(3, size=50), chance.integers(2, 6, size=50)], axis=1) for _ in range(2))
    gain, low, high = difference([ours], [theirs], combined)
    assert gain == pytest.approx(ours[:, 0].sum() / ours[:, 1].sum() - theirs[:, 0].sum() / theirs[:, 1].sum())
    (drawn,) = draws(50)
    gains = [np.divide(*ours[rows].sum(0)) - np.divide(*theirs[rows].sum(0)) for rows in drawn]
    assert (low, high) == pytest.approx(tuple(np.percentile(gains, [2.5, 97.5])))


CLAIMS = [(0.9, True), (0.9, True), (0.8, False), (0.7, True), (0.6, False)]


def test_cuts_tell_what_share_is_answered_and_right_from_each_probability_on():
    expected = [(0.9, 0.4, 1), (0.8, 0.6, 2 / 3), (0.7, 0.8, 3 / 4), (0.6, 1, 3 / 5)]
    assert selective.cuts(CLAIMS) == [pytest.approx(cut) for cut in expected]


def test_the_cut_of_a_precision_answers_most_rows_and_rests_on_enough_of_them():
    assert selective.for_precision(CLAIMS, 0.5) is None
    many = CLAIMS * 20
    assert selective.for_precision(many, 0.75) == pytest.approx((0.7, 0.8, 0.75))
    assert selective.for_precision(many, 0.99) == pytest.approx((0.9, 0.4, 1))
