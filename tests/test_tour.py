"""The tour: each kind of task answers with the fields that it promises, in the notebook, on other pages and outside."""

import ast
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pandas
import pytest
from recipes import Trained
from samples import reviews

ROOT = Path(__file__).parents[1]
NOTEBOOK = ROOT / "docs" / "tour.ipynb"

PAGES = {
    "README.md": "sentiment",
    "docs/how-to/predicting.md": "sentiment",
    "docs/how-to/token-classification.md": "entities",
    "docs/how-to/question-answering.md": "questions",
    "docs/how-to/generation.md": "summary",
}
"""Which model of the tour a page's Python means by `runs/default/finetune`."""

MODELS = {
    "sentiment": ("text classification", ["label", "score"]),
    "entities": ("entities", ["entity_group", "score", "word", "start", "end"]),
    "questions": ("questions", ["answer", "score", "start", "end"]),
    "summary": ("summaries", ["summary_text"]),
    "translation": ("translations", ["translation_text"]),
    "text": ("completions", ["generated_text"]),
}
"""The kind of each model of the tour, and what its answers hold; of entities, each of them."""


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory, trained: Callable[[str], Trained]) -> Path:
    """A folder with `docs`, and with `runs` that holds the models of the tour, tiny ones."""
    folder = tmp_path_factory.mktemp("tour")
    (folder / "docs").mkdir()
    for name, (kind, _) in MODELS.items():
        (folder / "runs" / name).mkdir(parents=True)
        stage = "adapt" if name == "text" else "finetune"  # a language model, of which both are one
        (folder / "runs" / name / stage).symlink_to(trained(kind).directory)
    return folder


def fields(answer: Any) -> list[str]:
    """Return the fields of an answer; where it is a list, those that all in it have."""
    if isinstance(answer, dict):
        return list(answer)
    (shared,) = {tuple(fields(part)) for part in answer if part}  # a text may hold no entity
    return list(shared)


def run(cell: str, variables: dict[str, Any]) -> Any:
    """Run a cell as a notebook does, and return the value of its last line, which is shown there."""
    *statements, last = ast.parse(cell).body
    if not isinstance(last, ast.Expr):
        return exec(cell, variables)
    exec("\n".join(map(ast.unparse, statements)), variables)
    return eval(ast.unparse(last), variables)


def test_every_cell_of_the_tour_gives_what_it_promises(checkout: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(checkout / "docs")
    variables: dict[str, Any] = {}
    name, seen = "", set()
    for cell in nbformat.read(NOTEBOOK, as_version=4).cells:
        if cell.cell_type != "code":
            continue
        name = next(iter(re.findall(r"{runs}/(\w+)/", cell.source)), name)
        answer = run(cell.source, variables)
        for output in cell.outputs:
            stored, (_, expected) = output["data"]["text/plain"], MODELS[name]
            if isinstance(answer, pandas.DataFrame):  # its text begins with a header
                assert set(answer.columns) & set(stored.splitlines()[0].split()) >= set(expected)
            else:
                assert fields(answer) == fields(ast.literal_eval(stored)) == expected
            seen.add(name)
    assert seen == set(MODELS)


@pytest.mark.parametrize("page", PAGES)
def test_the_python_of_a_page_runs(checkout: Path, monkeypatch: pytest.MonkeyPatch, page: str):
    monkeypatch.chdir(checkout)
    pandas.DataFrame({"text": [text for text, _, _ in reviews(4)]}).to_csv("new.csv", index=False)
    default = checkout / "runs" / "default"
    default.unlink(missing_ok=True)
    default.symlink_to(PAGES[page])
    found = re.findall(r"^```python\n(.*?)^```$", (ROOT / page).read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert found
    for block in found:
        exec(block, {})


def test_no_page_has_python_that_is_not_run():
    for path in ROOT.glob("docs/**/*.md"):
        page = str(path.relative_to(ROOT))
        if re.search(r"^```python\n", path.read_text(encoding="utf-8"), re.MULTILINE) and page not in PAGES:
            assert page in ("docs/tutorial.md", "docs/how-to/hub.md", "docs/how-to/serve.md"), (
                page
            )  # other tests run these
