"""Few labels are scored by cross-validation of the whole recipe, and the model that is left is trained on all."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from pydantic import ValidationError
from recipes import Trained
from samples import jsonl, reviews

from ulmfit_style import auto, chain
from ulmfit_style.__main__ import main
from ulmfit_style.artefacts import predictions
from ulmfit_style.artefacts.directory import METRICS, read_json
from ulmfit_style.cli.compose import compose
from ulmfit_style.config.commands import Hub
from ulmfit_style.data import labelled
from ulmfit_style.data.rows import normalised
from ulmfit_style.errors import UserError
from ulmfit_style.publishing import card
from ulmfit_style.resolved import Resolved
from ulmfit_style.results import finished
from ulmfit_style.stages import references
from ulmfit_style.stages.table import resolve
from ulmfit_style.tasks.base import Row
from ulmfit_style.tasks.text_classification import TextClassification

Load = Callable[..., labelled.Labelled]


@pytest.fixture
def load(write_csv: Callable[..., Path]) -> Load:
    """Load labelled reviews."""

    def make(rows: Sequence[Sequence[str]], **options: object) -> labelled.Labelled:
        labelled.load.cache_clear()
        return labelled.load(TextClassification(path=str(write_csv(rows)), text="review", label="stars", **options))

    return make


def numbers(rows: Sequence[Row]) -> list[int]:
    return [row.number for row in rows]


TWICE = [(f"{text}{blank}", *rest) for text, *rest in reviews(40) for blank in ("", " ")]


@pytest.mark.parametrize(
    ("rows", "options"), [(reviews(98), {}), (TWICE, {"folds": 4}), (reviews(99), {"group": "film", "folds": 3})]
)
def test_every_row_is_in_one_fold_beside_its_like_and_the_others_are_trained_on(load: Load, rows, options):
    whole = load(rows, **options)
    assert len(whole.folds) == options.get("folds", 5)
    assert not whole.scored
    assert sorted(numbers(whole.test)) == numbers(whole.train) == list(range(2, len(rows) + 2))
    counts, sizes = [[row.fields["label"] for row in fold].count("good") for fold in whole.folds], []
    seen: list[set[str]] = []
    for number in range(len(whole.folds)):
        fold = labelled.load(whole.task.model_copy(update={"fold": number}))
        assert not set(numbers(fold.train)) & set(numbers(fold.test))
        assert len(fold.train) + len(fold.test) == len(rows)
        assert fold.classes == whole.classes
        sizes.append(len(fold.test))
        seen.append({row.fields.get("group") or normalised(row.fields["text"]) for row in fold.test})
    assert sum(map(len, seen)) == len(set().union(*seen))
    assert max(sizes) - min(sizes) <= 4
    assert max(counts) - min(counts) <= 2


def test_folds_are_for_few_rows_of_one_file_whose_labels_are_all_used(load: Load):
    assert [len(load(reviews(count)).folds) for count in (299, 300)] == [5, 0]
    options: list[dict[str, int]] = [{"train_samples": 20}, {"shots": 3}, {"test_samples": 9}, {"folds": 0}]
    assert [len(load(reviews(90), **given).folds) for given in options] == [0] * 4
    assert load([*reviews(20), ("a text", "rare", "f")]).classes == ["bad", "good", "rare"]


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        (reviews(20), {"folds": 1}, "folds are 2 or more, or 0 for splits"),
        (reviews(20), {"folds": 3, "shots": 2}, "go without train_samples, shots,"),
        (reviews(20), {"folds": 3, "fold": 3}, r"task\.fold=3: there are 3 folds, counted from 0"),
        (reviews(20), {"folds": 30}, r"20 rows are too few for 30 folds \(task\.folds\)"),
    ],
)
def test_folds_that_make_no_sense_are_refused(load: Load, rows, options, message):
    with pytest.raises((UserError, ValidationError), match=message):
        load(rows, **options)


def test_a_fold_is_trained_by_the_recipe_that_is_chosen_for_all_rows(tmp_path: Path, checkpoint: Path):
    rows = [{"text": text, "label": label} for text, label, _ in reviews(2 * auto.FEW + 20)]
    data = ["task=text_classification", f"task.path={jsonl(tmp_path / 'a.jsonl', rows)}", "task.folds=5"]
    resolved = resolve(compose([*data, f"model.checkpoint={checkpoint}", "adapt=none", f"runs={tmp_path}"]))
    assert len(resolved.folds[0].rows.train) < 2 * auto.FEW  # for which few_labels would be chosen
    assert {fold.finetune.epochs for fold in resolved.folds} == {resolved.finetune.epochs} == {10}


@pytest.fixture(scope="module")
def crossed(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path) -> Trained:
    """A recipe that was adapted, compared and scored in three folds, after a run that stopped behind the first."""
    folder = tmp_path_factory.mktemp("folds")
    rows = [
        {"review": text, "stars": "bad" if number % 10 == 4 else label, "country": "en" if number % 3 else "de"}
        for number, (text, label, _) in enumerate(reviews(90))
    ]
    overrides = [
        *("task=text_classification", f"task.path={jsonl(folder / 'reviews.jsonl', rows)}", "task.folds=3"),
        *("task.text=review", "task.label=stars", f"model.checkpoint={checkpoint}", f"runs={folder / 'runs'}"),
        *("adapt.head_epochs=0", "adapt.general=null", "adapt.epochs=1", "adapt.batch_size=16"),
        *(
            "finetune=plain",
            "finetune.epochs=8",
            "finetune.learning_rate=1e-2",
            "finetune.max_length=32",
            "evaluate.slices=[country]",
        ),
    ]
    chain.make_in_this_process(chain.plan(resolve(compose(overrides)), ("adapt", "finetune"))[:2], "default")
    return Trained("text classification", overrides, folder, folder / "reviews.jsonl")


def fold_answers(part: Resolved) -> list[predictions.Prediction]:
    return predictions.read(part.artefact("finetune").directory, "test")


def test_the_score_is_that_of_all_rows_each_by_a_model_that_has_not_seen_it(
    crossed: Trained, capsys: pytest.CaptureFixture[str]
):
    resolved = resolve(compose(crossed.overrides))
    not_adapted = resolved.variant(adapt=None)
    first = not_adapted.folds[0].artefact("finetune")
    made = (first.directory / "measured.json").stat().st_mtime_ns
    assert main(["adapt", "finetune", *crossed.overrides]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert (first.directory / "measured.json").stat().st_mtime_ns == made
    assert "finetune, not adapted: for comparison, fold 1 of 3" not in printed
    assert all(f"finetune, not adapted: for comparison, fold {number} of 3" in printed for number in (2, 3))
    assert all(f"finetune: fine-tuned model, fold {number} of 3" in printed for number in (1, 2, 3))
    assert "3-fold cross-validation over 90 rows; the model that is left is trained on all of them" in printed
    assert "Adaptation changed accuracy by" in printed

    for run in (resolved, not_adapted):
        answered = predictions.read(run.artefact("finetune").directory, "test")
        assert answered == [answer for part in run.folds for answer in fold_answers(part)]
        assert sorted(answer["row"] for answer in answered) == list(range(1, 91))
        measured = read_json(run.artefact("finetune").directory / METRICS)
        right = [answer["target"] for answer in answered]
        assert measured["test"]["scores"] == resolved.task.score(answered, right)
        assert measured["train"]["rows"] == measured["test"]["rows"] == 90
    for part in (*resolved.folds, *not_adapted.folds):
        assert {answer["row"] for answer in fold_answers(part)}.isdisjoint(numbers(part.rows.train))
        assert not list(part.artefact("finetune").directory.glob("*.safetensors"))
    links = {link.name for link in (crossed.runs / "default").iterdir()}
    assert links == {"adapt", "finetune", "finetune-not-adapted", "references"}

    task, answers = resolved.task, []
    for part in resolved.folds:
        answers += references._answers(part, part.rows.test)["TF-IDF + logistic regression"]
    scored = read_json(resolved.artefact("references").directory / METRICS)["test"]["TF-IDF + logistic regression"]
    assert scored["scores"] == task.score(answers, list(map(task.target, resolved.rows.test)))


def test_the_same_again_is_up_to_date_and_is_evaluated_reported_and_described_by_the_answers_of_the_folds(
    crossed: Trained, capsys: pytest.CaptureFixture[str]
):
    assert main(["adapt", "finetune", *crossed.overrides]) == 0
    assert main(["adapt", "finetune", *crossed.overrides]) == 0
    assert capsys.readouterr().out.split("3-fold cross")[-2].count("up to date") == 4
    assert main(["evaluate", *crossed.overrides]) == main(["report", *crossed.overrides]) == 0
    measured = read_json(crossed.runs / "default/evaluate" / METRICS)
    assert measured["test"] == crossed.metrics["test"]
    assert measured["slices"]["country"]["groups"]["de"]["rows"] == 30
    text = card.write("me/mine", finished.read(crossed.directory, "default"), Hub(), "")
    assert "The test scores were measured in 3-fold cross-validation over 90 rows: each was answered by a model" in text
    assert "in 3-fold" in (crossed.runs / "default/report.html").read_text(encoding="utf-8")
    capsys.readouterr()
    for option in ("evaluate.split=validation", f"evaluate.model={crossed.directory}"):
        assert main(["evaluate", *crossed.overrides, option]) == 2
        assert "rows kept from training (task.folds); name a file: evaluate.path=<file>" in capsys.readouterr().err
