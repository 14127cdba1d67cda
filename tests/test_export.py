"""export: ONNX files that answer as the model does, in Python and in node."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from recipes import Trained
from transformers import AutoTokenizer

from ulmfit_style import load
from ulmfit_style.__main__ import main
from ulmfit_style.artefacts.directory import METRICS

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

NPM = "@huggingface/transformers@4.3.2"
SCRIPT = """
import { pipeline, env } from "@huggingface/transformers";
env.allowRemoteModels = false;
const [directory, task, text] = process.argv.slice(2);
const run = await pipeline(task, directory, {dtype: "fp32"});
console.log(JSON.stringify(await run(text)));
"""

Training = Callable[[str], Trained]


def exported(run: Trained, *options: str, name: str = "default") -> tuple[Path, dict[str, Any]]:
    """Export a model that `finetune` made, and return the directory and what was measured."""
    assert main(["export", *run.overrides, *options, f"name={name}"]) == 0
    directory = run.runs / name / "export"
    return directory, json.loads((directory / METRICS).read_text())


def test_a_pooled_head_answers_in_onnxruntime_as_in_torch_at_any_length(
    trained: Training, capsys: pytest.CaptureFixture[str]
) -> None:
    run = trained("text classification")
    options = ["finetune.pooling=concat", "finetune.epochs=1"]
    assert main(["finetune", *run.overrides, *options, "name=pooled"]) == 0  # other tests read `default`
    answers = load(run.runs / "pooled/finetune", "cpu", {"top_k": "all"})
    directory, metrics = exported(run, *options, name="pooled")
    assert metrics["models"]["ONNX"]["same"] == 1
    assert metrics["models"]["ONNX"]["apart"] < 1e-4
    assert 0 < metrics["models"]["ONNX, 8 bits"]["bytes"] < metrics["models"]["ONNX"]["bytes"]
    assert "24 test rows" in capsys.readouterr().out
    config = json.loads((directory / "config.json").read_text())
    assert config["model_type"] == "bert"  # transformers.js knows no pooled head
    tokenizer = AutoTokenizer.from_pretrained(directory)
    session = onnxruntime.InferenceSession(directory / "onnx/model.onnx")
    for texts in (["good"], ["the film was moving " * 30, "a"]):
        inputs = tokenizer(texts, padding=True, truncation=True, return_tensors="np")
        (logits,) = session.run(None, {entry.name: inputs[entry.name] for entry in session.get_inputs()})
        probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        for row, answer in zip(probabilities, answers(texts), strict=True):
            scores = {config["id2label"][str(number)]: float(score) for number, score in enumerate(row)}
            assert scores == pytest.approx(answer["scores"], abs=1e-4)


def test_models_that_write_and_missing_packages_are_refused_before_anything_is_made(
    trained: Training, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", *trained("summaries").overrides]) == 2
    assert "export: Summarization writes texts, and models that write are not exported" in capsys.readouterr().err
    windows = [*trained("text classification").overrides, "task.long_documents=pooled", "finetune.pooling=mean"]
    assert main(["export", *windows]) == 2
    assert "export: a head that puts windows together (task.long_documents=pooled) is not" in capsys.readouterr().err
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *more: None)
    assert main(["export", *trained("text classification").overrides]) == 2
    assert "needs onnx and onnxruntime and onnxscript; install it: pip install" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["pairs", "several labels", "numbers", "entities", "questions"])
def test_every_kind_that_answers_is_exported(kind: str, trained: Training) -> None:
    _, metrics = exported(trained(kind))
    assert metrics["models"]["ONNX"]["same"] == 1
    assert (metrics["models"]["ONNX"]["apart"] or 0) < 1e-3
    _, metrics = exported(trained(kind), "export.features=true")
    assert metrics["models"]["ONNX"]["apart"] < 1e-3


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("npm") is None, reason="needs node and npm's registry")
@pytest.mark.parametrize(
    ("kind", "task", "text"),
    [("text classification", "text-classification", "the film was good"), ("entities", "token-classification", "Ada")],
)
def test_transformers_js_runs_it_in_node(kind: str, task: str, text: str, trained: Training, tmp_path: Path) -> None:
    directory, _ = exported(trained(kind))
    (tmp_path / "run.mjs").write_text(SCRIPT)
    subprocess.run(["npm", "install", "--silent", "--ignore-scripts", NPM], cwd=tmp_path, check=True)
    ended = subprocess.run(
        ["node", "run.mjs", str(directory.resolve()), task, text],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    (answer, *_) = json.loads(ended.stdout)
    if kind == "text classification":
        ours = load(trained(kind).directory, "cpu")(text)
        assert answer["label"] == ours["label"]
        assert answer["score"] == pytest.approx(ours["score"], abs=1e-4)
