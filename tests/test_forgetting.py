"""What adapt forgets of general text, and how it is kept from forgetting."""

from pathlib import Path

import numpy as np
import pytest
from samples import artefact, jsonl, reviews

from ulmfit_style.__main__ import main
from ulmfit_style.artefacts.directory import METRICS, read_json
from ulmfit_style.cli.compose import compose

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


def test_what_is_forgotten_is_measured_and_lower_rates_keep_more(
    options: list[str], capsys: pytest.CaptureFixture[str]
):
    def adapt(*more: str) -> dict:
        assert main(["pretrain", "adapt", *options, *more]) == 0
        return read_json(artefact("adapt", compose([*options, *more])).directory / METRICS)

    plain, slow = adapt(), adapt("adapt.layer_decay=10")
    before, after = (entry["general_loss"] for entry in plain["heldout"])
    assert after > before + 0.5
    assert before < slow["heldout"][-1]["general_loss"] < after - 0.1
    assert "general loss" in capsys.readouterr().out
