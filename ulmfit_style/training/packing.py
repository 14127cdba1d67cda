"""Whole documents packed into rows, where the architecture can keep them apart."""

from collections.abc import Mapping
from heapq import heappop, heappush
from typing import Any, cast, final

import numpy as np
import torch
from transformers import PreTrainedModel

from ulmfit_style.data.tokens import Integers
from ulmfit_style.training.batching import Rows, parts


@final
class PackedDataset:
    """Rows of whole chunks, together at most `max_length` tokens long: best fit, the longest first.

    A row has the columns of its chunks one after another, with the words numbered through; `documents`, which chunk
    each token is of; and `positions`, which restart with each chunk. Which chunks share a row never changes.
    """

    def __init__(self, chunks: Rows, max_length: int, first_position: int) -> None:
        self._chunks, self._first_position = chunks, first_position
        row_of, self.ends = np.zeros(len(chunks), dtype=np.int32), list[int]()
        for some in parts(chunks):
            row_of[some] = _best_fit(chunks.lengths[some], max_length) + sum(self.ends[-1:])
            self.ends.append(int(row_of[some].max()) + 1)
        self._members = np.argsort(row_of, kind="stable")
        self._starts = np.searchsorted(row_of[self._members], np.arange(row_of.max() + 2))
        self.lengths: Integers = np.bincount(row_of, weights=chunks.lengths).astype(np.int32)
        """The tokens of each row."""

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        members = self._members[self._starts[index] : self._starts[index + 1]]
        chunks = [self._chunks[int(member)] for member in members]
        sizes = [len(chunk["input_ids"]) for chunk in chunks]
        words, word_count = [], 0
        for chunk in chunks:
            words.append(np.where(chunk["words"] < 0, -1, chunk["words"] + word_count))
            word_count = max(word_count, int(words[-1].max()) + 1)
        row = {name: np.concatenate([chunk[name] for chunk in chunks]) for name in ("input_ids", "bytes")}
        row |= {"words": np.concatenate(words), "documents": np.repeat(np.arange(len(chunks)), sizes)}
        positions = np.concatenate([np.arange(size) for size in sizes]) + self._first_position
        return {"index": index, **row, "positions": positions}


def _best_fit(lengths: Integers, max_length: int) -> Integers:
    """Return the row of each chunk: the fullest that still has room for it, or a new one."""
    row_of = np.zeros(len(lengths), dtype=np.int32)
    rows = [*(list[int]() for _ in range(max_length)), [0]]  # by how many tokens are free in them, each a heap
    is_any = bytearray(max_length) + b"\1"  # whether there are such rows: all is free in the next new one
    for chunk in np.argsort(-lengths, kind="stable"):
        length = int(lengths[chunk])
        room = is_any.find(1, length)
        row_of[chunk] = row = heappop(rows[room])
        if room == max_length:
            rows[room].append(row + 1)
        heappush(rows[room - length], row)
        is_any[room], is_any[room - length] = bool(rows[room]), True
    return row_of


def attention_mask(documents: torch.Tensor, *, causal: bool) -> torch.Tensor:
    """Return which position attends to which, (batch, 1, length, length), from documents (batch, length)."""
    mask = documents[:, None, :, None] == documents[:, None, None, :]
    return mask.tril() if causal else mask


@torch.inference_mode()
def first_position(model: PreTrainedModel, max_length: int, pad_token_id: int | None, *, causal: bool) -> int | None:
    """Return where the positions of packed documents begin, or None where the architecture cannot keep them apart.

    Whether it can is not documented anywhere, and one that cannot does not always raise: its documents would attend to
    each other. So the logits of two documents in one row are compared with those of each alone. The first is nearly as
    long as the row, lest a sliding window hide the difference.
    """
    model.eval()
    short = max_length // 8 + 1
    sizes = max_length - 2 * short, short, short
    vocabulary = len(cast(torch.nn.Embedding, model.get_input_embeddings()).weight)
    ids = torch.randint(vocabulary, (1, max_length), generator=torch.Generator().manual_seed(0)).to(model.device)
    after_padding = (pad_token_id or 0) + 1
    ids[ids == pad_token_id] = after_padding % vocabulary  # RoBERTa does not count padding
    documents = torch.repeat_interleave(torch.arange(3), torch.tensor(sizes))[None].to(model.device)
    positions = torch.cat([torch.arange(size) for size in sizes])[None].to(model.device)
    mask = attention_mask(documents, causal=causal)
    alone = torch.cat([model(input_ids=part).logits for part in ids.split(sizes, dim=1)[:2]], dim=1)
    # RoBERTa and its kin count from the token after padding.
    for first in (0, after_padding):
        try:
            packed = model(input_ids=ids, attention_mask=mask, position_ids=positions + first).logits
        except Exception:  # whatever an architecture raises for a mask that it does not take
            return None
        if torch.allclose(packed[:, : alone.shape[1]], alone, atol=1e-4, rtol=1e-3):
            return first
    return None
