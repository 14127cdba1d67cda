import bz2
import csv
import gzip
import lzma
import os
import unicodedata
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, strategies
from readable import COMMAS, LINES, READ, REFUSED, ROWS, database, parquet, xlsx, zipped
from samples import jsonl

from ulmfit_style.config.section import FileFormat
from ulmfit_style.data.formats import FORMATS
from ulmfit_style.data.reading import files, first, read, rows
from ulmfit_style.errors import UserError
from ulmfit_style.tasks.text_classification import TextClassification


def texts(path: Path, document=None) -> list[tuple[int, object]]:
    found = read("task.path", str(path), lambda _: {"text": "text"}, document)
    return [(row.number, row.fields["text"]) for row, _ in found]


def test_a_csv_row_knows_its_line_even_after_a_text_of_several_lines(tmp_path: Path):
    path = tmp_path / "a.csv"
    path.write_text('text,label\n"two\nlines, one text",a\nnext,b\n', encoding="utf-8")
    assert texts(path) == [(3, "two\nlines, one text"), (4, "next")]


def test_tsv_jsonl_and_parquet_are_read(tmp_path: Path):
    (tmp_path / "a.tsv").write_text("text\tlabel\nä b\t1\n", encoding="utf-8")
    assert texts(tmp_path / "a.tsv") == [(2, "ä b")]
    assert texts(jsonl(tmp_path / "a.jsonl", [{"text": "한국어"}, {"text": "b"}])) == [(1, "한국어"), (2, "b")]
    pyarrow.parquet.write_table(pyarrow.table({"text": ["p", "q"], "label": [1, 0]}), tmp_path / "a.parquet")
    assert texts(tmp_path / "a.parquet") == [(1, "p"), (2, "q")]


def test_a_column_may_lie_within_another_and_a_plain_one_of_that_name_comes_first(tmp_path: Path):
    column, nested = "summary.outcome.short", {"id": 1, "summary": {"outcome": {"short": "s"}}}
    path = jsonl(tmp_path / "a.jsonl", [nested, {"summary.outcome.short": "p", "summary": {}}])
    assert [row.fields for row in rows("task.path", str(path), [column])] == [{column: "s"}, {column: "p"}]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([nested]), tmp_path / "a.parquet")
    assert [row.fields for row in rows("task.path", str(tmp_path / "a.parquet"), [column])] == [{column: "s"}]


NOTES = "one\ntwo\n\n\nthree\n  \nfour\n"


@pytest.mark.parametrize(
    ("name", "document", "expected"),
    [
        ("a.txt", None, [(1, "one"), (2, "two"), (3, ""), (4, ""), (5, "three"), (6, "  "), (7, "four")]),
        ("a.txt", "paragraph", [(1, "one\ntwo"), (5, "three"), (7, "four")]),
        ("a.txt", "file", [(1, NOTES)]),
        ("a.md", None, [(1, NOTES)]),
        ("a.md", "paragraph", [(1, "one\ntwo"), (5, "three"), (7, "four")]),
    ],
)
def test_a_document_is_a_line_of_txt_and_the_whole_of_md_unless_told_otherwise(
    tmp_path: Path, name: str, document, expected: list[tuple[int, str]]
):
    (tmp_path / name).write_bytes(NOTES.replace("\n", "\r\n").encode())
    assert texts(tmp_path / name, document) == expected


@pytest.mark.parametrize(
    ("suffix", "compress"), [(".gz", gzip.compress), (".bz2", bz2.compress), (".xz", lzma.compress)]
)
def test_compressed_files_are_read(tmp_path: Path, suffix: str, compress):
    path = tmp_path / f"a.csv{suffix}"
    path.write_bytes(compress("text\n한국어\n".encode()))
    assert texts(path) == [(2, "한국어")]


def test_a_byte_order_mark_is_no_part_of_the_first_column(tmp_path: Path):
    path = tmp_path / "a.csv"
    path.write_text("text\nhello\n", encoding="utf-8-sig")
    assert texts(path) == [(2, "hello")]


def test_a_column_is_found_however_its_letters_are_composed(tmp_path: Path):
    path = tmp_path / "a.csv"
    path.write_text(unicodedata.normalize("NFD", "리뷰,id\n") + "좋다,1\n", encoding="utf-8")
    assert list(first("task.path", str(path))) == ["리뷰", "id"]
    for name in ("리뷰", unicodedata.normalize("NFD", "리뷰")):
        assert [row.fields[name] for row in rows("task.path", str(path), [name])] == ["좋다"]


def test_rows_are_given_before_the_rest_of_the_file_is_read(tmp_path: Path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "0"}\n' * 100_000 + "broken\n", encoding="utf-8")
    assert next(rows("task.path", str(path), ["text"])).number == 1


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "a.csv",
            b"txt,label\nhello,1\n",
            r"^task\.path=\S+a\.csv: has no column 'text'; did you mean 'txt'",
        ),
        ("a.csv", b"text,label\nhello\n", r"^\S+a\.csv:2: has 1 columns, and the header 2; a text that contains the"),
        ("a.csv", b'text\n"never closed\n', r"a\.csv:2: cannot be parsed \(unexpected end of data\); is a quote not"),
        ("a.csv", b"text,text\na,b\n", r"a\.csv:1: the header has two columns 'text'"),
        ("a.jsonl", b'{"text": "a"}\n{"text": \n', r"a\.jsonl:2: is not JSON \(.* at column 9\)"),
        ("a.jsonl", b'"just text"\n', r"a\.jsonl:1: is not a JSON object"),
        ("a.jsonl", b'{"text": "a"}\n{"text": "cut \\ud83d"}\n', r"a\.jsonl:2: contains half a character"),
        ("a.jsonl", b'{"text": "a"}\n{"txt": "b"}\n', r"a\.jsonl:2: has no column 'text'; did you mean 'txt'\?"),
        ("a.parquet", b"PAR1 and no more", r"a\.parquet: cannot be read \(Parquet "),
        (
            "a.docx",
            b"",
            r"files of type '\.docx' cannot be read; task\.format=<ending> says how to read it \(supported: csv, ",
        ),
    ],
)
def test_a_bad_file_is_answered_with_its_place(tmp_path: Path, name: str, content: bytes, message: str):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        texts(tmp_path / name)


def test_all_bad_rows_of_a_file_are_told_at_once_and_none_is_given_after_the_first(tmp_path: Path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "a"}\n' + 12 * '{"text"}\n' + '{"txt": "b"}\n{"text": "c"}\n', encoding="utf-8")
    given: list[object] = []
    with pytest.raises(UserError) as caught:
        given.extend(row.fields["text"] for row in rows("task.path", str(path), ["text"]))
    head, *problems = str(caught.value).splitlines()
    assert head == f"task.path={path} has 13 problems:"
    assert problems[0].startswith(f"  - {path}:2, {path}:3, {path}:4 and 9 more: is not JSON (Expecting ':'")
    assert problems[1:] == [f"  - {path}:14: has no column 'text'; did you mean 'txt'? (columns: txt)"]
    assert given == ["a"]


def test_a_missing_file_is_answered_with_the_nearest_name(write_csv: Callable[..., Path]):
    path = write_csv([])
    path.with_name("review.cs").mkdir()  # a folder is no file that could be meant
    with pytest.raises(UserError, match=r"there is no such file; did you mean 'reviews\.csv'\?"):
        texts(path.with_name("review.csv"))


def test_an_empty_file_has_no_first_row(tmp_path: Path):
    (tmp_path / "a.csv").write_text("text\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"task.path=.*a\.csv: holds no rows"):
        first("task.path", str(tmp_path / "a.csv"))


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    """A folder with files of several kinds, some within folders, some hidden, some of labelled rows."""
    names = ("b.txt", "a.md", "more/c.csv.gz", "more/picture.png", "scan.pdf", "d.conll", "e.json", ".DS_Store")
    for name in (*names, ".git/d.txt"):
        path = tmp_path / "notes" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path / "notes"


def test_a_folder_means_all_files_in_it_that_hold_documents_and_the_others_are_counted(notes: Path, capsys):
    members = files("corpus.path", str(notes))
    assert [os.path.relpath(path, notes) for path in members] == ["a.md", "b.txt", "more/c.csv.gz"]
    assert "4 files of other types are skipped (.conll, .json, .pdf, .png)" in capsys.readouterr().out


def test_a_glob_means_the_files_whose_names_match(notes: Path, monkeypatch: pytest.MonkeyPatch):
    assert files("corpus.path", f"{notes}/*.txt") == [str(notes / "b.txt")]
    monkeypatch.chdir(notes.parent)
    assert files("corpus.path", "notes/**/*.csv.gz") == ["notes/more/c.csv.gz"]


@pytest.mark.parametrize("reference", ["more", "*.jsonl"])
def test_a_folder_or_glob_without_a_file_that_can_be_read_is_refused(notes: Path, reference: str):
    (notes / "more/c.csv.gz").unlink()
    with pytest.raises(UserError, match=r"corpus\.path=\S+: there is no file that can be read \(supported: csv"):
        files("corpus.path", str(notes / reference))


# Tables as people have them

PLAIN = [("a, b; c|d", "x"), ('say "so"', "y")]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
@pytest.mark.parametrize("name", ["a.csv", "a.tsv"])
def test_the_separator_is_found_and_said_where_it_is_not_that_of_the_ending(tmp_path, delimiter, quoting, name, capsys):
    with (tmp_path / name).open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, delimiter=delimiter, quoting=quoting).writerows([("text", "label"), *PLAIN])
    read = [tuple(row.fields.values()) for row in rows("task.path", str(tmp_path / name), ["text", "label"])]
    assert read == PLAIN
    is_usual = delimiter == {"a.csv": ",", "a.tsv": "\t"}[name]
    assert ("columns are separated by" in capsys.readouterr().out) == (not is_usual or delimiter == "\t")


@pytest.mark.parametrize(
    "cells",
    [
        ['a "b" c', '"never closed', 'nor this"', "plain"],
        ['" as GLUE has it', 'one more " here', '"', '""'],
        ['"whole"', "plain"],
    ],
)
def test_quotation_marks_are_parts_of_texts_in_a_table_of_tabs(tmp_path: Path, cells: list[str]):
    path = tmp_path / "a.tsv"
    path.write_text("text\tlabel\n" + "".join(f"{cell}\tx\n" for cell in cells), encoding="utf-8")
    assert texts(path) == list(enumerate(cells, start=2))


def test_they_enclose_cells_there_too_where_the_table_says_so(tmp_path: Path):
    path = tmp_path / "a.tsv"
    path.write_text('text\tlabel\n"two\nlines"\tx\n"say ""so"""\ty\n', encoding="utf-8")
    assert texts(path) == [(3, "two\nlines"), (4, 'say "so"')]
    path.write_text('"text"\t"label"\n"one"\t"x"\n', encoding="utf-8")
    assert texts(path) == [(2, "one")]


def test_a_mark_within_a_text_may_have_a_backslash(tmp_path: Path):
    path = tmp_path / "a.csv"
    path.write_text('text,label\n"say \\"so\\", he said",x\nplain,y\n', encoding="utf-8")
    assert texts(path) == [(2, 'say "so", he said'), (3, "plain")]


def test_a_cell_that_swallows_rows_of_a_table_of_tabs_is_refused(tmp_path: Path):
    path = tmp_path / "a.tsv"
    path.write_text('"text"\t"label"\n"one\tx\ntwo\tx\nthree"\t"x"\n', encoding="utf-8")
    with pytest.raises(UserError, match=r"a\.tsv:4: a cell has a tab and a line break; is a quotation mark a part"):
        texts(path)


def test_empty_cells_beyond_the_header_are_left_out_and_a_column_without_a_name_gets_one(tmp_path: Path):
    path = tmp_path / "a.csv"
    path.write_text(",text ,label,,\n0,a,x,,\n1,b,y\n2,c,z,,,\n", encoding="utf-8")
    assert first("task.path", str(path)) == {"column_1": "0", "text": "a", "label": "x"}
    assert texts(path) == [(2, "a"), (3, "b"), (4, "c")]
    path.write_text("text,label,\na,x,more\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"a\.csv:2: has 3 columns, and the header 2"):
        texts(path)


@pytest.mark.parametrize("what", READ)
def test_what_people_have_is_read(what: str, tmp_path: Path):
    name, content, expected = READ[what]
    (tmp_path / name).write_bytes(content)
    task = TextClassification(path="-")
    found = rows("task.path", str(tmp_path / name), ["text", "label"])
    assert [(*task.texts(row), task.target(row)) for row in found] == expected


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_read_is_told_with_its_place(what: str, tmp_path: Path):
    name, content, message = REFUSED[what]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        texts(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (
            READ["cp1252 (Windows, Western Europe)"][1],
            "is not UTF-8; it is read as cp1252, with words such as 'Menü'",
        ),
        (b"text,label\na caf\xe9,x\n", "it is read as cp1252, with words such as 'café'"),
        (READ["csv with semicolons, as Excel writes it in much of Europe"][1], "columns are separated by ';', and"),
    ],
)
def test_what_was_found_is_said_in_a_line_with_the_option_that_says_otherwise(content, said, tmp_path: Path, capsys):
    (tmp_path / "a.csv").write_bytes(content)
    first("task.path", str(tmp_path / "a.csv"))
    first("task.path", str(tmp_path / "a.csv"))
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "a.csv: " in line and said in line]
    assert line.endswith("(task.format)")


@pytest.mark.parametrize(
    ("name", "content", "form", "expected"),
    [
        ("notes_00", b"one\ntwo\n", "txt", {"text": "one"}),
        ("a.dat", LINES, {"kind": "jsonl"}, {"text": ROWS[0][0], "label": "bad"}),
        ("a.csv", b"text^label\na;b^x\n", {"delimiter": "^"}, {"text": "a;b", "label": "x"}),
        ("a.csv", b'text\n"quoted"\n', {"quotes": False}, {"text": '"quoted"'}),
        ("a.csv", "text\nжизнь\n".encode("koi8_r"), {"encoding": "koi8-r"}, {"text": "жизнь"}),
        ("a.xlsx", xlsx(Notes=[("x", "y"), ("1", "2")], Data=[("text",), ("b",)]), {"sheet": "Data"}, {"text": "b"}),
        ("a.json", b'{"train": [{"text": "a"}], "test": [{"text": "b"}]}', {"field": "test"}, {"text": "b"}),
        ("a.db", database("old", "new"), {"query": "select label as text from new"}, {"text": "bad"}),
    ],
)
def test_an_option_says_how_a_file_is_read(name: str, content: bytes, form: object, expected: dict, tmp_path: Path):
    (tmp_path / name).write_bytes(content)
    assert first("task.path", str(tmp_path / name), FileFormat.model_validate(form)) == expected


@pytest.mark.parametrize(
    ("form", "message"),
    [
        ("nope", r"files of type '\.nope' cannot be read; task\.format=<ending> says how"),
        ({"sheet": "Dat"}, "there is no sheet Dat"),
    ],
)
def test_a_format_that_there_is_not_is_refused(form: object, message: str, tmp_path: Path):
    (tmp_path / "a.xlsx").write_bytes(xlsx(Data=[("text",), ("b",)]))
    with pytest.raises(UserError, match=message):
        first("task.path", str(tmp_path / "a.xlsx"), FileFormat.model_validate(form))
    (tmp_path / "a.csv").write_text("text\nb\n")
    with pytest.raises(UserError, match=r"unknown encoding: utf-9\); task\.format may help"):
        first("task.path", str(tmp_path / "a.csv"), FileFormat(encoding="utf-9"))


def test_a_database_is_read_by_its_table_or_a_query_and_not_written(tmp_path: Path):
    (tmp_path / "a.db").write_bytes(database("old", "new"))
    reference = f"sqlite:///{tmp_path}/a.db?"
    assert len(list(rows("task.path", f"{reference}new", ["text"]))) == 3
    (row,) = rows("task.path", f"{reference}select text from old where label = 'bad'", ["text"])
    assert (row.place, row.fields) == ("a.db:1", {"text": ROWS[0][0]})
    with pytest.raises(UserError, match="attempt to write a readonly database"):
        list(rows("task.path", f"{reference}drop table old", ["text"]))


def test_a_sheet_is_read_with_the_rows_that_it_shows_and_whole_numbers_as_such(tmp_path: Path):
    sheet = xlsx(One=[("text", "label"), ("a", "1"), ("", ""), ("b", "2")])
    (tmp_path / "a.xlsx").write_bytes(sheet)
    assert texts(tmp_path / "a.xlsx") == [(2, "a"), (4, "b")]


def test_the_shards_of_a_folder_a_glob_or_a_list_are_one_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    for number in range(3):
        (tmp_path / f"part-{number}.csv").write_text(f"text,label\n{number},x\n", encoding="utf-8")
    (tmp_path / "README.md").touch()
    for reference in (str(tmp_path), f"{tmp_path}/part-*", [str(tmp_path / f"part-{n}.csv") for n in range(3)]):
        assert [row.fields["text"] for row in rows("task.path", reference, ["text"])] == ["0", "1", "2"]
    assert "1 files of other types are skipped (.md)" in capsys.readouterr().out


def test_a_file_in_a_folder_of_its_class_is_one_text_of_it(tmp_path: Path):
    for folder, text in (("pos", "good\nfilm"), ("neg", "bad")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "1.txt").write_text(text, encoding="utf-8")
    (tmp_path / "urls.txt").write_text("no text", encoding="utf-8")
    (tmp_path / "pos" / "Thumbs.db").write_bytes(b"no table")
    found = list(rows("task.path", str(tmp_path), ["text", "folder"]))
    assert [(row.file, *row.fields.values()) for row in found] == [
        ("neg/1.txt", "bad", "neg"),
        ("pos/1.txt", "good\nfilm", "pos"),
    ]


def test_several_columns_are_one_text(tmp_path: Path):
    path = jsonl(
        tmp_path / "a.jsonl", [{"subject": "a", "body": {"text": "b"}}, {"subject": None, "body": {"text": "c"}}]
    )
    found = read("task.path", str(path), lambda _: {"text": ("subject", "body.text")})
    assert [str(row.fields["text"]) for row, _ in found] == ["a\nb", "c"]


SEEDS = {
    ".csv": COMMAS,
    ".jsonl": LINES,
    ".parquet": parquet(),
    ".db": database("a"),
    ".xlsx": xlsx(A=[("text",), ("b",)]),
}


@given(data=strategies.data())
def test_whatever_bytes_a_file_has_there_is_an_answer(
    data: strategies.DataObject, tmp_path_factory: pytest.TempPathFactory
):
    name, pack = (
        data.draw(strategies.sampled_from([*FORMATS, ".csv"])),
        data.draw(strategies.sampled_from(["", ".gz", ".zip"])),
    )
    seed = SEEDS.get(name, LINES)
    content = data.draw(strategies.binary(max_size=200))
    if data.draw(strategies.booleans()):
        place = data.draw(strategies.integers(0, len(seed)))
        content = seed[:place] + content[:8] + seed[place + data.draw(strategies.integers(0, 8)) :]
    packed = {"": content, ".gz": gzip.compress(content), ".zip": zipped(content, f"a{name}")}[pack]
    path = tmp_path_factory.mktemp("any") / f"a{name}{pack}"
    path.write_bytes(packed)
    with suppress(UserError):  # and nothing else
        list(read("task.path", str(path), lambda present: {"text": present[0]} if present else {}))


@pytest.mark.parametrize("value", ["[" * 100_000 + "]" * 100_000, "9" * 10_000], ids=["nested", "digits"])
def test_a_line_that_json_cannot_hold_is_named(tmp_path: Path, value: str):
    path = tmp_path / "a.jsonl"
    path.write_text(f'{{"text": "a"}}\n{{"text": {value}}}\n')
    with pytest.raises(UserError, match=r"a\.jsonl:2: is nested too deeply, or holds a number of too many digits"):
        list(rows("task.path", str(path), ["text"]))
