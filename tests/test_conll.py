import gzip
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ulmfit_style.data import reading
from ulmfit_style.errors import UserError


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., list[tuple[int, Any]]]:
    """Write a CoNLL file, and return what is read of it: the line where each sentence begins, and its columns."""

    def make(text: str, name: str = "a.conll") -> list[tuple[int, Any]]:
        path = tmp_path / name
        path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
        rows = reading.rows("task.path", str(path), ["tokens"], others=True)
        return [(row.number, dict(row.fields)) for row in rows]

    return make


ADA = {"tokens": ["Ada", "left"], "tags": ["B-person", "O"]}
OTTAWA = {"tokens": ["Ottawa"], "tags": ["B-place"]}


@pytest.mark.parametrize("separator", ["\t", " ", "  ", " \t", "|", ";", ",", "\t "])
def test_the_separator_is_found(read, separator: str):
    text = f"Ada{separator}B-person\nleft{separator}O\n\nOttawa{separator}B-place"
    assert read(text) == [(1, ADA), (4, OTTAWA)]


@pytest.mark.parametrize("name", ["a.conll", "a.bio", "a.iob", "a.CONLL", "a.conll.gz"])
def test_the_files_ending_tells_what_it_is(read, name: str):
    assert read("Ada\tB-person\nleft\tO\n", name) == [(1, ADA)]


def test_the_first_column_is_the_words_the_last_the_tags_and_the_others_go_by_number(read):
    ((_, columns),) = read("Ada NNP B-NP B-person\nleft VBD B-VP O\n")
    assert columns == {**ADA, "column_2": ["NNP", "VBD"], "column_3": ["B-NP", "B-VP"]}


def test_words_alone_are_read_for_prediction(read):
    assert read("Ada\nleft\n\n#now\n") == [(1, {"tokens": ["Ada", "left"]}), (4, {"tokens": ["#now"]})]


def test_any_blank_line_ends_a_sentence_and_documents_and_comments_are_no_words(read):
    text = (
        "# id 1\n-DOCSTART- -X- O\n\n\t\nAda x B-person\r\n#note of ours\nleft x O\n  \n\n#left x O\n-DOCSTART- -X- O\n"
    )
    found = read(text)
    assert [number for number, _ in found] == [5, 10]
    assert found[0][1] == {**ADA, "column_2": ["x", "x"]}
    assert found[1][1]["tokens"] == ["#left"]


def test_what_looks_like_a_blank_within_a_word_stays(read):
    assert read("New York\tB-place\n\N{NO-BREAK SPACE}\tO\n")[0][1]["tokens"] == ["New York", "\N{NO-BREAK SPACE}"]
    assert read("a\N{NO-BREAK SPACE}b O\n")[0][1]["tokens"] == ["a\N{NO-BREAK SPACE}b"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "Ada\tB-person\nleft\n",
            r"a\.conll:2: is a word without a tag; between two sentences there is a blank line",
        ),
        ("Ada O\nleft O\nthe very O\n", r"a\.conll:3: has 3 columns, and the other lines 2"),
    ],
)
def test_a_broken_file_is_told_with_its_line(read, text: str, message: str):
    with pytest.raises(UserError, match=message):
        read(text)


@pytest.mark.parametrize("text", ["", "\n\t\n", "# a comment\n"])
def test_an_empty_file_is_told(tmp_path: Path, text: str):
    (tmp_path / "a.conll").write_text(text)
    with pytest.raises(UserError, match=r"task\.path=\S+a\.conll: holds no rows"):
        reading.header("task.path", str(tmp_path / "a.conll"))


def test_all_broken_lines_are_told_at_once(read):
    with pytest.raises(UserError, match=re.escape("a.conll has 2 problems:")):
        read("Ada O\nleft\nOttawa O\n\nnow\n")


def test_a_folder_of_text_leaves_such_files_out(tmp_path: Path):
    (tmp_path / "a.txt").write_text("Ada left\n")
    (tmp_path / "b.conll").write_text("Ada\tO\n")
    found, others = reading.files("corpus.path", str(tmp_path))
    assert found == [str(tmp_path / "a.txt")]
    assert others == {".conll": 1}
