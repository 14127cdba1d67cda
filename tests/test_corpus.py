from collections.abc import Callable
from pathlib import Path

import pytest
from samples import jsonl, reviews

from ulmfit_style.config.training import Corpus
from ulmfit_style.data import corpus, labelled, shards
from ulmfit_style.data.corpus import Documents
from ulmfit_style.data.rows import normalised
from ulmfit_style.errors import UserError
from ulmfit_style.recipe import Config
from ulmfit_style.tasks.text_classification import TextClassification


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., Documents]:
    """Read the corpus of some paths, as a new command does."""

    def load(*paths: Path, task: TextClassification | None = None, **options: object) -> Documents:
        corpus.load.cache_clear()
        return corpus.load(Corpus(path=tuple(map(str, paths)), **options), task, tmp_path / "runs")

    return load


def count(documents: Documents) -> int:
    return len(documents.train) + len(documents.heldout)


def test_the_corpus_of_a_task_is_its_whole_training_split_whatever_is_sampled(compose_tiny: Callable[..., Config]):
    few, many = compose_tiny("task.train_samples=4"), compose_tiny("task.train_samples=40", "task.sample_seed=9")
    documents = corpus.load(few.corpus, few.task, few.runs)
    assert count(documents) == 84
    assert documents.identity == corpus.load(many.corpus, many.task, many.runs).identity


def test_validation_and_test_texts_are_taken_out_of_an_own_corpus(
    read, compose_tiny: Callable[..., Config], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    path = jsonl(tmp_path / "all.jsonl", [{"body": text.replace(" ", "\u00a0 ")} for text, _, _ in reviews(120)])
    task = compose_tiny().task
    documents = read(path, text="body", task=task)
    held = {normalised(text) for row in labelled.load(task).scored for text in task.texts(row)}
    assert not held & {normalised(text) for text in [*documents.train, *documents.heldout]}
    assert "36 documents are left out because they are validation or test texts" in capsys.readouterr().out
    assert documents.identity != read(path, text="body").identity
    others = jsonl(tmp_path / "others.jsonl", [{"body": f"document {n}"} for n in range(40)])
    assert read(others, text="body", task=task).identity == read(others, text="body").identity


def test_equal_documents_are_on_one_side(read, tmp_path: Path):
    documents = read(
        jsonl(tmp_path / "a.jsonl", [{"text": f"document {n % 50}"} for n in range(200)]), heldout_ratio=0.2
    )
    assert len(documents.heldout) == 40
    assert not set(documents.train) & set(documents.heldout)


def test_a_held_out_document_stays_so_when_others_come_and_a_share_keeps_its_order(read, tmp_path: Path):
    rows = [{"text": f"{n:03}"} for n in range(400)]
    few = read(jsonl(tmp_path / "few.jsonl", rows[:300]), heldout_ratio=0.1)
    many = read(jsonl(tmp_path / "many.jsonl", rows), heldout_ratio=0.1)
    assert len(set(few.heldout) - set(many.heldout)) <= 5
    share = read(tmp_path / "many.jsonl", max_documents=50)
    assert count(share) == 50
    assert list(share.train) == sorted(share.train)


def test_empty_documents_are_counted_and_a_tiny_corpus_is_refused(read, tmp_path: Path, capsys):
    path = jsonl(tmp_path / "a.jsonl", [{"text": " "}, {"text": None}, *({"text": f"{n}"} for n in range(5))])
    with pytest.raises(UserError, match="has 5 documents; adapt needs at least 20"):
        read(path)
    assert "2 empty documents are left out" in capsys.readouterr().out


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    """A folder of 30 notes of two paragraphs each, a csv file of more, and a picture."""
    folder = tmp_path / "notes"
    folder.mkdir()
    for number in range(30):
        (folder / f"{number:02}.txt").write_text(f"note {number}\n\nits second paragraph, {number}\n", encoding="utf-8")
    (folder / "more.csv").write_text("text\n" + "".join(f"row {n}\n" for n in range(5)), encoding="utf-8")
    (folder / "picture.png").touch()
    return folder


@pytest.mark.parametrize(("document", "expected"), [("file", 35), ("paragraph", 65), ("line", 65)])
def test_a_folder_of_notes_is_cut_into_documents_as_told(read, notes: Path, document, expected: int, capsys):
    documents = read(notes, document=document)
    assert count(documents) == expected
    out = capsys.readouterr().out
    assert f"from {notes} (31 files); in txt and md files a document is a {document} (corpus.document)" in out
    assert "1 files of other types are skipped (.png)" in out
    assert ("empty documents are left out" in out) == (document == "line")


def test_several_files_and_globs_are_one_corpus_and_no_file_is_read_twice(read, notes: Path):
    assert count(read(notes / "more.csv", f"{notes}/*.txt", notes / "00.txt", document="file")) == 35


def test_where_a_corpus_lies_does_not_change_what_it_is(read, notes: Path):
    before = read(notes).identity
    moved = notes.rename(notes.with_name("moved"))
    assert read(moved).identity == before
    assert read(moved, document="file").identity != before


def test_a_broken_file_of_a_folder_is_told_by_its_name_and_nothing_is_left_of_it(read, notes: Path):
    (notes / "07.txt").write_bytes("이 기록은\n오래된\n".encode() + b"\xea\xb3")
    with pytest.raises(UserError, match=r"notes/07\.txt: cannot be read \(line 3 is not UTF-8"):
        read(notes)
    assert not list((notes.parent / "runs").glob("corpus-*"))


def test_a_document_that_is_no_text_is_told_with_its_row(read, tmp_path: Path):
    path = jsonl(tmp_path / "a.jsonl", [{"text": f"{n}"} for n in range(30)] + [{"text": ["a", "b"]}])
    with pytest.raises(
        UserError, match=r"a\.jsonl:31: the text is a list, not a text; name another column with corpus\.text"
    ):
        read(path)


def test_both_texts_of_a_pair_are_documents_and_neither_of_a_test_pair_is_trained_on(tmp_path: Path):
    rows = [{"a": f"premise {n // 2}", "b": f"hypothesis {n}", "label": n % 2} for n in range(200)]
    task = TextClassification(path=str(jsonl(tmp_path / "pairs.jsonl", rows)), text="a", text_pair="b", folds=0)
    documents = corpus.load(Corpus(path=None), task, tmp_path / "runs")
    assert {text.split()[0] for text in documents.train} == {"premise", "hypothesis"}
    held = {normalised(text) for row in labelled.load(task).scored for text in task.texts(row)}
    assert not {normalised(text) for text in [*documents.train, *documents.heldout]} & held


def test_files_are_parsed_once_and_again_when_their_content_changes(read, tmp_path: Path):
    path = jsonl(tmp_path / "a.jsonl", [{"text": f"document {n}"} for n in range(40)])

    def parsed() -> dict[str, int]:
        read(path)
        return {str(table): table.stat().st_mtime_ns for table in tmp_path.glob(f"runs/corpus-*/{shards.TABLE}")}

    first = parsed()
    assert parsed() == first
    with path.open("a", encoding="utf-8") as file:
        file.write('{"text": "another"}\n')
    assert len(parsed()) == 2
