"""Commands that are killed at file events and at random moments end with the same files as commands that are not.

`python tests/test_kills.py 300 SEED` does the same with as many kills and another seed, and prints the table of them.
"""

import json
import random
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from killed import Commands, Ended
from samples import jsonl, reviews, save_bert
from transformers import set_seed

RECIPE = [
    *("task=text_classification", "task.path=rows.jsonl", "task.text=text", "task.label=label"),
    *("task.train_samples=20", "task.folds=0", "model.checkpoint=checkpoint", "runs=runs", "compare=false"),
    *("adapt.epochs=1", "adapt.batch_size=16", "adapt.head_epochs=0", "adapt.general=null"),
    *("finetune=plain", "finetune.epochs=2", "finetune.batch_size=8", "save_minutes=1e-9"),
]
NOT_ADAPTED = [*(option for option in RECIPE if not option.startswith("adapt.")), "adapt=none"]
FOLDED = [option for option in NOT_ADAPTED if not option.startswith(("task.train_samples", "task.folds"))]
ULMFIT = ["finetune=ulmfit", "finetune.unfreeze=[1,all]", "finetune.patience=2", "finetune.learning_rate=1e-2"]
CONTRAST = ["finetune=few_labels", "finetune.contrast_steps=12", "finetune.calibration_folds=2"]
# From random weights, by a tokenizer of its own: the state is carried through both language models.
LSTM = [
    *(option for option in RECIPE if not option.startswith(("model.checkpoint", "adapt.head_epochs"))),
    *("model=awd_lstm", "model.architecture.hidden_size=16", "model.architecture.lstm_size=24"),
    *("model.tokenizer.vocab_size=300", "pretrain.batch_size=4", "pretrain.max_length=16", "pretrain.epochs=2"),
    *("adapt.batch_size=4", "adapt.max_length=16"),
]
STUDY = """
name: tiny
arms: {fine-tuned: [adapt=none], adapted: []}
baseline: fine-tuned
seeds: [0, 1]
labels: [20]
per_class: false
search: {}
search_seeds: []
references: []
keep_weights: best
"""

CHAINS = {
    "adapt": [["adapt", *RECIPE]],
    "finetune": [["finetune", *NOT_ADAPTED]],
    "phases, patience": [["adapt", "finetune", *RECIPE, *ULMFIT]],
    "contrast": [["finetune", *NOT_ADAPTED, *CONTRAST]],
    "references": [["finetune", *NOT_ADAPTED, "compare=true"]],
    "folds": [["finetune", *FOLDED, "task.folds=3", "finetune.epochs=1"]],
    "evaluate, predict": [
        ["finetune", *NOT_ADAPTED],
        ["evaluate", *NOT_ADAPTED],
        ["predict", *NOT_ADAPTED, "predict.input=rows.jsonl", "predict.output=answers.jsonl"],
    ],
    "carried states": [["pretrain", "adapt", "finetune", *LSTM]],
    "ensemble": [
        ["finetune", *NOT_ADAPTED, "name=a"],
        ["finetune", *NOT_ADAPTED, "name=b", "finetune.seed=1"],
        ["ensemble", "name=both", "ensemble.members=[a,b]", "runs=runs"],
    ],
    "study": [["study", "hydra.searchpath=[my_conf]", *RECIPE, "study=tiny"]],
    "sweep": [["sweep", *NOT_ADAPTED, "finetune.learning_rate=1e-3,1e-2"]],
    "two ranks": [["finetune", *NOT_ADAPTED, "processes=2"]],
}
MOMENT = "a random moment"
MOST = {"sweep": 1, "two ranks": 3}
"""Kills of one chain, where it is not 12: a sweep gives up a trial whose process died twice."""


@dataclass(frozen=True)
class Whole:
    """A chain that was not killed."""

    folder: Path
    ends: list[Ended]
    files: dict[str, Any]


def files(folder: Path) -> dict[str, Any]:
    """Return the answers, and the digests of all files of finished artefacts."""
    found: dict[str, Any] = {path.name: path.read_text() for path in folder.glob("answers.jsonl")}
    for name in ("measured.json", "manifest.json"):
        for path in folder.glob(f"runs/*-*/{name}"):
            held = json.loads(path.read_text())["files"]
            found |= {f"{path.parent.name}/{name}: {file}": held[file]["sha256"] for file in held}
    return found


def leftovers(folder: Path) -> list[Path]:
    """Return what killed commands left behind and the last one should have removed."""
    return [
        path
        for path in folder.rglob("*")
        if path.name == "checkpoints" or (path.name.startswith(".") and path.suffix[1:].isdecimal())
    ]


def prepare(folder: Path) -> Path:
    set_seed(0)
    save_bert(folder / "checkpoint")
    jsonl(folder / "rows.jsonl", [{"text": text, "label": label} for text, label, _ in reviews(120)])
    (folder / "my_conf/study").mkdir(parents=True)
    (folder / "my_conf/study/tiny.yaml").write_text(STUDY)
    return folder


def undisturbed(commands: Commands, inputs: Path, folder: Path, chain: str) -> Whole:
    shutil.copytree(inputs, folder)
    ends = [commands.run(folder, command) for command in CHAINS[chain]]
    assert all(end.code == 0 for end in ends), ends[-1].said
    return Whole(folder, ends, files(folder))


def kill(commands: Commands, inputs: Path, whole: Whole, chain: str, chance: random.Random, most: int) -> Counter[str]:
    """Kill a chain up to so many times, let it end, compare its files, and return where it was killed."""
    kills: Counter[str] = Counter()
    folder = Path(tempfile.mkdtemp(dir=whole.folder.parent))
    shutil.copytree(inputs, folder, dirs_exist_ok=True)
    for command, end in zip(CHAINS[chain], whole.ends, strict=True):
        for _ in range(min(most, MOST.get(chain, 12)) - kills.total()):
            at, after = None, chance.uniform(0.1, 0.9) * end.seconds
            if end.events and chance.random() < 0.5:  # what ranks do to files is not seen from here
                after = None
                event = chance.choice(sorted(end.events))  # those of many files are many
                at = (event, chance.randint(1, min(3, end.events[event])))
            ended = commands.run(folder, command, at, after)
            assert ended.code in (0, -9), f"{chain}: after {kills}: {ended.said}"
            if ended.code == 0:
                break
            kills[next(iter(ended.events), MOMENT)] += 1
        ended = commands.run(folder, command)
        assert ended.code == 0, f"{chain}: after {kills}: {ended.said}"
        assert "damaged" not in ended.said, f"{chain}: after {kills}: {ended.said}"
    different = {name for name in {**whole.files, **files(folder)} if whole.files.get(name) != files(folder).get(name)}
    assert not different, f"{chain}: {folder}: {different} after {kills}"
    assert not leftovers(folder), f"{chain}: {leftovers(folder)} after {kills}"
    shutil.rmtree(folder)
    return kills


@pytest.fixture(scope="module")
def commands() -> Iterator[Commands]:
    with Commands() as started:
        yield started


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare(tmp_path_factory.mktemp("inputs"))


def test_a_chain_that_is_killed_six_times_ends_with_the_same_files(commands: Commands, inputs: Path, tmp_path: Path):
    chain = "phases, patience"
    whole = undisturbed(commands, inputs, tmp_path / "whole", chain)
    chance, kills = random.Random(1), Counter[str]()
    while kills.total() < 6:  # a chain that goes on may not come by the file event again
        kills += kill(commands, inputs, whole, chain, chance, most=6)


@pytest.mark.slow
def test_the_matrix_of_kills(commands: Commands, inputs: Path, tmp_path: Path):
    matrix(commands, inputs, tmp_path, 300, seed=random.randrange(10**6))


def matrix(commands: Commands, inputs: Path, folder: Path, count: int, seed: int) -> None:
    """Kill all chains in turn until there were so many kills, and print where."""
    print(f"seed {seed}")
    chance, kills = random.Random(seed), {chain: Counter[str]() for chain in CHAINS}
    wholes: dict[str, Whole] = {}
    while sum(kill.total() for kill in kills.values()) < count:
        for chain in CHAINS:
            if chain not in wholes:
                wholes[chain] = undisturbed(commands, inputs, folder / f"whole-{len(wholes)}", chain)
            kills[chain] += kill(commands, inputs, wholes[chain], chain, chance, most=12)
            print(f"{chain}: {kills[chain].total()}", flush=True)
    for chain, where in kills.items():
        print(f"{chain}: {where.total()} kills, {where[MOMENT]} of them at random moments")
        print(*(f"    {times} {kind}" for kind, times in where.most_common()), sep="\n")


if __name__ == "__main__":
    with Commands() as server, tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        (root / "inputs").mkdir()
        matrix(server, prepare(root / "inputs"), root, int(sys.argv[1]), seed=int(sys.argv[2]))
