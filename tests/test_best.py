"""The state that is best on watched rows is kept, over all phases."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from tiny_run import TinyRun
from transformers import PreTrainedTokenizerFast

Scripted = Callable[..., tuple[TinyRun, list[torch.Tensor]]]


@pytest.fixture
def scripted(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> Scripted:
    """Run two phases with scores of our own; return the run, and the weights that each score was given for."""

    def run(scores: Sequence[float], **options) -> tuple[TinyRun, list[torch.Tensor]]:
        tiny, left, scored = TinyRun(tokenizer, tmp_path / "scripted"), list(scores), []

        def score() -> float:
            scored.append(tiny.weights(words=False))
            return left.pop(0)

        tiny.luck = score
        tiny.run(**{"epochs": 6, "patience": 2, **options})
        assert not left
        return tiny, scored

    return run


@pytest.mark.parametrize(
    ("scores", "patience", "kept"),
    [
        ([1, 3, 2, 3, 3, 3], 2, 1),  # each phase ends after two epochs that are no better; equal is not better
        ([1, 3, 2, 4, 2, 3, 5, 6, 7, 8, 9, 10], 3, 11),
        ([1, 3, 2, 2, 2, 2, 0, 1, 4, 4, 1, 1], 6, 8),  # the count starts again with the second phase
    ],
)
def test_the_earliest_of_the_best_states_is_kept_and_a_phase_ends_when_none_comes(
    scripted: Scripted, scores: list[float], patience: int, kept: int
):
    run, scored = scripted(scores, patience=patience)
    assert torch.equal(run.weights(words=False), scored[kept])
    assert len({tuple(state.tolist()) for state in scored}) == len(scored)
    assert run.best.kept is run.best.curve[kept]
    assert [entry["luck"] for entry in run.best.curve] == scores


def test_where_the_epochs_are_no_whole_number_the_end_is_scored_too_and_being_watched_changes_nothing(
    scripted: Scripted, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
):
    run, _ = scripted([0, 1, 2, 3], epochs=1.5)
    places = [(entry["phase"], entry["epoch"], entry["step"]) for entry in run.best.curve]
    assert places == [("head", 1.0, 5), ("head", 1.6, 8), ("all", 1.0, 5), ("all", 1.6, 8)]
    plain = TinyRun(tokenizer, tmp_path / "plain")
    plain.run(epochs=1.5)
    assert torch.equal(run.weights(), plain.weights())


# The command
