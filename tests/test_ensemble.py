"""Finished models answer as one, by the mean of their answers: an ensemble."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from recipes import Trained
from safetensors.torch import load_file, save_file
from samples import jsonl, reviews

from tests.hub_server import Hub
from ulmfit_style import load
from ulmfit_style.__main__ import main
from ulmfit_style.artefacts import predictions
from ulmfit_style.artefacts.directory import read_json

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>':DeprecationWarning")  # of the Hub's client

LONG = "the film is good and the plot is dreadful and " * 3
TEXTS = ["the film is good", "a dreadful plot", "the story number 7 is very moving", "", LONG]

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
    assert re.search(r"Averaging, compared with forward alone, changed accuracy by", out)
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
    assert "Averaging, compared with backward alone" in (runs / "both/report.html").read_text()
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


@pytest.mark.parametrize("kind", ["several labels", "numbers"])
def test_several_labels_and_numbers_are_averaged_too(kind: str, trained: Callable[[str], Trained], capsys):
    one = trained(kind)
    runs = f"runs={one.runs}"
    assert (
        main(["finetune", *one.overrides, "name=fewer", "finetune.epochs=3", "finetune.seed=5", "compare=false"]) == 0
    )
    assert main(["ensemble", runs, "name=mean", "ensemble.members=[default,fewer]"]) == 0
    sources = [one.runs / name for name in ("default/finetune", "fewer/finetune", "mean/ensemble")]
    answers = [[answer.get("value") or answer["scores"]["good"] for answer in load(path)(TEXTS)] for path in sources]
    assert np.allclose(answers[2], np.mean(answers[:2], axis=0), atol=2e-6)
    assert not np.allclose(answers[0], answers[1], atol=1e-3)
    assert main(["push", runs, "name=mean", "hub.repo=mean", "hub.dry_run=true"]) == 0
    mean = "numbers" if kind == "numbers" else "probabilities"
    assert f"by the mean of the {mean} of 2 models" in (one.runs / "mean/card.md").read_text()


# What is refused


def refused(typed: Sequence[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Return the one line by which `ensemble` refuses what is typed, before it makes anything."""
    runs = Path(next(one for one in typed if one.startswith("runs=")).removeprefix("runs="))
    before, _ = set(runs.glob("ensemble-*")), capsys.readouterr()
    assert main(["ensemble", *typed]) == 2
    assert set(runs.glob("ensemble-*")) == before
    (line,) = capsys.readouterr().err.splitlines()
    return line


@pytest.mark.parametrize(
    ("members", "told"),
    [
        ("[]", "ensemble.members: an ensemble takes two or more different models: ensemble.members=[forward,backward]"),
        ("forward", "two or more different models"),
        ("[forward,forward]", "two or more different models"),
        ("[forward,{runs}/forward/finetune]", "two or more different models"),
        ("[forward,bakward]", "ensemble.members=bakward: there is no finished run of that name"),
        ("[forward,{runs}/unfinished]", "holds no config.json"),
        ("[forward,both]", "ensemble.members=both: is an ensemble; name one of its models: "),
    ],
)
def test_members_that_are_none_are_refused(members: str, told: str, runs: Path, capsys):
    (runs / "unfinished").mkdir(exist_ok=True)
    assert told in refused([f"runs={runs}", "name=new", f"ensemble.members={members.format(runs=runs)}"], capsys)


def test_the_name_of_a_fine_tuned_model_is_refused(runs: Path, capsys):
    line = refused([f"runs={runs}", "name=forward", "ensemble.members=[forward,backward]"], capsys)
    assert line.endswith("name=forward is the name of a fine-tuned model; add name=<another>")


def test_an_ensemble_is_no_checkpoint_and_is_not_updated_or_exported_or_explained(options: Options, runs: Path, capsys):
    both = (runs / "both/ensemble").resolve()
    assert main(["finetune", *options("name=new", "finetune.init=both")]) == 2
    assert "finetune.init=both: is an ensemble; name one of its models" in said(capsys)
    assert main(["finetune", *options("name=new", f"model.checkpoint={both}")]) == 2
    assert f"model.checkpoint={both}: is an ensemble" in said(capsys)
    assert main(["export", f"runs={runs}", "name=both"]) == 2
    assert "an ensemble is several models, which are exported one by one" in said(capsys)
    assert main(["predict", f"runs={runs}", "name=both", "predict.input=the film", "predict.explain=true"]) == 2
    assert "explain those of one" in said(capsys)


@pytest.fixture(scope="session")
def unlike(options: Options, runs: Path) -> Path:
    """The same folder, with models that do not go with `forward`."""
    short, folder = ["finetune.epochs=1", "finetune.max_steps=1"], runs.parent
    texts = [text for text, _, _ in reviews(160)]
    other = jsonl(
        folder / "other.jsonl", [{"text": text, "label": "no" if "dreadful" in text else "yes"} for text in texts]
    )
    numbers = jsonl(folder / "numbers.jsonl", [{"text": text, "label": len(text)} for text in texts])
    pairs = jsonl(folder / "pairs.jsonl", [{"text": text, "b": "it", "label": len(text) % 2} for text in texts])
    assert main(["finetune", *options(*short, "name=labels", file=other)]) == 0
    assert main(["finetune", *options(*short, "name=numbers", task="text_regression", file=numbers)]) == 0
    assert main(["finetune", *options(*short, "name=pairs", "task.text_pair=b", file=pairs)]) == 0
    assert main(["finetune", *options(*short, "name=split", "task.split_seed=1")]) == 0
    assert main(["finetune", *options(*short, "name=folds", "task.folds=2")]) == 0
    return runs


@pytest.mark.parametrize(
    ("members", "told"),
    [
        (
            "forward,labels",
            r"ensemble\.members=labels: knows the labels no, yes, and the task has bad, good; name models",
        ),
        (
            "forward,numbers",
            r"members=numbers: was trained on TextRegression by text, and the task is TextClassification",
        ),
        ("forward,pairs", r"members=pairs: was trained on TextClassification by text and text_pair, and the task is"),
        (
            "forward,split",
            r"members=split: learnt \d+ of the 48 rows that would be scored; train all members on the same",
        ),
        ("folds,forward", r"members=folds: learnt 160 of the 160 rows that would be scored"),
        ("forward,folds", r"members=folds: learnt 48 of the 48 rows that would be scored"),
    ],
)
def test_models_that_do_not_go_together_are_refused(members: str, told: str, unlike: Path, capsys):
    assert re.search(told, refused([f"runs={unlike}", "name=new", f"ensemble.members=[{members}]"], capsys))


def test_tasks_without_one_answer_to_a_text_are_refused(trained: Callable[[str], Trained], capsys):
    one = trained("entities")
    assert (
        main(["finetune", *one.overrides, "name=second", "finetune.seed=1", "finetune.epochs=1", "compare=false"]) == 0
    )
    line = refused([f"runs={one.runs}", "name=new", "ensemble.members=[default,second]"], capsys)
    assert "TokenClassification has no probabilities or numbers of whole texts to average" in line


def test_labels_in_another_order_are_brought_together_by_their_names(runs: Path, tmp_path: Path):
    copy = Path(shutil.copytree((runs / "forward/finetune").resolve(), tmp_path / "turned"))
    (copy / "manifest.json").unlink()
    config = read_json(copy / "config.json")
    config |= {"id2label": {"0": "good", "1": "bad"}, "label2id": {"good": 0, "bad": 1}}
    (copy / "config.json").write_text(json.dumps(config))
    weights = load_file(copy / "model.safetensors")
    weights |= {name: weights[name].flip(0).contiguous() for name in ("classifier.weight", "classifier.bias")}
    save_file(weights, copy / "model.safetensors", {"format": "pt"})
    assert main(["ensemble", f"runs={runs}", "name=turned", f"ensemble.members=[backward,{copy}]"]) == 0
    assert np.allclose(probabilities(runs / "turned/ensemble"), probabilities(runs / "both/ensemble"), atol=2e-6)
