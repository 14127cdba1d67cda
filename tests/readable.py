"""What is read and what is refused: the readers are tried on it, and the table of the documentation is made of it."""

import bz2
import gzip
import io
import json
import lzma
import sqlite3
import zipfile
from collections.abc import Sequence
from contextlib import closing

import pyarrow
import pyarrow.parquet

ROWS = [("Das Menü, größer; teurer", "bad"), ("c'était “bon”", "good"), ("정말 재미있는 영화, 다시 보고 싶다", "good")]
"""The texts and labels that every file of `READ` holds; where it is not in Unicode, the first two or the last."""

WEST = ROWS[:2]
OBJECTS = [{"text": text, "label": label} for text, label in ROWS]


def table(delimiter: str, rows: Sequence[tuple[str, str]] = ROWS) -> str:
    """Return a table in which each cell is in quotation marks."""
    return "".join(f'"{text}"{delimiter}"{label}"\r\n' for text, label in [("text", "label"), *rows])


def zipped(content: bytes, *names: str) -> bytes:
    """Return a zip archive of files, with what macOS adds to it."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in names:
            archive.writestr(name, content)
            archive.writestr(f"__MACOSX/._{name}", b"")
    return file.getvalue()


def parquet() -> bytes:
    """Return a parquet file."""
    file = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(OBJECTS), file)
    return file.getvalue()


def xlsx(**sheets: Sequence[Sequence[str]]) -> bytes:
    """Return a spreadsheet, as small as it can be."""
    main = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
    of = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    packages = "http://schemas.openxmlformats.org/package/2006/relationships"
    names = "".join(f'<sheet name="{name}" sheetId="{n}" r:id="r{n}"/>' for n, name in enumerate(sheets, 1))
    links = "".join(
        f'<Relationship Id="r{n}" Type="{of}/worksheet" Target="worksheets/{n}.xml"/>'
        for n in range(1, len(sheets) + 1)
    )
    office = f'<Relationship Id="r" Type="{of}/officeDocument" Target="xl/workbook.xml"/>'
    parts = {
        "_rels/.rels": f'<Relationships xmlns="{packages}">{office}</Relationships>',
        "xl/workbook.xml": f'<workbook xmlns="{main}" xmlns:r="{of}"><sheets>{names}</sheets></workbook>',
        "xl/_rels/workbook.xml.rels": f'<Relationships xmlns="{packages}">{links}</Relationships>',
    }
    for n, rows in enumerate(sheets.values(), 1):
        lines = "".join(
            "<row>" + "".join(f'<c t="inlineStr"><is><t>{cell}</t></is></c>' for cell in row) + "</row>" for row in rows
        )
        parts[f"xl/worksheets/{n}.xml"] = f'<worksheet xmlns="{main}"><sheetData>{lines}</sheetData></worksheet>'
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, text in parts.items():
            archive.writestr(name, text)
    return file.getvalue()


def database(*tables: str) -> bytes:
    """Return an sqlite file with tables of the rows."""
    with closing(sqlite3.connect(":memory:")) as made:
        for table in tables:
            made.execute(f"create table {table} (text, label)")
            made.executemany(f"insert into {table} values (?, ?)", ROWS)
        made.commit()
        return made.serialize()


def annotated(text: str, label: str, kind: str = "choices") -> dict[str, object]:
    """Return a row as Label Studio exports it."""
    value = {"choices": [label]} if kind == "choices" else {"taxonomy": [["mood", label]]}
    result = {"from_name": "label", "type": kind, "value": value}
    return {"id": 1, "data": {"text": text}, "annotations": [{"was_cancelled": False, "result": [result]}]}


def answered(text: str, label: str) -> dict[str, object]:
    """Return a row as Argilla exports it."""
    given = [{"value": "none", "status": "discarded"}, {"value": label, "status": "submitted"}]
    return {"id": "a", "fields": {"text": text}, "responses": {"label": given}, "suggestions": {}}


COMMAS = table(",").encode()
LINES = "".join(json.dumps(row) + "\n" for row in OBJECTS).encode()
LIST = json.dumps(OBJECTS).encode()

ENCODED = {
    "cp1250": ("Windows, Central Europe", [("Słuchawki grają świetnie", "good"), ("Żona jest zła", "bad")]),
    "cp1251": ("Windows, Cyrillic", [("Экран разбит, деньги на ветер", "bad"), ("Очень вежливые люди", "good")]),
    "koi8-r": ("Unix, Russia", [("Экран разбит, деньги на ветер", "bad"), ("Очень вежливые люди", "good")]),
    "cp1253": ("Windows, Greece", [("Η οθόνη έσπασε", "bad"), ("Πολύ ευγενικό προσωπικό", "good")]),
    "cp1254": ("Windows, Turkey", [("Çalışanlar çok kibardı, teşekkürler", "good"), ("Ekran kırık çıktı", "bad")]),
    "cp932": ("Windows, Japan", [("画面が割れていて、返事がありません", "bad"), ("とても快適です", "good")]),
    "gb18030": ("China", [("屏幕碎了，卖家一直不回复", "bad"), ("服务员很热情", "good")]),
}
"""Texts and labels in encodings of one script, and whose these are."""

READ: dict[str, tuple[str, bytes, list[tuple[str, str]]]] = {
    "csv with commas": ("a.csv", COMMAS, ROWS),
    "csv with semicolons, as Excel writes it in much of Europe": ("a.csv", table(";").encode(), ROWS),
    "csv with tabs": ("a.csv", table("\t").encode(), ROWS),
    "csv with a blank after each comma": ("a.csv", table(", ").encode(), ROWS),
    "csv with bars": ("a.csv", table("|").encode(), ROWS),
    "tsv": ("a.tsv", table("\t").encode(), ROWS),
    "tsv without quoting": ("a.tsv", table("\t").replace('"', "").encode(), ROWS),
    "UTF-8 with a byte order mark": ("a.csv", table(",").encode("utf-8-sig"), ROWS),
    "UTF-16": ("a.csv", table(",").encode("utf-16"), ROWS),
    "UTF-16 without a byte order mark": ("a.csv", table(",", WEST).encode("utf-16-le"), WEST),
    "cp1252 (Windows, Western Europe)": ("a.csv", table(";", WEST).encode("cp1252"), WEST),
    "cp949 (Windows, Korea)": ("a.csv", table(",", ROWS[2:]).encode("cp949"), ROWS[2:]),
    **{
        f"{encoding} ({whose})": ("a.csv", table(",", rows).encode(encoding), rows)
        for encoding, (whose, rows) in ENCODED.items()
    },
    "gz": ("a.csv.gz", gzip.compress(COMMAS), ROWS),
    "gz that is called csv": ("a.csv", gzip.compress(COMMAS), ROWS),
    "csv that is still called gz, as a browser leaves it": ("a.csv.gz", COMMAS, ROWS),
    "bz2": ("a.csv.bz2", bz2.compress(COMMAS), ROWS),
    "xz": ("a.csv.xz", lzma.compress(COMMAS), ROWS),
    "zip of one file": ("reviews.zip", zipped(COMMAS, "in/a.csv"), ROWS),
    "xlsx (xls and ods are read by the same library)": ("a.xlsx", xlsx(One=[("text", "label"), *ROWS]), ROWS),
    "sqlite": ("a.db", database("reviews"), ROWS),
    "parquet": ("a.parquet", parquet(), ROWS),
    "jsonl": ("a.jsonl", LINES, ROWS),
    "json, an object a line": ("a.json", LINES, ROWS),
    "json, a list": ("a.json", LIST, ROWS),
    "jsonl that is a list": ("a.jsonl", LIST, ROWS),
    "json, indented objects one after another": (
        "a.jsonl",
        b"\n".join(json.dumps(o, indent=2).encode() for o in OBJECTS),
        ROWS,
    ),
    'json, a list in a field: {"data": [...]}': ("a.json", b'{"version": 1, "data": %s}' % LIST, ROWS),
    "json, the rows of the Hub's viewer": (
        "a.json",
        json.dumps({"features": [{"name": "text"}], "rows": [{"row_idx": 0, "row": row} for row in OBJECTS]}).encode(),
        ROWS,
    ),
    "json, columns": (
        "a.json",
        json.dumps({"text": [t for t, _ in ROWS], "label": [n for _, n in ROWS]}).encode(),
        ROWS,
    ),
    "json, as pandas writes it": (
        "a.json",
        json.dumps({name: {str(n): row[name] for n, row in enumerate(OBJECTS)} for name in OBJECTS[0]}).encode(),
        ROWS,
    ),
    "Label Studio's json": ("a.json", json.dumps([annotated(*row) for row in ROWS]).encode(), ROWS),
    "Label Studio's csv, in which choices are json": (
        "a.csv",
        b"text,label\n"
        + b"".join(b'%b,"{""choices"":[""%b""]}"\n' % pair for pair in [(b"a", b"bad"), (b"b", b"good")]),
        [("a", "bad"), ("b", "good")],
    ),
    "Label Studio's taxonomies": (
        "a.json",
        json.dumps([annotated(text, name, "taxonomy") for text, name in ROWS]).encode(),
        [(text, f"mood/{name}") for text, name in ROWS],
    ),
    "Argilla's json": ("a.json", json.dumps([answered(*row) for row in ROWS]).encode(), ROWS),
    "Argilla's flat records": (
        "a.jsonl",
        "\n".join(
            json.dumps(
                {"text": text, "label.responses": ["none", label], "label.responses.status": ["draft", "submitted"]}
            )
            for text, label in ROWS
        ).encode(),
        ROWS,
    ),
    "doccano's jsonl": (
        "a.jsonl",
        "\n".join(json.dumps({"id": 1, "text": text, "label": [label]}) for text, label in ROWS).encode(),
        ROWS,
    ),
}
"""What people have: a file's name, its bytes, and its rows of text and label."""

REFUSED: dict[str, tuple[str, bytes, str]] = {
    "a row with more or fewer cells than the header": ("a.csv", b"text,label\na,b,c\n", r"a\.csv:2: has 3 columns"),
    "what stands above the header": (
        "a.csv",
        b"May\ntext,label\n",
        r"a\.csv:2: has 2 columns.*needs quotes, or row 1 is no header",
    ),
    "Excel's line sep=; above the header": ("a.csv", b"sep=;\r\n" + table(";").encode(), "or row 1 is no header"),
    "a quotation mark that is not closed": ("a.csv", b'text,label\n"a,b\n', r"a\.csv:2: cannot be parsed"),
    "a cell that swallows rows of a tsv": (
        "a.tsv",
        b'"text"\t"label"\n"a\tx\nb"\t"y"\n',
        r"a\.tsv:3: a cell has a tab and a line break",
    ),
    "two columns of one name": ("a.csv", b"text,text\na,b\n", "the header has two columns 'text'"),
    "UTF-8 with lines that are not": (
        "a.csv",
        "text,label\né,a\né,b\n".encode() + b"\xe9,c\n",
        r"line 4 is not UTF-8, as 2 others are; mend it, or name the encoding",
    ),
    "a mark of UTF-8 before what is not": ("a.csv", b"\xef\xbb\xbftext\n\xe9\n", "can't decode byte 0xe9"),
    "a json file of several lists": ("a.json", b'{"train": [{}], "test": [{}]}', "it has the lists train, test"),
    "broken json": ("a.json", b'[{"text": "a"},\n{"text": ]', r"is not JSON \(Expecting value at line 2, column 10\)"),
    "an answer of Prodigy, which may be a rejection": (
        "a.jsonl",
        b'{"text": "a", "label": "b", "_task_hash": 1, "answer": "reject"}\n',
        r"a\.jsonl:1: is from Prodigy, where it may have been rejected",
    ),
    "half a character in json": ("a.jsonl", b'{"text": "\\ud83d"}\n', "contains half a character"),
    "an sqlite file of several tables": (
        "a.db",
        database("old", "new"),
        r"name one of its tables, or give a query, after a \?: old, new",
    ),
    "an archive of several files": (
        "a.zip",
        zipped(COMMAS, "a.csv", "b.csv"),
        "it holds 2 files, and one is read; unpack it",
    ),
    "a broken archive": ("a.csv.gz", gzip.compress(COMMAS)[:50], "cannot be read"),
    "a spreadsheet, a zip archive or parquet that is called csv": (
        "a.csv",
        xlsx(One=[("text", "label"), *ROWS]),
        "it holds no text, but application/vnd.openxml.*; give it the ending of what it is",
    ),
    "other kinds of file": ("a.docx", b"", r"files of type '\.docx' cannot be read"),
}
"""What is told with its place: a file's name, its bytes, and what the message matches."""
