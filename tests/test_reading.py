import bz2
import gzip
import lzma
from collections.abc import Callable
from pathlib import Path

import pytest
from samples import jsonl

from ulmfit_style.data.reading import read
from ulmfit_style.errors import UserError


def texts(path: Path) -> list[tuple[int, object]]:
    return [(row.number, row.fields["text"]) for row in read("task.path", str(path), ["text"])]


def test_a_csv_row_knows_its_line_even_after_a_text_of_several_lines(tmp_path: Path):
    path = tmp_path / "a.csv"
    path.write_text('text,label\n"two\nlines, one text",a\nnext,b\n', encoding="utf-8")
    assert texts(path) == [(3, "two\nlines, one text"), (4, "next")]


def test_tsv_jsonl_txt_and_parquet_are_read(tmp_path: Path):
    (tmp_path / "a.tsv").write_text("text\tlabel\nä b\t1\n", encoding="utf-8")
    assert texts(tmp_path / "a.tsv") == [(2, "ä b")]
    assert texts(jsonl(tmp_path / "a.jsonl", [{"text": "한국어"}, {"text": "b"}])) == [(1, "한국어"), (2, "b")]
    (tmp_path / "a.txt").write_text("one\ntwo\n", encoding="utf-8")
    assert texts(tmp_path / "a.txt") == [(1, "one"), (2, "two")]
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.table({"text": ["p", "q"], "label": [1, 0]}), tmp_path / "a.parquet")
    assert texts(tmp_path / "a.parquet") == [(1, "p"), (2, "q")]


@pytest.mark.parametrize(("suffix", "module"), [(".gz", gzip), (".bz2", bz2), (".xz", lzma)])
def test_compressed_files_are_read(tmp_path: Path, suffix: str, module):
    path = tmp_path / f"a.csv{suffix}"
    path.write_bytes(module.compress(b"text\nhello\n"))
    assert texts(path) == [(2, "hello")]


def test_a_byte_order_mark_is_no_part_of_the_first_column(tmp_path: Path):
    path = tmp_path / "a.csv"
    path.write_text("text\nhello\n", encoding="utf-8-sig")
    assert texts(path) == [(2, "hello")]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "a.csv",
            b"txt,label\nhello,1\n",
            r"row 2 has no column 'text'; did you mean 'txt'\? \(there are: txt, label\)",
        ),
        ("a.csv", b"text,label\nhello\n", r"a\.csv:2: has not as many columns as the header"),
        ("a.csv", b"text,label\nhello,1,2\n", r"a\.csv:2: has not as many columns as the header"),
        ("a.csv", b'text\n"never closed\n', r"a\.csv:2: is broken \(unexpected end of data\)"),
        ("a.csv", b"text\n", "holds no rows"),
        ("a.csv", "text\nsch\u00f6n\n".encode("latin-1"), "is not UTF-8"),
        ("a.jsonl", b'{"text": "a"}\n{"text": \n', r"a\.jsonl:2: is not JSON \(.* at column 9\)"),
        ("a.jsonl", b'"just text"\n', r"a\.jsonl:1: is not a JSON object"),
        ("a.docx", b"", r"'\.docx' is not a kind of file that is read here"),
        ("a.csv.gz", b"not gzip", "cannot be read"),
    ],
)
def test_a_bad_file_is_answered_with_its_place(tmp_path: Path, name: str, content: bytes, message: str):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        read("task.path", str(tmp_path / name), ["text"])


def test_a_missing_file_is_answered_with_the_nearest_name(write_csv: Callable[..., Path]):
    path = write_csv([])
    with pytest.raises(UserError, match=r"there is no such file; did you mean 'reviews\.csv'\?"):
        read("task.path", str(path.with_name("review.csv")), ["text"])
