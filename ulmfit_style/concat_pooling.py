"""Concat pooling, a head for any body (ULMFiT, section 3.3).

This file is copied into the directory of each model that has this head, where transformers alone reads it: so it
imports nothing else of this package.
"""

from __future__ import annotations

from typing import Any, Literal, final

import torch
from torch import nn
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification, PreTrainedConfig, PreTrainedModel
from transformers.configuration_utils import SubConfigSpec
from transformers.modeling_outputs import SequenceClassifierOutput

WIDTH = 50
"""Outputs of the head's hidden layer, as in the paper."""

DROPOUT = 0.1
"""The head's, before each of its two layers."""


@final
class ConcatPoolingConfig(PreTrainedConfig):
    """A body's own config, and which of its tokens tells of the whole text."""

    model_type = "concat_pooling"
    sub_configs_defaults = {"body": SubConfigSpec(config_class=AutoConfig, model_type="bert")}  # noqa: RUF012

    body: PreTrainedConfig | dict[str, Any] | None = None
    summary_token: Literal["first", "last"] = "first"
    """The last of a body that reads from left to right, for it alone has seen all others."""


@final
class ConcatPoolingForSequenceClassification(PreTrainedModel):
    """A body, and a head that reads its last hidden state at one token, and the maximum and the mean over all tokens.

    Args:
        body: The body with its weights; None for random ones.
    """

    config_class = ConcatPoolingConfig
    config: ConcatPoolingConfig
    base_model_prefix = "body"
    # All of these are for the body to say, when it is made.
    supports_gradient_checkpointing = True
    _supports_sdpa = _supports_flash_attn = _supports_flex_attn = _supports_attention_backend = True

    def __init__(self, config: ConcatPoolingConfig, body: PreTrainedModel | None = None) -> None:
        super().__init__(config)
        self.body = AutoModel.from_config(config.body) if body is None else body
        if hasattr(self.body, "pooler"):
            self.body.pooler = nn.Identity()  # its weights would never be trained
        # The paper's head normalises each batch. Then a row's answer would depend on the rows beside it, a batch of one
        # row could not be trained on, and several processes or passes would not make one big batch together.
        self.head = nn.Sequential(
            nn.Dropout(DROPOUT),
            nn.Linear(3 * self.body.config.get_text_config().hidden_size, WIDTH),
            nn.ReLU(),
            nn.Dropout(DROPOUT),
            nn.Linear(WIDTH, config.num_labels),  # type: ignore[arg-type]  # None where no head is meant
        )
        self.post_init()  # type: ignore[no-untyped-call]

    def _init_weights(self, module: nn.Module) -> None:
        # By their inputs, as in the paper's code: the library's 0.02 is too little for as few as 50.
        if isinstance(module, nn.Linear):
            module.reset_parameters()

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        **inputs: Any,
    ) -> SequenceClassifierOutput:
        """Return logits (batch, labels) of tokens (batch, length); masked ones have no part in them."""
        found = self.body(input_ids=input_ids, attention_mask=attention_mask, **inputs)
        hidden = found.last_hidden_state
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask.long()
        mask = mask | (mask.sum(1, keepdim=True) == 0)  # an empty text is answered too, by its padding
        places = torch.arange(mask.shape[1], device=mask.device)
        summary = mask.argmax(1) if self.config.summary_token == "first" else (mask * places).argmax(1)
        masked = mask[..., None] == 0
        features = [
            hidden[torch.arange(len(hidden), device=hidden.device), summary],
            hidden.masked_fill(masked, -torch.inf).amax(1),
            hidden.masked_fill(masked, 0).sum(1) / mask.sum(1, keepdim=True).to(hidden.dtype),
        ]
        logits = self.head(torch.cat(features, dim=-1))
        loss = None
        if labels is not None:
            loss = self.loss_function(labels=labels, pooled_logits=logits, config=self.config)
        return SequenceClassifierOutput(
            loss=loss, logits=logits, hidden_states=found.get("hidden_states"), attentions=found.get("attentions")
        )


# So that a saved model names this file, which is copied beside it; and that whoever imports this module needs no copy.
ConcatPoolingConfig.register_for_auto_class()  # type: ignore[no-untyped-call]
ConcatPoolingForSequenceClassification.register_for_auto_class(  # type: ignore[no-untyped-call]
    "AutoModelForSequenceClassification"
)
AutoConfig.register(ConcatPoolingConfig.model_type, ConcatPoolingConfig, exist_ok=True)
AutoModelForSequenceClassification.register(ConcatPoolingConfig, ConcatPoolingForSequenceClassification, exist_ok=True)
