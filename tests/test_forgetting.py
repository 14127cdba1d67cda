"""What adapt forgets of general text, and how it is kept from forgetting."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from samples import artefact, jsonl, reviews

import ulmfit_style
from ulmfit_style.__main__ import main
from ulmfit_style.artefacts.directory import METRICS, read_json
from ulmfit_style.cli.compose import compose
from ulmfit_style.errors import ConfigError
from ulmfit_style.training.batching import EncodedDataset, MixedDataset

ENCODER = "{model_type: bert, hidden_size: 32, num_hidden_layers: 2, num_attention_heads: 2, intermediate_size: 64}"


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """General text, the domain's, and the folder of runs, with a language model of the general one."""
    folder = tmp_path_factory.mktemp("forgetting")
    general = jsonl(folder / "general.jsonl", [{"text": text} for text, _, _ in reviews(400, seed=3)])
    random = np.random.default_rng(0)
    words = ["".join(random.choice(list("bcdfgklmnprst"), size=4)) for _ in range(40)]
    domain = jsonl(folder / "domain.jsonl", [{"text": " ".join(random.choice(words, size=12))} for _ in range(200)])
    return general, domain, folder / "runs"


@pytest.fixture
def options(texts: tuple[Path, Path, Path]) -> list[str]:
    general, domain, runs = texts
    return [
        *("model=mini_bert", f"model.architecture={ENCODER}", "model.tokenizer.vocab_size=300", "task=none"),
        *(f"pretrain.path={general}", "pretrain.batch_size=8", "pretrain.max_length=32", "pretrain.epochs=8"),
        *("corpus=file", f"corpus.path={domain}", f"runs={runs}", f"adapt.general={general}"),
        *("adapt.max_length=32", "adapt.batch_size=4", "adapt.learning_rate=1e-2"),
    ]


@pytest.fixture
def adapt(options: list[str], texts: tuple[Path, Path, Path]) -> Callable[..., dict]:
    """Adapt, and return the metrics."""

    def run(*more: str) -> dict:
        assert main(["pretrain", "adapt", *options, *more]) == 0
        return read_json(artefact("adapt", compose([*options, *more])).directory / METRICS)

    return run


def test_the_loss_on_general_text_is_told_before_and_after_and_replay_keeps_it_lower(
    adapt: Callable[..., dict], capsys: pytest.CaptureFixture
):
    plain = adapt()
    assert "general loss" in capsys.readouterr().out
    before, after = (entry["general_loss"] for entry in plain["heldout"])
    assert after > before + 0.5
    replayed = adapt("adapt.replay_ratio=0.5")
    assert "rows of general text are mixed in" in capsys.readouterr().out
    assert replayed["heldout"][0] == plain["heldout"][0]
    assert replayed["heldout"][1]["general_loss"] < after - 0.5
    assert replayed["rows"] == 2 * plain["rows"]


def test_the_drift_of_each_layer_group_is_told(adapt: Callable[..., dict], capsys: pytest.CaptureFixture):
    fast, slow = adapt(), adapt("adapt.layer_decay=10")
    assert "weights have moved by" in capsys.readouterr().out
    groups = ["embeddings", "layer 1", "layer 2", "head"]
    assert list(fast["drift"]) == list(slow["drift"]) == groups
    assert slow["drift"]["embeddings"] < fast["drift"]["embeddings"] / 10
    assert slow["drift"]["embeddings"] < slow["drift"]["layer 1"] < slow["drift"]["layer 2"]


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (["adapt.general=null", "adapt.replay_ratio=0.1"], "needs general text; give adapt.general=<file>"),
    ],
)
def test_what_cannot_be_measured_is_told(options: list[str], option: list[str], message: str):
    with pytest.raises(ConfigError, match=message):
        compose([*options, *option])


def test_the_general_text_that_ships_is_small_and_whole_sentences():
    text = (Path(ulmfit_style.__file__).parent / "general" / "state_of_the_union.txt").read_text(encoding="utf-8")
    assert len(text.encode()) < 200_000
    assert all(line.endswith((".", "!", "?", '"', ")")) for line in text.splitlines())


def test_rows_that_are_mixed_in_come_again_with_indices_of_their_own():
    own = EncodedDataset({"index": number, "input_ids": [1] * number} for number in range(6))
    others = EncodedDataset({"index": number, "input_ids": [2] * 9} for number in range(2))
    mixed = MixedDataset(own, others, 0.4)
    assert mixed.lengths.tolist() == [0, 1, 2, 3, 4, 5, 9, 9, 9, 9]
    assert [mixed[place]["index"] for place in range(len(mixed))] == list(range(10))
    assert mixed[9]["input_ids"] == [2] * 9
