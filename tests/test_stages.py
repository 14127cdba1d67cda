"""The table of stages, and what a command reads: each source once."""

import os
import re
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from recipes import Trained
from samples import artefact

from ulmfit_style.__main__ import main
from ulmfit_style.artefacts import predictions, seal
from ulmfit_style.artefacts.directory import METRICS, read_json, write_json
from ulmfit_style.chain import preview
from ulmfit_style.cli.compose import compose
from ulmfit_style.data import corpus, labelled, reading
from ulmfit_style.models import checkpoints
from ulmfit_style.resolved import Resolved, Stage, Step
from ulmfit_style.stages import table

SEEDS = (0, 1)


def members(resolved: Resolved) -> list[Resolved]:
    return [resolved.variant(finetune=resolved.config.finetune.model_copy(update={"seed": seed})) for seed in SEEDS]


def starts_from(resolved: Resolved) -> str:
    return "finetune"


def determinants(resolved: Resolved) -> dict:
    return {"members": [member.artefact("finetune").fingerprint for member in members(resolved)]}


def run(step: Step, directory: Path) -> None:
    """Take the surer answer of two fine-tuned models to each test row."""
    answers = [predictions.read(member.artefact("finetune").directory, "test") for member in members(step.resolved)]
    surer = [max(of_row, key=lambda answer: answer["score"]) for of_row in zip(*answers, strict=True)]
    measured = step.resolved.task.measure(surer, [answer["target"] for answer in surer])
    write_json(directory / METRICS, {"test": measured})


@pytest.fixture
def blend(monkeypatch: pytest.MonkeyPatch) -> Stage:
    """A new stage: this file's functions, and one row of the table."""
    row = Stage("blend", "combine two fine-tuned models", noun="blend", version=1)
    monkeypatch.setitem(sys.modules, "ulmfit_style.stages.blend", sys.modules[__name__])
    monkeypatch.setitem(table.STAGES, row.name, row)
    return row


@pytest.mark.usefixtures("blend")
def test_a_stage_is_one_file_and_one_row(chain: Trained, capsys: pytest.CaptureFixture[str]):
    options = [*chain.overrides, "name=averaged"]
    assert main(["--help"]) == 0
    assert re.search(r"^  blend +combine two fine-tuned models$", capsys.readouterr().out, re.MULTILINE)
    assert main(["blend", *options, "finetune.epochs=1"]) == 2
    assert "blend: there is no fine-tuned model for this config" in capsys.readouterr().err
    assert main(["plan", "blend", *options]) == 0
    assert "[1/1] blend: blend: would run (" in capsys.readouterr().out
    assert main(["blend", *options]) == 0
    made = artefact("blend", compose(options))
    assert made.finished
    assert 0 <= read_json(made.directory / METRICS)["test"]["scores"]["accuracy"] <= 1
    assert (chain.runs / "averaged/blend").resolve() == made.directory.resolve()
    capsys.readouterr()
    assert main(["blend", *options]) == 0
    assert f"[1/1] blend: blend: up to date ({made.directory})" in capsys.readouterr().out
    assert main(["runs", f"runs={chain.runs}"]) == 0
    assert "averaged/blend" in re.sub(r"\s", "", capsys.readouterr().out)


def test_a_plan_asks_for_nothing_that_a_command_without_an_artefact_needs(compose_tiny, capsys):
    preview(compose_tiny(), ["adapt", "predict", "push"])
    lines = capsys.readouterr().out.splitlines()
    told = [line.partition(":")[0].partition(" about")[0] for line in lines[-4:]]
    assert told == ["[1/1] adapt", "It takes", "predict", "push"]


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each labelled file is read, and its rows and the weights are hashed."""
    counts: Counter[str] = Counter()

    def count(module: object, name: str, key: Callable[..., str]) -> None:
        original = getattr(module, name)

        def counting(*arguments, **options):
            counts[key(*arguments)] += 1
            return original(*arguments, **options)

        monkeypatch.setattr(module, name, counting)

    count(reading, "read", lambda option, reference, *rest: f"read {Path(str(reference)).name}")
    count(labelled, "digest_of", lambda task, rows: "hash rows")
    count(seal, "file_digest", lambda path: f"hash {path.parent.name}/{path.name}")
    monkeypatch.setattr(seal, "_KNOWN", {})
    for cached in (labelled.load, corpus.load, checkpoints.resolve):
        cached.cache_clear()
    return counts


def test_a_command_reads_and_hashes_each_source_once(
    counted: Counter[str], tiny_overrides: list[str], checkpoint: Path
):
    assert main(["adapt", "finetune", *tiny_overrides, "adapt.epochs=0.1", "finetune.max_steps=1"]) == 0
    assert counted["read reviews.csv"] == 1
    assert counted[f"hash {checkpoint.name}/model.safetensors"] == 1
    assert counted["hash rows"] == 3  # of each split


def test_predict_reads_no_training_data_and_hashes_each_file_of_the_model_once(
    counted: Counter[str], chain: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(labelled, "load", lambda task: pytest.fail("the training data are read"))
    output = [f"predict.output={tmp_path / 'answers.jsonl'}", "predict.input=a film"]
    assert main(["predict", *chain.overrides, *output]) == 0
    assert main(["predict", f"predict.model={chain.directory}", f"runs={tmp_path}", *output]) == 0
    assert set(counted.values()) == {1}
    assert f"hash {chain.directory.name}/model.safetensors" in counted


def test_a_row_that_is_edited_at_equal_size_and_time_is_noticed(tiny_overrides: list[str], tmp_path: Path, reviews_csv):
    before = artefact("finetune", compose(tiny_overrides)).fingerprint
    stat = reviews_csv.stat()
    reviews_csv.write_bytes(reviews_csv.read_bytes().replace(b"wonderful", b"wonderfux", 1))
    os.utime(reviews_csv, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert reviews_csv.stat().st_size == stat.st_size
    for cached in (labelled.load, corpus.load):
        cached.cache_clear()
    assert artefact("finetune", compose(tiny_overrides)).fingerprint != before


def test_the_recipe_of_a_link_decides_whether_predict_takes_it(chain: Trained, capsys: pytest.CaptureFixture[str]):
    assert main(["predict", *chain.overrides, "finetune.seed=7", "predict.input=a film"]) == 2
    assert "predict: there is no fine-tuned model for this config" in capsys.readouterr().err
