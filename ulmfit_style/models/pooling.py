"""A head that pools the tokens of any body: their mean, or ULMFiT's concat pooling (section 3.3).

This file is copied into the directory of each model that has this head, where transformers alone reads it: so it
imports nothing else of this package.
"""

from typing import Any, Literal, final

import torch
from torch import Tensor, nn
from torch.nn.functional import batch_norm
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification, PreTrainedConfig, PreTrainedModel
from transformers.configuration_utils import SubConfigSpec
from transformers.modeling_outputs import SequenceClassifierOutput

WIDTH = 50
"""Outputs of the hidden layer of concat pooling's head, as in the paper."""

MOST_TRAINED = 4
"""Windows of a text that carry gradients: those that give the head the most features."""

DROPOUT = 0.1
"""The head's, before each of its layers."""


class PooledConfig(PreTrainedConfig):
    """A body's own config, and how its tokens are pooled."""

    model_type = "pooled"
    sub_configs_defaults = {"body": SubConfigSpec(config_class=AutoConfig, model_type="bert")}  # noqa: RUF012

    body: PreTrainedConfig | dict[str, Any] | None = None
    pooling: Literal["concat", "mean"] = "concat"
    """concat: one token, the maximum and the mean, and two layers; mean: the mean, and one layer."""
    summary_token: Literal["first", "last"] = "first"
    """The last of a body that reads from left to right, for it alone has seen all others."""
    window: int | None = None
    """Tokens that the body reads together. Of a longer text the head reads the maximum over its windows of so many, for
    each feature. None: the body reads every text whole."""
    batch_norm: bool = False
    """Whether the head of concat normalises each batch before each layer, as in the paper. Then what is learnt from
    a row depends on the rows beside it, and several processes or passes do not make one big batch together."""


@final
class BatchNorm(nn.BatchNorm1d):
    """A batch of one row, which has no spread of its own, is normalised as when the model answers."""

    def forward(self, inputs: Tensor) -> Tensor:
        """Normalise inputs (batch, width)."""
        if len(inputs) > 1:
            return super().forward(inputs)
        return batch_norm(inputs, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)


class PooledForSequenceClassification(PreTrainedModel):
    """A body, and a head that reads its last hidden state: the mean over all tokens, or one, the maximum and the mean.

    Args:
        body: The body with its weights; None for random ones.
    """

    config_class = PooledConfig
    config: PooledConfig
    base_model_prefix = "body"
    # All of these are for the body to say, when it is made.
    supports_gradient_checkpointing = True
    _supports_sdpa = _supports_flash_attn = _supports_flex_attn = _supports_attention_backend = True

    def __init__(self, config: PooledConfig, body: PreTrainedModel | None = None) -> None:
        super().__init__(config)
        self.body = AutoModel.from_config(config.body) if body is None else body
        if hasattr(self.body, "pooler"):
            self.body.pooler = nn.Identity()  # its weights would never be trained
        width, labels = self.body.config.get_text_config().hidden_size, config.num_labels
        if config.pooling == "mean":
            layers = [nn.Dropout(DROPOUT), nn.Linear(width, labels)]  # type: ignore[arg-type]  # None where no head is meant
        else:
            layers = [nn.Dropout(DROPOUT), nn.Linear(3 * width, WIDTH), nn.ReLU()]
            layers += [nn.Dropout(DROPOUT), nn.Linear(WIDTH, labels)]  # type: ignore[arg-type]
            if config.batch_norm:
                layers = [BatchNorm(3 * width), *layers[:3], BatchNorm(WIDTH), *layers[3:]]
        self.head = nn.Sequential(*layers)
        self.post_init()  # type: ignore[no-untyped-call]

    def _init_weights(self, module: nn.Module) -> None:
        """Draw weights by their inputs, as in the paper's code: the library's 0.02 is too little for as few as 50."""
        if isinstance(module, nn.Linear | BatchNorm):
            module.reset_parameters()

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, labels: Tensor | None = None, **inputs: Any
    ) -> SequenceClassifierOutput:
        """Return logits (batch, labels) of tokens (batch, length); masked ones have no part in them."""
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask.long()
        mask = mask | (mask.sum(1, keepdim=True) == 0)  # an empty text is answered too, by its padding
        read = {"input_ids": input_ids, "attention_mask": mask, **inputs}
        read |= {name: self._windows(tokens) for name, tokens in read.items() if isinstance(tokens, Tensor)}
        windows = read["input_ids"].shape[0] // input_ids.shape[0]  # `len` would fix it in an export
        own = read["attention_mask"].sum(1) > 0 if windows > 1 else None  # the others are beside a text
        is_bounded = windows > MOST_TRAINED and self.training and torch.is_grad_enabled()
        with torch.set_grad_enabled(torch.is_grad_enabled() and not is_bounded):
            outputs, vectors = self._vectors(read, own)
        if is_bounded:
            shares = nn.functional.one_hot(vectors.unflatten(0, (-1, windows)).argmax(1), windows).sum(1)
            chosen = (torch.zeros_like(shares).scatter_(1, shares.topk(MOST_TRAINED).indices, 1) * shares > 0).flatten()
            vectors = torch.where(chosen[:, None], self._vectors(read, chosen)[1], vectors)
        logits = self.head(vectors.unflatten(0, (-1, windows)).amax(1))
        loss = None if labels is None else self.loss_function(labels=labels, pooled_logits=logits, config=self.config)
        states, attentions = outputs.get("hidden_states"), outputs.get("attentions")
        return SequenceClassifierOutput(loss=loss, logits=logits, hidden_states=states, attentions=attentions)

    def _windows(self, tokens: Tensor) -> Tensor:
        """Return what there is of tokens (batch, length) by windows, (batch * windows, window)."""
        length = tokens.shape[1]
        if self.config.window is None or length <= self.config.window:
            return tokens
        return nn.functional.pad(tokens, (0, -length % self.config.window)).view(-1, self.config.window)

    def _vectors(self, read: dict[str, Any], which: Tensor | None) -> tuple[Any, Tensor]:
        """Return what the body makes of some windows, and vectors of all, (windows, features): -inf for the others."""
        if which is not None:
            read = {name: part[which] if isinstance(part, Tensor) else part for name, part in read.items()}
        outputs = self.body(**read)
        vectors = self._pooled(outputs.last_hidden_state, read["attention_mask"])
        if which is not None:
            nothing = vectors.new_full((len(which), vectors.shape[1]), -torch.inf)
            vectors = nothing.masked_scatter(which[:, None], vectors)
        return outputs, vectors

    def _pooled(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """Return what the head reads, (batch, features), of hidden states (batch, length, width)."""
        masked = mask[..., None] == 0
        mean = hidden.masked_fill(masked, 0).sum(1) / mask.sum(1, keepdim=True).to(hidden.dtype)
        if self.config.pooling == "mean":
            return mean
        positions = torch.arange(mask.shape[1], device=mask.device)
        place = mask.argmax(1) if self.config.summary_token == "first" else (mask * positions).argmax(1)
        summary = hidden[torch.arange(hidden.shape[0], device=hidden.device), place]
        return torch.cat([summary, hidden.masked_fill(masked, -torch.inf).amax(1), mean], dim=-1)


# So that a saved model names this file, which is copied beside it; and that whoever imports this module needs no copy.
PooledConfig.register_for_auto_class()  # type: ignore[no-untyped-call]
PooledForSequenceClassification.register_for_auto_class(  # type: ignore[no-untyped-call]
    "AutoModelForSequenceClassification"
)
AutoConfig.register(PooledConfig.model_type, PooledConfig, exist_ok=True)
AutoModelForSequenceClassification.register(PooledConfig, PooledForSequenceClassification, exist_ok=True)
