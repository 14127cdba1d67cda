from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given, strategies
from samples import chunks, reviews
from tiny_run import without_dropout
from transformers import PreTrainedTokenizerFast, set_seed

from ulmfit_style.training.objectives import CausalLM, MaskedLM
from ulmfit_style.training.packing import PackedDataset, first_position

LENGTH = 64
TEXTS = [text + " film" * (7 * number % 50) for number, (text, _, _) in enumerate(reviews(40))]


def model_of(name: str, head: str, tiny: dict, **sizes: object) -> transformers.PreTrainedModel:
    """Make a tiny model whose documents would notice each other: weights wide enough, room for `LENGTH` positions."""
    set_seed(0)
    config = getattr(transformers, f"{name}Config")(**{**tiny, "max_position_embeddings": LENGTH + 8, **sizes})
    model = getattr(transformers, f"{name}{head}")(config).eval()
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.3)
    return model


def test_rows_hold_every_chunk_and_its_words_once_and_whole_and_are_nearly_full(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path
):
    rows = chunks(TEXTS, tokenizer, LENGTH, tmp_path)
    packed = PackedDataset(rows, LENGTH, 0)
    held = []
    for row in packed:
        held += [tuple(row["input_ids"][row["documents"] == number]) for number in set(row["documents"])]
        pairs = {(word, document) for word, document in zip(row["words"], row["documents"], strict=True) if word >= 0}
        assert len({word for word, _ in pairs}) == len(pairs)  # none is of two documents
    assert sorted(held) == sorted(tuple(row["input_ids"]) for row in rows)
    assert max(packed.lengths) <= LENGTH
    assert packed.lengths.sum() == rows.tokens
    assert len(rows) > len(packed) <= 1.1 * rows.tokens / LENGTH


class Numbered:
    """Chunks of given lengths, in which no token and no word comes twice."""

    def __init__(self, lengths: Sequence[int]) -> None:
        self.lengths, self._starts = np.array(lengths, np.int32), np.cumsum([0, *lengths])

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        ids = np.arange(self._starts[index], self._starts[index + 1])
        return {"input_ids": ids, "words": np.array([-1, *range(len(ids) - 1)]), "bytes": ids + 1}


@given(lengths=strategies.lists(strategies.integers(1, LENGTH), min_size=1, max_size=60))
def test_no_token_is_lost_or_doubled_however_long_the_chunks_are(lengths: list[int]):
    chunks = Numbered(lengths)
    packed = PackedDataset(chunks, LENGTH, first_position=2)
    rows = [packed[index] for index in range(len(packed))]
    held = {}
    for row in rows:
        assert len(row["input_ids"]) <= LENGTH
        for document in np.unique(row["documents"]):
            ids, positions = (row[name][row["documents"] == document] for name in ("input_ids", "positions"))
            assert positions.tolist() == list(range(2, 2 + len(ids)))
            held[int(ids[0])] = ids.tolist()
        assert len(np.unique(row["words"][row["words"] >= 0])) == (row["words"] >= 0).sum()
        assert (row["bytes"] == row["input_ids"] + 1).all()
    assert sorted(held.values()) == [chunks[index]["input_ids"].tolist() for index in range(len(chunks))]
    assert packed.lengths.tolist() == [len(row["input_ids"]) for row in rows]


ARCHITECTURES: Sequence[tuple[str, str, int | None, dict]] = [
    ("Bert", "ForMaskedLM", 0, {}),
    ("Roberta", "ForMaskedLM", 1, {}),  # padding is token 0, and positions begin after it
    ("DebertaV2", "ForMaskedLM", None, {}),
    ("ModernBert", "ForMaskedLM", None, {"local_attention": 16}),  # its sliding windows do not look at the mask
    ("GPT2", "LMHeadModel", 0, {"n_embd": 16, "n_layer": 2, "n_head": 2}),
    ("Llama", "ForCausalLM", 0, {"num_key_value_heads": 2}),
    ("Bloom", "ForCausalLM", None, {}),  # counts distances by itself
]


@pytest.mark.parametrize(("name", "head", "expected", "sizes"), ARCHITECTURES)
def test_a_comparison_tells_which_architectures_keep_documents_apart(
    name: str, head: str, expected: int | None, sizes: dict, tiny: dict
):
    causal = head != "ForMaskedLM"
    model = model_of(name, head, without_dropout(tiny) if causal else tiny, **sizes)
    assert first_position(model, LENGTH, 0, causal=causal) == expected


@pytest.mark.parametrize(
    ("name", "head", "first"), [("Roberta", "ForMaskedLM", 1), ("Llama", "ForCausalLM", 0)], ids=["masked", "causal"]
)
@torch.no_grad()
def test_the_loss_of_packed_documents_is_that_of_each_alone(
    name: str, head: str, first: int, tokenizer: PreTrainedTokenizerFast, tiny: dict, tmp_path: Path
):
    objective: MaskedLM | CausalLM = MaskedLM(tokenizer, 0.3, seed=0) if name == "Roberta" else CausalLM(tokenizer)
    model = model_of(name, head, tiny if name == "Roberta" else without_dropout(tiny))
    packed = PackedDataset(chunks(TEXTS, tokenizer, LENGTH, tmp_path), LENGTH, first_position=first)
    batch = objective.collate([{**packed[index], "phase_epoch": (1, 0)} for index in range(len(packed))])
    alone, counted = 0.0, 0
    for row, documents in enumerate(batch["documents"]):
        for document in range(int(documents.max()) + 1):
            fields = ("input_ids", "attention_mask", "labels", "bytes")
            part = {field: batch[field][row][documents == document][None] for field in fields}
            alone += float(objective.loss(model, part))
            counted += int(objective.count(part))
    assert float(objective.loss(model, batch)) == pytest.approx(alone, rel=1e-5)
    assert int(objective.count(batch)) == counted
