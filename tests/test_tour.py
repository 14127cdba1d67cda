"""The tour: each kind of task answers with the fields that it promises, in the notebook, on other pages and outside."""

import ast
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nbformat
import pandas
import pytest
from nbclient import NotebookClient
from recipes import Trained
from samples import reviews

from ulmfit_style import load

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

KINDS = {
    "sentiment": "text classification",
    "entities": "entities",
    "questions": "questions",
    "summary": "summaries",
    "translation": "translations",
    "text": "documents",
}
"""The kind of each model of the tour."""

FIELDS = {
    "sentiment": ["label", "score"],
    "entities": ["entity_group", "score", "word", "start", "end"],
    "questions": ["answer", "score", "start", "end"],
    "summary": ["summary_text"],
    "translation": ["translation_text"],
    "text": ["generated_text"],
}
"""What an answer of each model of the tour holds; of entities, each of them."""


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory, trained: Callable[[str], Trained]) -> Path:
    """A folder with `docs`, and with `runs` that holds the models of the tour, tiny ones."""
    folder = tmp_path_factory.mktemp("tour")
    (folder / "docs").mkdir()
    for name, kind in KINDS.items():
        (folder / "runs" / name).mkdir(parents=True)
        (folder / "runs" / name / "finetune").symlink_to(trained(kind).directory)
    return folder


def fields(answer: Any) -> list[str]:
    """Return the fields of an answer; where it is a list, those that all in it have."""
    if isinstance(answer, dict):
        return list(answer)
    (shared,) = {tuple(fields(part)) for part in answer if part}  # a text may hold no entity
    return list(shared)


@pytest.mark.parametrize("name", FIELDS)
def test_a_text_a_list_and_a_frame_are_answered_alike(checkout: Path, name: str):
    model = load(checkout / "runs" / name / "finetune", device="cpu")
    texts: list[Any] = [text for text, _, _ in reviews(4, seed=1)]
    frame = pandas.DataFrame({"text": texts})
    if name == "questions":
        frame = pandas.DataFrame({"question": "the film is very what", "context": texts})
        texts = list(frame.itertuples(index=False, name=None))
    answers = model(texts)
    assert len(answers) == 4
    assert fields(answers) == fields(model(texts[0])) == FIELDS[name]
    assert model(frame) == answers


def outputs(name: str, cells: list[Any]) -> Iterator[str]:
    """Return what the cells of a model gave, from the one that loads it to the next that loads one."""
    loaded = ""
    for cell in (cell for cell in cells if cell.cell_type == "code"):
        if "load(f" in cell.source:
            loaded = cell.source
        if f"{{runs}}/{name}/" in loaded:
            yield from (output["data"]["text/plain"] for output in cell.outputs)


def test_every_cell_of_the_tour_gives_what_it_promises(checkout: Path, monkeypatch: pytest.MonkeyPatch):
    for variable in ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR"):
        monkeypatch.setenv(variable, str(checkout / variable))
    tour = nbformat.read(NOTEBOOK, as_version=4)
    stored = {name: list(outputs(name, tour.cells)) for name in FIELDS}
    NotebookClient(tour, timeout=120, resources={"metadata": {"path": str(checkout / "docs")}}).execute()
    for name, expected in FIELDS.items():
        given = list(outputs(name, tour.cells))
        assert len(given) == len(stored[name]) > 0
        for text in given + stored[name]:
            if text[0] in "[{":
                assert fields(ast.literal_eval(text)) == expected
            else:  # a DataFrame begins with its header
                assert set(text.splitlines()[0].split()) >= set(expected)


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
            assert page in ("docs/tutorial.md", "docs/how-to/hub.md"), page  # test_docs.py and test_push.py run these
