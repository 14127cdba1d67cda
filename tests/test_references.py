"""What a fine-tuned model is held against, and what is said where it is not the best."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from samples import jsonl, reviews

from ulmfit_style.analysis import comparison
from ulmfit_style.artefacts.directory import METRICS, read_json
from ulmfit_style.cli.compose import compose
from ulmfit_style.resolved import Step
from ulmfit_style.stages import references
from ulmfit_style.stages.table import STAGES, resolve

FROZEN, TFIDF = "frozen features + logistic regression", "TF-IDF + logistic regression"


def test_the_largest_class_comes_first_and_names_are_compared_with_texts(checkpoint: Path, tmp_path: Path):
    """The names of the classes are the texts of the test rows, and each other's of the validation rows."""
    labels = ("film_plot", "very number")
    splits = {
        "train": [(text, labels[number % 2]) for number, (text, _, _) in enumerate(reviews(40))],
        "validation": [("fílm plot", labels[1]), ("véry number", labels[0])],
        "test": [("film plot", labels[0]), ("FILM plot", labels[0]), ("very number", labels[1])],
    }
    files = ", ".join(
        f"{split}: {jsonl(tmp_path / f'{split}.jsonl', [{'text': text, 'label': label} for text, label in rows])}"
        for split, rows in splits.items()
    )
    model = [f"model.checkpoint={checkpoint}", f"runs={tmp_path / 'runs'}", "adapt=none"]
    resolved = resolve(compose(["task=text_classification", f"task.path={{{files}}}", *model]))
    references.run(Step(STAGES["references"], resolved, "references"), tmp_path)
    metrics = read_json(tmp_path / METRICS)
    assert list(metrics["test"]) == ["largest class", "class names alone", TFIDF, FROZEN]
    scores = {
        split: [metrics[split][name]["scores"]["accuracy"] for name in ("largest class", "class names alone")]
        for split in ("validation", "test")
    }
    assert scores == {"validation": [0.5, 0], "test": [pytest.approx(2 / 3), 1]}


@pytest.mark.parametrize(
    ("frozen", "tfidf", "beginning", "end"),
    [
        (
            0.7,
            0.6,
            f"{FROZEN} has f1 0.700",
            " (the intervals overlap); to keep it, with the same options: make finetune adapt=none finetune=frozen",
        ),
        (
            0.9,
            0.6,
            f"{FROZEN} has f1 0.900",
            "; to keep it, with the same options: make finetune adapt=none finetune=frozen",
        ),
        (0.7, 0.75, f"{TFIDF} has f1 0.750", " (the intervals overlap); no command makes a model of it"),
    ],
)
def test_a_reference_that_is_the_best_by_the_validation_rows_is_told(
    frozen: float, tfidf: float, beginning: str, end: str
):
    told = better_reference(frozen, tfidf)
    assert told == f"{beginning} on the 40 validation rows, and this model 0.600{end}"


def test_of_equal_scores_nothing_is_told():
    assert better_reference(0.6, 0.55) is None


def better_reference(frozen: float, tfidf: float) -> str | None:
    """Return what is said of references with these scores beside a model of 0.6 that scores 0 on the test rows."""

    def measured(score: float) -> dict[str, object]:
        return {"rows": 40, "scores": {"f1": score}, "interval": (score - 0.1, score + 0.1)}

    of_references = {"validation": {TFIDF: measured(tfidf), FROZEN: measured(frozen)}, "test": {FROZEN: measured(1)}}
    model = SimpleNamespace(metrics={"validation": measured(0.6), "test": measured(0)})
    return comparison.better_reference(SimpleNamespace(references=of_references, model=model), "f1")
