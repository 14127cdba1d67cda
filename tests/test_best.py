"""The state that is best on watched rows is kept, over all phases."""

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from samples import reviews
from tiny_run import TinyRun
from transformers import PreTrainedTokenizerFast

from ulmfit_style.__main__ import main
from ulmfit_style.artefacts.directory import METRICS

Scripted = Callable[..., tuple[TinyRun, list[torch.Tensor]]]


@pytest.fixture
def scripted(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> Scripted:
    """Run two phases with scores of our own; return the run, and the weights that each score was given for."""

    def run(scores: Sequence[float], **options) -> tuple[TinyRun, list[torch.Tensor]]:
        tiny, left, scored = TinyRun(tokenizer, tmp_path / "scripted"), list(scores), []

        def score() -> float:
            scored.append(tiny.weights())
            return left.pop(0)

        tiny.luck = score
        tiny.run(**{"epochs": 6, "patience": 2, **options})
        assert not left
        return tiny, scored

    return run


@pytest.mark.parametrize(
    ("scores", "patience", "kept"),
    [
        ([1, 3, 2, 0, 1, 1], 2, 1),  # each phase ends after two epochs that are no better
        ([1, 3, 2, 3, 3, 3], 2, 1),  # equal is not better
        ([1, 3, 2, 4, 2, 3, 5, 6, 7, 8, 9, 10], 3, 11),
        ([1, 3, 2, 2, 2, 2, 0, 1, 4, 4, 1, 1], 6, 8),  # the count starts again with the second phase
        ([0, 0, 0], 1, 0),
    ],
)
def test_the_earliest_of_the_best_states_is_kept_and_a_phase_ends_when_none_comes(
    scripted: Scripted, scores: list[float], patience: int, kept: int
):
    run, scored = scripted(scores, patience=patience)
    assert torch.equal(run.weights(), scored[kept])
    assert len({tuple(state.tolist()) for state in scored}) == len(scored)
    assert run.best.kept is run.best.curve[kept]
    assert [entry["luck"] for entry in run.best.curve] == scores


def test_where_the_epochs_are_no_whole_number_the_end_is_scored_too(scripted: Scripted):
    run, _ = scripted([0, 1, 2, 3], epochs=1.5)
    places = [(entry["phase"], entry["epoch"], entry["step"]) for entry in run.best.curve]
    assert places == [("head", 1.0, 5), ("head", 1.6, 8), ("all", 1.0, 5), ("all", 1.6, 8)]


def test_being_watched_changes_nothing_of_the_training(
    scripted: Scripted, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
):
    watched, _ = scripted(range(12))
    plain = TinyRun(tokenizer, tmp_path / "plain")
    plain.run(epochs=6)
    assert torch.equal(watched.weights(), plain.weights())


def test_several_processes_keep_one_state_also_after_a_break(tokenizer: PreTrainedTokenizerFast, tmp_path: Path):
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    script = Path(__file__).with_name("tiny_run.py")
    tokenizer.save_pretrained(tmp_path)
    ended = subprocess.run([*torchrun, str(script), str(tmp_path)], capture_output=True, check=False, timeout=120)
    assert ended.returncode == 0, ended.stderr.decode()
    # Each process would have given other scores; the main one's count.
    (curve, weights), *others = [end for rank in (0, 1) for end in torch.load(tmp_path / f"ends.{rank}")]
    assert len(others) == 3
    assert all(other == curve for other, _ in others)
    assert all(torch.equal(other, weights) for _, other in others)


# The command


@pytest.fixture
def metrics_of(tiny_overrides: list[str], tmp_path: Path) -> Callable[..., dict]:
    """Fine-tune, and return the metrics."""
    recipe = [override for override in tiny_overrides if not override.startswith(("adapt.", "finetune.", "runs="))]
    recipe += [f"runs={tmp_path}", "adapt=none", "compare=false", "finetune.learning_rate=1e-3"]

    def run(*overrides: str) -> dict:
        assert main(["finetune", *recipe, *overrides]) == 0
        return json.loads((tmp_path / "default/finetune" / METRICS).read_text())

    return run


def test_the_labels_that_are_watched_are_of_those_that_are_given(metrics_of: Callable[..., dict], capsys):
    metrics = metrics_of("finetune.epochs=9", "finetune.patience=2")
    curve = [entry for entry in metrics["log"] if "loss" not in entry]
    assert metrics["kept"] == {**max(curve, key=lambda entry: entry["accuracy"]), "rows": 4}
    assert metrics["train"]["rows"] == 20
    assert len(curve) == min(9, metrics["kept"]["epoch"] + 2)
    shown = capsys.readouterr().out
    assert "  16 labelled rows, of which" in shown
    assert "  4 others are watched: the state that scores best on them is kept (finetune.patience)" in shown
    assert f"  kept: the state of 'every weight' after epoch {metrics['kept']['epoch']:g} (accuracy 0." in shown


def test_where_all_labels_are_used_validation_is_watched_and_scored_alike(metrics_of: Callable[..., dict]):
    options = ["task.train_samples=null", "finetune.epochs=4", "finetune.patience=9", "finetune.learning_rate=1e-2"]
    metrics = metrics_of(*options)
    assert metrics["kept"]["rows"] == metrics["validation"]["rows"] == 12
    assert metrics["kept"]["accuracy"] == metrics["validation"]["scores"]["accuracy"]
    assert max(entry.get("accuracy", 0) for entry in metrics["log"]) == metrics["kept"]["accuracy"]


def test_the_phase_of_the_kept_state_is_told_and_without_patience_nothing_is_watched(
    metrics_of: Callable[..., dict], capsys
):
    kept = metrics_of("finetune=ulmfit", "finetune.epochs=3", "finetune.patience=2")["kept"]
    assert f"  kept: the state of '{kept['phase']}' after epoch {kept['epoch']:g} (" in capsys.readouterr().out
    assert "kept" not in metrics_of("finetune.epochs=2")
    assert "watched" not in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["multi_label_classification", "text_regression"])
def test_every_kind_of_task_can_be_watched(metrics_of: Callable[..., dict], tmp_path: Path, kind: str):
    rows = [
        {"text": text, "label": number / 7 if kind == "text_regression" else ["x", label] if number % 3 else [label]}
        for number, (text, label, _) in enumerate(reviews(120))
    ]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = [f"task={kind}", f"task.path={path}", "task.text=text", "task.label=label", "task.shots=null"]
    assert metrics_of(*options, "finetune.epochs=3", "finetune.patience=1")["kept"]["rows"] == 4
