from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from samples import chunks, reviews
from tiny_run import without_dropout
from transformers import PreTrainedTokenizerFast, set_seed

from ulmfit_style.tasks.base import IGNORED
from ulmfit_style.training.objectives import CausalLM, MaskedLM
from ulmfit_style.training.packing import PackedDataset, attention_mask, first_position

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


def test_rows_hold_every_chunk_once_and_whole_and_are_nearly_full(tokenizer: PreTrainedTokenizerFast, tmp_path: Path):
    rows = chunks(TEXTS, tokenizer, LENGTH, tmp_path)
    packed = PackedDataset(rows, LENGTH, 0)
    found = sorted(
        tuple(row["input_ids"][row["documents"] == number]) for row in packed for number in set(row["documents"])
    )
    assert found == sorted(tuple(row["input_ids"]) for row in rows)
    assert max(packed.lengths) <= LENGTH
    assert packed.lengths.sum() == rows.tokens
    assert len(packed) <= 1.1 * rows.tokens / LENGTH
    assert len(packed) < len(rows)


def test_the_words_of_a_packed_row_are_those_of_its_chunks(tokenizer: PreTrainedTokenizerFast, tmp_path: Path):
    for row in PackedDataset(chunks(TEXTS, tokenizer, LENGTH, tmp_path), LENGTH, 0):
        known: set[int] = set()
        for document in set(row["documents"]):
            words = set(row["words"][(row["documents"] == document) & (row["words"] >= 0)])
            assert words
            assert not words & known
            known |= words


MASKED: Sequence[tuple[str, int | None, dict]] = [
    ("Bert", 0, {}),
    ("DistilBert", 0, {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32, "dropout": 0.0}),
    ("Roberta", 1, {}),  # padding is token 0, and positions begin after it
    ("Electra", 0, {"embedding_size": 16}),
    ("Albert", 0, {"embedding_size": 16}),
    ("DebertaV2", None, {}),
    ("ModernBert", None, {"local_attention": 16}),  # its sliding windows do not look at the mask
]
CAUSAL: Sequence[tuple[str, str, int | None, dict]] = [
    ("GPT2", "LMHeadModel", 0, {"n_embd": 16, "n_layer": 2, "n_head": 2}),
    ("Llama", "ForCausalLM", 0, {"num_key_value_heads": 2}),
    ("Bloom", "ForCausalLM", None, {}),  # counts distances by itself
]


@pytest.mark.parametrize(("name", "expected", "sizes"), MASKED)
def test_a_comparison_tells_which_encoders_keep_documents_apart(name: str, expected: int | None, sizes: dict, tiny):
    model = model_of(name, "ForMaskedLM", tiny, **sizes)
    assert first_position(model, LENGTH, 0, causal=False) == expected


@pytest.mark.parametrize(("name", "head", "expected", "sizes"), CAUSAL)
def test_a_comparison_tells_which_decoders_keep_documents_apart(
    name: str, head: str, expected: int | None, sizes: dict, tiny
):
    small = without_dropout(tiny)
    assert first_position(model_of(name, head, small, **sizes), LENGTH, 0, causal=True) == expected


def test_the_masked_loss_of_packed_documents_is_that_of_each_alone(
    tokenizer: PreTrainedTokenizerFast, tiny: dict, tmp_path: Path
):
    objective = MaskedLM(tokenizer, 0.3, seed=0)
    model = model_of("Roberta", "ForMaskedLM", tiny)
    packed = PackedDataset(chunks(TEXTS, tokenizer, LENGTH, tmp_path), LENGTH, first_position=1)
    batch = objective.collate([{**packed[index], "phase_epoch": (1, 0)} for index in range(len(packed))])
    with torch.no_grad():
        together = float(objective.loss(model, batch))
        alone = 0.0
        for row in range(len(packed)):
            for document in range(int(batch["documents"][row].max()) + 1):
                there = batch["documents"][row] == document
                part = {
                    name: batch[name][row][there][None] for name in ("input_ids", "attention_mask", "labels", "bytes")
                }
                alone += float(objective.loss(model, part))
    assert together == pytest.approx(alone, rel=1e-5)


def test_the_causal_loss_of_packed_documents_is_that_of_each_alone(
    tokenizer: PreTrainedTokenizerFast, tiny: dict, tmp_path: Path
):
    small = without_dropout(tiny)
    model = model_of("Llama", "ForCausalLM", small, num_key_value_heads=2)
    objective, rows = CausalLM(tokenizer), chunks(TEXTS, tokenizer, LENGTH, tmp_path)
    packed = PackedDataset(rows, LENGTH, first_position=0)
    together, alone = objective.collate(list(packed)), objective.collate(list(rows))
    assert int(objective.count(together)) == int(objective.count(alone)) == sum(rows.lengths - 1)
    assert int(together["bytes"][together["labels"].ne(IGNORED)].sum()) == int(
        alone["bytes"][alone["labels"].ne(IGNORED)].sum()
    )
    with torch.no_grad():
        assert float(objective.loss(model, together)) == pytest.approx(float(objective.loss(model, alone)), rel=1e-5)


def test_a_restarted_position_alone_does_not_keep_documents_apart(
    tokenizer: PreTrainedTokenizerFast, tiny: dict, tmp_path: Path
):
    model = model_of("Bert", "ForMaskedLM", tiny)
    row = PackedDataset(chunks(TEXTS, tokenizer, LENGTH, tmp_path), LENGTH, first_position=0)[3]
    ids, documents, positions = (
        torch.tensor(row[name], dtype=torch.long)[None] for name in ("input_ids", "documents", "positions")
    )
    assert int(documents.max()) > 0
    first = ids[:, (documents[0] == 0).numpy()]
    with torch.no_grad():
        alone = model(first).logits
        leaking = model(ids, position_ids=positions).logits[:, : first.shape[1]]
        kept = model(ids, attention_mask=attention_mask(documents, causal=False), position_ids=positions).logits
    assert not np.allclose(leaking, alone, atol=1e-2)
    torch.testing.assert_close(kept[:, : first.shape[1]], alone, atol=1e-4, rtol=1e-4)
