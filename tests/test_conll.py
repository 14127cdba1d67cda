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
        path.write_bytes(text.encode())
        records = reading.read("task.path", str(path), lambda present: {"text": "tokens"})
        return [(row.number, record) for row, record in records]

    return make


ADA = {"tokens": ["Ada", "left"], "tags": ["B-person", "O"]}
OTTAWA = {"tokens": ["Ottawa"], "tags": ["B-place"]}


@pytest.mark.parametrize("separator", ["\t", "  ", " \t"])
@pytest.mark.parametrize("name", ["a.conll", "a.IOB"])
def test_columns_are_separated_by_tabs_or_by_blanks(read, separator: str, name: str):
    text = f"Ada{separator}B-person\nleft{separator}O\n\nOttawa{separator}B-place"
    assert read(text, name) == [(1, ADA), (4, OTTAWA)]


def test_words_alone_are_read_for_prediction(read):
    assert read("Ada\nleft\n\n#now\n") == [(1, {"tokens": ["Ada", "left"]}), (4, {"tokens": ["#now"]})]


@pytest.mark.parametrize("separator", [" ", "\t"])
def test_any_blank_line_ends_a_sentence_and_documents_and_comments_are_no_words(read, separator: str):
    text = (
        "# id 1\tof 2\n-DOCSTART- -X- O\n\n\t\nAda|x|B-person\r\n#ours\nleft|x|O\n  \n\n#left|x|O\n-DOCSTART- -X- O\n"
    )
    first, second = read(text.replace("|", separator))
    assert first == (5, {**ADA, "column_2": ["x", "x"]})
    assert (second[0], second[1]["tokens"]) == (10, ["#left"])


def test_what_looks_like_a_blank_within_a_word_stays(read):
    assert read("New York\tB-place\n\N{NO-BREAK SPACE}\tO\n")[0][1]["tokens"] == ["New York", "\N{NO-BREAK SPACE}"]
    assert read("a\N{NO-BREAK SPACE}b O\n")[0][1]["tokens"] == ["a\N{NO-BREAK SPACE}b"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Ada\tB-person\nleft\n", r"a\.conll:2: is a word without a tag; put a blank line between sentences"),
        ("Ada O\nleft O\nthe very O\n", r"a\.conll:3: has 3 columns, and others 2"),
        ("Ada O\nleft\nOttawa O\n\nnow\n", r"a\.conll has 2 problems:\n.*:2, .*:5: is a word"),
    ],
)
def test_broken_lines_are_told_with_their_numbers(read, text: str, message: str):
    with pytest.raises(UserError, match=message):
        read(text)
