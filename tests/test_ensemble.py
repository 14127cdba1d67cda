"""Finished models answer as one, by the mean of their answers: an ensemble."""

import os
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from samples import jsonl, reviews

from tests.hub_server import Hub
from ulmfit_style import load
from ulmfit_style.__main__ import main
from ulmfit_style.artefacts import predictions
from ulmfit_style.artefacts.directory import read_json

TEXTS = ["the film is good", "a dreadful plot", "the story number 7 is very moving", ""]

Options = Callable[..., list[str]]


@pytest.fixture(scope="session")
def options(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path, stateful_checkpoint: Path) -> Options:
    """What to type for models of the same rows: `forward` reads 32 tokens of BERT, `backward` 12 of an AWD-LSTM.

    They and their mean, `both`, are made.
    """
    folder = tmp_path_factory.mktemp("ensemble")
    rows = [
        {"text": text, "label": "bad" if number % 10 == 3 else label}
        for number, (text, label, _) in enumerate(reviews(160))
    ]
    jsonl(folder / "rows.jsonl", rows)
    common = [f"runs={folder / 'runs'}", "adapt=none", "compare=false", "finetune=plain", "task.folds=0"]

    def typed(*others: str, task: str = "text_classification", file: Path = folder / "rows.jsonl") -> list[str]:
        return [*common, f"task={task}", f"task.path={file}", f"model.checkpoint={checkpoint}", *others]

    forward = typed("name=forward", "finetune.learning_rate=1e-2", "finetune.epochs=6", "finetune.max_length=32")
    backward = typed(f"model.checkpoint={stateful_checkpoint}", "name=backward", "finetune.max_length=12")
    backward += ["finetune.learning_rate=1e-2", "finetune.epochs=4", "task.long_documents=whole"]
    assert main(["finetune", *forward]) == 0
    assert main(["finetune", *backward]) == 0
    assert main(["ensemble", *common[:1], "name=both", "ensemble.members=[forward,backward]"]) == 0
    return typed


@pytest.fixture(scope="session")
def runs(options: Options) -> Path:
    """The folder of the runs."""
    return Path(options()[0].removeprefix("runs="))


def probabilities(source: Path, texts: Sequence[str] = TEXTS) -> np.ndarray:
    """Return the probability of `good` for each text."""
    return np.array([one["scores"]["good"] for one in load(source, task={"top_k": "all"})(texts)])


def said(capsys: pytest.CaptureFixture[str]) -> str:
    return " ".join("".join(capsys.readouterr()).split())


def test_it_answers_by_the_mean_of_its_members_each_with_its_own_tokenizer_and_length(runs: Path):
    members = [probabilities(runs / name / "finetune") for name in ("forward", "backward")]
    assert np.abs(members[0] - members[1]).max() > 0.1
    assert np.allclose(probabilities(runs / "both/ensemble"), np.mean(members, axis=0), atol=2e-6)


def test_it_is_scored_beside_its_members_on_the_same_test_rows(runs: Path):
    directory = runs / "both/ensemble"
    metrics = read_json(directory / "metrics.json")
    assert metrics["test"]["rows"] == 32
    assert metrics["test"]["interval"][0] <= metrics["test"]["scores"]["accuracy"] <= metrics["test"]["interval"][1]
    for folder, name in {"member-1": "forward", "member-2": "backward"}.items():
        own = read_json(runs / name / "finetune/metrics.json")["test"]
        assert metrics["members"][folder] == {"name": name, "test": own}
        ours = [(one["row"], one["label"]) for one in predictions.read(directory, folder)]
        assert ours == [(one["row"], one["label"]) for one in predictions.read(runs / name / "finetune", "test")]
    ours, *theirs = (
        [one["scores"]["good"] for one in predictions.read(directory, of)] for of in ("test", *metrics["members"])
    )
    assert np.allclose(ours, np.mean(theirs, axis=0), atol=2e-6)


def test_a_second_time_nothing_is_made_and_the_differences_are_told(runs: Path, capsys):
    assert main(["ensemble", f"runs={runs}", "name=both", "ensemble.members=[forward,backward]"]) == 0
    out = said(capsys)
    assert "ensemble: ensemble: up to date" in out
    assert re.search(r"Averaging, beside the best member alone \((for|back)ward\), changed accuracy by", out)
    assert "their mean │ 32 │" in out


def test_it_is_used_by_its_name_as_any_finished_model(runs: Path, capsys, tmp_path: Path):
    score = f"{read_json(runs / 'both/ensemble/metrics.json')['test']['scores']['accuracy']:.3f}"
    assert main(["evaluate", f"runs={runs}", "name=both"]) == 0
    assert f"accuracy │ {score}" in said(capsys)
    assert main(["evaluate", f"runs={runs}", "name=again", "evaluate.model=both"]) == 0
    assert f"accuracy │ {score}" in said(capsys)
    asked = ["predict.input=the film is good", f"predict.output={tmp_path / 'answers.jsonl'}"]
    assert main(["predict", f"runs={runs}", "name=both", *asked, "predict.task.top_k=all"]) == 0
    told = read_json(tmp_path / "answers.jsonl")["scores"]["good"]
    assert told == pytest.approx(probabilities(runs / "both/ensemble")[0], abs=2e-6)
    assert "ensemble-" in said(capsys)
    assert main(["report", f"runs={runs}", "name=both"]) == 0
    assert "Averaging, beside the best member" in (runs / "both/report.html").read_text()
    assert main(["runs", f"runs={runs}"]) == 0
    assert re.search(r"│ both │", said(capsys))
    assert main(["compare", f"runs={runs}", "names=[both,forward]"]) == 0
    assert "forward less both" in said(capsys)


def test_its_members_may_be_gone_when_it_answers(runs: Path, tmp_path: Path):
    moved = tmp_path / "moved"
    subprocess.run(["cp", "-rL", runs / "both/ensemble", moved], check=True)
    assert np.allclose(probabilities(moved), probabilities(runs / "both/ensemble"))
    assert probabilities(moved / "member-2")[0] == pytest.approx(probabilities(runs / "backward/finetune")[0])


def test_it_is_pushed_as_one_directory_and_answers_from_the_hub(hub: Hub, runs: Path, capsys):
    assert main(["push", f"runs={runs}", "name=both", "hub.repo=me/both"]) == 0
    files = hub.repos["me/both"].files
    assert {"README.md", "awd_lstm.py", "member-1/model.safetensors", "member-2/model.safetensors"} <= set(files)
    assert not [name for name in files if "learnt" in name or "predictions" in name or "manifest" in name]
    private = [name for name, content in files.items() if str(runs.parent).encode() in content]
    assert private == []
    assert np.allclose(probabilities("me/both"), probabilities(runs / "both/ensemble"), atol=2e-6)
    assert (
        main(
            [
                "evaluate",
                f"runs={runs}",
                "name=hub",
                "evaluate.model=me/both",
                f"task.path={runs.parent}/rows.jsonl",
                "task=text_classification",
                "task.folds=0",
            ]
        )
        == 0
    )


def test_the_card_tells_each_member_and_its_code_gives_the_same_answer_by_transformers_alone(
    runs: Path, tmp_path: Path
):
    assert main(["push", f"runs={runs}", "name=both", "hub.repo=both", "hub.dry_run=true"]) == 0
    card = (runs / "both/card.md").read_text()
    assert "it answers by the mean of the probabilities of 2 models" in card
    assert len(re.findall(r"^\| `member-\d` \| `\./\w+` \| not known \|", card, re.M)) == 2
    code = next(block for block in re.findall(r"```python\n(.*?)```", card, re.S) if "subfolder" in block)
    code = code.replace("your-account/both", str((runs / "both/ensemble").resolve())).replace(
        "A text of your own.", TEXTS[0]
    )
    ran = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
        env={**os.environ, "HF_HOME": str(tmp_path), "PYTHONPATH": ""},
    )
    scores = eval(ran.stdout.splitlines()[-1])
    assert scores["good"] == pytest.approx(probabilities(runs / "both/ensemble")[0], abs=1e-5)
