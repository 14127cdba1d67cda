"""The best state is kept, over all phases, whatever happens to the run on the way."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from samples import Killed, reviews
from transformers import PreTrainedTokenizerFast
from watching import Watching

from ulmfit_style.__main__ import main
from ulmfit_style.artefacts.directory import METRICS
from ulmfit_style.training.best import CURVE, BestState
from ulmfit_style.training.resume import is_whole, newest_whole


@pytest.fixture
def stage(tokenizer: PreTrainedTokenizerFast, tiny: dict, tmp_path: Path) -> Callable[[str], Watching]:
    return lambda name: Watching(tokenizer, tiny, tmp_path / name)


@pytest.fixture
def scripted(stage: Callable[[str], Watching]) -> Callable[..., tuple[BestState, torch.Tensor, list[torch.Tensor]]]:
    """Run two phases with scores of our own; return the final weights and those that each score was given for."""

    def run(scores: Sequence[float], **options) -> tuple[BestState, torch.Tensor, list[torch.Tensor]]:
        watching, left, scored = stage("scripted"), list(scores), []

        def score() -> float:
            scored.append(watching.weights())
            return left.pop(0)

        watching.luck = score
        best, weights = watching.run(**options)
        assert not left
        return best, weights, scored

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
    scripted, scores: list[float], patience: int, kept: int
):
    best, weights, scored = scripted(scores, patience=patience)
    assert torch.equal(weights, scored[kept])
    assert len({tuple(state.tolist()) for state in scored}) == len(scored)
    assert best.kept is best.curve[kept]
    assert [entry["luck"] for entry in best.curve] == scores


def test_where_the_epochs_are_no_whole_number_the_end_is_scored_too(scripted):
    best, *_ = scripted([0, 1, 2, 3], epochs=1.5)
    assert [(entry["phase"], entry["epoch"], entry["step"]) for entry in best.curve] == [
        ("head", 1.0, 5),
        ("head", 1.6, 8),
        ("all", 1.0, 5),
        ("all", 1.6, 8),
    ]


def test_being_watched_changes_nothing_of_the_training(stage, scripted):
    _, weights, _ = scripted(range(12))
    _, unwatched = stage("plain").run(patience=None)
    assert torch.equal(weights, unwatched)


@pytest.fixture
def whole(stage: Callable[[str], Watching]) -> tuple[BestState, torch.Tensor]:
    """A run that was not stopped."""
    return stage("whole").run()


# Within an epoch, at its end (5, 10), after a few, and so far that the first phase is over.
@pytest.mark.parametrize("killed_at", [3, 5, 10, 12, 20, 27])
def test_a_killed_run_keeps_the_same_state(stage, whole: tuple[BestState, torch.Tensor], killed_at: int):
    run = stage("killed")
    with pytest.raises(Killed):
        run.run(killed_at=killed_at)
    best, weights = run.run()
    assert best.curve == whole[0].curve
    assert torch.equal(weights, whole[1])


def test_a_run_that_is_killed_again_and_again_keeps_the_same_state(stage, whole: tuple[BestState, torch.Tensor]):
    run = stage("killed")
    for _ in range(5):
        with pytest.raises(Killed):
            run.run(killed_at=4)
    best, weights = run.run()
    assert best.curve == whole[0].curve
    assert torch.equal(weights, whole[1])


@pytest.mark.parametrize("phase", [0, 1])
def test_a_run_that_is_killed_when_a_phase_has_ended_trains_no_step_more(
    stage, whole: tuple[BestState, torch.Tensor], phase: int
):
    run = stage("killed")
    with pytest.raises(Killed):
        run.run(killed_after=phase)
    folder = run.folder / f"phase-{phase}"
    before = {path.name for path in folder.glob("checkpoint-*")}
    best, weights = run.run()
    assert {path.name for path in folder.glob("checkpoint-*")} == before
    assert best.curve == whole[0].curve
    assert torch.equal(weights, whole[1])


def test_what_was_watched_in_finished_phases_is_read_back(stage, whole: tuple[BestState, torch.Tensor]):
    run = stage("killed")
    with pytest.raises(Killed):
        run.run(killed_at=max(entry["step"] for entry in whole[0].curve if entry["phase"] == "head"))
    assert not list(run.folder.glob("phase-1/checkpoint-*"))
    for _ in ("the second phase", "nothing"):
        best, weights = run.run()
        assert best.curve == whole[0].curve
        assert torch.equal(weights, whole[1])


def test_the_best_state_is_under_the_seal_of_a_checkpoint(stage):
    run = stage("killed")
    with pytest.raises(Killed):
        run.run(killed_at=7)
    newest = newest_whole(run.folder / "phase-0")
    assert newest is not None
    (newest / CURVE).write_text("[]")
    assert not is_whole(newest)


def test_several_processes_keep_one_state_also_after_a_break(tokenizer: PreTrainedTokenizerFast, tmp_path: Path):
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    script = Path(__file__).with_name("watching.py")
    tokenizer.save_pretrained(tmp_path)
    ended = subprocess.run([*torchrun, str(script), str(tmp_path)], capture_output=True, check=False, timeout=120)
    assert ended.returncode == 0, ended.stderr.decode()
    # Each process would have given other scores; the main one's count.
    (curve, weights), *others = [end for rank in (0, 1) for end in torch.load(tmp_path / f"ends.{rank}")]
    assert len(others) == 3
    assert all(other == curve for other, _ in others)
    assert all(torch.equal(other, weights) for _, other in others)


@pytest.fixture
def recipe(tiny_overrides: list[str]) -> list[str]:
    """A command that fine-tunes with patience."""
    own = [override for override in tiny_overrides if not override.startswith(("adapt.", "finetune.", "runs="))]
    return ["finetune", *own, "adapt=none", "compare=false", "finetune.learning_rate=1e-3"]


def result(runs: Path) -> tuple[dict, dict[str, torch.Tensor]]:
    metrics = json.loads((runs / "default/finetune" / METRICS).read_text())
    return metrics, load_file(runs / "default/finetune/model.safetensors")


def watched(metrics: dict) -> list[dict]:
    return [entry for entry in metrics["log"] if "loss" not in entry]


@pytest.mark.parametrize("how", ["plain", "ulmfit"])
def test_a_process_that_was_killed_keeps_the_same_state(recipe: list[str], tmp_path: Path, how: str):
    earlier = {"plain": 0, "ulmfit": 2}[how]
    recipe += [f"finetune={how}", "finetune.epochs=60", "finetune.patience=60", "save_minutes=0.001"]
    command = [sys.executable, "-m", "ulmfit_style", *recipe, f"runs={tmp_path / 'killed'}"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    # A checkpoint beyond the first few, and the run still under way.
    while not list(tmp_path.glob(f"killed/finetune-*/checkpoints/phase-{earlier}/checkpoint-??/whole.json")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not list(tmp_path.glob("killed/finetune-*/manifest.json"))

    for name in ("killed", "whole"):
        assert main([*recipe, f"runs={tmp_path / name}"]) == 0
    (killed, weights), (whole, others) = result(tmp_path / "killed"), result(tmp_path / "whole")
    assert len(watched(whole)) == earlier + 60
    assert watched(killed) == watched(whole)
    assert killed["kept"] == whole["kept"]
    assert killed["test"] == whole["test"]
    assert all(torch.equal(weights[name], others[name]) for name in others)


def test_the_labels_that_are_watched_are_of_those_that_are_given(recipe: list[str], tmp_path: Path, capsys):
    assert main([*recipe, f"runs={tmp_path}", "finetune.epochs=9", "finetune.patience=2"]) == 0
    metrics, _ = result(tmp_path)
    curve = watched(metrics)
    assert metrics["kept"] == {**max(curve, key=lambda entry: entry["accuracy"]), "rows": 4}
    assert metrics["train"]["rows"] == 20
    assert len(curve) == min(9, metrics["kept"]["epoch"] + 2)
    shown = capsys.readouterr().out
    assert "  16 labelled rows, of which" in shown
    assert "  4 others are watched: the state that scores best on them is kept (finetune.patience)" in shown
    assert f"  kept: the state after epoch {metrics['kept']['epoch']:g} of {len(curve)} (accuracy 0." in shown


def test_where_all_labels_are_used_validation_is_watched_and_scored_alike(recipe: list[str], tmp_path: Path):
    options = ["task.train_samples=null", "finetune.epochs=4", "finetune.patience=9", "finetune.learning_rate=1e-2"]
    assert main([*recipe, f"runs={tmp_path}", *options]) == 0
    metrics, _ = result(tmp_path)
    assert metrics["kept"]["rows"] == metrics["validation"]["rows"] == 12
    assert metrics["kept"]["accuracy"] == metrics["validation"]["scores"]["accuracy"]
    assert max(entry.get("accuracy", 0) for entry in metrics["log"]) == metrics["kept"]["accuracy"]


def test_without_patience_nothing_is_watched(recipe: list[str], tmp_path: Path, capsys):
    assert main([*recipe, f"runs={tmp_path}", "finetune.epochs=2"]) == 0
    metrics, _ = result(tmp_path)
    assert "kept" not in metrics
    assert "watched" not in capsys.readouterr().out


def test_a_sweep_with_patience_chooses_by_the_validation_rows(recipe: list[str], tmp_path: Path, capsys):
    options = [*recipe[1:-1], "finetune.patience=1,3", "finetune.epochs=3", f"runs={tmp_path}"]
    assert main(["sweep", *options]) == 0
    shown = capsys.readouterr().out
    assert "2 trials, best first by the validation rows" in shown
    assert len(list(tmp_path.glob("finetune-*"))) == 2


@pytest.mark.parametrize("kind", ["multi_label_classification", "text_regression"])
def test_every_kind_of_task_can_be_watched(recipe: list[str], tmp_path: Path, kind: str):
    rows = [
        {"text": text, "label": number / 7 if kind == "text_regression" else ["x", label] if number % 3 else [label]}
        for number, (text, label, _) in enumerate(reviews(120))
    ]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = [f"task={kind}", f"task.path={path}", "task.text=text", "task.label=label", "task.shots=null"]
    options += [f"runs={tmp_path}", "finetune.epochs=3", "finetune.patience=1"]
    assert main([*recipe, *options]) == 0
    assert result(tmp_path)[0]["kept"]["rows"] == 4
