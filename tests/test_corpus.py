from collections.abc import Callable
from pathlib import Path

import pytest
from samples import jsonl, reviews

from ulmfit_style.config import Config, Corpus
from ulmfit_style.data import corpus, labelled
from ulmfit_style.errors import UserError


@pytest.fixture(autouse=True)
def fresh() -> None:
    corpus.load.cache_clear()
    labelled.load.cache_clear()


def test_the_corpus_of_a_task_is_its_whole_training_split_whatever_is_sampled(compose_tiny: Callable[..., Config]):
    few, many = compose_tiny("task.train_samples=4"), compose_tiny("task.train_samples=40", "task.sample_seed=9")
    documents = corpus.load(few.corpus, few.task)
    assert len(documents.train) + len(documents.heldout) == 84
    assert documents.digest() == corpus.load(many.corpus, many.task).digest()


def test_validation_and_test_texts_are_taken_out_of_an_own_corpus(
    compose_tiny: Callable[..., Config], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    path = jsonl(tmp_path / "all.jsonl", [{"body": text.replace(" ", "\u00a0 ")} for text, _, _ in reviews(120)])
    config = compose_tiny("corpus=file", f"corpus.path={path}", "corpus.text=body")
    documents = corpus.load(config.corpus, config.task)
    held = labelled.load(config.task).held
    assert not held & {labelled.normalised(text) for text in documents.train + documents.heldout}
    assert "36 documents are left out that are validation or test texts" in capsys.readouterr().out


def test_equal_documents_are_on_one_side(tmp_path: Path):
    path = jsonl(tmp_path / "a.jsonl", [{"text": f"document {n % 50}"} for n in range(200)])
    documents = corpus.load(Corpus(path=str(path), heldout_ratio=0.2), None)
    assert len(documents.heldout) == 40
    assert not set(documents.train) & set(documents.heldout)


def test_a_held_out_document_stays_held_out_when_others_come(tmp_path: Path):
    rows = [{"text": f"document {n}"} for n in range(400)]
    few = corpus.load(Corpus(path=str(jsonl(tmp_path / "few.jsonl", rows[:300])), heldout_ratio=0.1), None)
    many = corpus.load(Corpus(path=str(jsonl(tmp_path / "many.jsonl", rows)), heldout_ratio=0.1), None)
    assert len(set(few.heldout) - set(many.heldout)) <= 5


def test_a_share_of_a_corpus_keeps_its_order(tmp_path: Path):
    path = jsonl(tmp_path / "a.jsonl", [{"text": f"{n:03}"} for n in range(200)])
    documents = corpus.load(Corpus(path=str(path), max_documents=50), None)
    assert len(documents.train) + len(documents.heldout) == 50
    assert documents.train == sorted(documents.train)


def test_empty_documents_are_counted_and_a_tiny_corpus_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = jsonl(tmp_path / "a.jsonl", [{"text": " "}, {"text": None}, *({"text": f"{n}"} for n in range(5))])
    with pytest.raises(UserError, match="holds 5 documents; adapt needs 20 at least"):
        corpus.load(Corpus(path=str(path)), None)
    assert "2 empty documents are left out" in capsys.readouterr().out
