"""What adapt forgets of general text, and how it is kept from forgetting."""

from pathlib import Path

import numpy as np
import pytest
from samples import artefact, jsonl, reviews

from ulmfit_style.__main__ import main
from ulmfit_style.artefacts.directory import METRICS, read_json
from ulmfit_style.cli.compose import compose
from ulmfit_style.errors import ConfigError
from ulmfit_style.training.batching import EncodedDataset, MixedDataset

ENCODER = "{model_type: bert, hidden_size: 32, num_hidden_layers: 2, num_attention_heads: 2, intermediate_size: 64}"


@pytest.fixture
def options(tmp_path: Path) -> list[str]:
    """A recipe that pretrains on reviews, and adapts to text of words of its own."""
    general = jsonl(tmp_path / "general.jsonl", [{"text": text} for text, _, _ in reviews(400, seed=3)])
    random = np.random.default_rng(0)
    words = ["".join(random.choice(list("bcdfgklmnprst"), size=4)) for _ in range(40)]
    domain = jsonl(tmp_path / "domain.jsonl", [{"text": " ".join(random.choice(words, size=12))} for _ in range(200)])
    return [
        *("model=mini_bert", f"model.architecture={ENCODER}", "model.tokenizer.vocab_size=300", "task=none"),
        *(f"pretrain.path={general}", "pretrain.batch_size=8", "pretrain.max_length=32", "pretrain.epochs=5"),
        *("corpus=file", f"corpus.path={domain}", f"runs={tmp_path / 'runs'}", f"adapt.general={general}"),
        *("adapt.max_length=32", "adapt.batch_size=4", "adapt.learning_rate=1e-2"),
    ]


def test_what_is_forgotten_is_measured_and_replay_and_lower_rates_keep_more(
    options: list[str], capsys: pytest.CaptureFixture[str]
):
    def adapt(*more: str) -> dict:
        assert main(["pretrain", "adapt", *options, *more]) == 0
        return read_json(artefact("adapt", compose([*options, *more])).directory / METRICS)

    plain, replayed, slow = adapt(), adapt("adapt.replay_ratio=0.5"), adapt("adapt.layer_decay=10")
    before, after = (entry["general_loss"] for entry in plain["heldout"])
    assert after > before + 0.5
    assert replayed["heldout"][0] == plain["heldout"][0]
    assert replayed["heldout"][1]["general_loss"] < after - 0.5
    assert replayed["rows"] == 2 * plain["rows"]
    assert list(plain["drift"]) == list(slow["drift"]) == ["embeddings", "layer 1", "layer 2", "head"]
    assert slow["drift"]["embeddings"] < plain["drift"]["embeddings"] / 10
    assert slow["drift"]["embeddings"] < slow["drift"]["layer 1"] < slow["drift"]["layer 2"]
    shown = capsys.readouterr().out
    for words in ("general loss", "rows of general text are mixed in", "weights have moved by"):
        assert words in shown


def test_replay_without_general_text_is_refused(options: list[str]):
    with pytest.raises(ConfigError, match="needs general text; give"):
        compose([*options, "adapt.general=null", "adapt.replay_ratio=0.1"])


def test_rows_that_are_mixed_in_come_again_with_indices_of_their_own():
    own = EncodedDataset({"index": number, "input_ids": [1] * number} for number in range(6))
    others = EncodedDataset({"index": number, "input_ids": [2] * 9} for number in range(2))
    mixed = MixedDataset(own, others, 0.4)
    assert mixed.lengths.tolist() == [0, 1, 2, 3, 4, 5, 9, 9, 9, 9]
    assert [mixed[place]["index"] for place in range(len(mixed))] == list(range(10))
    assert mixed[9]["input_ids"] == [2] * 9
