"""Generation: what is read, learnt and written by models with an encoder and by decoders alone."""

import json
from pathlib import Path

import pytest
from samples import GOOD, jsonl, reviews

from ulmfit_style import load, predictions
from ulmfit_style.__main__ import main
from ulmfit_style.run import METRICS
from ulmfit_style.tasks.summarization import Summarization


def articles(path: Path, count: int = 160, seed: int = 0) -> Path:
    """Write reviews, whose summary is what they are about and how it is."""
    rows = []
    for text, _, _ in reviews(count, seed):
        words = text.split()
        rows.append({"document": text, "summary": f"{words[1]} is {'moving' if words[-1] in GOOD else 'dreadful'}"})
    return jsonl(path, rows)


def recipe(path: Path, checkpoint: Path, *overrides: str) -> list[str]:
    return [
        "task=summarization",
        f"task.path={path / 'articles.jsonl'}",
        "task.max_target_length=8",
        f"model.checkpoint={checkpoint}",
        "model.sha256=null",
        f"runs={path / 'runs'}",
        "adapt=none",
        "finetune.epochs=30",
        "finetune.learning_rate=1e-2",
        "finetune.max_length=32",
        *overrides,
    ]


@pytest.fixture(scope="module", params=["seq2seq", "causal"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a recipe that `finetune` has run, over a model with an encoder, or a decoder alone."""
    path = tmp_path_factory.mktemp(request.param)
    articles(path / "articles.jsonl")
    (path / "checkpoint").symlink_to(request.getfixturevalue(f"{request.param}_checkpoint"))
    assert main(["finetune", "evaluate", *recipe(path, path / "checkpoint")]) == 0
    return path


def test_summaries_are_learnt_scored_and_kept_with_their_rows(folder: Path, capsys):
    assert main(["evaluate", *recipe(folder, folder / "checkpoint")]) == 0
    printed = capsys.readouterr().out
    found = json.loads((folder / "runs/default/finetune" / METRICS).read_text())
    print(printed, found["test"])
    assert found["test"]["scores"]["rougeL"] > 0.9
