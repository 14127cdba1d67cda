"""AWD-LSTM (Merity et al. 2018), the model of ULMFiT: an LSTM with a dropout for each of its parts.

This file is copied into the directory of each such model, with `pooling.py`, where transformers alone reads them: so it
imports nothing else of this package.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar, Literal, final

import torch
import transformers
from torch import Tensor, nn
from torch.nn.functional import dropout
from transformers import AutoConfig, GenerationMixin, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutput, TokenClassifierOutput

from .pooling import PooledConfig, PooledForSequenceClassification

SHUT = 1e4
"""What closes a gate of an LSTM for good, or opens it, whatever it reads."""


@final
class AwdLstmConfig(PreTrainedConfig):
    """The sizes and dropouts of an AWD-LSTM; the defaults are those of ULMFiT's paper."""

    model_type = "awd_lstm"

    direction: Literal["forward", "backward"] = "forward"
    """backward: from the last token of a text to its first one, so that a language model predicts the one before."""
    vocab_size: int = 30_000
    hidden_size: int = 400
    """Width of the embeddings and of what the last layer says, since their weights are tied."""
    lstm_size: int = 1152
    """Width of the layers between."""
    num_hidden_layers: int = 3
    embedding_dropout: float = 0.05
    """The share of the words of the vocabulary that are dropped wherever they stand."""
    input_dropout: float = 0.4
    """Of the embeddings; this and the next but one take the same units at all places of a row."""
    weight_dropout: float = 0.5
    """Of the recurrent matrices, once for a pass."""
    hidden_dropout: float = 0.3
    """Between the layers."""
    output_dropout: float = 0.4
    """Of what the last layer says."""
    activation_penalty: float = 2.0
    """Weight of the mean square of what the last layer says, after dropout, in the loss of a language model (AR)."""
    temporal_penalty: float = 1.0
    """Weight of the mean square of its change from token to token, before dropout (TAR)."""
    gradient_length: int | None = None
    """The last tokens of a row that gradients reach; all others are read for the state alone. null: all (BPT3C)."""
    tie_word_embeddings: bool = True
    pooling: Literal["concat", "mean"] = "concat"
    """Of a classifier of texts, as `PooledConfig` has it; so do the next three."""
    summary_token: Literal["first", "last"] = "last"
    window: int | None = None
    batch_norm: bool = False

    def __post_init__(self, **others: Any) -> None:
        """Check the direction; the token that sums up a text is the one that is read last."""
        if self.direction not in ("forward", "backward"):
            raise ValueError(f"direction={self.direction}: should be forward or backward")
        self.summary_token = "first" if self.direction == "backward" else "last"
        super().__post_init__(**others)  # type: ignore[no-untyped-call]

    def turned(self, tokens: Tensor) -> Tensor:
        """Return tokens (batch, length, ...) in the order in which they are read, or from that in their own."""
        return tokens.flip(1) if self.direction == "backward" else tokens


@dataclass
class AwdLstmOutput(CausalLMOutput):
    """What the body says of each token, and a language model's logits of the next one."""

    last_hidden_state: Tensor | None = None
    state: Tensor | None = None
    """(batch, numbers), from which the next part of the rows goes on."""
    penalty: Tensor | None = None
    """AR and TAR, summed over the tokens, which are added to the loss in training."""


class _AwdLstm(PreTrainedModel):
    config_class = AwdLstmConfig
    config: AwdLstmConfig
    base_model_prefix = "body"

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Embedding):
            nn.init.uniform_(module.weight, -0.1, 0.1)
        elif isinstance(module, nn.Linear | nn.LSTM):
            module.reset_parameters()


@final
class AwdLstmModel(_AwdLstm):
    """The embeddings and the LSTMs; `model(part, state=...)` goes on where the last part of the rows ended."""

    pooled_class: ClassVar[type[PooledForSequenceClassification]]
    """What a pooled head on this body is an instance of."""

    def __init__(self, config: AwdLstmConfig) -> None:
        super().__init__(config)
        wrong = [name for name, value in config.to_dict().items() if name.endswith("dropout") and not 0 <= value < 1]
        if wrong or config.num_hidden_layers < 1:
            named = ", ".join(f"{name}={getattr(config, name)}" for name in wrong or ["num_hidden_layers"])
            raise ValueError(f"{named}: a dropout is a share, from 0 to less than 1, and there is a layer at least")
        sizes = [config.hidden_size, *[config.lstm_size] * (config.num_hidden_layers - 1), config.hidden_size]
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(nn.LSTM(width, size, batch_first=True) for width, size in pairwise(sizes))
        self.state_size = 2 * sum(sizes[1:])
        self.post_init()  # type: ignore[no-untyped-call]

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        starts: Tensor | None = None,
        state: Tensor | None = None,
        **others: Any,
    ) -> AwdLstmOutput:
        """Return what the last layer says of tokens (batch, length); masked ones have no part in it.

        Args:
            starts: Where a document begins, as it is read (batch, length): nothing that was read before reaches it.
            state: What an earlier part of the same rows has left; None where they begin.
        """
        config = self.config
        mask = torch.ones_like(input_ids, dtype=torch.bool) if attention_mask is None else attention_mask.bool()
        starts = torch.zeros_like(mask) if starts is None else starts.bool() & mask
        input_ids, mask, starts = map(config.turned, (input_ids, mask, starts))
        embedded = self.embed_tokens(input_ids)
        state = embedded.new_zeros(len(mask), self.state_size) if state is None else state
        words = dropout(embedded.new_ones(config.vocab_size, 1), config.embedding_dropout, self.training)
        embedded = self._variational(embedded * words[input_ids], config.input_dropout)
        reached = config.gradient_length if self.training and config.gradient_length else mask.shape[1]
        late = mask & (mask.flip(1).cumsum(1).flip(1) <= reached)
        with torch.no_grad():
            early, state = self._run(embedded, mask & ~late, starts, state)
        raw, state = self._run(embedded, late, starts, state)
        raw = raw + early
        hidden = self._variational(raw, config.output_dropout)
        follows = mask[:, 1:] & mask[:, :-1] & ~starts[:, 1:]
        change = ((raw[:, 1:] - raw[:, :-1]).pow(2).mean(-1) * follows).sum()
        penalty = config.activation_penalty * (hidden.pow(2).mean(-1) * mask).sum() + config.temporal_penalty * change
        return AwdLstmOutput(last_hidden_state=config.turned(hidden), state=state, penalty=penalty)

    def _run(self, inputs: Tensor, mask: Tensor, starts: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Run the layers over the tokens that are not masked, and return what the last one says and their state.

        The fused kernel knows neither documents that begin within a row nor rows that end before others. Here two more
        inputs of each layer close its gates: one empties the cell, in a step of its own before a document; the other
        keeps it as it is, after the end. Both are exact, and faster than a packed sequence.
        """
        places = (mask.long() + starts.long() * mask).cumsum(1) - 1  # of each token among the steps of its row
        counts = places[:, -1:] + 1
        rows, columns = mask.nonzero(as_tuple=True)
        steps, begun = places[rows, columns], starts[rows, columns]
        marks = inputs.new_tensor([0, 1]).repeat(len(mask), max(1, int(counts.max())), 1)
        marks[rows, steps] = 0
        marks[rows[begun], steps[begun] - 1] = marks.new_tensor([1, 0])
        hidden = inputs.new_zeros(*marks.shape[:2], inputs.shape[-1])
        hidden[rows, steps] = inputs[rows, columns]
        last = torch.arange(len(mask), device=mask.device), (counts[:, 0] - 1).clamp(min=0)
        before, after = state.split([layer.hidden_size for layer in self.layers for _ in "hc"], dim=1), []
        for number, layer in enumerate(self.layers):
            if number:
                hidden = self._variational(hidden, self.config.hidden_dropout)
            ends = before[2 * number : 2 * number + 2]
            hidden, cell = self._layer(layer, torch.cat([hidden, marks], dim=-1), ends)
            after += [torch.where(counts > 0, hidden[last], ends[0]), cell]
        outputs = hidden.new_zeros(*mask.shape, hidden.shape[-1])
        outputs[rows, columns] = hidden[rows, steps]
        return outputs, torch.cat(after, dim=1)

    def _layer(self, layer: nn.Module, inputs: Tensor, before: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Run a layer, with the two more inputs, by the kernel of `nn.LSTM`; return what it says and its last cell."""
        of_inputs, recurrent, *biases = layer.parameters()
        gates = of_inputs.new_zeros(4, recurrent.shape[1], 2)  # input, forget, cell, output
        gates[0], gates[1, :, 0], gates[1, :, 1] = -SHUT, -SHUT, SHUT
        # Not by `functional_call`: nn.LSTM keeps another list of its weights, and would run with those whole.
        kept = dropout(recurrent, self.config.weight_dropout, self.training)
        weights = [torch.cat([of_inputs, gates.flatten(0, 1)], dim=1), kept, *biases]
        state = [part[None].to(inputs.dtype).contiguous() for part in before]
        hidden, _, cell = torch.lstm(inputs, state, weights, True, 1, 0.0, self.training, False, True)
        return hidden, cell[0]

    def _variational(self, inputs: Tensor, share: float) -> Tensor:
        """Drop the same units at all places of a row (Gal and Ghahramani 2016), of inputs (batch, length, width)."""
        return inputs * dropout(inputs.new_ones(len(inputs), 1, inputs.shape[-1]), share, self.training)


@final
class AwdLstmForCausalLM(_AwdLstm, GenerationMixin):
    """A language model, whose output layer has the weights of the embeddings."""

    _tied_weights_keys = {"lm_head.weight": "body.embed_tokens.weight"}  # noqa: RUF012

    def __init__(self, config: AwdLstmConfig) -> None:
        super().__init__(config)
        self.body = AwdLstmModel(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size)
        self.post_init()  # type: ignore[no-untyped-call]

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, labels: Tensor | None = None, **inputs: Any
    ) -> AwdLstmOutput:
        """Return logits (batch, length, vocabulary); the rest as `AwdLstmModel.forward`."""
        outputs: AwdLstmOutput = self.body(input_ids, attention_mask, **inputs)
        outputs.logits = self.lm_head(outputs.last_hidden_state)
        if labels is not None:
            turned = map(self.config.turned, (outputs.logits, labels))
            outputs.loss = self.loss_function(*turned, self.config.vocab_size)
        return outputs

    def prepare_inputs_for_generation(  # type: ignore[override]
        self, input_ids: Tensor, attention_mask: Tensor | None = None, **others: Any
    ) -> dict[str, Any]:
        """Return all tokens at each step: of a beam that is left for another one, no state could be gone on from."""
        return {"input_ids": input_ids, "attention_mask": attention_mask}


@final
class AwdLstmForTokenClassification(_AwdLstm):
    """A body, and a layer that reads each of its hidden states."""

    def __init__(self, config: AwdLstmConfig) -> None:
        super().__init__(config)
        self.body = AwdLstmModel(config)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)  # type: ignore[arg-type]
        self.post_init()  # type: ignore[no-untyped-call]

    def forward(self, input_ids: Tensor, labels: Tensor | None = None, **inputs: Any) -> TokenClassifierOutput:
        """Return logits (batch, length, labels)."""
        logits = self.classifier(self.body(input_ids, **inputs).last_hidden_state)
        loss = None if labels is None else self.loss_function(logits, labels, self.config)
        return TokenClassifierOutput(loss=loss, logits=logits)


@final
class AwdLstmForSequenceClassification(PooledForSequenceClassification):
    """A body, and the head of the paper: the last hidden state, the maximum and the mean, and two layers."""

    config_class: Any = AwdLstmConfig

    def __init__(self, config: Any) -> None:
        super().__init__(config, AwdLstmModel(config))


class PooledAwdLstmConfig(PooledConfig):
    """The config of a pooled head on such a body: transformers finds it here, where the body is known too."""


@final
class PooledAwdLstm(PooledForSequenceClassification):
    """A pooled head on such a body."""

    config_class = PooledAwdLstmConfig


AwdLstmModel.pooled_class = PooledAwdLstm
AutoConfig.register(AwdLstmConfig.model_type, AwdLstmConfig, exist_ok=True)
MODELS: Any = (AwdLstmModel, AwdLstmForCausalLM, AwdLstmForSequenceClassification, AwdLstmForTokenClassification)
for model_class in MODELS:
    name = "AutoModel" + model_class.__name__.removeprefix("AwdLstm").removeprefix("Model")
    getattr(transformers, name).register(AwdLstmConfig, model_class, exist_ok=True)
    model_class.register_for_auto_class(name)
PooledAwdLstm.register_for_auto_class("AutoModelForSequenceClassification")  # type: ignore[no-untyped-call]
AwdLstmConfig.register_for_auto_class()  # type: ignore[no-untyped-call]
PooledAwdLstmConfig.register_for_auto_class()  # type: ignore[no-untyped-call]
