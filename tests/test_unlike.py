"""Texts that belong to no class are told, by how near what the head reads of them is to that of a training text."""

import json
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from samples import jsonl, reviews

from ulmfit_style import load
from ulmfit_style.__main__ import main
from ulmfit_style.artefacts import predictions
from ulmfit_style.training import scoring


def test_a_text_is_as_near_as_the_nearest_that_was_learnt_by_the_angle_alone(monkeypatch: pytest.MonkeyPatch):
    read = [torch.tensor([[9.0, 0], [1, 1], [-1, 0], [0, 0]])]
    monkeypatch.setattr(scoring, "read_by_head", lambda model: nullcontext(read))
    learnt = scoring.units(np.array([[3, 0], [0, 2]], dtype=np.float32)).numpy()
    beside = scoring.beside_nearness(lambda batch: batch, None, learnt, "abcd")
    assert [answer for answer, _ in beside] == list("abcd")
    assert [near for _, near in beside] == pytest.approx([1, 0.5**0.5, 0, 0])


@pytest.mark.parametrize("folds", [0, 3])
def test_predict_tells_texts_unlike_those_that_were_not_trained_on(
    folds: int, tmp_path: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str]
):
    rows = [{"text": text, "label": label} for text, label, _ in reviews(120)]
    file, runs = jsonl(tmp_path / "rows.jsonl", rows), tmp_path / "runs"
    recipe = ["task=text_classification", f"task.path={file}", f"task.folds={folds}", f"model.checkpoint={checkpoint}"]
    recipe += ["adapt=none", "compare=false", "finetune=frozen", f"runs={runs}", "finetune.max_length=32"]
    assert main(["finetune", *recipe]) == 0
    directory = runs / "default/finetune"
    near = [answer["near"] for answer in predictions.read(directory, "test" if folds else "validation")]
    assert len(np.load(directory / scoring.UNITS)) == (120 if folds else 84)

    strange = ["".join(dict.fromkeys(text)) for text, *_ in reviews(20, seed=3)]
    texts = [*(row["text"] for row in rows[:20]), *strange]
    new = jsonl(tmp_path / "new.jsonl", [{"text": text} for text in texts])
    capsys.readouterr()
    assert main(["predict", *recipe, f"predict.input={new}", f"predict.output={tmp_path / 'answers.jsonl'}"]) == 0
    answers = [json.loads(line) for line in (tmp_path / "answers.jsonl").read_text().splitlines()]
    told = [answer.get("unlike", False) for answer in answers]
    assert "near" not in answers[0]
    assert sum(told[20:]) > sum(told[:20])
    assert f"unlike those that it was trained on: {sum(told)}\n" in capsys.readouterr().err
    assert min(near) < np.quantile(near, 0.05) < 1
    assert load(directory)(texts[told.index(True)])["unlike"] is True
