from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given, strategies
from samples import chunks, encoder_decoder, tiny_tokenizer, with_sentinels
from tiny_run import without_dropout
from transformers import BertForMaskedLM, PreTrainedTokenizerFast, set_seed

from ulmfit_style.data.tokens import Chunks
from ulmfit_style.models.checkpoints import sentinels
from ulmfit_style.tasks.base_generation import logits_at
from ulmfit_style.training.objectives import IGNORED, CausalLM, Denoising, MaskedLM, _spans

DOCUMENTS = [
    "the film is wonderful",
    "a very tedious plot that was quite unforgettable in every scene of the story " * 4,
    "moving",
]

Rows = Callable[[int], Chunks]


@given(
    sizes=strategies.lists(strategies.integers(0, 4), max_size=40),
    share=strategies.floats(0.01, 1),
    place=strategies.tuples(*3 * [strategies.integers(0, 1000)]),
)
def test_a_share_of_the_words_is_masked_whole_and_the_same_ones_whenever_they_are(sizes, share, place):
    tokenizer = tiny_tokenizer()
    objective = MaskedLM(tokenizer, mask_probability=share, seed=3)
    # A special token stands where a word has none.
    words = np.array([number if size else -1 for number, size in enumerate(sizes) for _ in range(size or 1)], np.int32)
    ids = np.where(words < 0, tokenizer.cls_token_id, 20 + words).astype(np.int32)
    inputs, labels = objective.mask(ids, words, place[:2], place[2])
    is_masked, count = labels != IGNORED, len(set(words[words >= 0]))
    assert len(set(words[is_masked])) == (max(1, round(share * count)) if count else 0)
    assert not set(words[is_masked]) & (set(words[~is_masked]) | {-1})
    assert (labels[is_masked] == ids[is_masked]).all()
    assert (inputs[~is_masked] == ids[~is_masked]).all()
    assert not set(inputs[is_masked]) & (set(tokenizer.all_special_ids) - {tokenizer.mask_token_id})
    again = MaskedLM(tiny_tokenizer(), mask_probability=share, seed=3).mask(ids, words, place[:2], place[2])
    assert (again[0] == inputs).all()
    assert (again[1] == labels).all()


@pytest.fixture
def objective(tokenizer: PreTrainedTokenizerFast) -> MaskedLM:
    return MaskedLM(tokenizer, mask_probability=0.15, seed=7)


@pytest.fixture
def rows(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> Rows:
    """The documents as rows of so many tokens at most."""
    return lambda length: chunks(DOCUMENTS, tokenizer, length, tmp_path)


@pytest.fixture(params=["T5", "BART"])
def denoising(request: pytest.FixtureRequest, tokenizer: PreTrainedTokenizerFast) -> Denoising:
    """Span corruption or text infilling."""
    own = with_sentinels(tokenizer) if request.param == "T5" else tokenizer
    return Denoising(own, 0.3, seed=7, sentinels=sentinels(own))


# Masked words


def test_a_long_document_becomes_several_rows_and_no_token_is_lost(tokenizer: PreTrainedTokenizerFast, rows: Rows):
    assert max(rows(16).lengths) <= 16
    special = {tokenizer.cls_token_id, tokenizer.sep_token_id}
    kept = [token for row in rows(16) for token in row["input_ids"] if token not in special]
    assert kept == [token for text in DOCUMENTS for token in tokenizer(text, add_special_tokens=False)["input_ids"]]


def test_words_are_masked_whole_and_special_tokens_never(objective: MaskedLM, rows: Rows):
    _, labels = objective.mask(np.array([2, 3]), np.array([-1, -1]), (1, 0), 0)
    assert (labels == IGNORED).all()
    words = rows(64)[1]["words"]
    assert np.unique(words[words >= 0], return_counts=True)[1].max() > 1
    for epoch in range(20):
        for index, row in enumerate(rows(64)):
            _, labels = objective.mask(row["input_ids"], row["words"], (1, epoch), index)
            for word in set(row["words"]):
                predicted = set((labels != IGNORED)[row["words"] == word].tolist())
                assert len(predicted) == 1 if word >= 0 else predicted == {False}


def test_of_the_masked_tokens_eighty_ten_and_ten_in_a_hundred_are_masked_swapped_and_kept(
    tokenizer: PreTrainedTokenizerFast, objective: MaskedLM, rows: Rows
):
    row = rows(64)[1]
    pairs = [objective.mask(row["input_ids"], row["words"], (1, epoch), 0) for epoch in range(1000)]
    inputs, labels = (np.concatenate(arrays) for arrays in zip(*pairs, strict=True))
    chosen = labels != IGNORED
    masked, kept = inputs[chosen] == tokenizer.mask_token_id, inputs[chosen] == labels[chosen]
    # A random token is the right one, or [MASK], now and then: hence not exactly 80, 10 and 10.
    assert [masked.mean(), (~masked & ~kept).mean(), kept.mean()] == pytest.approx([0.8, 0.1, 0.1], abs=0.02)
    assert chosen.sum() / 1000 / (len(row["input_ids"]) - 2) == pytest.approx(0.15, abs=0.03)


@pytest.mark.parametrize("name", ["Bert", "DistilBert", "Electra", "ModernBert"])
@torch.no_grad()
def test_logits_at_positions_are_those_of_the_whole_head(name: str, tiny: dict):
    set_seed(0)
    sizes = {**tiny, "embedding_size": 16} if name == "Electra" else dict(tiny)
    if name == "DistilBert":
        sizes = {"vocab_size": 90, "dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32, "dropout": 0.0}
    config = getattr(transformers, f"{name}Config")(**sizes)
    model = getattr(transformers, f"{name}ForMaskedLM")(config).eval()
    ids = torch.randint(5, 90, (3, 11))
    positions = torch.rand(3, 11) < 0.4
    whole = model(ids).logits
    with logits_at(model, positions):
        chosen = model(ids).logits
    assert torch.equal(model(ids).logits, whole)  # the hooks are gone
    assert chosen.shape == (int(positions.sum()), config.vocab_size)
    torch.testing.assert_close(chosen, whole[positions])


@torch.no_grad()
def test_the_loss_is_the_models_own(masked_lm: BertForMaskedLM, objective: MaskedLM, rows: Rows):
    batch = objective.collate([{**row, "phase_epoch": (1, 0)} for row in rows(64)])
    ours = objective.loss(masked_lm, batch) / objective.count(batch)
    torch.testing.assert_close(ours, masked_lm(**batch).loss)


def test_the_heldout_loss_does_not_depend_on_batches_which_have_only_so_many_tokens(
    masked_lm: BertForMaskedLM, objective: MaskedLM, rows: Rows, monkeypatch: pytest.MonkeyPatch
):
    collate, shapes = MaskedLM.collate, []

    def recorded(self: MaskedLM, batch: Sequence) -> dict[str, torch.Tensor]:
        tensors = collate(self, batch)
        shapes.append(tensors["input_ids"].shape)
        return tensors

    first = objective.measure(masked_lm, rows(16), tokens=1)
    assert objective.measure(masked_lm, rows(16)) == pytest.approx(first, rel=1e-5)
    monkeypatch.setattr(MaskedLM, "collate", recorded)
    objective.measure(masked_lm, rows(16), tokens=40)
    assert sum(shape[0] for shape in shapes) == len(rows(16))
    assert max(shape.numel() for shape in shapes) in range(21, 41)


# The next token


def test_bits_per_byte_are_the_loss_over_the_bytes_of_what_was_predicted(
    tokenizer: PreTrainedTokenizerFast, tiny: dict, tmp_path: Path
):
    set_seed(0)
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**without_dropout(tiny))).eval()
    text = "the film was 감동 wonderful"
    ids = torch.tensor([tokenizer(text)["input_ids"]])
    with torch.no_grad():
        nats = float(model(ids, labels=ids).loss) * (ids.shape[1] - 1)
    measures = CausalLM(tokenizer).measure(model, chunks([text], tokenizer, 64, tmp_path))
    assert measures["loss"] == pytest.approx(nats / (ids.shape[1] - 1), rel=1e-5)
    size = len(text.replace(" ", "").encode())  # this tokenizer predicts no blanks
    assert measures["bits_per_byte"] == pytest.approx(nats / np.log(2) / size, rel=1e-5)


# Denoising


def restored(inputs: list[int], target: list[int], sentinels: Sequence[int]) -> list[int]:
    """Put what follows each sentinel of a target in its place."""
    spans: dict[int, list[int]] = {}
    for token in target[:-1]:
        if token in sentinels:
            span = spans[token] = []
        else:
            span.append(token)
    assert list(spans) == [token for token in inputs if token in sentinels] == list(sentinels[: len(spans)])
    return [token for place in inputs for token in spans.get(place, [place])]


def test_what_is_taken_out_and_what_is_left_are_the_whole_text(denoising: Denoising, tmp_path: Path):
    for row in chunks([*DOCUMENTS, "a film", "the film is very moving " * 12], denoising.tokenizer, 64, tmp_path):
        ids = row["input_ids"].tolist()
        size_of = dict(zip(ids, row["bytes"].tolist(), strict=True))
        for epoch in range(30):
            inputs, target, sizes = denoising.corrupt({**row, "phase_epoch": (1, epoch)})
            assert len(inputs) <= len(ids)
            if not denoising.sentinels:
                assert (target.tolist(), sizes.tolist()) == (ids, row["bytes"].tolist())
                continue
            assert restored(inputs.tolist(), target.tolist(), denoising.sentinels) == ids
            assert sizes.tolist() == [size_of.get(token, 0) for token in target]


@pytest.mark.parametrize("objective_class", [MaskedLM, Denoising])
def test_masks_and_spans_are_a_function_of_seed_phase_epoch_and_row_alone(
    objective_class: type, tokenizer: PreTrainedTokenizerFast, rows: Rows
):
    def inputs(seed: int = 7, phase_epoch: tuple[int, int] = (1, 0), index: int = 1) -> list[int]:
        batch = objective_class(tokenizer, 0.3, seed).collate([{**row, "phase_epoch": phase_epoch, "index": index}])
        return batch["input_ids"].tolist()

    row = rows(64)[1]
    np.random.seed(0)
    torch.manual_seed(0)
    first = inputs()
    np.random.seed(1)
    torch.manual_seed(1)
    assert inputs() == first
    changes = {"seed": 8}, {"phase_epoch": (1, 1)}, {"phase_epoch": (2, 0)}, {"index": 2}
    assert all(inputs(**change) != first for change in changes)


def test_spans_have_the_share_and_the_lengths_of_the_paper():
    random = np.random.default_rng(0)
    for spans in (_spans(random, 500, 0.15) for _ in range(200)):
        assert sum(stop - start for start, stop in spans) == 75
        assert len(spans) == 25
        assert all(stop < start for (_, stop), (start, _) in pairwise(spans))  # never two in a row
        assert spans[0][0] > 0
        assert spans[-1][1] == 500


@torch.no_grad()
def test_the_denoising_loss_is_the_models_own(denoising: Denoising, tmp_path: Path):
    set_seed(0)
    model = encoder_decoder("T5" if denoising.sentinels else "BART", denoising.tokenizer).eval()
    rows = [{**row, "phase_epoch": (1, 0)} for row in chunks(DOCUMENTS, denoising.tokenizer, 64, tmp_path)]
    batch = denoising.collate(rows)
    inputs = {name: tensor for name, tensor in batch.items() if name != "bytes"}
    ours = denoising.loss(model, batch) / denoising.count(batch)
    torch.testing.assert_close(ours, model(**inputs).loss)
