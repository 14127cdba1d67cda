"""Recurrent encoder-decoders: the decoder goes on from where the encoder ends, and attends to what that read, or not.

Without attention, the state that is handed over is all that is known of a text (Sutskever et al. 2014). The attention
is Luong's (Luong et al. 2015, section 3): it comes after the LSTMs of the decoder, which do not read what it finds. So
a right answer is learnt by the kernel of `nn.LSTM`; what Bahdanau et al. (2015) do would be a loop over its tokens.

This file is copied into the directory of each such model, where transformers alone reads it: so it imports nothing else
of this package.
"""

from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence
from transformers import AutoConfig, AutoModelForSeq2SeqLM, GenerationMixin, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import Seq2SeqLMOutput


@final
class RnnConfig(PreTrainedConfig):
    """The sizes of a recurrent encoder-decoder, and whether it attends."""

    model_type = "rnn"

    attention: bool = True
    """Whether the decoder looks at all that was read; else it knows the last state alone."""
    vocab_size: int = 8192
    hidden_size: int = 256
    """Width of the embeddings, of each layer, and of what the output layer reads, whose weights are the embeddings'."""
    num_hidden_layers: int = 1
    """LSTMs of the encoder, of half the width in each direction; and as many of the decoder."""
    dropout: float = 0.1
    """Of the embeddings, of what each layer says, and of what attention makes of it."""
    initializer_range: float = 0.1
    """Standard deviation of all new weights but those of the LSTMs, which are Glorot's."""
    is_encoder_decoder: bool = True
    tie_word_embeddings: bool = True

    def __post_init__(self, **others: Any) -> None:
        """Check the sizes."""
        if self.hidden_size % 2 or min(self.hidden_size, self.num_hidden_layers) < 1 or not 0 <= self.dropout < 1:
            sizes = "hidden_size should be even and positive, num_hidden_layers 1 or more"
            raise ValueError(f"{sizes}, dropout from 0 to less than 1")
        super().__post_init__(**others)  # type: ignore[no-untyped-call]


@dataclass
class RnnOutput(Seq2SeqLMOutput):
    """What is said of each token, and from where it goes on; of the whole model the logits too."""

    last_hidden_state: Tensor | None = None
    state: Tensor | None = None
    """(batch, 2 * layers, width): hidden state and cell of each layer of the decoder. `generate` keeps what has this
    name."""


class _Rnn(PreTrainedModel):
    config_class = RnnConfig
    config: RnnConfig


@final
class RnnEncoder(_Rnn):
    """The embeddings of both sides, and LSTMs that read in both directions."""

    def __init__(self, config: RnnConfig) -> None:
        super().__init__(config)
        sizes = [config.hidden_size, config.hidden_size // 2]
        lstms = (nn.LSTM(*sizes, batch_first=True, bidirectional=True) for _ in range(config.num_hidden_layers))
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers, self.dropout = nn.ModuleList(lstms), nn.Dropout(config.dropout)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None, **others: Any) -> RnnOutput:
        """Read tokens (batch, read); the padding after them has no part in it.

        Raises:
            ValueError: if padding stands before a token.
        """
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        if (mask.diff(dim=1) > 0).any():
            raise ValueError("padding stands before a token; give the tokenizer padding_side='right'")
        hidden, state = self.dropout(self.embed_tokens(input_ids)), []
        packed = pack_padded_sequence(hidden, mask.sum(dim=1).cpu(), batch_first=True, enforce_sorted=False)
        for layer in self.layers:
            packed, ends = layer(packed)
            packed = PackedSequence(self.dropout(packed.data), *packed[1:])
            state += [end.transpose(0, 1).flatten(1) for end in ends]  # with both directions side by side
        hidden, _ = pad_packed_sequence(packed, batch_first=True, total_length=mask.shape[1])
        return RnnOutput(last_hidden_state=hidden, state=torch.stack(state, dim=1))


@final
class RnnDecoder(_Rnn):
    """LSTMs, and after them the attention to what was read."""

    def __init__(self, config: RnnConfig) -> None:
        super().__init__(config)
        width = config.hidden_size
        lstms = (nn.LSTM(width, width, batch_first=True) for _ in range(config.num_hidden_layers))
        self.layers, self.dropout = nn.ModuleList(lstms), nn.Dropout(config.dropout)
        if config.attention:
            self.score, self.combine = nn.Linear(width, width, bias=False), nn.Linear(2 * width, width, bias=False)

    def forward(self, embedded: Tensor, state: Tensor, read: Tensor, mask: Tensor | None) -> RnnOutput:
        """Go on from a state by embedded tokens (batch, written, width).

        Args:
            read: What the encoder says, (batch, read, width).
            mask: 0 where that is padding, (batch, read).
        """
        hidden, weights, after = self.dropout(embedded), None, list[Tensor]()
        for layer, ends in zip(self.layers, state.transpose(0, 1).contiguous().split(2), strict=True):
            hidden, left = layer(hidden, ends.split(1))
            hidden, after = self.dropout(hidden), [*after, *left]
        if self.config.attention:
            scores = self.score(hidden) @ read.transpose(1, 2)
            weights = (scores if mask is None else scores.masked_fill(mask[:, None] == 0, -torch.inf)).softmax(dim=-1)
            hidden = self.dropout(torch.tanh(self.combine(torch.cat([weights @ read, hidden], dim=-1))))
        attentions = None if weights is None else (weights[:, None],)
        return RnnOutput(last_hidden_state=hidden, state=torch.cat(after).transpose(0, 1), cross_attentions=attentions)


@final
class RnnForConditionalGeneration(_Rnn, GenerationMixin):
    """An encoder and a decoder, whose output layer has the weights of the embeddings."""

    _tied_weights_keys = {"lm_head.weight": "encoder.embed_tokens.weight"}  # noqa: RUF012
    _is_stateful = True

    def __init__(self, config: RnnConfig) -> None:
        super().__init__(config)
        self.encoder, self.decoder = RnnEncoder(config), RnnDecoder(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size)
        self.post_init()  # type: ignore[no-untyped-call]

    def get_input_embeddings(self) -> nn.Embedding:
        """Return the embeddings of both sides."""
        return self.encoder.embed_tokens

    def set_input_embeddings(self, value: Any) -> None:
        """Give both sides other embeddings, such as those of more tokens."""
        self.encoder.embed_tokens = value

    def prepare_decoder_input_ids_from_labels(self, labels: Tensor) -> Tensor:
        """Return what the decoder reads to say labels (batch, written): the one before each."""
        before = labels.roll(1, dims=1)
        before[:, 0] = self.config.decoder_start_token_id
        return before.masked_fill(before < 0, self.config.pad_token_id)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        decoder_input_ids: Tensor | None = None,
        labels: Any = None,
        encoder_outputs: RnnOutput | None = None,
        state: Tensor | None = None,
        use_cache: bool = False,
        output_attentions: bool = False,
        **others: Any,
    ) -> RnnOutput:
        """Return logits (batch, written, vocabulary).

        Args:
            state: What the tokens before `decoder_input_ids` have left; None where these begin.
            use_cache: Return the state that they leave.
            output_attentions: Return the attention as that of one layer with one head, (batch, 1, written, read).
        """
        encoded = self.encoder(input_ids, attention_mask) if encoder_outputs is None else encoder_outputs
        ids = self.prepare_decoder_input_ids_from_labels(labels) if decoder_input_ids is None else decoder_input_ids
        begin = encoded.state if state is None else state
        said = self.decoder(self.encoder.embed_tokens(ids), begin, encoded.last_hidden_state, attention_mask)
        logits = self.lm_head(said.last_hidden_state)
        loss = None if labels is None else cross_entropy(logits.flatten(0, 1), labels.flatten())
        kept, attentions = said.state if use_cache else None, said.cross_attentions if output_attentions else None
        return RnnOutput(loss=loss, logits=logits, state=kept, cross_attentions=attentions)

    @classmethod
    def _supports_default_dynamic_cache(cls) -> bool:
        return False  # `state` is what is kept

    def _reorder_cache(self, state: Tensor, beams: Tensor) -> Tensor:
        return state.index_select(0, beams)


AutoConfig.register(RnnConfig.model_type, RnnConfig, exist_ok=True)
AutoModelForSeq2SeqLM.register(RnnConfig, RnnForConditionalGeneration, exist_ok=True)
RnnForConditionalGeneration.register_for_auto_class("AutoModelForSeq2SeqLM")  # type: ignore[no-untyped-call]
RnnConfig.register_for_auto_class()  # type: ignore[no-untyped-call]
